//! Subscribers as applications have them: redis-py and ioredis.

use super::support::{RedisServer, libraries};
use super::{connections, weir};

#[test]
fn redis_py_subscribes_listens_and_comes_back_after_a_loss() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let (port, behind) = (weir.address().port(), redis.port());
    for protocol in ["2", "3"] {
        libraries::python(
            "pubsub.py",
            &[&port.to_string(), &behind.to_string(), protocol],
        );
    }
    assert!(connections(&weir) <= 1.0);
}

#[test]
fn ioredis_subscribes_listens_and_comes_back_after_a_loss() {
    let redis = RedisServer::start();
    let weir = weir(&redis, "");
    let (port, behind) = (weir.address().port(), redis.port());
    libraries::node("pubsub.js", &[&port.to_string(), &behind.to_string()]);
}
