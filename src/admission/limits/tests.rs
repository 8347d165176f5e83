use super::settings::NUMBER_MAX;
use super::*;
use crate::admission::{Priority, Terms};

fn limits() -> Arc<Limits> {
    let text = "process.max_clients = 100
        [route.main]
        backend = \"h:1\"
        [route.main.limits.each]
        max_clients = 1";
    Limits::new(
        &Config::parse("weir.toml", text).expect("a configuration"),
        1,
    )
}

fn who() -> Who<'static> {
    Who {
        address: "10.0.0.1".parse().expect("an address"),
        listener: 0,
        user: Some(b"default"),
        name: b"",
        certificate: &[],
    }
}

#[test]
fn numbers_are_set_while_clients_are_there() {
    let limits = limits();
    let _first = limits.enter(0, &who(), 0).expect("room");
    assert_eq!(limits.enter(0, &who(), 0).unwrap_err().why, NoRoom::Ceiling);
    limits
        .set("main", "each", "max_clients", "2")
        .expect("can be set");
    let second = limits.enter(0, &who(), 0).expect("room");
    limits
        .set("main", "each", "max_clients", "1")
        .expect("can be set");
    // Nobody is cut off, and nobody comes in before there are fewer.
    assert_eq!(limits.taken(), 2);
    drop(second);
    assert_eq!(limits.enter(0, &who(), 0).unwrap_err().why, NoRoom::Ceiling);
    limits
        .set("main", "each", "max_clients", "0")
        .expect("can be set");
    limits
        .set("main", "clients", "max_clients", "1")
        .expect("can be set");
    assert_eq!(limits.enter(0, &who(), 0).unwrap_err().why, NoRoom::Route);
    let set = limits.get().into_iter();
    let values: Vec<_> = set
        .map(|setting| (setting.rule, setting.key, setting.value))
        .collect();
    assert_eq!(values[0], ("clients".to_owned(), "max_clients", 1));
    assert_eq!(values[2], ("each".to_owned(), "max_clients", 0));
}

#[test]
fn what_can_not_be_set_so_changes_nothing() {
    let limits = limits();
    let before = limits.get();
    let set = |route, rule, key, value| limits.set(route, rule, key, value).unwrap_err();
    assert_eq!(set("x", "each", "max_clients", "1"), SetError::Route);
    assert_eq!(set("main", "x", "max_clients", "1"), SetError::Rule);
    assert_eq!(set("main", "each", "x", "1"), SetError::Key(RULE_KEYS));
    let value = SetError::Value {
        min: 0,
        max: NUMBER_MAX,
    };
    assert_eq!(set("main", "each", "guaranteed", "many"), value);
    let value = SetError::Value { min: 1, max: 100 };
    assert_eq!(set("main", "clients", "max_clients", "101"), value);
    let shares = SetError::Shares {
        max: 100,
        kept: 101,
    };
    assert_eq!(set("main", "each", "guaranteed", "101"), shares);
    assert_eq!(limits.get(), before);
}

#[test]
fn a_permit_that_outlives_its_rules_is_counted_anew() {
    let limits = limits();
    let permit = limits.enter(0, &who(), 0).expect("room");
    assert!(!permit.is_outdated());
    limits
        .set("main", "each", "guaranteed", "10")
        .expect("can be set");
    assert!(permit.is_outdated());
    assert_eq!(limits.route_kept(0), 10);
    let permit = permit.become_who(&who(), 0).expect("it has a place");
    assert_eq!(limits.route_kept(0), 9);
    drop(permit);
    assert_eq!((limits.taken(), limits.route_kept(0)), (0, 10));
}

