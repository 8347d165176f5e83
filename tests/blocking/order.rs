//! First come, first served, and nobody forgotten.

use std::collections::BTreeSet;

use super::support::{RedisServer, encode, wait_until};
use super::{blocked, crowded, weir};

fn element(reply: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(reply);
    let last = text.trim_end().rsplit("\r\n").next();
    last.and_then(|last| last.parse().ok())
        .unwrap_or_else(|| panic!("{text:?}"))
}

#[test]
fn those_who_share_are_served_in_the_order_in_which_they_came() {
    let redis = RedisServer::start();
    for process in ["[process]\nworkers = 1\n", "[process]\nworkers = 4\n"] {
        let (weir, crowd) = crowded(&redis, process);
        let mut waiting = Vec::new();
        for number in 0..60 {
            let mut client = weir.client();
            client.send(encode(&["BLPOP", "k", "0"]));
            wait_until("it is in line", || {
                blocked(&weir) == crowd.len() + number + 1
            });
            waiting.push(client);
        }
        let mut other = weir.client();
        // One by one, some at once, the rest at once.
        for elements in [0..5_u64, 5..20, 20..60] {
            let mut push = vec!["RPUSH".to_owned(), "k".to_owned()];
            push.extend(elements.clone().map(|element| element.to_string()));
            other.command(&push);
            for number in elements {
                let reply = waiting[number as usize].read_reply();
                assert_eq!(element(&reply), number);
            }
        }
        other.expect_command(&["LLEN", "k"], ":0\r\n");
    }
}

/// Whoever finds a connection of its own free still stands behind those who share.
#[test]
fn nobody_overtakes_on_a_connection_of_its_own() {
    let redis = RedisServer::start();
    let (weir, mut crowd) = crowded(&redis, "");
    let mut waiting = Vec::new();
    for number in 0..6 {
        if number == 3 {
            // There is room again.
            crowd.clients.truncate(4);
        }
        let mut client = weir.client();
        client.send(encode(&["BLPOP", "k", "0"]));
        wait_until("it waits", || blocked(&weir) == crowd.len() + number + 1);
        waiting.push(client);
    }
    let mut other = weir.client();
    for (number, client) in waiting.iter_mut().enumerate() {
        other.expect_command(&["RPUSH", "k", &number.to_string()], ":1\r\n");
        assert_eq!(element(&client.read_reply()), number as u64);
    }
}

#[test]
fn a_busy_queue_serves_all_its_workers_and_starves_no_other() {
    let redis = RedisServer::start();
    let (weir, crowd) = crowded(&redis, "");
    // Twenty that wait on quiet queues.
    let mut quiet: Vec<_> = (0..20)
        .map(|number| {
            let mut client = weir.client();
            client.send(encode(&["BLPOP", &format!("quiet{number}"), "0"]));
            client
        })
        .collect();
    wait_until("they wait", || blocked(&weir) == crowd.len() + 20);
    let address = weir.address();
    let workers: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = super::RawClient::connect(address);
                let mut mine = Vec::new();
                loop {
                    let reply = client.command(&["BLPOP", "busy", "0"]);
                    match element(&reply) {
                        0 => return mine,
                        element => mine.push(element),
                    }
                }
            })
        })
        .collect();
    let mut other = weir.client();
    for batch in 0..40_u64 {
        let mut push = vec!["RPUSH".to_owned(), "busy".to_owned()];
        push.extend((1..=50).map(|number| (batch * 50 + number).to_string()));
        other.command(&push);
        if batch % 2 == 0 {
            let number = (batch / 2) as usize;
            other.command(&["RPUSH", &format!("quiet{number}"), "7"]);
            assert_eq!(element(&quiet[number].read_reply()), 7);
        }
    }
    for _ in 0..workers.len() {
        other.command(&["RPUSH", "busy", "0"]);
    }
    let mut seen = BTreeSet::new();
    for worker in workers {
        for element in worker.join().expect("a worker") {
            assert!(seen.insert(element), "{element} twice");
        }
    }
    assert_eq!(seen.len(), 2000);
    other.expect_command(&["LLEN", "busy"], ":0\r\n");
}

#[test]
fn one_connection_serves_everybody() {
    let redis = RedisServer::start();
    for max_blocking in [1, 2] {
        let weir = weir(
            &redis,
            &format!("max_blocking = {max_blocking}\nlease_wait = \"20s\"\n"),
        );
        let mut waiting: Vec<_> = (0..100)
            .map(|number| {
                let mut client = weir.client();
                client.send(encode(&["BLPOP", &format!("k{}", number % 25), "0"]));
                client
            })
            .collect();
        wait_until("all wait", || blocked(&weir) == 100);
        let open = weir.metric("weir_backend_connections", &["kind=\"blocking\""]);
        assert!(open <= f64::from(max_blocking), "{open}");
        let mut other = weir.client();
        for number in 0..100 {
            other.command(&["RPUSH", &format!("k{}", number % 25), &number.to_string()]);
        }
        let mut seen: Vec<u64> = waiting
            .iter_mut()
            .map(|client| element(&client.read_reply()))
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
