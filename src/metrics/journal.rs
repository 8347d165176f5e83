//! The journal: what happened, when, to what, in bounded memory.
//!
//! Whoever knows of a happening notes it with one line:
//!
//! ```
//! # use weir::metrics::{Event, EventKind, Journal};
//! # let journal = Journal::new();
//! journal.note(Event::new(EventKind::NodeDown, "10.0.0.5:6379").on("cache").with("why", "refused"));
//! ```
//!
//! For what happens now and then, not for commands: a note takes a lock and allocates.
//! What happens over and over to the same thing is one event with a count, so that one
//! flapping node does not push everything else out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::record::Samples;

/// Events kept: days of normal running. With texts of at most `TEXT_MAX` bytes and
/// `FACTS_MAX` facts an event takes 400 bytes as a rule and 3 KiB at the worst: the
/// journal takes 1.6 MB as a rule when it is full, and never more than 13 MB.
pub const EVENTS_MAX: usize = 4096;

/// Longer texts are cut, in bytes: some come from clients or nodes.
pub const TEXT_MAX: usize = 256;

/// Further facts are left out.
pub const FACTS_MAX: usize = 10;

/// The same thing again within this time is counted and not noted anew.
const AGAIN_WITHIN: Duration = Duration::from_secs(60);

/// How far back the same thing is looked for: an event that repeats is among the last.
const AGAIN_AMONG: usize = 32;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know afterwards.
    Info,
    /// Somebody should look at it.
    Warning,
    /// Clients are refused or get errors because of it.
    Critical,
}

impl Severity {
    /// In one word.
    pub fn label(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// Declares the kinds: name in dumps, severity, and what happened in words that follow
/// the subject's name.
macro_rules! kinds {
    ($($(#[$doc:meta])+ $kind:ident => $label:literal, $severity:ident, $words:literal;)+) => {
        /// What happened. A new kind is a row here.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])+ $kind,)+ }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$kind,)+];

            /// Its stable name: lower case, `[a-z_]`.
            pub fn label(self) -> &'static str {
                match self { $(EventKind::$kind => $label,)+ }
            }

            /// How much it matters, unless the event says otherwise.
            pub fn severity(self) -> Severity {
                match self { $(EventKind::$kind => Severity::$severity,)+ }
            }

            /// What happened, in words.
            pub fn words(self) -> &'static str {
                match self { $(EventKind::$kind => $words,)+ }
            }
        }
    };
}

kinds! {
    /// The process serves. The subject is its version.
    Started => "started", Info, "Weir started";
    /// The process takes no more clients and lets those that it has finish. The subject
    /// is what asked for it.
    Draining => "draining", Info, "draining began";
    /// Another process is started to take this one's place. The subject is what asked for it.
    Upgrading => "upgrading", Info, "upgrade began";
    /// That process serves the clients that come from now on. The subject names it.
    Upgraded => "upgraded", Info, "took over";
    /// It does not, and this one goes on. The subject is what asked for it.
    UpgradeFailed => "upgrade_failed", Warning, "upgrade failed";
    /// The process ends.
    Stopped => "stopped", Info, "Weir stopped";
    /// A node cannot be used. The subject is its address.
    NodeDown => "node_down", Critical, "node went down";
    /// It can be used again.
    NodeUp => "node_up", Info, "node is back";
    /// A node has as many clients as it takes: Weir goes on with fewer connections.
    NodeFull => "node_full", Warning, "node reached its own maxclients";
    /// A node has turned connections away, Weir's or others', for its own maxclients.
    NodeRejects => "node_rejects", Warning, "node rejected connections";
    /// A node has thrown out keys for want of memory.
    NodeEvicts => "node_evicts", Info, "node evicted keys";
    /// A node nears its own maxclients: Weir goes on with fewer connections.
    BudgetNarrowed => "budget_narrowed", Info, "budget narrowed";
    /// It may have as many as its settings say again.
    BudgetWidened => "budget_widened", Info, "budget as wide as it was";
    /// A node's memory is nearly used up.
    MemoryLow => "memory_low", Warning, "node's memory is nearly used up";
    /// It has memory again.
    MemoryFine => "memory_fine", Info, "node has memory again";
    /// A route answers without Redis. The subject is the setting.
    FailsOpen => "fails_open", Warning, "answering without Redis";
    /// It answers with Redis again.
    FailsOpenNoMore => "fails_open_no_more", Info, "answering with Redis again";
    /// The connection was lost over which clients were subscribed, and they were closed so
    /// that they subscribe anew. The subject is the node's address.
    SubscribersClosed => "subscribers_closed", Warning, "subscription connection lost";
    /// Another node takes the writes. The subject is its address.
    Failover => "failover", Warning, "became the primary";
    /// There is no primary that can be used. The subject is the one that was it last.
    NoPrimary => "no_primary", Critical, "is lost, and there is no other primary";
    /// It can be used again.
    PrimaryBack => "primary_back", Info, "takes writes again";
    /// A second node says that it is the primary; it gets nothing.
    RivalPrimary => "rival_primary", Critical, "says that it is the primary too; it gets nothing";
    /// A node holds the data of another deployment; it gets nothing.
    ForeignNode => "foreign_node", Critical, "belongs to another deployment; it gets nothing";
    /// No sentinel answers: what was known last holds.
    SentinelsDown => "sentinels_down", Warning, "no sentinel answers; what was known last holds";
    /// A limit of Weir is reached and refuses. The subject is the setting.
    LimitReached => "limit_reached", Critical, "limit reached";
    /// Most of a limit is used. The subject is the setting.
    LimitNear => "limit_near", Warning, "limit is near";
    /// Less of it is used again.
    LimitEased => "limit_eased", Info, "limit no longer near";
    /// It refuses nothing any more.
    LimitCleared => "limit_cleared", Info, "limit no longer reached";
    /// The spans of traced commands do not get to the collector. The subject is the setting.
    TracesDropped => "traces_dropped", Warning, "traces are dropped";
    /// They do again.
    TracesSent => "traces_sent", Info, "traces get through again";
    /// Certificates were read again and are in force. The subject is their place in the
    /// settings.
    CertificatesRead => "certificates_read", Info, "certificates read again";
    /// They can not be used; those before stay in force. The subject is the same.
    CertificatesBad => "certificates_bad", Warning, "certificates can not be used";
    /// The settings were read again. The subject is who asked for it.
    Reloaded => "reloaded", Info, "settings were read again";
    /// They were not, and nothing has changed.
    ReloadRefused => "reload_refused", Warning, "settings were not read again";
    /// Somebody changed something. The subject is the command.
    Operator => "operator", Info, "operator's command";
}

/// One happening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number, from 1: of two events the later has the higher one. 0 until noted.
    pub number: u64,
    /// When it happened first, in milliseconds of Unix time.
    pub at: u64,
    /// When it happened last; the same if it happened once.
    pub last_at: u64,
    /// How often it happened from first to last.
    pub times: u32,
    /// What happened.
    pub kind: EventKind,
    /// How much it matters.
    pub severity: Severity,
    /// The route that it is about; empty for the whole process.
    pub route: String,
    /// To what: a node, an identity, a setting.
    pub subject: String,
    /// What else is known, by name; of a repeated event as of the last time.
    pub facts: Vec<(&'static str, String)>,
}

impl Event {
    /// Something happens now to `subject`.
    pub fn new(kind: EventKind, subject: impl Into<String>) -> Event {
        let at = super::utc::unix_millis(SystemTime::now());
        Event {
            number: 0,
            at,
            last_at: at,
            times: 1,
            kind,
            severity: kind.severity(),
            route: String::new(),
            subject: cut(subject.into()),
            facts: Vec::new(),
        }
    }

