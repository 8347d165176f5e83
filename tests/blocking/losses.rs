//! Redis dies and comes back: what is then unknown says so, everybody else waits on, and
//! work goes on.

use std::collections::HashSet;
use std::time::Duration;

use super::crowd::{Worker, element};
use super::support::{ConnectionWatch, RedisServer, encode, wait_until};
use super::{blocked, crowded, weir};

const UNKNOWN: &[u8] = b"-ERR weir: upstream connection lost, command outcome unknown\r\n";

#[test]
fn the_first_of_each_queue_is_told_and_the_others_wait_on() {
    let mut redis = RedisServer::start();
    let (weir, crowd) = crowded(&redis, "");
    let mut queues: Vec<Vec<_>> = Vec::new();
    for queue in 0..5 {
        let mut line = Vec::new();
        for place in 0..3 {
            let mut client = weir.client();
            client.send(encode(&["BLPOP", &format!("k{queue}"), "0"]));
            wait_until("it waits", || {
                blocked(&weir) == crowd.len() + queue * 3 + place + 1
            });
            line.push(client);
        }
        queues.push(line);
    }
    redis.restart();
    for line in &mut queues {
        line[0].expect(UNKNOWN);
        wait_until("Weir has found it again", || {
            line[0].command(&["PING"]) == b"+PONG\r\n"
        });
    }
    let mut direct = redis.client();
    for (queue, line) in queues.iter_mut().enumerate() {
        direct.command(&["RPUSH", &format!("k{queue}"), "a", "b"]);
        line[1].expect(format!("*2\r\n$2\r\nk{queue}\r\n$1\r\na\r\n"));
        line[2].expect(format!("*2\r\n$2\r\nk{queue}\r\n$1\r\nb\r\n"));
    }
}

#[test]
fn a_thousand_workers_outlive_redis() {
    const WORKERS: usize = 1_000;
    let mut redis = RedisServer::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let weir = weir(
        &redis,
        "max_connections = 16\nmax_blocking = 8\nlease_wait = \"20s\"\n[process]\nworkers = 2\n",
    );
    let watch = ConnectionWatch::start(&redis);
    let address = weir.address();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (said, mut hears) = tokio::sync::mpsc::unbounded_channel::<Option<u64>>();
    let start = || {
        for number in 0..WORKERS {
            let said = said.clone();
            runtime.spawn(async move {
                let mut worker = Worker::connect(address).await;
                let key = format!("q{}", number % 100);
                while let Ok(reply) = worker.command(&["BLPOP", &key, "0"]).await {
                    if let Some(element) = element(&reply) {
                        let _ = said.send(Some(element));
                    } else {
                        assert_eq!(reply.first(), Some(&b'-'), "{reply:?}");
                        if reply == UNKNOWN {
                            let _ = said.send(None);
                        }
                        // Not to ask in a tight loop while Redis is away.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            });
        }
    };
    start();
    // Drives the workers while the test waits for a condition.
    let turn = || runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
    wait_until("all wait", || {
        turn();
        blocked(&weir) == WORKERS
    });
    let mut pushed = 0;
    for _ in 0..2 {
        let mut direct = redis.client();
        for number in 0..500 {
            direct.command(&["RPUSH", &format!("q{}", number % 100), &pushed.to_string()]);
            pushed += 1;
        }
        turn();
        redis.kill();
        turn();
        redis.restart();
        wait_until("all wait again", || {
            turn();
            blocked(&weir) == WORKERS
        });
    }
    let mut direct = redis.client();
    for number in 0..500 {
        direct.command(&["RPUSH", &format!("q{}", number % 100), &pushed.to_string()]);
        pushed += 1;
    }
    wait_until("all is taken", || {
        turn();
        direct.command(&["DBSIZE"]) == b":0\r\n"
    });
    // Who has its element asks for the next.
    wait_until("all wait once more", || {
        turn();
        blocked(&weir) == WORKERS
    });
    let (mut got, mut unknown) = (HashSet::new(), 0);
    while let Ok(said) = hears.try_recv() {
        match said {
            Some(element) => assert!(got.insert(element), "{element} twice"),
            None => unknown += 1,
        }
    }
    let missing = pushed - got.len() as u64;
    println!("{pushed} pushed, {missing} missing, {unknown} unknown");
    assert!(
        missing <= unknown,
        "what is missing was not said to be unknown"
    );
    assert!(unknown > 0);
    watch.assert_at_most(16);
}
