//! Bytes on the wire: where requests and replies end, and values where Weir reads or writes one.
