//! Which node is the primary, and which do not belong.
//!
//! Nodes say themselves what they are. Where two say that they are the primary, a
//! sentinel's word decides; else the one that was promoted from the other
//! (`master_replid2` names the history that a node went on from); else the one that was
//! it last stays. A higher offset proves nothing: a stale primary that kept writing is
//! ahead. What shares no history with the deployment belongs to another one.

use super::{Health, Report, Role};

/// Histories that are remembered: those of the last primaries.
const LINEAGE_MAX: usize = 16;

/// The histories that a deployment has had, the latest last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage(Vec<String>);

impl Lineage {
    /// Takes in what the primary says.
    pub fn note(&mut self, report: &Report) {
        for replid in [&report.replid2, &report.replid].into_iter().flatten() {
            if self.0.last() != Some(replid) {
                self.0.retain(|known| known != replid);
                self.0.push(replid.clone());
            }
        }
        let surplus = self.0.len().saturating_sub(LINEAGE_MAX);
        self.0.drain(..surplus);
    }

    /// Whether a node has one of these histories. One that does not tell may.
    fn is_shared_by(&self, report: &Report) -> bool {
        report.replid.is_none() || self.0.iter().any(|replid| report.has_history(replid))
    }
}

/// One node before the election.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// Whether it serves.
    pub health: Health,
    /// What it said last, if it said anything since it was lost.
    pub report: Option<&'a Report>,
    /// It has been part of the deployment before.
    pub is_known: bool,
    /// It is another process than the one that was a replica.
    pub was_restarted: bool,
}

impl Candidate<'_> {
    /// It says that it is a primary that went on from this history. A replica that died and
    /// was started without `replicaof` says so too, if it found a dump: nobody has
    /// promoted it.
    fn went_on_from(&self, replid: &str) -> bool {
        let goes_on = |report: &Report| {
            report.replid2.as_deref() == Some(replid) && report.role == Role::Primary
        };
        !self.was_restarted && self.report.is_some_and(goes_on)
    }

    fn says(&self, role: Role) -> bool {
        let answers = matches!(self.health, Health::Up | Health::Loading);
        answers && self.report.is_some_and(|report| report.role == role)
    }
}

/// How a node stands to the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It says nothing.
    Silent,
    /// It takes the writes.
    Primary,
    /// It copies the primary.
    Follower,
    /// It copies another history, and has no connection to whom it would copy.
    Unsynced,
    /// It says that it is the primary, and another one is. It gets nothing.
    Rival,
    /// It has the data of another deployment. It gets nothing.
    Foreign,
}

impl Standing {
    /// The stable label of metrics and logs.
    pub const fn label(self) -> &'static str {
        match self {
            Standing::Silent => "silent",
            Standing::Primary => "primary",
            Standing::Follower => "follower",
            Standing::Unsynced => "unsynced",
            Standing::Rival => "rival",
            Standing::Foreign => "foreign",
        }
    }
}

/// What an election finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which node takes the writes, if one does.
    pub primary: Option<usize>,
    /// How each node stands, in their order.
    pub standings: Vec<Standing>,
}

/// Decides. `incumbent` was the primary last; `appointed` is the one that the sentinels
/// name.
pub fn elect(
    candidates: &[Candidate<'_>],
    incumbent: Option<usize>,
    appointed: Option<usize>,
    lineage: &Lineage,
) -> Verdict {
    let masters: Vec<usize> = (0..candidates.len())
        .filter(|&index| candidates[index].says(Role::Primary))
        .collect();
    let primary = match appointed {
        Some(appointed) if masters.contains(&appointed) => Some(appointed),
        // The sentinels' choice is out of reach: another would be a second primary. But
        // one that was promoted from it is the choice that they are about to tell.
        Some(appointed) if !candidates[appointed].says(Role::Replica) => {
            promoted_from_last(candidates, &masters, lineage)
        }
        _ => choose(candidates, &masters, incumbent, lineage),
    };
    let mut history = lineage.clone();
    if let Some(report) = primary.and_then(|index| candidates[index].report) {
        history.note(report);
    }
    let standings = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| standing(index, candidate, primary, &history))
        .collect();
    Verdict { primary, standings }
}

