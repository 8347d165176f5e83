//! Bytes on the wire: where requests and replies end, and values where Weir reads or writes one.
//!
//! The way of one command needs only framing, so `request`, `partial` and
//! `reply` find where a frame ends and where its arguments are without building
//! anything; sessions and shared connections call them for every command.
//! `value` decodes and encodes whole values through `redis-protocol`, for the
//! places where Weir itself is one end of the talk: handshakes, probes, admin.
//!
//! Always true: any split of the same bytes gives the same frames and the same
//! error; no input panics, overflows a number or recurses; nothing is reserved
//! for what a header merely announces.

pub mod inline;
mod number;
mod partial;
mod protocol_error;
mod reply;
mod reply_error;
mod reply_header;
mod reply_scalar;
mod request;
mod request_header;
mod value;
mod value_decode;
mod value_encode;

pub use number::integer;
pub use partial::{Fed, PartialRequest};
pub use protocol_error::ProtocolError;
pub use reply::{DEPTH_MAX, ReplyFed, ReplyScanner};
pub use reply_error::ReplyError;
pub use request::{Scan, Span, scan_request};
pub use request_header::{LINE_MAX, RequestLimits};
pub use value::{Value, VerbatimFormat};
pub use value_decode::{DecodeError, VALUE_DEPTH_MAX, decode};
pub use value_encode::{encode, encode_command};

/// The version of the Redis serialization protocol that a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Version {
    /// What every connection speaks until it says `HELLO 3`.
    Resp2,
    /// Maps, sets, doubles, pushes and the rest.
    Resp3,
}
