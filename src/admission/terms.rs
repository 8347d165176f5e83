//! What the rules about a client say of its commands: how many, in which order, and what
//! becomes of them while Redis is away or nearly full.

use super::gate::Priority;
use super::rules::Rule;
use crate::config::{LimitFailOpen, LimitPriority};

/// What there can be a rate of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Metered {
    /// Commands.
    Commands = 0,
    /// Bytes of requests and replies.
    Bytes = 1,
}

impl Metered {
    /// Both.
    pub const ALL: [Metered; 2] = [Metered::Commands, Metered::Bytes];

    /// The setting's key, which is also the label of metrics.
    pub fn key(self) -> &'static str {
        match self {
            Metered::Commands => "commands_rate",
            Metered::Bytes => "bytes_rate",
        }
    }
}

/// What the rules about one client say of its commands.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Terms {
    /// Who is served first.
    pub priority: Priority,
    /// Whether it is answered as by a cache that misses; `None` as the route.
    pub fail_open: Option<bool>,
    /// Above this share of the node's memory its writes are refused; `None` as the route.
    pub refuse_writes_above: Option<f64>,
}

impl Terms {
    /// What these rules say, which are all about one client, in their order: each is said by
    /// the first that says anything of it.
    pub(super) fn of<'r>(rules: impl Iterator<Item = &'r Rule> + Clone) -> Terms {
        Terms {
            priority: rules
                .clone()
                .find_map(Rule::says_priority)
                .unwrap_or_default(),
            fail_open: rules.clone().find_map(Rule::says_fail_open),
            refuse_writes_above: rules.clone().find_map(Rule::says_refuse_writes_above),
        }
    }
}

impl Rule {
    fn says_priority(&self) -> Option<Priority> {
        match self.priority {
            LimitPriority::High => Some(Priority::High),
            LimitPriority::Normal => None,
            LimitPriority::Low => Some(Priority::Low),
        }
    }

    fn says_fail_open(&self) -> Option<bool> {
        match self.fail_open {
            LimitFailOpen::Route => None,
            LimitFailOpen::On => Some(true),
            LimitFailOpen::Off => Some(false),
        }
    }

    /// Above which share of the node's memory it has writes refused; `None` as the route.
    pub fn says_refuse_writes_above(&self) -> Option<f64> {
        (self.refuse_writes_above > 0.0).then_some(self.refuse_writes_above)
    }
}
