//! Builds the parts in floor order and runs them.
