//! Which keys the commands of the sample are about, and whose the largest replies are.

use super::console::shown;
use super::worker::State;
use crate::backend::{OneIn, SampledReply, Sampler};
use crate::command::CommandId;
use crate::metrics::{Sampled, Sampling};

/// Of a command with more keys only so many are counted, each for its own part of the reply.
const KEYS_MAX: usize = 16;

impl State {
    /// Takes over how much is sampled.
    pub(super) fn take_sampling(&mut self) {
        let process = &self.settings.process;
        let sampling = Sampling {
            one_in: process.hot_keys_sample,
            shows_keys: process.show_keys,
        };
        let now = self.clock.exact();
        let one_in = OneIn {
            keys: sampling.one_in,
            traces: self.traces_one_in(),
        };
        if self.sampler.one_in() != one_in {
            // Workers do not sample in step.
            let seed = (now as u32).wrapping_mul(2_654_435_761) ^ self.index as u32;
            self.sampler = Sampler::new(one_in, seed);
            self.traced.restart(one_in, seed);
        }
        self.proxy.hot_keys.configure(self.index, sampling, now);
        if !sampling.shows_keys {
            self.proxy.slow_log.hide_keys();
        }
    }

    /// Replies of a sample, and large ones, came over a connection.
    #[cold]
    pub(super) fn note_sampled(&mut self, index: u32, replies: &[SampledReply]) {
        let lane = &self.lanes[self.conns[index as usize].lane as usize];
        let (route, lane_db) = (lane.route, lane.key.db);
        for reply in replies {
            if reply.due.traces {
                self.trace_reply(index, reply);
            }
            if !reply.for_keys {
                continue;
            }
            let table = &self.fronts[route as usize].table;
            let command = table.by_id(CommandId(reply.entry.command));
            let keys = super::request_head::keys(command, &reply.request);
            let to = reply.entry.to;
            let session = self.sessions.get(to.slot as usize);
            let session = session.filter(|session| session.id as u32 == to.generation);
            let sampled = Sampled {
                route,
                db: session.map_or(lane_db, |session| session.partition.db),
                command: &command.name,
                reply_bytes: reply.reply_bytes,
                now: self.clock.now(),
            };
            let hot_keys = &self.proxy.hot_keys;
            if reply.due.keys {
                let known = &keys.known[..keys.known.len().min(KEYS_MAX)];
                hot_keys.note(self.index, sampled, known, keys.count);
            }
            let first = keys.known.first().copied();
            hot_keys.note_large(self.index, sampled, first, |large| {
                if let Some(session) = session {
                    let who = session.who();
                    large.address = session.peer.to_string();
                    large.user = who.user.map_or(String::new(), shown);
                    large.name = shown(who.name);
                }
            });
        }
    }
}
