//! The account under everything that can happen, in any order.

use proptest::prelude::*;

use super::*;
use crate::config::{Clients, Limit, Per};

const MAX: usize = 12;

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    Come(Person),
    /// The client with this number says that it is somebody else.
    Say(usize, Person),
    Leave(usize),
    /// The rules become others: which of them are there.
    Rules(u8),
    Max(usize),
}

#[derive(Clone, Debug)]
struct Person {
    address: u8,
    user: Option<u8>,
    name: u8,
}

fn person() -> impl Strategy<Value = Person> {
    (0..6_u8, proptest::option::of(0..3_u8), 0..3_u8).prop_map(|(address, user, name)| Person {
        address,
        user,
        name,
    })
}

fn steps(with_changes: bool) -> impl Strategy<Value = Vec<Step>> {
    let change = u32::from(with_changes);
    let step = prop_oneof![
        6 => person().prop_map(Step::Come),
        2 * change => (any::<usize>(), person()).prop_map(|(at, person)| Step::Say(at, person)),
        3 => any::<usize>().prop_map(Step::Leave),
        change => any::<u8>().prop_map(Step::Rules),
        change => (1..MAX).prop_map(Step::Max),
    ];
    proptest::collection::vec(step, 1..120)
}

fn limits(which: u8) -> Vec<Limit> {
    let all = [
        Limit {
            name: "each".into(),
            max_clients: 4,
            ..Limit::default()
        },
        Limit {
            name: "app".into(),
            networks: vec!["10.0.0.0/31".parse().unwrap()],
            guaranteed: 3,
            per: Per::Rule,
            ..Limit::default()
        },
        Limit {
            name: "users".into(),
            per: Per::User,
            max_clients: 3,
            ..Limit::default()
        },
        Limit {
            name: "batch".into(),
            client_names: vec!["1".into()],
            per: Per::Rule,
            max_clients: 2,
            guaranteed: 1,
            ..Limit::default()
        },
    ];
    let is_there = |index: &usize| which & (1 << index) != 0;
    (0..all.len())
        .filter(is_there)
        .map(|index| all[index].clone())
        .collect()
}

struct World {
    book: Book,
    clients: Clients,
    rules: RuleSet,
    max: usize,
    there: Vec<(Place, Person)>,
}

impl World {
    fn new(which: u8) -> World {
        let clients = Clients {
            operator_users: vec!["2".into()],
            reserved_clients: 2,
            ..Clients::default()
        };
        let mut book = Book::new(MAX, [MAX], 1000);
        let rules = Self::rules(&mut book, &clients, 0, which);
        World {
            book,
            clients,
            rules,
            max: MAX,
            there: Vec::new(),
        }
    }

    fn rules(book: &mut Book, clients: &Clients, shape: u64, which: u8) -> RuleSet {
        let rules = RuleSet::new(shape, clients, &limits(which), &[], |name| {
            book.tally(0, name)
        });
        book.keep_places(0, &rules);
        book.forget_rules(0, &rules);
        rules
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Come(person) => {
                let before: Vec<_> = self
                    .there
                    .iter()
                    .map(|(place, _)| place.groups.len())
                    .collect();
                let entered = with(&person, |who| {
                    self.book.enter(0, &self.rules, who, Rate::Counts, 0)
                });
                match entered {
                    Ok(place) => {
                        assert!(self.book.process.taken() <= self.max);
                        self.assert_ceilings(&place);
                        self.there.push((place, person));
                    }
                    Err(_) => assert_eq!(before.len(), self.book.process.taken()),
                }
            }
            Step::Say(at, person) if !self.there.is_empty() => {
                let at = at % self.there.len();
                let (mut place, _) = self.there.swap_remove(at);
                let had = place.groups.clone();
                let grown = place.shape == self.rules.shape;
                let changed = with(&person, |who| {
                    self.book.change(&mut place, &self.rules, who, 0)
                });
                if changed.is_ok() {
                    let news = place.groups.iter().filter(|group| !contains(&had, group));
                    news.filter(|_| grown)
                        .for_each(|group| self.assert_ceiling(group));
                    self.there.push((place, person));
                }
            }
            Step::Leave(at) if !self.there.is_empty() => {
                let at = at % self.there.len();
                let (place, _) = self.there.swap_remove(at);
                self.book.leave(&place);
            }
            Step::Rules(which) => {
                let shape = self.rules.shape + 1;
                self.rules = Self::rules(&mut self.book, &self.clients, shape, which);
            }
            Step::Max(max) => {
                self.max = max;
                self.book.set_max(max, [max]);
            }
            Step::Say(..) | Step::Leave(_) => {}
        }
        self.assert_true();
    }

    fn assert_ceilings(&self, place: &Place) {
        place
            .groups
            .iter()
            .for_each(|group| self.assert_ceiling(group));
    }

    fn assert_ceiling(&self, group: &Arc<Group>) {
        let rule = self
            .rules
            .rules
            .iter()
            .find(|rule| Arc::ptr_eq(&rule.tally, &group.rule));
        let ceiling = rule.map_or(0, |rule| rule.max_clients);
        assert!(ceiling == 0 || group.clients() <= ceiling, "{group:?}");
    }

    /// The account is what counting everybody gives.
    fn assert_true(&self) {
        assert_eq!(self.book.process.taken(), self.there.len());
        assert_eq!(self.book.routes[0].taken(), self.there.len());
        for (place, _) in &self.there {
            for group in &place.groups {
                let those = self.there.iter();
                let with_it = |(place, _): &&(Place, Person)| contains(&place.groups, group);
                assert_eq!(group.clients(), those.filter(with_it).count());
            }
        }
        let mut kept = 0;
        for tally in &self.book.tallies {
            let those = self.there.iter().flat_map(|(place, _)| &place.groups);
            assert_eq!(
                tally.clients(),
                those
                    .filter(|group| Arc::ptr_eq(&group.rule, tally))
                    .count()
            );
            kept += tally.unmet();
        }
        assert_eq!(self.book.process.kept(), kept);
        assert_eq!(self.book.routes[0].kept(), kept);
    }
}

fn with<R>(person: &Person, visit: impl FnOnce(&Who<'_>) -> R) -> R {
    let user = person.user.map(|user| user.to_string());
    let name = if person.name == 0 {
        String::new()
    } else {
        person.name.to_string()
    };
    visit(&Who {
        address: std::net::Ipv4Addr::new(10, 0, 0, person.address).into(),
        listener: 0,
        user: user.as_ref().map(|user| user.as_bytes()),
        name: name.as_bytes(),
        certificate: &[],
    })
}

proptest! {
    /// Never above a ceiling, and places come back however a client leaves.
    #[test]
    fn the_account_is_exact(which in 0..16_u8, steps in steps(true)) {
        let mut world = World::new(which);
        for step in steps {
            world.take(step);
        }
        for (place, _) in std::mem::take(&mut world.there) {
            world.book.leave(&place);
        }
        world.assert_true();
        prop_assert_eq!(world.book.process.taken(), 0);
    }

    /// Whoever has a share finds a place for as long as it is not used up, and by how much
    /// others want it does not matter.
    #[test]
    fn shares_are_always_there(which in 0..16_u8, steps in steps(false)) {
        let mut world = World::new(which);
        for step in steps {
            world.take(step);
            let (taken, kept) = (world.book.process.taken(), world.book.process.kept());
            prop_assert!(taken + kept <= MAX, "{} taken, {} kept", taken, kept);
        }
    }
}
