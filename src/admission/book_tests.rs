//! The account, case by case.

use super::*;
use crate::config::{Clients, Limit, Per};

const LISTEN: [&str; 2] = ["127.0.0.1:1", "127.0.0.1:2"];

struct World {
    book: Book,
    rules: RuleSet,
    clients: Clients,
    limits: Vec<Limit>,
}

impl World {
    fn new(max: usize, clients: Clients, limits: Vec<Limit>) -> World {
        let mut book = Book::new(max, [max], 100);
        let rules = rules(&mut book, 0, &clients, &limits);
        World {
            book,
            rules,
            clients,
            limits,
        }
    }

    fn enter(&mut self, who: &Who<'_>) -> Result<Place, NoRoom> {
        self.enter_at(who, 0)
    }

    fn enter_at(&mut self, who: &Who<'_>, now: u64) -> Result<Place, NoRoom> {
        let entered = self.book.enter(0, &self.rules, who, Rate::Counts, now);
        entered.map_err(|no_place| {
            self.book.count_refused(&no_place);
            no_place.why
        })
    }

    fn change(&mut self, place: &mut Place, who: &Who<'_>) -> Result<(), NoRoom> {
        let changed = self.book.change(place, &self.rules, who, 0);
        changed.map_err(|no_place| no_place.why)
    }

    fn set_rules(&mut self, limits: Vec<Limit>) {
        self.limits = limits;
        let shape = self.rules.shape + 1;
        self.rules = rules(&mut self.book, shape, &self.clients, &self.limits);
        self.book.forget_rules(0, &self.rules);
    }
}

fn rules(book: &mut Book, shape: u64, clients: &Clients, limits: &[Limit]) -> RuleSet {
    let listen = LISTEN.map(|address| address.parse().unwrap());
    let rules = RuleSet::new(shape, clients, limits, &listen, |name| book.tally(0, name));
    book.keep_places(0, &rules);
    rules
}

fn limit(name: &str) -> Limit {
    Limit {
        name: name.into(),
        ..Limit::default()
    }
}

fn from(address: &str) -> Who<'static> {
    Who {
        address: address.parse().unwrap(),
        listener: 0,
        user: Some(b"default"),
        name: b"",
        certificate: &[],
    }
}

#[test]
fn each_address_is_held_to_the_ceiling_and_no_other_notices() {
    let each = Limit {
        max_clients: 2,
        ..limit("each")
    };
    let mut world = World::new(10, Clients::default(), vec![each]);
    let first = world.enter(&from("10.0.0.1")).unwrap();
    let _second = world.enter(&from("10.0.0.1")).unwrap();
    assert_eq!(world.enter(&from("10.0.0.1")).unwrap_err(), NoRoom::Ceiling);
    // The same client by another way.
    assert_eq!(
        world.enter(&from("::ffff:10.0.0.1")).unwrap_err(),
        NoRoom::Ceiling
    );
    let _other = world.enter(&from("10.0.0.2")).unwrap();
    let by_address = &first.groups[0];
    assert_eq!((by_address.clients(), by_address.refused_all()), (2, 2));
    world.book.leave(&first);
    let _third = world.enter(&from("10.0.0.1")).unwrap();
}

#[test]
fn a_machine_with_a_network_of_its_own_is_one() {
    let each = Limit {
        max_clients: 1,
        ..limit("each")
    };
    let mut world = World::new(10, Clients::default(), vec![each]);
    let _one = world.enter(&from("2001:db8::1")).unwrap();
    assert_eq!(
        world.enter(&from("2001:db8::2")).unwrap_err(),
        NoRoom::Ceiling
    );
    let _other = world.enter(&from("2001:db8:0:1::1")).unwrap();
}

