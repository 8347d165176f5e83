//! What each Redis command means to a proxy.