    /// It is about this route.
    #[must_use]
    pub fn on(mut self, route: &str) -> Event {
        self.route = cut(route.to_owned());
        self
    }

    /// What else is known. Never a password or the value of a key.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Event {
        if self.facts.len() < FACTS_MAX {
            self.facts.push((name, cut(value.to_string())));
        }
        self
    }

    /// It matters more, or less, than its kind does as a rule.
    #[must_use]
    pub fn as_severe_as(mut self, severity: Severity) -> Event {
        self.severity = severity;
        self
    }

    fn is_again(&self, earlier: &Event) -> bool {
        self.kind == earlier.kind
            && self.subject == earlier.subject
            && self.route == earlier.route
            && self.severity == earlier.severity
            && self.at.saturating_sub(earlier.last_at) <= AGAIN_WITHIN.as_millis() as u64
    }
}

/// The events and the [samples](Samples) of one process.
#[derive(Debug, Default)]
pub struct Journal {
    events: Mutex<Events>,
    samples: Mutex<Samples>,
}

#[derive(Debug, Default)]
struct Events {
    kept: VecDeque<Event>,
    noted: u64,
}

impl Journal {
    /// An empty one.
    pub fn new() -> Journal {
        Journal::default()
    }

    /// Takes in what happened, from any thread.
    pub fn note(&self, mut event: Event) {
        let mut events = self.events();
        // What an operator does is noted each time: who, and with what result.
        if event.kind != EventKind::Operator
            && let Some(earlier) = again(&mut events.kept, &event)
        {
            earlier.times = earlier.times.saturating_add(1);
            earlier.last_at = event.at;
            earlier.facts = event.facts;
            return;
        }
        events.noted += 1;
        event.number = events.noted;
        if events.kept.len() == EVENTS_MAX {
            events.kept.pop_front();
        }
        events.kept.push_back(event);
    }

