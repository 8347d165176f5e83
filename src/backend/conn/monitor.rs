//! What a `MONITOR` says, on its way to the client that asked for it.

use super::shared::STREAM_FROM;
use super::{Broken, Conn, Sink};
use crate::backend::entry::Ticket;
use crate::backend::own::is_own_line;

impl Conn {
    /// Passes on everything but the lines about Weir's own commands. Those are short:
    /// whatever reaches [`STREAM_FROM`] before its end is none of them.
    pub(super) fn receive_monitor<S: Sink>(
        &mut self,
        owner: Ticket,
        input: &[u8],
        sink: &mut S,
    ) -> Result<(), Broken> {
        let mut shown = Vec::with_capacity(input.len());
        let mut rest = input;
        while !rest.is_empty() {
            let fed = self.scanner.feed(rest).map_err(Broken::Malformed)?;
            self.carry.extend_from_slice(&rest[..fed.consumed]);
            rest = &rest[fed.consumed..];
            self.head_started |= self.carry.len() >= STREAM_FROM;
            if self.head_started || fed.complete {
                if self.head_started || !is_own_line(&self.carry) {
                    shown.extend_from_slice(&self.carry);
                }
                self.carry.clear();
            }
            if fed.complete {
                self.head_started = false;
            }
        }
        if !shown.is_empty() {
            sink.pushed(owner, &shown);
        }
        Ok(())
    }
}
