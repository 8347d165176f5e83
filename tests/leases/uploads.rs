//! A connection that one client holds alone goes back when what it was for is over.

use super::support::{RedisServer, WeirProcess, encode, wait_until};

/// Found by tests/model with WEIR_TEST_SEED=1795162587895453474: the lease stayed, with
/// the protocol version it was opened for.
#[test]
fn a_large_request_that_became_whole_while_it_waited_gives_its_lease_back() {
    let redis = RedisServer::start();
    let weir = WeirProcess::with_config(
        &redis,
        r#"
        [process]
        workers = 1
        [admin]
        listen = "{admin}"
        [route.main]
        listen = "{listen}"
        # Reads on while the request waits.
        clients.pipeline_buffer = "1MiB"
        [route.main.backend]
        address = "{backend}"
        max_leases = 1
        lease_wait = "20s"
        "#,
    );
    let mut holder = weir.client();
    holder.expect_command(&["WATCH", "key"], "+OK\r\n");

    let mut client = weir.client();
    let value = "x".repeat(100_000);
    let mut requests = encode(&["SET", "large", &value]);
    let (beginning, rest) = requests.split_at(1_000);
    client.send(beginning);
    let waiting = || weir.metric("weir_leases_waiting", &[]) == 1.0;
    wait_until("the request waits for a lease", waiting);
    let came_in = [r#"side="client""#, r#"direction="in""#];
    let before = weir.metric("weir_bytes_total", &came_in);
    client.send(rest);
    let arrived = rest.len() as f64;
    wait_until("the request is there", || {
        weir.metric("weir_bytes_total", &came_in) >= before + arrived
    });
    holder.expect_command(&["UNWATCH"], "+OK\r\n");

    client.expect("+OK\r\n");
    requests = encode(&["HELLO", "3"]);
    requests.extend(encode(&["GET", "absent"]));
    client.send(requests);
    assert!(client.read_reply().starts_with(b"%7\r\n"));
    client.expect("_\r\n");
    weir.wait_for_metric("weir_leases_held", &[], 0.0);
    holder.expect_command(&["WATCH", "key"], "+OK\r\n");
}