    /// The last `count` events that `wanted` takes, oldest first.
    pub fn last(&self, count: usize, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
        let events = self.events();
        let newest_first = events.kept.iter().rev().filter(|event| wanted(event));
        let mut last: Vec<Event> = newest_first.take(count).cloned().collect();
        last.reverse();
        last
    }

    /// How many events there have been, those that are no longer kept included.
    pub fn noted(&self) -> u64 {
        self.events().noted
    }

    /// The numbers over time.
    pub fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn again<'e>(kept: &'e mut VecDeque<Event>, event: &Event) -> Option<&'e mut Event> {
    let mut last = kept.iter_mut().rev().take(AGAIN_AMONG);
    last.find(|earlier| event.is_again(earlier))
}

/// Cut at a character's border.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let mut end = TEXT_MAX - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Whether something is so, so that its beginning and its end are each told once.
#[derive(Debug, Default)]
pub struct Latch(AtomicBool);

impl Latch {
    /// It is so; true for the one who says it first.
    pub fn set(&self) -> bool {
        // Read first: while it stays so, nobody has to own the cache line.
        !self.0.load(Relaxed) && !self.0.swap(true, Relaxed)
    }

    /// It is no longer so; true for the one who says it first.
    pub fn clear(&self) -> bool {
        self.0.load(Relaxed) && self.0.swap(false, Relaxed)
    }

    /// Whether it is so.
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects(journal: &Journal) -> Vec<(String, u32)> {
        let events = journal.last(usize::MAX, |_| true);
        let subjects = events.into_iter();
        subjects.map(|event| (event.subject, event.times)).collect()
    }

    #[test]
    fn events_are_kept_in_order_with_numbers() {
        let journal = Journal::new();
        journal.note(Event::new(EventKind::NodeDown, "a").on("r").with("why", 1));
        journal.note(Event::new(EventKind::NodeDown, "b"));
        let events = journal.last(10, |_| true);
        assert_eq!(
            events.iter().map(|event| event.number).collect::<Vec<_>>(),
            [1, 2]
        );
        assert_eq!(events[0].facts, [("why", "1".to_owned())]);
        assert_eq!(events[0].route, "r");
        assert_eq!(events[0].severity, Severity::Critical);
        assert_eq!(journal.last(1, |_| true)[0].subject, "b");
        assert_eq!(journal.last(1, |event| event.subject == "a").len(), 1);
    }

    #[test]
    fn what_happens_again_and_again_is_one_event_with_a_count() {
        let journal = Journal::new();
        for _ in 0..1000 {
            journal.note(Event::new(EventKind::NodeDown, "a"));
            journal.note(Event::new(EventKind::NodeUp, "a"));
        }
        assert_eq!(
            subjects(&journal),
            [("a".to_owned(), 1000), ("a".to_owned(), 1000)]
        );
        let mut late = Event::new(EventKind::NodeUp, "a");
        late.at += 61_000;
        late.last_at = late.at;
        journal.note(late);
        assert_eq!(subjects(&journal).len(), 3);
    }

    #[test]
    fn what_operators_do_is_noted_each_time() {
        let journal = Journal::new();
        for _ in 0..3 {
            journal.note(Event::new(EventKind::Operator, "KILL"));
        }
        assert_eq!(subjects(&journal).len(), 3);
    }

    #[test]
    fn the_oldest_make_room() {
        let journal = Journal::new();
        for n in 0..EVENTS_MAX + 10 {
            journal.note(Event::new(EventKind::NodeDown, n.to_string()));
        }
        let kept = subjects(&journal);
        assert_eq!(kept.len(), EVENTS_MAX);
        assert_eq!(kept[0].0, "10");
        assert_eq!(journal.noted() as usize, EVENTS_MAX + 10);
    }

    #[test]
    fn texts_and_facts_are_bounded() {
        let mut event = Event::new(EventKind::NodeDown, "ä".repeat(10_000));
        for _ in 0..100 {
            event = event.with("x", "y".repeat(10_000));
        }
        assert!(event.subject.len() <= TEXT_MAX && event.subject.ends_with('…'));
        assert_eq!(event.facts.len(), FACTS_MAX);
        assert!(event.facts.iter().all(|(_, value)| value.len() <= TEXT_MAX));
    }

    #[test]
    fn a_latch_tells_the_beginning_and_the_end_once() {
        let latch = Latch::default();
        assert!(!latch.clear());
        assert!(latch.set() && !latch.set() && latch.is_set());
        assert!(latch.clear() && !latch.clear() && !latch.is_set());
    }
}