#[test]
fn what_is_guaranteed_is_there_whoever_else_comes() {
    let app = Limit {
        networks: vec!["10.1.0.0/16".parse().unwrap()],
        guaranteed: 2,
        per: Per::Rule,
        ..limit("app")
    };
    let mut world = World::new(4, Clients::default(), vec![app]);
    let other = world.enter(&from("10.2.0.1")).unwrap();
    let _other = world.enter(&from("10.2.0.1")).unwrap();
    assert_eq!(world.enter(&from("10.2.0.1")).unwrap_err(), NoRoom::Kept);
    let app = world.enter(&from("10.1.0.1")).unwrap();
    assert_eq!(world.enter(&from("10.2.0.1")).unwrap_err(), NoRoom::Kept);
    let _app = world.enter(&from("10.1.0.1")).unwrap();
    assert_eq!(world.enter(&from("10.1.0.1")).unwrap_err(), NoRoom::Process);
    // The share is met: what an outsider leaves is for everybody, what an app leaves is not.
    world.book.leave(&other);
    let _app = world.enter(&from("10.1.0.1")).unwrap();
    world.book.leave(&app);
    let _other = world.enter(&from("10.2.0.1")).unwrap();
}

#[test]
fn operators_have_a_way_in_and_no_limit() {
    let clients = Clients {
        reserved_clients: 1,
        operator_networks: vec!["10.9.0.0/24".parse().unwrap()],
        operator_users: vec!["admin".into()],
        ..Clients::default()
    };
    let each = Limit {
        max_clients: 1,
        ..limit("each")
    };
    let mut world = World::new(3, clients, vec![each]);
    let mut place = world.enter(&from("10.0.0.1")).unwrap();
    let second = world.enter(&from("10.0.0.2")).unwrap();
    let unknown = Who {
        user: None,
        ..from("10.0.0.3")
    };
    // Who has to log in may turn out to be an operator; who is somebody already is not one.
    let no_place = world
        .book
        .enter(0, &world.rules, &unknown, Rate::Counts, 0)
        .unwrap_err();
    assert_eq!(
        (no_place.why, no_place.may_be_kept_a_place),
        (NoRoom::Kept, true)
    );
    let known = from("10.0.0.3");
    let no_place = world
        .book
        .enter(0, &world.rules, &known, Rate::Counts, 0)
        .unwrap_err();
    assert!(!no_place.may_be_kept_a_place);
    let admin = Who {
        user: Some(b"admin"),
        ..from("10.0.0.3")
    };
    let operator = world.enter(&admin).unwrap();
    assert!(operator.is_operator);
    world.book.leave(&operator);
    world.book.leave(&second);
    let _one = world.enter(&from("10.9.0.5")).unwrap();
    let _two = world.enter(&from("10.9.0.5")).unwrap();
    // An application that logs in as an operator is one.
    let admin = Who {
        user: Some(b"admin"),
        ..from("10.0.0.1")
    };
    world.change(&mut place, &admin).unwrap();
    assert!(place.is_operator);
}

#[test]
fn a_client_moves_to_who_it_says_it_is() {
    let batch = Limit {
        client_names: vec!["batch-*".into()],
        per: Per::Rule,
        max_clients: 1,
        ..limit("batch")
    };
    let users = Limit {
        per: Per::User,
        max_clients: 2,
        ..limit("users")
    };
    let mut world = World::new(10, Clients::default(), vec![batch, users]);
    let named = |name: &'static [u8]| Who {
        name,
        ..from("10.0.0.1")
    };
    let mut one = world.enter(&named(b"")).unwrap();
    let mut two = world.enter(&named(b"")).unwrap();
    assert_eq!(world.enter(&named(b"")).unwrap_err(), NoRoom::Ceiling);
    world.change(&mut one, &named(b"batch-1")).unwrap();
    assert_eq!(
        world.change(&mut two, &named(b"batch-2")),
        Err(NoRoom::Ceiling)
    );
    // Its place is free: there was none for who it turned out to be.
    let alice = Who {
        user: Some(b"alice"),
        ..named(b"")
    };
    let _three = world.enter(&alice).unwrap();
    let _four = world.enter(&alice).unwrap();
    assert_eq!(world.change(&mut one, &alice), Err(NoRoom::Ceiling));
    assert_eq!(world.book.process.taken(), 2);
}

