//! Ceilings, shares and operators.

use crate::support::{RedisServer, WeirProcess, wait_until};
use crate::{REFUSED, comes_in, from, is_in, weir};

const CEILING: usize = 5;

/// So many clients were refused by a limit for this reason.
fn wait_for_refused(weir: &WeirProcess, (limit, reason): (&str, &str), count: usize) {
    let labels = [format!("limit=\"{limit}\""), format!("reason=\"{reason}\"")];
    let labels = [&*labels[0], &labels[1]];
    weir.wait_for_metric("weir_limit_refused_total", &labels, count as f64);
}

#[test]
fn each_address_is_held_to_its_ceiling_and_others_come_in() {
    let redis = RedisServer::start();
    let limits = format!("[route.main.limits.each]\nmax_clients = {CEILING}");
    let weir = weir(&redis, "", &limits);
    let mut leaked: Vec<_> = (0..4 * CEILING).map(|_| from(&weir, "127.0.0.2")).collect();
    let mut there: Vec<bool> = leaked.iter_mut().map(is_in).collect();
    assert_eq!(there.iter().filter(|there| **there).count(), CEILING);
    wait_for_refused(&weir, ("each", "limit_max_clients"), 3 * CEILING);
    for host in 3..8 {
        assert!(is_in(&mut from(&weir, &format!("127.0.0.{host}"))));
    }
    // One leaves, one comes.
    let place = there.iter().position(|there| *there).expect("some are in");
    there.remove(place);
    drop(leaked.remove(place));
    let _next = comes_in(&weir, "127.0.0.2");
    assert!(!is_in(&mut from(&weir, "127.0.0.2")));
}

#[test]
fn places_that_are_guaranteed_wait_for_their_clients() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "max_clients = 6",
        "[route.main.limits.app]
         networks = \"127.0.1.0/24\"
         per = \"rule\"
         guaranteed = 4",
    );
    let mut others: Vec<_> = (0..2).map(|_| comes_in(&weir, "127.0.0.2")).collect();
    assert!(!is_in(&mut from(&weir, "127.0.0.3")));
    weir.wait_for_metric("weir_clients_kept", &[], 4.0);
    let mut apps: Vec<_> = (0..4)
        .map(|host| from(&weir, &format!("127.0.1.{host}")))
        .collect();
    assert!(apps.iter_mut().all(is_in));
    assert!(!is_in(&mut from(&weir, "127.0.1.9")));
    // The share is met: what others leave is for whoever comes.
    drop(others.pop());
    apps.push(comes_in(&weir, "127.0.1.9"));
    wait_for_refused(&weir, ("address", "kept_for_others"), 1);
}

#[test]
fn an_operator_gets_in_by_network_or_by_login_when_all_is_taken() {
    let redis = RedisServer::start();
    let mut direct = redis.client();
    direct.expect_command(
        &["ACL", "SETUSER", "admin", "on", ">secret", "+@all"],
        "+OK\r\n",
    );
    direct.expect_command(
        &["ACL", "SETUSER", "app", "on", ">word", "+@all", "~*"],
        "+OK\r\n",
    );
    let weir = weir(
        &redis,
        "max_clients = 4",
        "reserved_clients = 2
         operator_networks = \"127.9.0.0/16\"
         operator_users = \"admin\"",
    );
    direct.expect_command(
        &["ACL", "SETUSER", "default", "resetpass", ">none"],
        "+OK\r\n",
    );
    // Clients that have to log in now.
    let login = |user: &str, password: &str| {
        let mut client = from(&weir, "127.0.0.2");
        let reply = client.command(&["AUTH", user, password]);
        (client, reply)
    };
    let mut apps = Vec::new();
    wait_until("Weir knows that clients have to log in", || {
        from(&weir, "127.0.0.9")
            .command(&["PING"])
            .starts_with(b"-NOAUTH")
    });
    wait_until("the look is over", || {
        weir.metric("weir_clients_connected", &[]) == 0.0
    });
    for _ in 0..2 {
        let (client, reply) = login("app", "word");
        assert_eq!(reply, b"+OK\r\n");
        apps.push(client);
    }
    // Who is not an operator finds out behind the login, that could have made it one.
    let (mut client, reply) = login("app", "word");
    assert_eq!(reply, b"+OK\r\n");
    client.expect_command(&["PING"], REFUSED);
    client.expect_closed();
    let (mut admin, reply) = login("admin", "secret");
    assert_eq!(reply, b"+OK\r\n");
    admin.expect_command(&["PING"], "+PONG\r\n");
    let mut operator = from(&weir, "127.9.0.1");
    operator.expect_command(&["AUTH", "app", "word"], "+OK\r\n");
    operator.expect_command(&["PING"], "+PONG\r\n");
    for app in &mut apps {
        app.expect_command(&["PING"], "+PONG\r\n");
    }
    weir.wait_for_metric("weir_limit_clients", &["limit=\"operators\""], 2.0);
}

#[test]
fn who_takes_a_name_is_counted_by_it_and_refused_at_its_ceiling() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "",
        "[route.main.limits.batch]
         client_names = \"batch-*\"
         per = \"rule\"
         max_clients = 1
         [route.main.limits.names]
         per = \"name\"
         max_clients = 2",
    );
    let mut one = weir.client();
    one.expect_command(&["CLIENT", "SETNAME", "batch-1"], "+OK\r\n");
    one.expect_command(&["PING"], "+PONG\r\n");
    let mut two = weir.client();
    two.expect_command(&["CLIENT", "SETNAME", "batch-2"], "+OK\r\n");
    two.expect_command(&["PING"], REFUSED);
    two.expect_closed();
    one.expect_command(&["CLIENT", "SETNAME", "web"], "+OK\r\n");
    let mut three = weir.client();
    assert!(
        three
            .command(&["HELLO", "2", "SETNAME", "batch-3"])
            .starts_with(b"*14\r\n")
    );
    three.expect_command(&["PING"], "+PONG\r\n");
    one.expect_command(&["RESET"], "+RESET\r\n");
    one.expect_command(&["PING"], "+PONG\r\n");
    // Each name has as much, and who has none is not counted by it.
    let mut named: Vec<_> = (0..3).map(|_| weir.client()).collect();
    for client in &mut named {
        client.expect_command(&["CLIENT", "SETNAME", "report"], "+OK\r\n");
    }
    assert_eq!(
        named.iter_mut().map(is_in).filter(|there| *there).count(),
        2
    );
    assert!((0..4).all(|_| is_in(&mut weir.client())));
}

#[test]
fn each_address_may_come_at_its_rate_and_others_do_not_wait() {
    let redis = RedisServer::start();
    let weir = weir(
        &redis,
        "",
        "[route.main.limits.each]
         networks = \"127.0.0.2\"
         accept_rate = 1
         accept_burst = 10",
    );
    let there = (0..40)
        .filter(|_| is_in(&mut from(&weir, "127.0.0.2")))
        .count();
    // A busy machine takes a while for these, and more may come meanwhile.
    assert!((10..35).contains(&there), "{there} of 40 came in");
    wait_for_refused(&weir, ("each", "limit_accept_rate"), 40 - there);
    assert!((0..40).all(|_| is_in(&mut from(&weir, "127.0.0.3"))));
}
