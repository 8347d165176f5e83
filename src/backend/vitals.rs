//! How near a node is to its own limits: pure arithmetic on what it says of itself.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::resp::Value;

/// What a node says of its clients and its memory. What it does not say is `None`:
/// managed servers refuse `CONFIG`, old ones leave fields out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vitals {
    /// Connections that count against its `maxclients`, Weir's own among them.
    pub clients: Option<u64>,
    /// Its `maxclients`.
    pub clients_max: Option<u64>,
    /// Clients that wait in a blocking command.
    pub blocked: Option<u64>,
    /// Memory in use, in bytes, as it is compared with `maxmemory`.
    pub memory: Option<u64>,
    /// Its `maxmemory`; `None` also if it has none.
    pub memory_max: Option<u64>,
    /// Keys thrown out for want of memory since it started.
    pub evicted: Option<u64>,
    /// Connections that it has rejected since it started, for `maxclients`.
    pub rejected: Option<u64>,
    /// Whether it makes room by itself when its memory is full, for any key: a cache.
    pub makes_room: bool,
}

impl Vitals {
    /// Takes what an answer to `INFO` says, whichever sections it has.
    pub fn learn_info(&mut self, reply: &Value) {
        let (false, Some(info)) = (reply.is_error(), reply.as_str()) else {
            return;
        };
        for (name, value) in info.lines().filter_map(|line| line.split_once(':')) {
            if name == "maxmemory_policy" {
                self.makes_room = value.starts_with("allkeys-");
            }
            let Ok(number) = value.trim().parse::<u64>() else {
                continue;
            };
            match name {
                // Replicas and the links of a cluster take a place as well, and are
                // counted by themselves.
                "connected_clients" | "connected_slaves" | "cluster_connections" => {
                    self.clients = Some(self.clients.unwrap_or(0) + number);
                }
                "maxclients" => self.clients_max = Some(number),
                "blocked_clients" => self.blocked = Some(number),
                "used_memory" => self.memory = Some(number),
                "maxmemory" => self.memory_max = Some(number).filter(|max| *max > 0),
                "evicted_keys" => self.evicted = Some(number),
                "rejected_connections" => self.rejected = Some(number),
                _ => {}
            }
        }
    }

    /// Takes what an answer to `CONFIG GET` says, if it says anything.
    pub fn learn_config(&mut self, reply: &Value) {
        let number = |key| reply.get(key).and_then(Value::as_i64);
        let number = |key| number(key).and_then(|number| u64::try_from(number).ok());
        if let Some(max) = number("maxclients") {
            self.clients_max = Some(max);
        }
        if let Some(max) = number("maxmemory") {
            self.memory_max = Some(max).filter(|max| *max > 0);
        }
    }

    /// The share of its memory that is in use.
    pub fn memory_share(&self) -> Option<f64> {
        Some(self.memory? as f64 / self.memory_max? as f64)
    }
}

/// How many connections a budget may have so that the node stays under a share of its
/// `maxclients`, whoever else is connected. Narrowed at once, widened slowly: others that
/// come and go should not have connections opened and closed in step with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Room {
    narrowed_to: Option<usize>,
}

impl Room {
    /// Takes in that the node has `clients` connections of which `own` are the budget's,
    /// which is at most `max`. True if anything changed.
    pub fn adjust(&mut self, vitals: &Vitals, own: usize, share: f64, max: usize) -> bool {
        let before = *self;
        let (Some(clients), Some(clients_max)) = (vitals.clients, vitals.clients_max) else {
            self.narrowed_to = None;
            return *self != before;
        };
        let others = clients.saturating_sub(own as u64);
        let allowed = (clients_max as f64 * share) as u64;
        let room = usize::try_from(allowed.saturating_sub(others)).unwrap_or(usize::MAX);
        let room = room.max(1);
        self.narrowed_to = match self.narrowed_to {
            Some(now) if room > now => Some(room.min(now + (max / 10).max(1))),
            _ => Some(room),
        }
        .filter(|room| *room < max);
        *self != before
    }

    /// The connections that there may be, if fewer than the budget has.
    pub fn limit(&self) -> Option<usize> {
        self.narrowed_to
    }
}

/// How memory grows, as of now and for longer.
#[derive(Debug, Default)]
pub struct Growth {
    looks: Line,
    minutes: Line,
}

/// A line through the samples of the last while, by least squares.
#[derive(Debug, Default)]
struct Line {
    samples: VecDeque<(Instant, u64)>,
}

/// Samples that a line is drawn through. With one a second it follows within a minute.
const SAMPLES_MAX: usize = 60;

/// Fewer samples make no line.
const SAMPLES_MIN: usize = 5;

/// Between two samples of the longer line: an hour of them.
const MINUTE: Duration = Duration::from_secs(60);

