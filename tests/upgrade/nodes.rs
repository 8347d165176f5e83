//! A route with several nodes: all are asked before one is taken for the primary.

use super::chain::{Chain, config};
use super::support::{RedisServer, Replicas, WeirProcess};

#[test]
fn the_new_process_asks_all_nodes_before_it_follows_one() {
    let rival = RedisServer::start();
    let replicas = Replicas::start(2);
    let nodes = format!(
        "topology = \"replicated\"\nnodes = [\"{}\", \"{}\", \"{}\"]\nmax_connections = 4\n",
        rival.address(),
        replicas.nodes[0].address(),
        replicas.nodes[1].address(),
    );
    // So long that the upgrade would be given up if it had to wait for its end.
    let slow = "[route.main.timeouts]\nconnect = \"120s\"\nrequest = \"130s\"\n";
    let settings = config("", &nodes, slow).replace("address = \"{backend}\"\n", "");
    let mut chain = Chain::of(WeirProcess::with_config(&rival, &settings));
    let mut client = chain.weir.client();
    client.expect_command(&["SET", "before", "v"], "+OK\r\n");
    chain.upgrade();
    let mut client = chain.weir.client();
    client.expect_command(&["SET", "after", "v"], "+OK\r\n");
    chain.wait_for_elders();
    chain.wait_for_budget(1);
    client.expect_command(&["GET", "after"], "$1\r\nv\r\n");
    let mut primary = replicas.nodes[0].client();
    primary.expect_command(&["DBSIZE"], ":2\r\n");
    assert_eq!(rival.command(&["DBSIZE"]), b":0\r\n");
    let log = chain.weir.log();
    let followed = format!("node={} primary", rival.address());
    assert!(!log.contains(&followed), "{log}");
}