/// The one that went on from the history of the last primary.
fn promoted_from_last(
    candidates: &[Candidate<'_>],
    masters: &[usize],
    lineage: &Lineage,
) -> Option<usize> {
    let last = lineage.0.last()?;
    let went_on = |index: &&usize| candidates[**index].went_on_from(last);
    masters.iter().find(went_on).copied()
}

fn choose(
    candidates: &[Candidate<'_>],
    masters: &[usize],
    incumbent: Option<usize>,
    lineage: &Lineage,
) -> Option<usize> {
    let report = |index: usize| candidates[index].report.expect("it said what it is");
    let promoted_from = |new: usize, old: usize| {
        let old = &report(old).replid;
        let went_on = |old| candidates[new].went_on_from(old);
        report(new).replid != *old && old.as_deref().is_some_and(went_on)
    };
    let start = match incumbent {
        Some(incumbent) if masters.contains(&incumbent) => Some(incumbent),
        Some(_) => successor(candidates, masters, lineage),
        None => most_followed(candidates, masters),
    }?;
    // Whoever was promoted from it takes its place, and so on; a circle ends nowhere.
    let mut primary = start;
    for _ in masters {
        match masters.iter().find(|&&new| promoted_from(new, primary)) {
            Some(&new) => primary = new,
            None => break,
        }
    }
    Some(primary)
}

/// Who takes the place of a primary that is none any more.
fn successor(candidates: &[Candidate<'_>], masters: &[usize], lineage: &Lineage) -> Option<usize> {
    let report = |index: usize| candidates[index].report.expect("it said what it is");
    let heir = lineage.0.iter().rev().find_map(|replid| {
        let is_heir = |index: &&usize| candidates[**index].went_on_from(replid);
        masters.iter().find(is_heir).copied()
    });
    let is_known = |index: usize| candidates[index].is_known && !candidates[index].was_restarted;
    let known = || masters.iter().find(|&&index| is_known(index));
    let adopted = || {
        // All that is left of the deployment follows it: somebody has decided so.
        let followers: Vec<&Candidate<'_>> = candidates
            .iter()
            .filter(|candidate| candidate.is_known && candidate.says(Role::Replica))
            .collect();
        let follows = |index: usize, follower: &Candidate<'_>| {
            let replid = &report(index).replid;
            replid.is_some() && follower.report.is_some_and(|it| it.replid == *replid)
        };
        let all = |index: &&usize| followers.iter().all(|it| follows(**index, it));
        masters.iter().find(all).filter(|_| !followers.is_empty())
    };
    heir.or_else(|| known().copied())
        .or_else(|| adopted().copied())
}

/// At the start: the one that most nodes of the list copy, else the first of the list.
fn most_followed(candidates: &[Candidate<'_>], masters: &[usize]) -> Option<usize> {
    let followers = |index: usize| {
        let replid = &candidates[index].report.expect("it said what it is").replid;
        let follows = |it: &&Candidate<'_>| {
            it.says(Role::Replica) && it.report.is_some_and(|report| report.replid == *replid)
        };
        candidates.iter().filter(follows).count()
    };
    // Of equals `max_by_key` takes the last.
    masters
        .iter()
        .copied()
        .rev()
        .max_by_key(|&index| followers(index))
}

fn standing(
    index: usize,
    candidate: &Candidate<'_>,
    primary: Option<usize>,
    history: &Lineage,
) -> Standing {
    let Some(report) = candidate
        .report
        .filter(|_| matches!(candidate.health, Health::Up | Health::Loading))
    else {
        return Standing::Silent;
    };
    if primary == Some(index) {
        return Standing::Primary;
    }
    // Before there was a primary there is nothing to compare with.
    let shared = history.0.is_empty() || history.is_shared_by(report);
    match report.role {
        Role::Primary if shared || candidate.is_known => Standing::Rival,
        Role::Primary => Standing::Foreign,
        _ if shared => Standing::Follower,
        _ if report.link_up && !candidate.is_known => Standing::Foreign,
        _ => Standing::Unsynced,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(role: Role, replid: &str, replid2: Option<&str>) -> Report {
        Report {
            role,
            replid: Some(replid.into()),
            replid2: replid2.map(str::to_owned),
            offset: 0,
            link_up: true,
            source: None,
            run: None,
            loading: false,
            disk_error: false,
        }
    }

    fn known(report: Option<&Report>) -> Candidate<'_> {
        let health = if report.is_some() {
            Health::Up
        } else {
            Health::Down
        };
        Candidate {
            health,
            report,
            is_known: true,
            was_restarted: false,
        }
    }

    fn new(report: &Report) -> Candidate<'_> {
        Candidate {
            is_known: false,
            ..known(Some(report))
        }
    }

    fn lineage(replid: &str) -> Lineage {
        Lineage(vec![replid.into()])
    }

    use Standing::*;

    #[test]
    fn the_only_one_that_says_so_is_the_primary() {
        let (primary, replica) = (
            report(Role::Primary, "a", None),
            report(Role::Replica, "a", None),
        );
        let verdict = elect(
            &[new(&replica), new(&primary), known(None)],
            None,
            None,
            &Lineage::default(),
        );
        assert_eq!(verdict.primary, Some(1));
        assert_eq!(verdict.standings, [Follower, Primary, Silent]);
    }

    #[test]
    fn who_was_promoted_from_the_incumbent_takes_its_place() {
        let (old, new_one) = (
            report(Role::Primary, "a", None),
            report(Role::Primary, "b", Some("a")),
        );
        let verdict = elect(
            &[known(Some(&old)), known(Some(&new_one))],
            Some(0),
            None,
            &lineage("a"),
        );
        assert_eq!(
            (verdict.primary, verdict.standings),
            (Some(1), vec![Rival, Primary])
        );
        // The same if it is asked when the old one is back, and at the start.
        for incumbent in [Some(1), None] {
            let verdict = elect(
                &[known(Some(&old)), known(Some(&new_one))],
                incumbent,
                None,
                &lineage("b"),
            );
            assert_eq!(verdict.primary, Some(1), "{incumbent:?}");
        }
    }

    #[test]
    fn a_replica_that_was_restarted_as_a_primary_was_not_promoted() {
        let (old, back) = (
            report(Role::Primary, "a", None),
            report(Role::Primary, "b", Some("a")),
        );
        let restarted = Candidate {
            was_restarted: true,
            ..known(Some(&back))
        };
        let both = [known(Some(&old)), restarted];
        let verdict = elect(&both, Some(0), None, &lineage("a"));
        assert_eq!(
            (verdict.primary, verdict.standings),
            (Some(0), vec![Primary, Rival])
        );
        let alone = [known(None), restarted];
        for appointed in [None, Some(0)] {
            let verdict = elect(&alone, Some(0), appointed, &lineage("a"));
            assert_eq!(verdict.primary, None, "{appointed:?}");
        }
        // Unless all that is left of the deployment follows it.
        let follower = report(Role::Replica, "b", None);
        let followed = [known(None), restarted, known(Some(&follower))];
        let verdict = elect(&followed, Some(0), None, &lineage("a"));
        assert_eq!(verdict.primary, Some(1));
    }

    #[test]
    fn of_two_that_share_nothing_the_incumbent_stays_however_far_the_other_is() {
        let incumbent = report(Role::Primary, "a", None);
        let ahead = Report {
            offset: 1 << 40,
            ..report(Role::Primary, "x", None)
        };
        let verdict = elect(
            &[new(&ahead), known(Some(&incumbent))],
            Some(1),
            None,
            &lineage("a"),
        );
        assert_eq!(
            (verdict.primary, verdict.standings),
            (Some(1), vec![Foreign, Primary])
        );
        // Nor does it take the place of one that is down.
        let verdict = elect(&[new(&ahead), known(None)], Some(1), None, &lineage("a"));
        assert_eq!(
            (verdict.primary, verdict.standings),
            (None, vec![Foreign, Silent])
        );
    }

    #[test]
    fn a_primary_that_was_restarted_and_has_a_new_history_is_a_rival_of_its_successor() {
        let (restarted, successor) = (
            report(Role::Primary, "z", None),
            report(Role::Primary, "b", Some("a")),
        );
        let verdict = elect(
            &[known(Some(&restarted)), known(Some(&successor))],
            Some(1),
            None,
            &Lineage(vec!["a".into(), "b".into()]),
        );
        assert_eq!(
            (verdict.primary, verdict.standings),
            (Some(1), vec![Rival, Primary])
        );
        // Alone it is the primary again: nobody else took its place.
        let verdict = elect(&[known(Some(&restarted))], Some(0), None, &lineage("a"));
        assert_eq!(verdict.primary, Some(0));
    }

    #[test]
    fn the_sentinels_word_decides_and_nobody_stands_in_for_their_choice() {
        let (old, other) = (
            report(Role::Primary, "a", None),
            report(Role::Primary, "x", None),
        );
        let both = [known(Some(&old)), known(Some(&other))];
        assert_eq!(
            elect(&both, Some(0), Some(1), &lineage("a")).primary,
            Some(1)
        );
        let unreachable = [known(Some(&old)), known(None)];
        assert_eq!(
            elect(&unreachable, Some(0), Some(1), &lineage("a")).primary,
            None
        );
        // The one that they are promoting is their next choice, and no other is.
        let promoted = report(Role::Primary, "b", Some("a"));
        let both = [known(None), known(Some(&promoted))];
        assert_eq!(
            elect(&both, Some(0), Some(0), &lineage("a")).primary,
            Some(1)
        );
        let both = [known(None), known(Some(&other))];
        assert_eq!(elect(&both, Some(0), Some(0), &lineage("a")).primary, None);
        // They have not noticed yet that their choice was demoted by hand.
        let demoted = report(Role::Replica, "b", Some("a"));
        let both = [known(Some(&demoted)), known(Some(&promoted))];
        assert_eq!(
            elect(&both, Some(0), Some(0), &lineage("a")).primary,
            Some(1)
        );
    }

    #[test]
    fn a_replica_of_a_replica_is_one_and_never_the_primary() {
        let primary = report(Role::Primary, "a", None);
        let chained = Report {
            source: Some("replica:1".into()),
            ..report(Role::Replica, "a", None)
        };
        let verdict = elect(
            &[new(&chained), new(&primary)],
            None,
            None,
            &Lineage::default(),
        );
        assert_eq!(
            (verdict.primary, verdict.standings),
            (Some(1), vec![Follower, Primary])
        );
        let verdict = elect(
            &[known(Some(&chained)), known(None)],
            Some(1),
            None,
            &lineage("a"),
        );
        assert_eq!(
            (verdict.primary, verdict.standings),
            (None, vec![Follower, Silent])
        );
    }

    #[test]
    fn a_replica_of_another_deployment_is_foreign_and_one_without_a_link_only_behind() {
        let primary = report(Role::Primary, "a", None);
        let other = report(Role::Replica, "x", None);
        let fresh = Report {
            link_up: false,
            ..other.clone()
        };
        let verdict = elect(
            &[new(&primary), new(&other), new(&fresh)],
            None,
            None,
            &Lineage::default(),
        );
        assert_eq!(verdict.standings, [Primary, Foreign, Unsynced]);
    }

    #[test]
    fn what_all_that_is_left_follows_is_the_primary() {
        let stranger = report(Role::Primary, "x", None);
        let follower = report(Role::Replica, "x", None);
        let nodes = [known(None), known(Some(&follower)), new(&stranger)];
        assert_eq!(elect(&nodes, Some(0), None, &lineage("a")).primary, Some(2));
    }
}