/// What has been seen for some time is taken to go on for so many times as long: an hour
/// tells of two days, while the first minutes after a start tell of a few hours.
const REACH: u32 = 48;

impl Growth {
    /// Another sample, of bytes.
    pub fn sample(&mut self, at: Instant, bytes: u64) {
        self.looks.push(at, bytes);
        let last = self.minutes.samples.back();
        if last.is_none_or(|(last, _)| at.saturating_duration_since(*last) >= MINUTE) {
            self.minutes.push(at, bytes);
        }
    }

    /// Bytes a second, as of the last looks; negative while it shrinks.
    pub fn slope(&self) -> Option<f64> {
        self.looks.slope()
    }

    /// How long until `max` bytes are reached if it goes on as in the last looks; `None` if
    /// it does not grow.
    pub fn full_in(&self, max: u64) -> Option<Duration> {
        self.until(max, self.looks.slope()?)
    }

    /// How long until `max` bytes are reached, if it has grown for long enough to tell, and
    /// does still.
    pub fn lasts(&self, max: u64) -> Option<Duration> {
        self.looks.slope().filter(|slope| *slope > 0.0)?;
        let left = self.until(max, self.minutes.slope()?)?;
        (left <= self.minutes.span() * REACH).then_some(left)
    }

    fn until(&self, max: u64, slope: f64) -> Option<Duration> {
        let (_, now) = self.looks.samples.back()?;
        let seconds = max.saturating_sub(*now) as f64 / slope;
        // None of a shrinking one, and more than there is time for of one that hardly grows.
        Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|_| slope > 0.0)
    }
}

