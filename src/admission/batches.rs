//! Whether those who wait have come one by one, or in batches.
//!
//! A client that sends a batch and then waits for all of it has chosen to wait for longer: with 50
//! such clients and batches of 32, everybody's answers take as long as 1,600 commands, and still
//! nobody asks for more than is served. Callers that share a connection look different: they come
//! while others of theirs are under way.

/// Where this share of those who come is alone, they are the measure.
const ALONE_MAX: f64 = 1.0 / 8.0;

/// Fewer batches than this say nothing.
const KNOWN_FROM: f64 = 4.0;

/// Nobody is let wait for more than so many times the target because of batches.
const FACTOR_MAX: f64 = 8.0;

/// What is remembered at each tick: about the last quarter of a second counts.
const KEPT: f64 = 0.9;

/// How those who joined a line of late have come. Pure.
#[derive(Clone, Debug, Default)]
pub struct Batches {
    /// Who came last, and how many of them at once.
    last: Option<u32>,
    length: u32,
    /// Fading counts: of batches, of those that were a single command, of commands.
    batches: f64,
    alone: f64,
    commands: f64,
}

impl Batches {
    /// A command of `client` joined a line. `idle`: the client had nothing under way.
    pub fn joined(&mut self, client: u32, idle: bool) {
        if !idle && self.last == Some(client) {
            self.length += 1;
            return;
        }
        self.end();
        // Not idle, and not the one who came last: others of this client are under way.
        self.last = idle.then_some(client);
        self.length = 1;
    }

    fn end(&mut self) {
        self.batches += f64::from(self.length.min(1));
        self.alone += f64::from(u8::from(self.length == 1));
        self.commands += f64::from(self.length);
        self.length = 0;
    }

    /// Older ones fade.
    pub fn on_tick(&mut self) {
        self.batches *= KEPT;
        self.alone *= KEPT;
        self.commands *= KEPT;
    }

    /// How many times as long as a single command those who wait may take.
    pub fn factor(&self) -> f64 {
        if self.batches < KNOWN_FROM || self.alone > self.batches * ALONE_MAX {
            return 1.0;
        }
        (self.commands / self.batches).clamp(1.0, FACTOR_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(batches: &mut Batches, client: u32, length: u32) {
        for place in 0..length {
            batches.joined(client, place == 0);
        }
    }

    #[test]
    fn batches_may_take_longer_within_bounds() {
        let mut batches = Batches::default();
        assert_eq!(batches.factor(), 1.0);
        for client in 0..50 {
            batch(&mut batches, client, 4);
        }
        assert_eq!(batches.factor(), 4.0);
        for client in 0..500 {
            batch(&mut batches, client, 100);
        }
        assert_eq!(batches.factor(), FACTOR_MAX);
    }

    #[test]
    fn one_in_eight_that_is_alone_is_the_measure() {
        let mut batches = Batches::default();
        for client in 0..500 {
            batch(&mut batches, client, if client % 7 == 0 { 1 } else { 32 });
        }
        assert_eq!(batches.factor(), 1.0);
    }

    /// A library that sends the commands of many callers over one connection.
    #[test]
    fn callers_that_share_a_connection_are_no_batch() {
        let mut batches = Batches::default();
        for _ in 0..100 {
            for client in 0..10 {
                for _ in 0..20 {
                    batches.joined(client, false);
                }
            }
        }
        assert_eq!(batches.factor(), 1.0);
    }

    #[test]
    fn what_was_is_forgotten() {
        let mut batches = Batches::default();
        for client in 0..50 {
            batch(&mut batches, client, 32);
        }
        for _ in 0..40 {
            batches.on_tick();
        }
        assert_eq!(batches.factor(), 1.0);
    }
}
