//! What sections have to agree on, and the values that stand for others.
//!
//! Where one setting bounds another, a default gives way without a word: whoever
//! writes `max_connections = 4` need not also write every share of it. A value
//! that somebody wrote does not: that is a mistake.

mod tls;

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::reader::{Reader, join};
use super::units::{format_duration, format_size};
use super::{AuthMode, Config, ListenAddress, Listener, Process, Route, TopologyKind};

/// Resolves and checks; mistakes go to `reader`.
pub(super) fn agree(config: &mut Config, reader: &mut Reader<'_>) {
    if config.process.workers == 0 {
        config.process.workers = std::thread::available_parallelism().map_or(1, usize::from);
    }
    if config.process.identities_max == 0 {
        config.process.identities_max = config.process.max_clients.min(IDENTITIES_MAX);
    }
    for route in &mut config.routes {
        let path = join("route", &route.name);
        clients(route, &config.process, &path, reader);
        doors(route, &path, reader);
        limits(route, &path, reader);
        access(route, &path, reader);
        backend(route, &path, reader);
        topology(route, &path, reader);
        timeouts(route, &path, reader);
        auth(route, &path, reader);
        tls::backend(route, &path, reader);
    }
    shares(config, reader);
    listeners(config, reader);
    config.warnings = reader.take_warnings();
}

/// What belongs to a Unix socket, and what to TLS, stands where there is one.
fn doors(route: &mut Route, path: &str, reader: &mut Reader<'_>) {
    if !route.listeners.is_empty() && !reader.is_written(&format!("{path}.listen")) {
        // Who says where clients connect does not want another place besides.
        route.listen.clear();
    }
    for listener in &route.listeners {
        let path = join(&format!("{path}.listener"), &listener.name);
        let is_unix = matches!(listener.address, ListenAddress::Unix(_));
        for name in ["unix_mode", "unix_owner"] {
            let key = format!("{path}.{name}");
            if !is_unix && reader.is_written(&key) {
                let problem = format!("expected a Unix socket as {path}.address, found another");
                reader.mistake_unless_wrong(&key, &[&format!("{path}.address")], problem);
            }
        }
        if is_unix && listener.is_tls() {
            let problem =
                "expected no TLS on a Unix socket, which nobody can listen in on, found some";
            reader.mistake_unless_wrong(&format!("{path}.tls_certificate"), &[], problem);
        }
        tls::listener(listener, &path, reader);
    }
}

/// As many accounts as there are without a word from anybody: 25 MiB.
const IDENTITIES_MAX: usize = 65_536;

/// Rules of one route: each is looked at when a client comes.
const LIMITS_MAX: usize = 64;

/// A route's rules: what they name exists, and what they promise can be kept.
fn limits(route: &Route, path: &str, reader: &mut Reader<'_>) {
    let path = format!("{path}.limits");
    if route.limits.len() > LIMITS_MAX {
        let problem = format!("expected at most {LIMITS_MAX} rules, found more");
        reader.mistake_unless_wrong(&path, &[], problem);
    }
    let is_door = |at: &ListenAddress| route.doors().any(|door| door.address == *at);
    for limit in &route.limits {
        let path = join(&path, &limit.name);
        if let Some(unknown) = limit.listeners.iter().find(|at| !is_door(at)) {
            let problem = format!("expected an address that the route listens on, found {unknown}");
            reader.mistake_unless_wrong(&format!("{path}.listeners"), &[], problem);
        }
        if matches!(limit.name.as_str(), "clients" | "operators" | "address") {
            let problem = format!(
                "expected another name, found {:?}, which stands for what holds without a rule",
                limit.name
            );
            reader.mistake_unless_wrong(&path, &[], problem);
        }
    }
    let max = route.clients.max_clients;
    let shares = shares_of(route);
    if shares > max {
        let problem = format!(
            "expected shares of at most max_clients, {max}, together with reserved_clients, found {shares}"
        );
        reader.mistake_unless_wrong(&path, &[], problem);
    }
}

/// Access rules of one route: a client's are bits of a number.
const ACCESS_MAX: usize = 32;

