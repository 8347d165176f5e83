//! What libraries make of "-ERR max number of clients reached": their applications
//! hear it, and they come again at their own pace and not in a tight loop.

use std::time::Duration;

use redis::RedisError;

use crate::support::{DEADLINE, RedisServer, WeirProcess, encode, libraries, wait_until};

/// How long each library tries.
const SECONDS: usize = 4;

/// The connections that one client may make in a second before it counts as a storm.
/// redis-py and ioredis were seen to make three, by their own backoff.
const PER_SECOND_MAX: usize = 10;

/// Weir with room for one client, and `try_for_a_while` beside that client. Returns
/// how many connections were refused meanwhile.
fn refusals(try_for_a_while: impl FnOnce(&WeirProcess)) -> usize {
    let redis = RedisServer::start();
    let weir = WeirProcess::with_config(
        &redis,
        r#"
        [process]
        max_clients = 1
        [admin]
        listen = "{admin}"
        [route.main]
        listen = "{listen}"
        backend = "{backend}"
        # Who is in stays, however long a library takes to start.
        clients.gives_way_after = 0
        "#,
    );
    // The look whether Weir accepts was a client too, and may not have gone yet, or not
    // even have been looked at.
    let mut connects = 1;
    let mut inside = weir.client();
    wait_until("the only slot", || {
        connects += 1;
        let answer = inside.try_command(&["PING"]);
        if answer.is_ok_and(|reply| reply == b"+PONG\r\n") {
            return true;
        }
        inside = weir.client();
        false
    });
    let accepted = || weir.metric("weir_clients_accepted_total", &[]);
    let refused = || weir.metric("weir_clients_refused_total", &[r#"reason="max_clients""#]);
    wait_until("everybody was counted", || {
        accepted() + refused() >= f64::from(connects)
    });
    let before = refused();
    try_for_a_while(&weir);
    let count = (refused() - before) as usize;
    // Whoever is in notices nothing.
    inside.expect_command(&["PING"], "+PONG\r\n");
    let rate = count as f64 / SECONDS as f64;
    println!("{count} connections refused in {SECONDS} s: {rate:.1} a second");
    assert!(count >= 1, "nothing was refused");
    assert!(
        count <= PER_SECOND_MAX * SECONDS,
        "{count} connections in {SECONDS} s are a storm"
    );
    count
}

fn port(weir: &WeirProcess) -> String {
    weir.address().port().to_string()
}

#[test]
fn redis_py_takes_a_refusal_without_a_storm() {
    for protocol in ["2", "3"] {
        refusals(|weir| {
            libraries::python("refused.py", &[&port(weir), protocol, &SECONDS.to_string()]);
        });
    }
}

#[test]
fn ioredis_takes_a_refusal_without_a_storm() {
    refusals(|weir| {
        libraries::node("refused.js", &[&port(weir), &SECONDS.to_string()]);
    });
}

/// The crate leaves it to the application when to connect anew; a connection that has
/// been refused says so and stays usable until Weir closes it.
#[test]
fn the_redis_crate_names_the_refusal() {
    let refused = |error: RedisError| {
        assert!(
            error.to_string().contains("max number of clients reached"),
            "{error}"
        );
    };
    let count = refusals(|weir| {
        let client = redis::Client::open(format!("redis://{}", weir.address())).expect("a URL");
        let mut connection = client.get_connection().expect("the handshake is answered");
        connection
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a socket option");
        refused(
            redis::cmd("GET")
                .arg("key")
                .query::<String>(&mut connection)
                .unwrap_err(),
        );

        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let patient = redis::AsyncConnectionConfig::new()
                .set_connection_timeout(Some(DEADLINE))
                .set_response_timeout(Some(DEADLINE));
            let mut shared = client
                .get_multiplexed_async_connection_with_config(&patient)
                .await
                .expect("the handshake is answered");
            let reply = redis::cmd("GET")
                .arg("key")
                .query_async::<String>(&mut shared)
                .await;
            refused(reply.unwrap_err());
        });
    });
    assert_eq!(count, 2);
}

