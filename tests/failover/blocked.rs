//! Blocked clients, and commands that wait in line, when the primary is another one.

use super::support::{RawClient, Replicas, encode, wait_until};
use super::switching::under_pipelines;
use super::{error, wait_for_state, weir_before};

fn blocked(replicas: &Replicas, node: usize) -> usize {
    let count = replicas.nodes[node].info("clients", "blocked_clients");
    count.parse().expect("a number")
}

/// A primary that is demoted ends the waits of its clients: they wait on at the new one.
#[test]
fn a_blocked_client_waits_on_at_the_new_primary() {
    for settings in ["max_blocking = 8\n", "max_blocking = 2\n"] {
        let replicas = Replicas::start(2);
        let more = "[process]\nworkers = 2\n[route.main.failover]\nhold = \"20s\"\n";
        let weir = weir_before(&replicas, &format!("{settings}{more}"));
        let mut clients: Vec<RawClient> = (0..4).map(|_| weir.client()).collect();
        for (id, client) in clients.iter_mut().enumerate() {
            client.send(encode(&["BLPOP", &format!("list:{id}"), "0"]));
        }
        wait_until("all are blocked", || {
            weir.metric("weir_clients_blocked", &[]) == 4.0
        });
        wait_until("one at least at Redis", || blocked(&replicas, 0) > 0);
        replicas.nodes[0]
            .client()
            .expect_command(&["FAILOVER"], "+OK\r\n");
        wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
        wait_until("they wait there", || blocked(&replicas, 1) > 0);
        let mut pusher = weir.client();
        for (id, client) in clients.iter_mut().enumerate() {
            let list = format!("list:{id}");
            pusher.expect_command(&["RPUSH", &list, "x"], ":1\r\n");
            client.expect(format!("*2\r\n$6\r\n{list}\r\n$1\r\nx\r\n"));
        }
    }
}

/// Those who share connections: who may have had an element on its way is told so, all
/// others wait on at the new primary, in their order.
#[test]
fn those_who_share_wait_on_when_the_primary_is_killed() {
    let mut replicas = Replicas::start(2);
    let more = "max_blocking = 2\n[process]\nworkers = 2\n[route.main.failover]\nhold = \"20s\"\n";
    let weir = weir_before(&replicas, more);
    let mut clients: Vec<RawClient> = Vec::new();
    for number in 1..=30 {
        let mut client = weir.client();
        client.send(encode(&["BLPOP", "jobs", "0"]));
        clients.push(client);
        // One after the other, so that they stand in a known order.
        wait_until("it is blocked", || {
            weir.metric("weir_clients_blocked", &[]) == f64::from(number)
        });
    }
    wait_until("some wait at Redis", || blocked(&replicas, 0) > 0);
    replicas.nodes[0].kill();
    replicas.promote(1, &[]);
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
    // Who waited at Redis for itself, or was the first in line, is told.
    wait_until("the others wait there", || blocked(&replicas, 1) > 0);
    let mut pusher = weir.client();
    let jobs: Vec<String> = (0..30).map(|job| format!("{job:02}")).collect();
    let mut command = vec!["RPUSH", "jobs"];
    command.extend(jobs.iter().map(String::as_str));
    pusher.expect_command(&command, ":30\r\n");
    let (mut got, mut unknown) = (Vec::new(), 0);
    for client in &mut clients {
        let reply = client.try_read_reply().expect("a reply");
        match error(&reply) {
            Some(text) => {
                assert!(text.ends_with("command outcome unknown"), "{text}");
                unknown += 1;
            }
            None => got.push(String::from_utf8_lossy(&reply).into_owned()),
        }
    }
    assert!(unknown <= 3, "{unknown} were told");
    // Nobody else has taken an element.
    pusher.expect_command(&["LLEN", "jobs"], format!(":{unknown}\r\n"));
    let expected: Vec<String> = jobs[..got.len()]
        .iter()
        .map(|job| format!("*2\r\n$4\r\njobs\r\n$2\r\n{job}\r\n"))
        .collect();
    let mut sorted = got.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
}

/// What waits in Weir for its turn at a primary that hangs was never sent: it goes to the
/// next one, and only what was sent is unknown.
#[test]
fn what_waits_in_line_goes_to_the_new_primary() {
    let mut replicas = Replicas::start(2);
    let more = "[process]\nworkers = 1\n[route.main.failover]\nhold = \"20s\"\n\
                [route.main.overload]\nin_flight = 4\ntarget = \"0s\"\n";
    let weir = weir_before(&replicas, more);
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"follower\""]);
    let mut clients: Vec<RawClient> = (0..40).map(|_| weir.client()).collect();
    for client in &mut clients {
        client.expect_command(&["ECHO", "hello"], "$5\r\nhello\r\n");
    }
    replicas.wait_until_caught_up(1, 0);
    replicas.nodes[0].stop();
    for client in &mut clients {
        client.send(encode(&["INCR", "n"]));
    }
    wait_until("all but those that were sent wait", || {
        weir.metric("weir_commands_waiting", &[]) == 36.0
    });
    replicas.promote(1, &[]);
    let (mut done, mut unknown) = (0, 0);
    for client in &mut clients {
        let reply = client.try_read_reply().expect("a reply");
        match error(&reply) {
            Some(text) => {
                assert!(text.ends_with("command outcome unknown"), "{text}");
                unknown += 1;
            }
            None => done += 1,
        }
    }
    assert_eq!((done, unknown), (36, 4));
    assert_eq!(replicas.nodes[1].command(&["GET", "n"]), b"$2\r\n36\r\n");
    replicas.nodes[0].cont();
}

