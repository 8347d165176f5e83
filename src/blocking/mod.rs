//! Many clients that wait in a blocking command, over few connections: who waits
//! for what, what is to be asked of the node next, who gets what it answers.
//!
//! Nothing here does input or output. `session` tells a [`Lobby`] what happens and
//! carries out the [`Act`]s that follow. One lobby serves one partition, on one worker,
//! so that all waiters of a queue stand in one line.
//!
//! Always true: an element that the node has given goes to the waiter that has waited
//! longest in the line it was popped for, as long as there is one; a waiter leaves a line
//! without an element only when more stay than elements can be on their way to it.

mod act;
mod carrier;
mod line;
mod lobby;
#[cfg(test)]
mod lobby_properties;
mod places;
mod reader;
mod reply;
mod stream;
mod wish;

pub use act::{Act, Batch, CarrierId, Popped, Question, QuestionId, Tell, WaiterId};
pub use lobby::{Arrival, Lobby, LobbySettings};
pub use places::{NoPlace, OwnPlace, Places};
pub use reply::{RepliesIn, in_version, is_null};
pub use wish::{Queue, Shape, StreamWish, Wish};
