//! Placeholder: the real module is on its way and replaces this file whole.
/// x
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct ClientView {
    pub id: u64,
    pub addr: String,
    pub laddr: String,
    pub fd: i64,
    pub name: String,
    pub age: u64,
    pub idle: u64,
    pub flags: String,
    pub db: u32,
    pub sub: usize,
    pub psub: usize,
    pub ssub: usize,
    pub multi: i64,
    pub watch: u64,
    pub qbuf: usize,
    pub qbuf_free: usize,
    pub obl: usize,
    pub omem: usize,
    pub tot_mem: usize,
    pub events: String,
    pub cmd: String,
    pub user: String,
    pub redir: i64,
    pub resp: u8,
    pub lib_name: String,
    pub lib_ver: String,
}
/// x
#[derive(Debug, Clone, Default)]
pub struct KillFilter;
impl KillFilter {
    /// x
    pub fn matches(&self, _v: &ClientView, _caller: u64) -> bool {
        false
    }
}
