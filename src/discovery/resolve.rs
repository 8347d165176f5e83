//! Names to addresses. Behind one name may be one node, another than a minute ago, or
//! several (a headless service of Kubernetes).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

/// Of one name so many addresses are used.
const ADDRESSES_MAX: usize = 64;

/// The resolver is waited for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// The addresses of a `host:port`, sorted, each as it is dialled.
///
/// # Errors
/// What the resolver said, for people.
pub async fn resolve(name: &str) -> Result<Vec<String>, String> {
    if name.parse::<SocketAddr>().is_ok() {
        return Ok(vec![name.to_owned()]);
    }
    let found = timeout(PATIENCE, lookup_host(name)).await;
    let found =
        found.map_err(|_| format!("cannot resolve {name}: no answer within {PATIENCE:?}"))?;
    let found = found.map_err(|error| format!("cannot resolve {name}: {error}"))?;
    let addresses = of_one_family(found.collect());
    if addresses.is_empty() {
        return Err(format!("{name} has no address"));
    }
    Ok(addresses)
}

/// A node that has an address of each family (`localhost`) is one node, not two.
fn of_one_family(mut found: Vec<SocketAddr>) -> Vec<String> {
    if found.iter().any(SocketAddr::is_ipv4) {
        found.retain(SocketAddr::is_ipv4);
    }
    found.sort();
    found.dedup();
    found.truncate(ADDRESSES_MAX);
    found.iter().map(SocketAddr::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::of_one_family;

    #[test]
    fn two_families_are_one_node_and_two_addresses_are_two() {
        let parse = |list: &[&str]| list.iter().map(|it| it.parse().unwrap()).collect();
        assert_eq!(
            of_one_family(parse(&["[::1]:6379", "127.0.0.1:6379"])),
            ["127.0.0.1:6379"]
        );
        assert_eq!(
            of_one_family(parse(&["10.0.0.2:1", "10.0.0.1:1", "10.0.0.2:1"])),
            ["10.0.0.1:1", "10.0.0.2:1"]
        );
        assert_eq!(of_one_family(parse(&["[::1]:1"])), ["[::1]:1"]);
    }
}
