//! Commands and bytes a second by rule.

use crate::support::{RawClient, RedisServer, WeirProcess, encode, wait_until};
use crate::{from, weir};

const COMMANDS: &str = "-BUSY weir: more commands a second than a rule allows \
                        (limits.greedy.commands_rate), command not executed\r\n";
const BYTES: &str = "-BUSY weir: more bytes a second than a rule allows \
                     (limits.greedy.bytes_rate), command not executed\r\n";

/// Weir with a rule for clients that call themselves greedy; operators come from 127.9.
fn with_rule(redis: &RedisServer, rule: &str) -> WeirProcess {
    weir(
        redis,
        "workers = 2",
        &format!(
            "operator_networks = \"127.9.0.0/16\"
             [route.main.limits.greedy]
             client_names = \"greedy*\"
             per = \"rule\"
             {rule}"
        ),
    )
}

fn greedy(weir: &WeirProcess) -> RawClient {
    let mut client = weir.client();
    client.expect_command(&["CLIENT", "SETNAME", "greedy-1"], "+OK\r\n");
    client
}

/// A client that has used up its bytes for the next quarter of an hour.
fn indebted(redis: &RedisServer, weir: &WeirProcess) -> RawClient {
    let megabyte = "x".repeat(1024 * 1024);
    redis
        .client()
        .expect_command(&["SET", "big", &megabyte], "+OK\r\n");
    let mut client = greedy(weir);
    assert!(client.command(&["GET", "big"]).len() > megabyte.len());
    client
}

fn wait_for_shed(weir: &WeirProcess, limit: &str, count: f64) {
    let limit = format!("limit=\"{limit}\"");
    weir.wait_for_metric("weir_shed_total", &[&limit], count);
}

#[test]
fn who_asks_for_more_than_a_rule_allows_is_refused_in_turn_and_at_no_cost() {
    let redis = RedisServer::start();
    let mut weir = with_rule(&redis, "commands_rate = 1\ncommands_burst = 10");
    let mut client = greedy(&weir);
    let mut batch = encode(&["INCR", "n"]).repeat(12);
    // What Weir answers itself is not counted.
    batch.extend(encode(&["CLIENT", "GETNAME"]));
    batch.extend(encode(&["PUBLISH", "c", "m"]));
    client.send(batch);
    for number in 1..=10 {
        client.expect(format!(":{number}\r\n"));
    }
    client.expect([COMMANDS, COMMANDS, "$8\r\ngreedy-1\r\n", COMMANDS].concat());
    // Others are not concerned, and nothing that was refused has run.
    let mut other = weir.client();
    for _ in 0..50 {
        other.expect_command(&["GET", "n"], "$2\r\n10\r\n");
    }
    wait_for_shed(&weir, "limit_commands_rate", 3.0);
    weir.wait_for_metric("weir_errors_total", &["cause=\"busy\""], 3.0);
    assert_eq!(weir.metric("weir_shedding", &[]), 0.0);
    let of_rule = ["limit=\"greedy\"", "rate=\"commands_rate\""];
    weir.wait_for_metric("weir_limit_commands_refused_total", &of_rule, 3.0);
    weir.wait_for_metric("weir_limit_used_total", &of_rule, 10.0);
    let whose = ["limit=\"address\"", "identity=\"127.0.0.1\""];
    weir.wait_for_metric("weir_identity_commands_refused_total", &whose, 3.0);
    wait_until("the page shows it", || {
        let overview = weir.get("/overview/minutes.json").1;
        overview.contains("\"commands_refused\":3")
    });
    weir.wait_for_log("limits.greedy.commands_rate is reached: commands are refused");
    // After a while there are some again.
    wait_until("the rate goes on", || {
        client.command(&["GET", "n"]) == b"$2\r\n10\r\n"
    });
}

