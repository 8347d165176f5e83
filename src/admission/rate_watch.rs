//! What operators are told of rates: that one refuses commands of somebody, and that it does
//! so no more. Each once, not for every command.

use std::sync::Arc;

use super::identity::Group;
use super::terms::Metered;
use super::watch::{Notice, What};

/// A rate counts as cleared when it has refused nothing for so long, in microseconds.
const QUIET: u64 = 10_000_000;

/// Accounts that are watched at once; of others nothing is told.
const WATCHED_MAX: usize = 256;

/// Who is over a rate.
#[derive(Debug, Default)]
pub struct RateWatch(Vec<Watched>);

#[derive(Debug)]
struct Watched {
    group: Arc<Group>,
    of: Metered,
    refused: u64,
    refused_at: u64,
    is_told: bool,
}

impl RateWatch {
    /// Somebody is over a rate, who was not before.
    pub fn reached(&mut self, group: Arc<Group>, of: Metered, now: u64) {
        if self.0.len() >= WATCHED_MAX {
            group.is_over_rate.clear();
            return;
        }
        self.0.push(Watched {
            refused: group.over_rate(),
            refused_at: now,
            is_told: false,
            group,
            of,
        });
    }

    /// What there is to tell now. To be called about once a second.
    pub fn look(&mut self, now: u64) -> Vec<Notice> {
        let mut notices = Vec::new();
        self.0.retain_mut(|watched| {
            if !watched.is_told {
                watched.is_told = true;
                notices.push(notice(What::Reached, watched));
            }
            let refused = watched.group.over_rate();
            if refused > watched.refused {
                (watched.refused, watched.refused_at) = (refused, now);
            }
            let is_over = now.saturating_sub(watched.refused_at) >= QUIET;
            if is_over {
                watched.group.is_over_rate.clear();
                notices.push(notice(What::Cleared, watched));
            }
            !is_over
        });
        notices
    }
}

fn notice(what: What, watched: &Watched) -> Notice {
    let group = &watched.group;
    Notice {
        what,
        route: Some(group.rule.route),
        setting: format!("limits.{}.{}", group.rule.name, watched.of.key()),
        identity: Some(group.key.to_string()),
        clients: group.clients(),
        max: group.rule.rate(watched.of).per_second as usize,
        refuses: "commands",
    }
}