#[test]
fn an_accept_rate_has_room_for_a_burst() {
    let each = Limit {
        accept_rate: 10,
        accept_burst: 2,
        ..limit("each")
    };
    let mut world = World::new(10, Clients::default(), vec![each]);
    let _one = world.enter_at(&from("10.0.0.1"), 0).unwrap();
    let two = world.enter_at(&from("10.0.0.1"), 0).unwrap();
    // It is for coming, not for being there.
    world.book.leave(&two);
    let refused = world.enter_at(&from("10.0.0.1"), 50_000).unwrap_err();
    assert_eq!(refused, NoRoom::Rate);
    let _other = world.enter_at(&from("10.0.0.2"), 50_000).unwrap();
    let _three = world.enter_at(&from("10.0.0.1"), 100_000).unwrap();
}

#[test]
fn rules_are_about_those_who_match_all_that_they_name() {
    let both = Limit {
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        listeners: vec![LISTEN[1].parse().unwrap()],
        per: Per::Rule,
        max_clients: 1,
        ..limit("both")
    };
    let mut world = World::new(10, Clients::default(), vec![both]);
    let second = |address| Who {
        listener: 1,
        ..from(address)
    };
    let _one = world.enter(&second("10.0.0.1")).unwrap();
    assert_eq!(
        world.enter(&second("10.0.0.2")).unwrap_err(),
        NoRoom::Ceiling
    );
    let _other_way = world.enter(&from("10.0.0.2")).unwrap();
    let _elsewhere = world.enter(&second("11.0.0.1")).unwrap();
}

#[test]
fn nobody_is_cut_off_when_rules_become_others() {
    let mut world = World::new(10, Clients::default(), Vec::new());
    let mut places: Vec<_> = (0..4)
        .map(|_| world.enter(&from("10.0.0.1")).unwrap())
        .collect();
    world.set_rules(vec![Limit {
        max_clients: 2,
        guaranteed: 5,
        ..limit("each")
    }]);
    assert_eq!(world.book.process.kept(), 5);
    for place in &mut places {
        assert_ne!(place.shape, world.rules.shape);
        world.change(place, &from("10.0.0.1")).unwrap();
        assert_eq!(place.shape, world.rules.shape);
    }
    assert_eq!(
        (world.book.process.taken(), world.book.process.kept()),
        (4, 1)
    );
    assert_eq!(world.enter(&from("10.0.0.1")).unwrap_err(), NoRoom::Ceiling);
    for place in &places[..3] {
        world.book.leave(place);
    }
    let _one = world.enter(&from("10.0.0.1")).unwrap();
    world.set_rules(Vec::new());
    assert_eq!(world.book.process.kept(), 0);
}

#[test]
fn accounts_are_bounded_and_who_comes_late_shares_one() {
    let each = Limit {
        max_clients: 1,
        ..limit("each")
    };
    let mut world = World::new(1000, Clients::default(), vec![each]);
    // Two accounts for each address: its own and that of the rule.
    let places: Vec<_> = (0..50)
        .map(|last| world.enter(&from(&format!("10.0.0.{last}"))).unwrap())
        .collect();
    let late = world.enter(&from("10.0.1.1")).unwrap();
    assert_eq!(late.groups[0].key, Key::Others);
    assert_eq!(world.enter(&from("10.0.1.2")).unwrap_err(), NoRoom::Ceiling);
    assert!(
        world.book.groups.len() <= 102,
        "{}",
        world.book.groups.len()
    );
    // Accounts of those who have gone make room for others.
    places.iter().for_each(|place| world.book.leave(place));
    for last in 0..200 {
        let place = world.enter(&from(&format!("10.0.2.{last}"))).unwrap();
        assert_ne!(place.groups[0].key, Key::Others);
        world.book.leave(&place);
    }
    assert!(
        world.book.groups.len() <= 102,
        "{}",
        world.book.groups.len()
    );
    assert!(world.book.empty.len() <= 102, "{}", world.book.empty.len());
}