/// Each of a route's access rules refuses something.
fn access(route: &Route, path: &str, reader: &mut Reader<'_>) {
    let path = format!("{path}.access");
    if route.access.len() > ACCESS_MAX {
        let problem = format!("expected at most {ACCESS_MAX} rules, found more");
        reader.mistake_unless_wrong(&path, &[], problem);
    }
    for rule in &route.access {
        if rule.refuse.is_empty() && !rule.read_only && rule.key_prefixes.is_empty() {
            let problem =
                "expected refuse, read_only or key_prefixes, found a rule that refuses nothing";
            reader.mistake_unless_wrong(&join(&path, &rule.name), &[], problem.to_owned());
        }
    }
}

/// The shares of all routes fit into the process.
fn shares(config: &Config, reader: &mut Reader<'_>) {
    let max = config.process.max_clients;
    let shares: usize = config.routes.iter().map(shares_of).sum();
    if shares > max && config.routes.len() > 1 {
        let problem = format!(
            "expected at least what is guaranteed and reserved on all routes, {shares}, found {max}"
        );
        reader.mistake_unless_wrong("process.max_clients", &["route"], problem);
    }
}

fn shares_of(route: &Route) -> usize {
    let guaranteed: usize = route.limits.iter().map(|limit| limit.guaranteed).sum();
    guaranteed + route.clients.reserved_clients
}

fn clients(route: &mut Route, process: &Process, path: &str, reader: &mut Reader<'_>) {
    let clients = &mut route.clients;
    let key = |name: &str| format!("{path}.clients.{name}");
    if clients.max_clients == 0 {
        clients.max_clients = process.max_clients;
    }
    let bound = ("process.max_clients", process.max_clients);
    at_most(
        reader,
        &key("max_clients"),
        &mut clients.max_clients,
        bound,
        number,
    );
    let total = ("process.buffer_memory_max", process.buffer_memory_max);
    at_most(
        reader,
        &key("output_max"),
        &mut clients.output_max,
        total,
        size,
    );
    let hard = key("subscriber_output_max");
    let hard = (hard.as_str(), clients.subscriber_output_max);
    let soft = &mut clients.subscriber_output_soft;
    at_most(reader, &key("subscriber_output_soft"), soft, hard, size);
    let request = (key("request_max"), clients.request_max);
    let request = (request.0.as_str(), request.1);
    let unauthenticated = &mut clients.unauthenticated_request_max;
    at_most(
        reader,
        &key("unauthenticated_request_max"),
        unauthenticated,
        request,
        size,
    );
    let large = &mut route.backend.large_request;
    at_most(
        reader,
        &format!("{path}.backend.large_request"),
        large,
        request,
        size,
    );
}

fn backend(route: &mut Route, path: &str, reader: &mut Reader<'_>) {
    let backend = &mut route.backend;
    let key = |name: &str| format!("{path}.backend.{name}");
    let budget = key("max_connections");
    let budget = (budget.as_str(), backend.max_connections);
    at_most(
        reader,
        &key("max_shared"),
        &mut backend.max_shared,
        budget,
        number,
    );
    at_most(
        reader,
        &key("max_leases"),
        &mut backend.max_leases,
        budget,
        number,
    );
    at_most(
        reader,
        &key("max_blocking"),
        &mut backend.max_blocking,
        budget,
        number,
    );
    at_most(
        reader,
        &key("max_subscriptions"),
        &mut backend.max_subscriptions,
        budget,
        number,
    );
    let longest = key("reconnect_max");
    let longest = (longest.as_str(), backend.reconnect_max);
    at_most(
        reader,
        &key("reconnect_min"),
        &mut backend.reconnect_min,
        longest,
        time,
    );
    if backend.username.is_some() && backend.password.is_none() {
        let problem = "expected a password with it, found none";
        reader.mistake_unless_wrong(&key("username"), &[&key("password")], problem);
    }
}

