//! May this go ahead: permits and limits.