#[test]
fn a_rate_is_one_for_all_workers() {
    let redis = RedisServer::start();
    let weir = with_rule(&redis, "commands_rate = 1\ncommands_burst = 100");
    let mut clients: Vec<_> = (0..6).map(|_| greedy(&weir)).collect();
    for client in &mut clients {
        client.send(encode(&["INCR", "n"]).repeat(50));
    }
    let mut served = 0;
    for client in &mut clients {
        for _ in 0..50 {
            let reply = client.read_reply();
            match reply.first() {
                Some(b':') => served += 1,
                _ => assert_eq!(reply, COMMANDS.as_bytes(), "{}", reply.escape_ascii()),
            }
        }
    }
    // As many as may come at once, and one for each second that has passed since.
    assert!((100..150).contains(&served), "{served}");
    let counted = redis.command(&["GET", "n"]);
    assert_eq!(counted, format!("$3\r\n{served}\r\n").into_bytes());
}

#[test]
fn a_reply_that_costs_more_than_there_is_is_paid_for_before_the_next_command() {
    let redis = RedisServer::start();
    let weir = with_rule(&redis, "bytes_rate = \"1KiB\"");
    let mut client = indebted(&redis, &weir);
    client.send([encode(&["GET", "k"]), encode(&["SUBSCRIBE", "c"])].concat());
    client.expect([BYTES, BYTES].concat());
    client.expect_command(&["BLPOP", "list", "0"], BYTES);
    client.expect_command(&["EVAL", "return 1", "0"], BYTES);
    // A large request is read and refused, and the connection stays.
    let large = "x".repeat(2 * 1024 * 1024);
    client.expect_command(&["SET", "refused", &large], BYTES);
    assert_eq!(redis.command(&["EXISTS", "refused"]), b":0\r\n");
    wait_for_shed(&weir, "limit_bytes_rate", 5.0);
    // Who is not greedy any more has no debt.
    client.expect_command(&["CLIENT", "SETNAME", "modest"], "+OK\r\n");
    client.expect_command(&["GET", "k"], "$-1\r\n");
}

/// Whoever comes next for the same account pays.
#[test]
fn a_debt_outlives_the_connection_that_made_it() {
    let redis = RedisServer::start();
    let weir = with_rule(&redis, "bytes_rate = \"1KB\"\nbytes_burst = \"1KB\"");
    drop(indebted(&redis, &weir));
    wait_until("the account is in debt", || {
        greedy(&weir).command(&["GET", "k"]) == BYTES.as_bytes()
    });
}

/// A client that never pauses: whatever it sends ends within a command.
#[test]
fn who_streams_is_served_again_as_soon_as_its_rate_allows() {
    let redis = RedisServer::start();
    let weir = with_rule(&redis, "commands_rate = 20\ncommands_burst = 5");
    let mut client = greedy(&weir);
    let one = encode(&["INCR", "n"]);
    let (begin, end) = one.split_at(one.len() / 2);
    client.send([one.repeat(10), begin.to_vec()].concat());
    let mut replies: Vec<Vec<u8>> = (0..10).map(|_| client.read_reply()).collect();
    assert!(replies.iter().any(|reply| reply.starts_with(b"-BUSY ")));
    wait_until("it is served again", || {
        client.send([end, begin].concat());
        replies.push(client.read_reply());
        replies[replies.len() - 1].starts_with(b":")
    });
}