/// Each topology is found by settings of its own.
fn topology(route: &mut Route, path: &str, reader: &mut Reader<'_>) {
    let backend = &mut route.backend;
    let key = |name: &str| format!("{path}.backend.{name}");
    let (kind, name) = match backend.topology {
        TopologyKind::Standalone => (None, "standalone"),
        TopologyKind::Replicated => (Some(("nodes", !backend.nodes.is_empty())), "replicated"),
        TopologyKind::Sentinel => (
            Some(("sentinels", !backend.sentinels.is_empty())),
            "sentinel",
        ),
    };
    let is_of_sentinel = |name: &str| name.starts_with("sentinel");
    let settings = [
        "nodes",
        "sentinels",
        "sentinel_master",
        "sentinel_username",
        "sentinel_password",
        "address",
    ];
    for setting in settings {
        let belongs = match backend.topology {
            TopologyKind::Standalone => setting == "address",
            TopologyKind::Replicated => setting == "nodes",
            TopologyKind::Sentinel => is_of_sentinel(setting),
        };
        if !belongs && reader.is_written(&key(setting)) {
            let problem = format!("expected none where the topology is \"{name}\", found one");
            reader.mistake_unless_wrong(&key(setting), &[&key("topology")], problem);
        }
    }
    let Some((list, is_given)) = kind else { return };
    if !is_given {
        let problem = format!("expected `{list}` with it, found none");
        reader.mistake_unless_wrong(&key("topology"), &[&key(list)], problem);
    }
    if backend.topology == TopologyKind::Sentinel && backend.sentinel_master.is_none() {
        let problem = "expected `sentinel_master` with it, found none";
        let name = key("sentinel_master");
        reader.mistake_unless_wrong(&key("topology"), &[&name, &key(list)], problem);
    }
    if backend.sentinel_username.is_some() && backend.sentinel_password.is_none() {
        let problem = "expected a password with it, found none";
        let password = key("sentinel_password");
        reader.mistake_unless_wrong(&key("sentinel_username"), &[&password], problem);
    }
    // The list says where to go, and may change while Weir runs.
    backend.address.clear();
}

fn timeouts(route: &mut Route, path: &str, reader: &mut Reader<'_>) {
    let timeouts = &mut route.timeouts;
    let key = |name: &str| format!("{path}.timeouts.{name}");
    let slow = key("slow_request");
    let slow = (slow.as_str(), timeouts.slow_request);
    at_most(reader, &key("request"), &mut timeouts.request, slow, time);
    let request = key("request");
    let request = (request.as_str(), timeouts.request);
    at_most(
        reader,
        &key("connect"),
        &mut timeouts.connect,
        request,
        time,
    );
    at_most(reader, &key("stall"), &mut timeouts.stall, request, time);
}

fn auth(route: &mut Route, path: &str, reader: &mut Reader<'_>) {
    let mode = format!("{path}.auth.mode");
    let users = format!("{path}.auth.users");
    match (route.auth.mode, route.auth.users.is_empty()) {
        (AuthMode::Weir, true) => {
            let problem =
                format!("expected users for mode \"weir\", found no section [{users}.NAME]");
            reader.mistake_unless_wrong(&mode, &[&users], problem);
        }
        (AuthMode::Redis | AuthMode::Open, false) => {
            let problem =
                format!("expected {mode} = \"weir\" where users are listed, found another");
            reader.mistake_unless_wrong(&users, &[&mode], problem);
        }
        _ => {}
    }
}

/// Every address is listened on once, and no route is its own backend.
fn listeners(config: &Config, reader: &mut Reader<'_>) {
    let mut taken: Vec<(String, ListenAddress)> = Vec::new();
    for route in &config.routes {
        let path = join("route", &route.name);
        let backend = format!("{path}.backend.address");
        for Listener { name, address, .. } in route.doors() {
            let key = match name.as_str() {
                "" => format!("{path}.listen"),
                name => format!("{}.address", join(&format!("{path}.listener"), name)),
            };
            let nodes = &route.backend.nodes;
            let own = |node: &String| is_at(node, &address);
            if own(&route.backend.address) || nodes.iter().any(own) {
                let problem = format!(
                    "expected the address of a Redis, found {address}, where this route listens"
                );
                reader.mistake_unless_wrong(&backend, &[&key], problem);
            }
            claim(&mut taken, &key, address, reader);
        }
    }
    let admin = [
        ("admin.listen", config.admin.listen),
        ("admin.resp_listen", config.admin.resp_listen),
    ];
    for (key, address) in admin {
        if let Some(address) = address {
            claim(&mut taken, key, ListenAddress::Tcp(address), reader);
        }
    }
}

fn claim(
    taken: &mut Vec<(String, ListenAddress)>,
    key: &str,
    address: ListenAddress,
    reader: &mut Reader<'_>,
) {
    if let Some((other, theirs)) = taken.iter().find(|(_, theirs)| overlap(theirs, &address)) {
        let problem =
            format!("expected an address that is free, found {address}; {other} has {theirs}");
        reader.mistake_unless_wrong(key, &[other], problem);
    }
    taken.push((key.to_owned(), address));
}

