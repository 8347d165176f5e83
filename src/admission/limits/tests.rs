use super::settings::NUMBER_MAX;
use super::*;

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
