//! What an operator sees: HTTP.
