//! Placeholder: the real module is on its way and replaces this file whole.