/// Whether two sockets can not both listen. Port 0 is a different one each time.
fn overlap(a: &ListenAddress, b: &ListenAddress) -> bool {
    let (Some(a), Some(b)) = (a.tcp(), b.tcp()) else {
        return a == b;
    };
    let any = |x: SocketAddr, y: SocketAddr| {
        x.ip().is_unspecified() && (x.is_ipv4() == y.is_ipv4() || x.is_ipv6())
    };
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || any(a, b) || any(b, a))
}

/// Whether a backend's address is surely this socket of ours.
fn is_at(backend: &str, own: &ListenAddress) -> bool {
    let Some(own) = own.tcp() else {
        return backend == own.to_string();
    };
    let backend = match backend.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => backend.to_owned(),
    };
    let Ok(address) = backend.parse::<SocketAddr>() else {
        return false;
    };
    let local = address.ip().is_loopback() && own.ip().is_unspecified();
    own.port() != 0 && address.port() == own.port() && (address.ip() == own.ip() || local)
}

/// `value` is at most `bound`: a default is lowered to it, a written value is a mistake.
fn at_most<T: PartialOrd + Copy>(
    reader: &mut Reader<'_>,
    key: &str,
    value: &mut T,
    (bound_key, bound): (&str, T),
    show: impl Fn(T) -> String,
) {
    if *value <= bound {
        return;
    }
    if !reader.is_written(key) {
        *value = bound;
        return;
    }
    let problem = format!(
        "expected at most {bound_key}, {}, found {}",
        show(bound),
        show(*value)
    );
    reader.mistake_unless_wrong(key, &[bound_key], problem);
}

fn number<T: Display>(value: T) -> String {
    value.to_string()
}

fn size(value: u64) -> String {
    format_size(value)
}

fn time(value: Duration) -> String {
    format_duration(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_can_not_both_listen() {
        let overlaps = |a: &str, b: &str| {
            let (a, b): (ListenAddress, ListenAddress) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(overlap(&a, &b), overlap(&b, &a));
            overlap(&a, &b)
        };
        assert!(overlaps("127.0.0.1:1", "127.0.0.1:1"));
        assert!(overlaps("0.0.0.0:1", "127.0.0.1:1"));
        assert!(overlaps("[::]:1", "[::1]:1"));
        assert!(overlaps("[::]:1", "127.0.0.1:1"));
        assert!(!overlaps("0.0.0.0:1", "[::1]:1"));
        assert!(!overlaps("127.0.0.1:1", "127.0.0.1:2"));
        assert!(!overlaps("127.0.0.1:1", "127.0.0.2:1"));
        assert!(!overlaps("127.0.0.1:0", "127.0.0.1:0"));
        assert!(overlaps("unix:/a", "unix:/a"));
        assert!(!overlaps("unix:/a", "unix:/b"));
        assert!(!overlaps("unix:/a", "127.0.0.1:1"));
    }

    #[test]
    fn a_route_is_not_its_own_backend() {
        let own = "0.0.0.0:6380".parse().unwrap();
        assert!(is_at("127.0.0.1:6380", &own));
        assert!(is_at("localhost:6380", &own));
        assert!(!is_at("127.0.0.1:6379", &own));
        assert!(!is_at("redis.internal:6380", &own));
        let own = "unix:/run/weir.sock".parse().unwrap();
        assert!(is_at("unix:/run/weir.sock", &own));
        assert!(!is_at("unix:/run/redis.sock", &own));
    }

    #[test]
    fn defaults_give_way_to_the_bounds_that_are_written() {
        let config = Config::parse(
            "weir.toml",
            "process.buffer_memory_max = \"64MiB\"
             [route.main]
             backend = { address = \"h:1\", max_connections = 1, reconnect_max = \"10ms\" }
             clients = { request_max = \"1MiB\" }
             timeouts = { slow_request = \"1s\" }",
        );
        let route = &config.unwrap().routes[0];
        let backend = &route.backend;
        assert_eq!(
            (backend.max_shared, backend.max_leases, backend.max_blocking),
            (1, 1, 1)
        );
        assert_eq!(backend.max_subscriptions, 1);
        assert_eq!(backend.reconnect_min, Duration::from_millis(10));
        assert_eq!(route.clients.output_max, 64 << 20);
        assert_eq!(route.clients.unauthenticated_request_max, 1 << 20);
        let timeouts = &route.timeouts;
        for timeout in [timeouts.request, timeouts.connect, timeouts.stall] {
            assert_eq!(timeout, Duration::from_secs(1));
        }
    }
}