/// Even where nobody keeps to any pace, those who are in notice nothing, and Weir
/// keeps no more refused connections open than it has descriptors set aside for.
#[test]
fn a_storm_of_connections_leaves_the_clients_that_are_in_alone() {
    const STORM: usize = 3_000;
    let redis = RedisServer::start();
    let weir = WeirProcess::with_config(
        &redis,
        r#"
        [process]
        max_clients = 2
        [admin]
        listen = "{admin}"
        [route.main]
        listen = "{listen}"
        backend = "{backend}"
        # Who is in stays, however long it takes the others to come.
        clients.gives_way_after = 0
        "#,
    );
    let mut inside = weir.client();
    inside.expect_command(&["SET", "key", "value"], "+OK\r\n");
    let mut silent = Vec::with_capacity(STORM);
    // One of these may get the second slot.
    for _ in 0..STORM {
        silent.push(std::net::TcpStream::connect(weir.address()).expect("Weir accepts"));
        if silent.len() % 100 == 0 {
            inside.expect_command(&["GET", "key"], "$5\r\nvalue\r\n");
        }
    }
    wait_until("everybody was counted", || {
        weir.metric("weir_clients_refused_total", &[]) as usize >= STORM - 1
    });
    let open = weir.metric("process_open_fds", &[]) as usize;
    assert!(open < 1_024 + 200, "{open} descriptors are open");
    inside.expect_command(&["GET", "key"], "$5\r\nvalue\r\n");
}

/// A library's handshake, sent without waiting, is answered as ever: some fall back to
/// another protocol, or crash, on an error to it. Every command behind it is refused.
#[test]
fn the_handshake_is_answered_and_every_command_refused() {
    let count = refusals(|weir| {
        let mut client = weir.client();
        let handshake: [&[&str]; 6] = [
            &["CLIENT", "SETINFO", "LIB-NAME", "library"],
            &["CLIENT", "SETINFO", "LIB-VER", "1.0"],
            &["CLIENT", "SETNAME", "name"],
            &["SELECT", "5"],
            &["CLIENT", "MAINT_NOTIFICATIONS", "ON"],
            &["HELLO", "2"],
        ];
        let commands: [&[&str]; 3] = [&["GET", "a"], &["MULTI"], &["AUTH", "password"]];
        let requests = handshake.iter().chain(&commands);
        client.send(
            requests
                .flat_map(|request| encode(request))
                .collect::<Vec<_>>(),
        );
        for _ in 0..4 {
            client.expect("+OK\r\n");
        }
        client.expect("-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n");
        assert!(client.read_reply().starts_with(b"*14\r\n$6\r\nserver\r\n"));
        for _ in 0..3 {
            client.expect("-ERR max number of clients reached\r\n");
        }
        client.expect_closed();
    });
    assert_eq!(count, 1);
}

/// The crate's own way to connect anew, and an application that asks again at once
/// whenever it gives up.
#[test]
fn the_connection_manager_of_the_redis_crate_takes_a_refusal_without_a_storm() {
    refusals(|weir| {
        let client = redis::Client::open(format!("redis://{}", weir.address())).expect("a URL");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async {
            let patient = redis::aio::ConnectionManagerConfig::new()
                .set_connection_timeout(Some(DEADLINE))
                .set_response_timeout(Some(DEADLINE));
            let mut manager = redis::aio::ConnectionManager::new_with_config(client, patient)
                .await
                .expect("the handshake is answered");
            let end = tokio::time::Instant::now() + Duration::from_secs(SECONDS as u64);
            let (mut refused, mut failed) = (0, 0);
            while tokio::time::Instant::now() < end {
                let command = redis::cmd("GET").arg("key").to_owned();
                let error = command.query_async::<String>(&mut manager).await;
                match error.unwrap_err().to_string() {
                    text if text.contains("max number of clients reached") => refused += 1,
                    _ => failed += 1,
                }
            }
            println!("{refused} commands refused, {failed} failed otherwise");
            assert!(refused > 0);
        });
    });
}
