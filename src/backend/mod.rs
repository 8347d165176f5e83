//! Connections to Redis nodes, and the ledger that counts them.
