//! Placeholder: the real module is on its way and replaces this file whole.
/// x
#[derive(Debug)]
pub struct InfoFacts {
    /// x
    pub connected_clients: u64,
    /// x
    pub blocked_clients: u64,
    /// x
    pub pubsub_clients: u64,
    /// x
    pub tracking_clients: u64,
    /// x
    pub watching_clients: u64,
    /// x
    pub clients_in_timeout_table: u64,
    /// x
    pub maxclients: u64,
}
/// x
pub fn rewrite_info(text: &[u8], _args: &[Vec<u8>], _facts: &InfoFacts, section: &str) -> Vec<u8> {
    let mut v = text.to_vec();
    v.extend_from_slice(section.as_bytes());
    v
}
