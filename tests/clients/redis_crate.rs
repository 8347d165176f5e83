//! The `redis` crate: one connection at a time, and many tasks over one connection.

use redis::aio::MultiplexedConnection;
use redis::{AsyncTypedCommands, Commands, ErrorKind, RedisResult};

use crate::support::{ConnectionWatch, DEADLINE, RedisServer, WeirProcess};

fn url(weir: &WeirProcess, suffix: &str) -> String {
    format!("redis://{}/{suffix}", weir.address())
}

/// Both protocol versions.
const SUFFIXES: [&str; 2] = ["", "?protocol=resp3"];

#[test]
fn one_connection_one_thread() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    for suffix in SUFFIXES {
        let client = redis::Client::open(url(&weir, suffix)).expect("a URL");
        let mut connection = client.get_connection().expect("a connection");
        let c = &mut connection;
        let _: () = redis::cmd("FLUSHALL").query(c).expect("FLUSHALL");
        let _: () = c.set("key", "value").expect("SET");
        assert_eq!(c.get::<_, String>("key").expect("GET"), "value");
        assert_eq!(c.get::<_, Option<String>>("absent").expect("GET"), None);
        let raw: Vec<u8> = (0..=255).collect();
        let _: () = c.set("raw", &raw).expect("SET");
        assert_eq!(c.get::<_, Vec<u8>>("raw").expect("GET"), raw);
        assert_eq!(c.incr::<_, _, i64>("number", 42).expect("INCR"), 42);
        let _: () = c
            .hset_multiple("hash", &[("a", 1), ("b", 2)])
            .expect("HSET");
        let mut pairs: Vec<(String, i64)> = c.hgetall("hash").expect("HGETALL");
        pairs.sort();
        assert_eq!(pairs, [("a".to_owned(), 1), ("b".to_owned(), 2)]);
        let _: () = c.zadd("zset", "member", 1.5).expect("ZADD");
        let scores: Vec<(String, f64)> = c.zrange_withscores("zset", 0, -1).expect("ZRANGE");
        assert_eq!(scores, [("member".to_owned(), 1.5)]);

        let wrong: RedisResult<i64> = c.incr("key", 1);
        assert!(wrong.unwrap_err().to_string().contains("not an integer"));
        let wrong: RedisResult<i64> = c.lpush("key", 1);
        assert_eq!(wrong.unwrap_err().code(), Some("WRONGTYPE"));

        let mut pipe = redis::pipe();
        for number in 0..1_000 {
            pipe.set(format!("pipe:{number}"), number).ignore();
            pipe.get(format!("pipe:{number}"));
        }
        let replies: Vec<i64> = pipe.query(c).expect("a pipeline");
        assert_eq!(replies, (0..1_000).collect::<Vec<_>>());
        let (one, two): (i64, i64) = redis::pipe()
            .atomic()
            .incr("number", 1)
            .incr("number", 1)
            .query(c)
            .expect("a transaction");
        assert_eq!((one, two), (43, 44));
        let (sum,): (i64,) = redis::transaction(c, &["number"], |c, pipe| {
            let number: i64 = c.get("number")?;
            pipe.set("number", number + 6)
                .ignore()
                .get("number")
                .query(c)
        })
        .expect("WATCH and EXEC");
        assert_eq!(sum, 50);

        let script = redis::Script::new("return redis.call('INCRBY', KEYS[1], ARGV[1])");
        let _: () = redis::cmd("SCRIPT").arg("FLUSH").query(c).expect("SCRIPT");
        for expected in [60, 70] {
            let got: i64 = script.key("number").arg(10).invoke(c).expect("a script");
            assert_eq!(got, expected);
        }
        let none: Option<(String, String)> = c.blpop("queue", 0.05).expect("BLPOP");
        assert_eq!(none, None);
        let mut found: Vec<String> = c
            .scan_match("pipe:*")
            .expect("SCAN")
            .collect::<Result<_, _>>()
            .expect("pages");
        found.sort();
        found.dedup();
        assert_eq!(found.len(), 1_000);
    }
}