impl Line {
    fn push(&mut self, at: Instant, bytes: u64) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((at, bytes));
    }

    /// From the first sample to the last.
    fn span(&self) -> Duration {
        match (self.samples.front(), self.samples.back()) {
            (Some((first, _)), Some((last, _))) => last.saturating_duration_since(*first),
            _ => Duration::ZERO,
        }
    }

    fn slope(&self) -> Option<f64> {
        if self.samples.len() < SAMPLES_MIN {
            return None;
        }
        let (first, base) = self.samples[0];
        let points = self.samples.iter().map(|(at, bytes)| {
            let seconds = at.saturating_duration_since(first).as_secs_f64();
            (seconds, *bytes as f64 - base as f64)
        });
        let count = self.samples.len() as f64;
        let (mut x, mut y, mut xx, mut xy) = (0.0, 0.0, 0.0, 0.0);
        for (seconds, bytes) in points {
            x += seconds;
            y += bytes;
            xx += seconds * seconds;
            xy += seconds * bytes;
        }
        let spread = count * xx - x * x;
        (spread > 0.0).then(|| (count * xy - x * y) / spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vitals(clients: u64) -> Vitals {
        Vitals {
            clients: Some(clients),
            clients_max: Some(64),
            ..Vitals::default()
        }
    }

    #[test]
    fn a_node_that_tells_nothing_changes_nothing() {
        let mut vitals = Vitals::default();
        vitals.learn_info(&Value::error("NOPERM no"));
        vitals.learn_config(&Value::error("ERR unknown command 'CONFIG'"));
        assert_eq!(vitals, Vitals::default());
        let mut room = Room::default();
        assert!(!room.adjust(&vitals, 5, 0.8, 64));
        assert_eq!(room.limit(), None);
    }

    #[test]
    fn what_it_tells_is_taken_from_info_and_from_config() {
        let mut vitals = Vitals::default();
        let info = "# Clients\r\nconnected_clients:7\r\ncluster_connections:2\r\nmaxclients:100\r\n\
                    blocked_clients:3\r\n# Memory\r\nused_memory:1000\r\nmaxmemory:0\r\n\
                    maxmemory_policy:allkeys-lru\r\n\
                    # Stats\r\nevicted_keys:5\r\nrejected_connections:4\r\nconnected_slaves:1\r\n";
        vitals.learn_info(&Value::bulk(info.as_bytes().to_vec()));
        assert_eq!(vitals.clients, Some(10));
        assert_eq!(vitals.clients_max, Some(100));
        assert_eq!((vitals.memory, vitals.memory_max), (Some(1000), None));
        assert_eq!((vitals.evicted, vitals.rejected), (Some(5), Some(4)));
        assert!(vitals.makes_room);
        vitals.learn_info(&Value::bulk(b"maxmemory_policy:noeviction\r\n".to_vec()));
        assert!(!vitals.makes_room);
        vitals.learn_config(&Value::Array(vec![
            Value::bulk(b"maxmemory".to_vec()),
            Value::bulk(b"4000".to_vec()),
        ]));
        assert_eq!(vitals.memory_share(), Some(0.25));
    }

    #[test]
    fn the_budget_is_what_the_others_leave() {
        let mut room = Room::default();
        // 51 of 64 are 80%; 20 others leave 31.
        assert!(room.adjust(&vitals(30), 10, 0.8, 64));
        assert_eq!(room.limit(), Some(31));
        // Alone it may have what the share allows, and no more.
        let mut alone = Room::default();
        alone.adjust(&vitals(10), 10, 0.8, 64);
        assert_eq!(alone.limit(), Some(51));
        // One always remains.
        room.adjust(&vitals(64), 10, 0.8, 64);
        assert_eq!(room.limit(), Some(1));
    }

    #[test]
    fn it_is_narrowed_at_once_and_widened_slowly() {
        let mut room = Room::default();
        room.adjust(&vitals(55), 5, 0.8, 40);
        assert_eq!(room.limit(), Some(1));
        let mut widened = Vec::new();
        while room.adjust(&vitals(5), 5, 0.8, 40) {
            widened.push(room.limit());
        }
        let steps = [5, 9, 13, 17, 21, 25, 29, 33, 37].map(Some);
        assert_eq!(widened[..9], steps);
        assert_eq!(widened.last(), Some(&None), "as wide as it was");
    }

    /// Whatever others do, the node is never asked for more than its share by what is
    /// allowed, unless a single connection is more already.
    #[test]
    fn what_is_allowed_never_lifts_the_node_above_the_share() {
        for seed in 1..500_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let (mut room, max) = (Room::default(), 1 + next(100) as usize);
            for _ in 0..100 {
                let (own, others) = (next(max as u64 + 1), next(80));
                room.adjust(&vitals(own + others), own as usize, 0.8, max);
                let limit = room.limit().unwrap_or(max);
                assert!(limit >= 1 && limit <= max, "seed {seed}");
                assert!(limit as u64 + others <= 51 || limit == 1, "seed {seed}");
            }
        }
    }

    #[test]
    fn growth_says_when_memory_is_full() {
        let (mut growth, start) = (Growth::default(), Instant::now());
        for second in 0..120_u64 {
            // A thousand bytes a second, and some noise.
            let bytes = 10_000 + second * 1000 + (second % 3) * 50;
            growth.sample(start + Duration::from_secs(second), bytes);
        }
        assert_eq!(growth.looks.samples.len(), SAMPLES_MAX);
        let slope = growth.slope().expect("enough samples");
        assert!((slope - 1000.0).abs() < 10.0, "{slope}");
        let full_in = growth.full_in(229_000).expect("it grows");
        assert!(
            (99.0..=101.0).contains(&full_in.as_secs_f64()),
            "{full_in:?}"
        );
        assert_eq!(growth.full_in(0), Some(Duration::ZERO), "it is full");
    }

    /// Memory that grows by a thousand bytes a second for so many seconds.
    fn grown(seconds: u64) -> Growth {
        let (mut growth, start) = (Growth::default(), Instant::now());
        for second in 0..=seconds {
            growth.sample(start + Duration::from_secs(second), second * 1000);
        }
        growth
    }

    #[test]
    fn what_is_filled_for_the_first_time_tells_nothing_of_tomorrow() {
        let hour = 3_600_000;
        // After a minute it would be full in an hour, at this pace.
        let minute = grown(60);
        assert!(minute.full_in(60_000 + hour).is_some());
        assert_eq!(minute.lasts(60_000 + hour), None);
        // After five it may be said of an hour, and not of a day.
        let five = grown(300);
        assert!(five.lasts(300_000 + hour).is_some());
        assert_eq!(five.lasts(300_000 + 24 * hour), None);
        let long = grown(7200);
        let left = long.lasts(7_200_000 + 40 * hour).expect("after an hour");
        assert_eq!(left.as_secs() / 60, 40 * 60);
        assert_eq!(long.lasts(7_200_000 + 60 * hour), None);
    }

    #[test]
    fn what_has_grown_and_does_no_longer_is_not_filling_up() {
        let mut growth = grown(3600);
        let (end, bytes) = *growth.looks.samples.back().expect("samples");
        for second in 1..=60 {
            growth.sample(end + Duration::from_secs(second), bytes);
        }
        assert_eq!(growth.lasts(bytes * 2), None);
    }

    #[test]
    fn what_does_not_grow_is_never_full() {
        let (mut growth, start) = (Growth::default(), Instant::now());
        growth.sample(start, 1000);
        assert_eq!(growth.full_in(1000), None, "too little is known");
        for second in 0..10 {
            growth.sample(start + Duration::from_secs(second), 1000 - second * 10);
        }
        assert!(growth.slope().is_some_and(|slope| slope < 0.0));
        assert_eq!((growth.full_in(10_000), growth.lasts(10_000)), (None, None));
    }
}
