//! One client: read, plan, act, answer in order.
//!
//! A session lives and dies on one worker. Called by the acceptor, which hands it
//! sockets, and by its worker's event loop. Always true: at any moment all of a
//! session's commands in flight are on one connection, so its replies come in the
//! order of its requests; changing paths waits until the earlier ones have arrived.

mod access;
mod admit;
mod block;
mod broken_transaction;
mod certificates;
mod client;
mod client_admin;
pub mod client_command;
pub mod client_filter;
pub mod client_line;
mod console;
mod control;
mod delivery;
mod deposed;
mod dispatch;
mod door;
mod drain;
mod effect;
mod fail_open;
mod failure;
mod feed;
mod gate;
mod gate_tick;
pub mod hello;
mod hold;
mod hot;
mod identity;
pub mod info;
mod input;
mod lanes;
mod large;
mod leases;
mod limit_watch;
mod line;
mod links;
mod lobby;
mod local;
mod login;
mod loss;
pub mod mailbox;
mod memory;
mod modes;
mod newcomer;
mod outbox;
mod output;
mod pause;
mod permission;
mod proxy;
mod publish;
mod pump;
mod rates;
mod reads;
mod redirect;
mod refusal;
mod refused;
mod registry;
mod reply_size;
mod request_head;
mod room;
mod shed;
mod sink;
mod slow;
mod stall;
mod subscribe;
mod terms;
mod tick;
mod topology;
mod trace;
mod transaction;
mod upload;
mod waiting;
mod worker;

pub use certificates::{Renewal, Which};
pub use console::{Asked, By, Caller, IdentityView, QUESTIONS_MAX, Questions};
pub use door::{Door, Place};
pub use drain::Drain;
pub use newcomer::Newcomer;
pub use pause::Pause;
pub use proxy::{Message, Proxy, Route};
pub use registry::Kill;
pub use worker::Worker;
