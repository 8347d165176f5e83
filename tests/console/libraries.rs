//! The console through client libraries: what they make of its answers.

use super::commands::{weir, weir_for_operators};
use super::support::{RedisServer, libraries};

fn redis_py(protocol: &str) {
    let redis = RedisServer::start();
    let (weir, console) = weir(&redis, "", "");
    let console_port = console.port().to_string();
    let port = weir.address().port().to_string();
    libraries::python("console.py", &[&console_port, protocol, &port]);
    // And where clients of the service are operators.
    let (weir, _console) = weir_for_operators(&redis);
    let port = weir.address().port().to_string();
    libraries::python("console.py", &[&port, protocol, &port]);
}

#[test]
fn redis_py_makes_lists_and_pairs_of_it_in_resp2() {
    redis_py("2");
}

#[test]
fn redis_py_makes_dictionaries_of_it_in_resp3() {
    redis_py("3");
}

#[test]
fn ioredis_makes_lists_and_pairs_of_it() {
    let redis = RedisServer::start();
    let (weir, console) = weir(&redis, "", "");
    let (console, port) = (
        console.port().to_string(),
        weir.address().port().to_string(),
    );
    libraries::node("console.js", &[&console, &port]);
    let (weir, _console) = weir_for_operators(&redis);
    let port = weir.address().port().to_string();
    libraries::node("console.js", &[&port, &port]);
}