/// A part of each pipeline is at the primary and the rest in line when it is demoted: none of
/// it is lost, and it stays in order.
#[test]
fn pipelines_that_are_partly_in_line_go_to_the_new_primary() {
    let replicas = Replicas::start(2);
    let more = "[process]\nworkers = 1\n[route.main.failover]\nhold = \"20s\"\n\
                [route.main.overload]\nin_flight = 3\ntarget = \"0s\"\n";
    let weir = weir_before(&replicas, more);
    under_pipelines(&replicas, &weir, 6, |client, id, round| {
        let count = format!("count:{id}");
        client.send(encode(&["INCR", &count]).repeat(5));
        for told in 5 * round + 1..=5 * round + 5 {
            client.expect(format!(":{told}\r\n"));
        }
    });
}

/// Who watches keys and is blocked waits on at the new primary, on a connection that is not
/// shared; that the keys are not watched any more `EXEC` says.
#[test]
fn a_blocked_client_that_watches_keys_holds_up_nobody() {
    let replicas = Replicas::start(2);
    let more = "[process]\nworkers = 1\n[route.main.failover]\nhold = \"20s\"\n";
    let weir = weir_before(&replicas, more);
    let mut client = weir.client();
    client.expect_command(&["WATCH", "k"], "+OK\r\n");
    client.send(encode(&["BLPOP", "list", "0"]));
    wait_until("it is blocked", || blocked(&replicas, 0) > 0);
    for node in [1, 0] {
        replicas.nodes[1 - node]
            .client()
            .expect_command(&["FAILOVER"], "+OK\r\n");
        wait_for_state(&weir, &replicas.nodes[node], &["standing=\"primary\""]);
        wait_until("it waits there", || blocked(&replicas, node) > 0);
        // Others go on meanwhile.
        weir.client().expect_command(&["SET", "k", "v"], "+OK\r\n");
        replicas.wait_until_linked(node);
    }
    let mut pusher = weir.client();
    pusher.expect_command(&["RPUSH", "list", "x"], ":1\r\n");
    client.expect("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n");
    client.expect_command(&["MULTI"], "+OK\r\n");
    client.expect_command(&["SET", "k", "w"], "+QUEUED\r\n");
    client.expect_command(&["EXEC"], "*-1\r\n");
    client.expect_command(&["GET", "k"], "$1\r\nv\r\n");
}

/// A rate counts a command once, at however many primaries it waits.
#[test]
fn a_blocked_client_that_waits_on_has_paid_already() {
    let replicas = Replicas::start(2);
    let more = "[process]\nworkers = 1\n[route.main.failover]\nhold = \"20s\"\n\
                [route.main.limits.named]\nclient_names = \"worker\"\nper = \"rule\"\n\
                bytes_rate = 1\nbytes_burst = 16000\n";
    let weir = weir_before(&replicas, more);
    let mut client = weir.client();
    client.expect_command(&["CLIENT", "SETNAME", "worker"], "+OK\r\n");
    let list = "l".repeat(6000);
    client.send(encode(&["BLPOP", &list, "0"]));
    wait_until("it is blocked", || blocked(&replicas, 0) > 0);
    replicas.nodes[0]
        .client()
        .expect_command(&["FAILOVER"], "+OK\r\n");
    wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
    wait_until("it waits there", || blocked(&replicas, 1) > 0);
    // Twice the command and once the reply would leave nothing for this.
    client.send(encode(&["GET", "k"]));
    weir.client()
        .expect_command(&["RPUSH", &list, "x"], ":1\r\n");
    let reply = client.try_read_reply().expect("an element");
    assert!(reply.starts_with(b"*2\r\n$6000\r\n"), "{reply:?}");
    client.expect("$-1\r\n");
}

/// Who waits for what is new from now on is told, as at Redis: asked again, it would skip what
/// came in between. Where it shares, Weir knows behind which entry it waits, and it waits on.
#[test]
fn a_reader_of_what_is_new_skips_nothing() {
    for (shared, waits_on) in [(0, false), (2, true)] {
        let replicas = Replicas::start(2);
        let more = format!(
            "max_blocking_shared = {shared}\n[process]\nworkers = 1\n\
             [route.main.failover]\nhold = \"20s\"\n"
        );
        let weir = weir_before(&replicas, &more);
        let mut client = weir.client();
        client.send(encode(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]));
        wait_until("it is blocked", || {
            weir.metric("weir_clients_blocked", &[]) == 1.0 && blocked(&replicas, 0) > 0
        });
        replicas.nodes[0]
            .client()
            .expect_command(&["FAILOVER"], "+OK\r\n");
        wait_for_state(&weir, &replicas.nodes[1], &["standing=\"primary\""]);
        if waits_on {
            wait_until("it waits there", || blocked(&replicas, 1) > 0);
            weir.client()
                .expect_command(&["XADD", "s", "1-1", "f", "v"], "$3\r\n1-1\r\n");
        }
        let reply = client.try_read_reply().expect("an answer");
        let expected = if waits_on { "*1\r\n" } else { "-UNBLOCKED " };
        assert!(reply.starts_with(expected.as_bytes()), "{reply:?}");
    }
}
