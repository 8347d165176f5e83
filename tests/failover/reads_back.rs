//! A session's reads go back to the primary while some of them are still at a replica.

use super::support::{RawClient, Replicas, encode, wait_until};
use super::weir_before;

/// A replica that stands still is taken neither for one that hangs nor for one that lags.
const PATIENT: &str = "[process]\nworkers = 1\n\
    [route.main.clients]\noperator_networks = \"127.0.0.1\"\n\
    [route.main.timeouts]\nstall = \"60s\"\nrequest = \"60s\"\n\
    [route.main.health]\nsilence_max = \"60s\"\n\
    [route.main.overload]\nin_flight = 100\n\
    [route.main.failover]\nreplica_lag_max = \"1h\"\nread_from = \"prefer_replica\"\n";

/// What comes behind a read that is under way goes to the primary, not after the read: a
/// message that a replica gets reaches nobody at the primary.
#[test]
fn what_follows_a_read_at_a_replica_goes_to_the_primary() {
    let mut replicas = Replicas::start(2);
    let weir = weir_before(&replicas, PATIENT);
    let (mut client, mut operator) = (weir.client(), weir.client());
    let label = format!("node=\"{}\"", replicas.nodes[1].address());
    wait_until("the replica may serve", || {
        weir.metric("weir_node_read_weight", &[&label]) == 1.0
    });
    // So that its connections are there.
    client.expect_command(&["SET", "k", "v"], "+OK\r\n");
    replicas.wait_until_caught_up(1, 0);
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
    wait_until("nothing is under way", || {
        weir.metric("weir_commands_in_flight", &[]) == 0.0
    });
    let mut subscriber = replicas.nodes[0].client();
    subscriber.expect_command(
        &["SUBSCRIBE", "news"],
        "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n",
    );

    replicas.nodes[1].stop();
    client.send(encode(&["GET", "k"]));
    wait_until("it is under way", || {
        weir.metric("weir_commands_in_flight", &[]) == 1.0
    });
    set(&mut operator, "route.main.failover.read_from", "primary");
    // The worker takes over all settings at once, so this tells of the other one as well.
    set(&mut operator, "route.main.overload.in_flight", "7");
    wait_until("the settings are in force", || {
        let limit = weir.metric("weir_in_flight_limit", &[]);
        limit > 0.0 && limit < 100.0
    });
    let received = || weir.metric("weir_bytes_total", &["side=\"client\"", "direction=\"in\""]);
    let before = received();
    let behind = [encode(&["PUBLISH", "news", "hello"]), encode(&["GET", "k"])].concat();
    client.send(&behind);
    wait_until("they were received", || {
        received() == before + behind.len() as f64
    });
    replicas.nodes[1].cont();
    client.expect("$1\r\nv\r\n:1\r\n$1\r\nv\r\n");
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
}

fn set(operator: &mut RawClient, key: &str, value: &str) {
    operator.expect_command(&["WEIR", "CONFIG", "SET", key, value], "+OK\r\n");
}
