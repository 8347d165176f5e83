//! What carries the bytes: TLS on both sides, Unix sockets, PROXY protocol, IPv6. With real
//! certificates, a real Redis that speaks TLS, and clients that know nothing of Weir.

#[path = "../support/mod.rs"]
mod support;

mod authority;
mod backend_tls;
mod certificates;
mod client_tls;
mod handshakes;
mod proxy_protocol;
mod talker;
mod tools;
mod unix_sockets;
