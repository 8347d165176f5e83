//! Sockets: listening, accepting, dialling, options.
