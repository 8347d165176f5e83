//! redis-py, by the scripts in `python/`.

use crate::support::{ConnectionWatch, RedisServer, WeirProcess, libraries};

fn everything(protocol: &str) {
    let redis = RedisServer::start();
    let weir = WeirProcess::in_front_of(&redis);
    let watch = ConnectionWatch::start(&redis);
    let port = weir.address().port().to_string();
    libraries::python("redis_py.py", &[&port, protocol]);
    libraries::python("asyncio_client.py", &[&port, protocol]);
    watch.assert_at_most(64);
}

#[test]
fn redis_py_works_with_resp2() {
    everything("2");
}

#[test]
fn redis_py_works_with_resp3() {
    everything("3");
}

#[test]
fn redis_py_works_for_users_with_passwords() {
    let redis = RedisServer::with(&["--requirepass", "admin-password"]);
    let weir = WeirProcess::in_front_of(&redis);
    let watch = ConnectionWatch::start(&redis);
    let port = weir.address().port().to_string();
    libraries::python("acl_users.py", &[&port]);
    watch.assert_at_most(64);
}

#[test]
fn redis_py_works_where_the_budget_is_one_connection_to_redis() {
    let redis = RedisServer::start();
    let weir = WeirProcess::with_backend(&redis, "max_connections = 1");
    let watch = ConnectionWatch::start(&redis);
    let port = weir.address().port().to_string();
    libraries::python("plain.py", &[&port]);
    watch.assert_at_most(1);
}

#[test]
fn redis_py_works_for_users_that_only_weir_knows() {
    let redis = RedisServer::with(&["--requirepass", "of-redis"]);
    let weir = WeirProcess::with_backend(
        &redis,
        r#"
        password = "of-redis"
        [route.main.auth]
        mode = "weir"
        [route.main.auth.users.alice]
        password = "alice-password"
        [route.main.auth.users.default]
        password = "default-password"
        "#,
    );
    libraries::python("weir_users.py", &[&weir.address().port().to_string()]);
}