/// In a transaction, whether Redis queues it or Weir.
fn transactions(leases: &str) {
    let redis = RedisServer::start();
    let config = "[admin]\nlisten = \"{admin}\"\n[route.main]\nlisten = \"{listen}\"\n\
                  [route.main.limits.greedy]\nclient_names = \"greedy*\"\nper = \"rule\"\n\
                  bytes_rate = \"1KiB\"\n\
                  [route.main.backend]\naddress = \"{backend}\"\n";
    let weir = WeirProcess::with_config(&redis, &format!("{config}{leases}\n"));
    let mut client = indebted(&redis, &weir);
    // Complete: refused whole, with what comes behind it.
    let block = [&["MULTI"][..], &["SET", "k", "v"], &["EXEC"]].map(encode);
    client.send([block.concat(), encode(&["SET", "k", "v"])].concat());
    client.expect(BYTES.repeat(4));
    // Command by command: MULTI itself is not refused, or what comes behind it would run.
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["SET", "k", "v"], BYTES);
    let reply = client.command(&["EXEC"]);
    assert!(
        reply.starts_with(b"-EXECABORT Transaction discarded because of previous errors"),
        "{}",
        reply.escape_ascii()
    );
    // It can be left.
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["DISCARD"], "+OK\r\n");
    client.expect_command(&["GET", "k"], BYTES);
    assert_eq!(redis.command(&["EXISTS", "k"]), b":0\r\n");
}

#[test]
fn a_transaction_over_its_rate_fails_as_a_whole_on_a_connection_of_its_own() {
    transactions("max_leases = 4");
}

#[test]
fn a_transaction_over_its_rate_fails_as_a_whole_where_weir_queues_it() {
    transactions("max_leases = 0");
}

#[test]
fn rates_are_set_while_clients_are_there() {
    let redis = RedisServer::start();
    let weir = with_rule(&redis, "");
    let mut client = greedy(&weir);
    let mut operator = from(&weir, "127.9.0.1");
    let mut set = |key: &str, value: &str| {
        let key = format!("route.main.limits.greedy.{key}");
        operator.expect_command(&["WEIR", "LIMITS", "SET", &key, value], "+OK\r\n");
    };
    client.expect_command(&["SET", "n", "0"], "+OK\r\n");
    set("commands_burst", "3");
    set("commands_rate", "1");
    wait_until("the rate holds for who is there", || {
        client.send(encode(&["GET", "n"]).repeat(20));
        let replies: Vec<_> = (0..20).map(|_| client.read_reply()).collect();
        replies.last().expect("20") == COMMANDS.as_bytes()
    });
    set("commands_rate", "0");
    wait_until("it is lifted", || {
        client.send(encode(&["GET", "n"]).repeat(20));
        let replies: Vec<_> = (0..20).map(|_| client.read_reply()).collect();
        replies.iter().all(|reply| reply == b"$1\r\n0\r\n")
    });
}

#[test]
fn a_transaction_is_paid_for_once_wherever_it_goes() {
    let redis = RedisServer::start();
    let weir = with_rule(&redis, "commands_rate = 1\ncommands_burst = 10");
    let mut client = greedy(&weir);
    // It holds a connection of its own, over which the block goes command by command.
    client.command(&["HELLO", "3"]);
    client.expect_command(&["CLIENT", "TRACKING", "ON"], "+OK\r\n");
    let commands = encode(&["INCR", "n"]).repeat(6);
    client.send([encode(&["MULTI"]), commands, encode(&["EXEC"])].concat());
    client.expect(["+OK\r\n", &"+QUEUED\r\n".repeat(6), "*6\r\n"].concat());
    for number in 1..=6 {
        client.expect(format!(":{number}\r\n"));
    }
}

#[test]
fn reset_forgets_no_rate() {
    let redis = RedisServer::start();
    let of_everybody = "operator_networks = \"127.9.0.0/16\"\n\
                        [route.main.limits.greedy]\nnetworks = \"127.0.0.0/16\"\nper = \"rule\"\n\
                        commands_rate = 1\ncommands_burst = 5";
    let weir = weir(&redis, "workers = 2", of_everybody);
    let mut client = weir.client();
    client.send([encode(&["GET", "k"]).repeat(5), encode(&["RESET"])].concat());
    client.expect(["$-1\r\n".repeat(5), "+RESET\r\n".to_owned()].concat());
    client.send(encode(&["GET", "k"]).repeat(5));
    let replies = (0..5).map(|_| client.read_reply());
    assert!(replies.filter(|reply| reply == COMMANDS.as_bytes()).count() > 2);
}
