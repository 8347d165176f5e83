//! `XREAD BLOCK`: one connection for all who read.

use super::support::{RedisServer, encode, wait_until};
use super::{blocked, weir};

#[test]
fn many_readers_take_one_connection_and_each_reads_its_own() {
    let redis = RedisServer::start();
    for process in ["[process]\nworkers = 1\n", "[process]\nworkers = 4\n"] {
        redis.command(&["FLUSHALL"]);
        let weir = weir(&redis, &format!("max_blocking = 2\n{process}"));
        let mut other = weir.client();
        other.expect_command(&["XADD", "s3", "1-1", "f", "old"], "$3\r\n1-1\r\n");
        let mut readers: Vec<_> = (0..60)
            .map(|number| {
                let mut client = weir.client();
                if number % 2 == 1 {
                    client.command(&["HELLO", "3"]);
                }
                let stream = format!("s{}", number % 10);
                client.send(encode(&["XREAD", "BLOCK", "0", "STREAMS", &stream, "$"]));
                client
            })
            .collect();
        wait_until("all read", || blocked(&weir) == 60);
        let open = weir.metric("weir_backend_connections", &["kind=\"blocking\""]);
        assert_eq!(open, 1.0);
        for number in 0..10 {
            let stream = format!("s{number}");
            other.expect_command(&["XADD", &stream, "2-1", "f", "v"], "$3\r\n2-1\r\n");
        }
        for (number, client) in readers.iter_mut().enumerate() {
            let name = format!("$2\r\ns{}\r\n", number % 10);
            let entries = "*1\r\n*2\r\n$3\r\n2-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
            client.expect(match number % 2 {
                1 => format!("%1\r\n{name}{entries}"),
                _ => format!("*1\r\n*2\r\n{name}{entries}"),
            });
        }
        redis.command(&["FLUSHALL"]);
    }
}

#[test]
fn a_reader_gets_what_is_behind_its_own_id_and_as_much_as_it_wants() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "max_blocking = 2\n");
    let mut other = weir.client();
    other.expect_command(&["XADD", "s", "5-1", "f", "v"], "$3\r\n5-1\r\n");
    let read = |id: &str| encode(&["XREAD", "COUNT", "2", "BLOCK", "0", "STREAMS", "s", id]);
    let mut future = weir.client();
    future.send(read("7-2"));
    let mut now = weir.client();
    now.send(read("5-1"));
    let mut new = weir.client();
    new.send(read("$"));
    wait_until("all read", || blocked(&weir) == 3);
    let mut at_once = encode(&["MULTI"]);
    for id in ["6-1", "7-1", "7-2"] {
        at_once.extend(encode(&["XADD", "s", id, "f", "v"]));
    }
    at_once.extend(encode(&["EXEC"]));
    other.send(at_once);
    let entry = |id: &str| format!("*2\r\n$3\r\n{id}\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
    for client in [&mut now, &mut new] {
        client.expect(format!(
            "*1\r\n*2\r\n$1\r\ns\r\n*2\r\n{}{}",
            entry("6-1"),
            entry("7-1")
        ));
    }
    assert_eq!(blocked(&weir), 1);
    for _ in 0..5 {
        other.read_reply();
    }
    other.expect_command(&["XADD", "s", "8-1", "f", "v"], "$3\r\n8-1\r\n");
    future.expect(format!("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n{}", entry("8-1")));
}

#[test]
fn a_reader_reads_on_when_redis_is_back() {
    let mut redis = RedisServer::start();
    let weir = weir(&redis, "max_blocking = 2\n");
    let mut reader = weir.client();
    reader.send(encode(&["XREAD", "BLOCK", "0", "STREAMS", "s", "5-1"]));
    wait_until("it reads", || blocked(&weir) == 1);
    redis.restart();
    let mut direct = redis.client();
    direct.expect_command(&["XADD", "s", "6-1", "f", "v"], "$3\r\n6-1\r\n");
    reader.expect("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n6-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
}

#[test]
fn who_may_not_ask_for_the_last_id_reads_on_a_connection_of_its_own() {
    let redis = RedisServer::start();
    redis.command(&["ACL", "SETUSER", "default", "-xinfo"]);
    let weir = weir(&redis, "");
    let mut reader = weir.client();
    reader.send(encode(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]));
    wait_until("it reads", || blocked(&weir) == 1);
    weir.wait_for_metric("weir_leases_held", &[], 1.0);
    let mut other = weir.client();
    other.expect_command(&["XADD", "s", "6-1", "f", "v"], "$3\r\n6-1\r\n");
    reader.expect("*1\r\n*2\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n6-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n");
}