#[test]
fn subscriptions() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let client = redis::Client::open(url(&weir, "")).expect("a URL");
    let mut publisher = client.get_connection().expect("a connection");
    let mut connection = client.get_connection().expect("a connection");
    let mut subscriber = connection.as_pubsub();
    subscriber
        .set_read_timeout(Some(DEADLINE))
        .expect("a socket option");
    subscriber.subscribe("channel").expect("SUBSCRIBE");
    subscriber.psubscribe("chan*").expect("PSUBSCRIBE");
    let receivers: usize = publisher.publish("channel", "hello").expect("PUBLISH");
    assert_eq!(receivers, 2);
    let message = subscriber.get_message().expect("a message");
    assert_eq!(message.get_payload::<String>().expect("text"), "hello");
    assert!(!message.from_pattern());
    assert!(subscriber.get_message().expect("a message").from_pattern());
    drop(subscriber);
    // The connection is an ordinary one again.
    let _: () = connection.set("after", 1).expect("SET");
    assert_eq!(connection.get::<_, i64>("after").expect("GET"), 1);
}

#[test]
fn many_tasks_over_one_connection() {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let watch = ConnectionWatch::start(&redis);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for suffix in SUFFIXES {
        let client = redis::Client::open(url(&weir, suffix)).expect("a URL");
        runtime.block_on(async {
            // By itself it gives up after half a second, however busy the machine is.
            let patient = redis::AsyncConnectionConfig::new()
                .set_connection_timeout(Some(DEADLINE))
                .set_response_timeout(Some(DEADLINE));
            let shared = client
                .get_multiplexed_async_connection_with_config(&patient)
                .await
                .expect("a connection");
            let tasks: Vec<_> = (0..50)
                .map(|number| tokio::spawn(one_task(shared.clone(), number)))
                .collect();
            for task in tasks {
                task.await.expect("a task").expect("every reply");
            }
            let mut shared = shared;
            let sum = shared.get_int("sum").await.expect("GET");
            assert_eq!(sum, Some(50 * 40));
            shared.del("sum").await.expect("DEL");
        });
    }
    watch.assert_at_most(64);
}

async fn one_task(mut connection: MultiplexedConnection, number: usize) -> RedisResult<()> {
    for turn in 0..40 {
        let (key, value) = (format!("task:{number}:{turn}"), format!("{number}-{turn}"));
        connection.set(&key, &value).await?;
        assert_eq!(connection.get(&key).await?, Some(value));
        connection.incr("sum", 1).await?;
    }
    Ok(())
}

#[test]
fn users_and_databases_in_the_url() {
    let redis = RedisServer::with(&["--requirepass", "admin-password"]);
    redis.command(&[
        "ACL", "SETUSER", "alice", "on", ">secret", "+@all", "~*", "&*",
    ]);
    let weir = WeirProcess::in_front_of(&redis);
    let ask = |user: &str, db: u32| -> RedisResult<String> {
        let url = format!("redis://{user}@{}/{db}", weir.address());
        let mut connection = redis::Client::open(url)?.get_connection()?;
        let _: () = connection.set("where", db)?;
        assert_eq!(connection.get::<_, u32>("where")?, db);
        redis::cmd("ACL").arg("WHOAMI").query(&mut connection)
    };
    assert_eq!(ask("alice:secret", 3).expect("alice"), "alice");
    assert_eq!(
        ask(":admin-password", 0).expect("the password alone"),
        "default"
    );
    let wrong = ask("alice:wrong", 0).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::AuthenticationFailed, "{wrong}");
    let nobody = redis::Client::open(format!("redis://{}", weir.address()));
    let mut nobody = nobody
        .expect("a URL")
        .get_connection()
        .expect("a connection");
    let refused: RedisResult<String> = nobody.get("where");
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Some("NOAUTH"), "{refused}");
}
