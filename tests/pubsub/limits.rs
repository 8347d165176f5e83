//! What one client may take.

use super::support::{RedisServer, encode};
use super::{confirmation, connections, subscriber, weir};

#[test]
fn a_client_may_be_subscribed_to_so_much_and_no_more() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = weir.client();
    let names: Vec<String> = (0..100_000).map(|number| format!("c{number}")).collect();
    let of = |word: &str, count: usize| {
        let mut words = vec![word];
        words.extend(names[..count].iter().map(String::as_str));
        encode(&words)
    };
    client.send(of("SUBSCRIBE", 100_000));
    client.expect(
        "-ERR weir: more than 65536 subscriptions of one client (clients.subscriptions_max), \
         command not executed\r\n",
    );
    client.expect_command(&["PING"], "+PONG\r\n");
    assert_eq!(connections(&weir), 0.0);
    client.send(of("SUBSCRIBE", 65_536));
    for (index, name) in names[..65_536].iter().enumerate() {
        client.expect(confirmation(2, "subscribe", name, index + 1));
    }
    let reply = client.command(&["SUBSCRIBE", "one more"]);
    assert!(reply.starts_with(b"-ERR weir: "));
    let mut publisher = weir.client();
    publisher.expect_command(&["PUBLISH", "c65535", "m"], ":1\r\n");
    client.send(encode(&["UNSUBSCRIBE"]));
    client.read_reply();
    for left in (0..65_536).rev() {
        let reply = client.read_reply();
        assert!(reply.ends_with(format!(":{left}\r\n").as_bytes()));
    }
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
}

#[test]
fn subscriptions_in_a_transaction_are_for_those_who_have_none() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let mut client = subscriber(&weir, 3, &["x"]);
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["SET", "k", "v"], "+QUEUED\r\n");
    client.expect_command(&["SUBSCRIBE", "y"], "+QUEUED\r\n");
    let reply = client.command(&["EXEC"]);
    assert!(reply.starts_with(b"-EXECABORT "));
    client.expect_command(&["GET", "k"], "_\r\n");
    for command in [&["MONITOR"][..], &["SYNC"]] {
        assert!(client.command(command).starts_with(b"-ERR weir: "));
    }
    client.expect_command(
        &["UNSUBSCRIBE", "x"],
        confirmation(3, "unsubscribe", "x", 0),
    );
}