#[test]
fn the_first_rule_that_says_anything_of_a_client_s_commands_says_it() {
    let text = "process.max_clients = 100
        [route.main]
        backend = \"h:1\"
        clients.operator_networks = \"10.9.0.0/16\"
        [route.main.limits.others]
        networks = \"10.7.0.0/16\"
        priority = \"high\"
        [route.main.limits.rate]
        commands_rate = 10
        refuse_writes_above_memory = 0.5
        [route.main.limits.low]
        priority = \"low\"
        fail_open = \"off\"
        [route.main.limits.high]
        priority = \"high\"
        fail_open = \"on\"
        refuse_writes_above_memory = 0.7";
    let config = Config::parse("weir.toml", text).expect("a configuration");
    let limits = Limits::new(&config, 1);
    let permit = limits.enter(0, &who(), 0).expect("room");
    let expected = Terms {
        priority: Priority::Low,
        fail_open: Some(false),
        refuse_writes_above: Some(0.5),
    };
    assert_eq!(permit.terms(), expected);
    assert_eq!(permit.refuses_writes_by().as_deref(), Some("rate"));
    let metered: Vec<_> = permit.metered().map(|group| &*group.rule.name).collect();
    assert_eq!(metered, ["rate"]);
    assert_eq!(limits.rules(0).refuse_writes_above(), Some(0.5));
    let operator = Who {
        address: "10.9.0.1".parse().expect("an address"),
        ..who()
    };
    let operator = limits.enter(0, &operator, 0).expect("room");
    assert_eq!(operator.terms().priority, Priority::High);
    assert_eq!(operator.metered().count(), 0);
    // A rule that says something else is known to those who are there.
    let text = text.replace("refuse_writes_above_memory = 0.5", "");
    limits.reload(&Config::parse("weir.toml", &text).expect("a configuration"));
    assert!(permit.is_outdated());
    let permit = permit.become_who(&who(), 0).expect("it has a place");
    assert_eq!(permit.terms().refuse_writes_above, Some(0.7));
}

#[test]
fn who_is_over_a_rate_is_told_once_and_stands_among_those_who_were_refused() {
    let text = "process.max_clients = 100
        [route.main]
        backend = \"h:1\"
        [route.main.limits.each]
        commands_rate = 10";
    let config = Config::parse("weir.toml", text).expect("a configuration");
    let limits = Limits::new(&config, 1);
    let permit = limits.enter(0, &who(), 0).expect("room");
    let group = permit.metered().next().expect("a rate");
    for _ in 0..7 {
        limits.count_over_rate(group, Metered::Commands, 0);
        permit
            .groups()
            .iter()
            .for_each(|group| group.count_commands_refused(1));
    }
    let notices = limits.watch(1_000_000);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(notices[0].setting, "limits.each.commands_rate");
    assert_eq!((notices[0].max, notices[0].refuses), (10, "commands"));
    limits.count_over_rate(group, Metered::Commands, 2_000_000);
    assert_eq!(limits.watch(2_000_000), []);
    assert_eq!(limits.watch(11_000_000), []);
    let notices = limits.watch(13_000_000);
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert_eq!(notices[0].what, super::super::watch::What::Cleared);
    assert_eq!(group.rule.over_rate(Metered::Commands), 8);
    let top = limits.top(5);
    assert_eq!((top.len(), top[0].commands_refused), (1, 7));
}

#[test]
fn there_are_as_many_accounts_as_a_reload_says() {
    let config = |accounts: u32| {
        let text = format!(
            "process.identities_max = {accounts}
            [route.main]
            backend = \"h:1\"
            [route.main.limits.each]
            max_clients = 1"
        );
        Config::parse("weir.toml", &text).expect("a configuration")
    };
    let limits = Limits::new(&config(1), 1);
    let from = |last: u8| Who {
        address: [10, 0, 0, last].into(),
        ..who()
    };
    let _one = limits.enter(0, &from(1), 0).expect("room");
    // The rule counts all others together.
    assert_eq!(
        limits.enter(0, &from(2), 0).unwrap_err().why,
        NoRoom::Ceiling
    );
    limits.reload(&config(10));
    let _two = limits.enter(0, &from(2), 0).expect("an account of its own");
}
