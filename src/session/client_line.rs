//! One line of `CLIENT LIST`.

pub use super::client_filter::{KillFilter, ListFilter};

use crate::command::ServerVersion;
use std::fmt::Write;

/// What the list says about one client. Sizes are in bytes, times in seconds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ClientView {
    /// The id that Weir gave it.
    pub id: u64,
    /// Its address: `ip:port`, `[ip]:port` or `path:0`.
    pub addr: String,
    /// The address of Weir's that it connected to.
    pub laddr: String,
    /// Its socket's descriptor.
    pub fd: i64,
    /// What `CLIENT SETNAME` gave it; empty for none.
    pub name: String,
    /// Since it connected.
    pub age: u64,
    /// Since it last sent something.
    pub idle: u64,
    /// What it is doing, as Redis's letters in Redis's order; `N` for nothing.
    pub flags: String,
    /// Valkey: it has declared that it understands redirections.
    pub redirect_capable: bool,
    /// Its database.
    pub db: u32,
    /// How many channels it is subscribed to.
    pub sub: usize,
    /// How many patterns.
    pub psub: usize,
    /// How many shard channels.
    pub ssub: usize,
    /// How many commands its transaction has queued; -1 outside of one.
    pub multi: i64,
    /// How many keys it watches.
    pub watch: u64,
    /// What it has sent that is not yet run.
    pub qbuf: usize,
    /// What is free of the buffer for that.
    pub qbuf_free: usize,
    /// The arguments of a request that is not complete.
    pub argv_mem: usize,
    /// The arguments of its transaction.
    pub multi_mem: usize,
    /// The size of its reply buffer.
    pub rbs: usize,
    /// The largest it has needed of late.
    pub rbp: usize,
    /// What stands in it.
    pub obl: usize,
    /// How many further buffers of replies there are.
    pub oll: usize,
    /// Their size.
    pub omem: usize,
    /// All memory that it costs.
    pub tot_mem: usize,
    /// Which events of its socket are waited for: `r`, `w`, both or none.
    pub events: String,
    /// Its last command, as in `client|list`; empty if it sent none yet.
    pub cmd: String,
    /// Its user.
    pub user: String,
    /// The client that its invalidations go to; -1 if it does not track.
    pub redir: i64,
    /// The protocol it speaks, 2 or 3.
    pub resp: u8,
    /// What `CLIENT SETINFO lib-name` said.
    pub lib_name: String,
    /// What `CLIENT SETINFO lib-ver` said.
    pub lib_ver: String,
    /// How much it has sent in all.
    pub tot_net_in: u64,
    /// How much was sent to it in all.
    pub tot_net_out: u64,
    /// How many commands it has run.
    pub tot_cmds: u64,
}

/// The line about this client, with the newline that ends it, with the fields
/// that a server of this version has.
pub fn format_line(client: &ClientView, server: ServerVersion) -> String {
    let mut line = Line(String::with_capacity(LINE_LEN));
    let since = |major, minor| server.like_redis(major, minor);
    line.field("id", client.id);
    line.field("addr", &client.addr);
    line.field("laddr", &client.laddr);
    line.field("fd", client.fd);
    line.field("name", &client.name);
    line.field("age", client.age);
    line.field("idle", client.idle);
    line.field("flags", &client.flags);
    if server.is_valkey(8, 1) {
        line.field("capa", if client.redirect_capable { "r" } else { "" });
    }
    line.field("db", client.db);
    line.field("sub", client.sub);
    line.field("psub", client.psub);
    if since(7, 0) {
        line.field("ssub", client.ssub);
    }
    line.field("multi", client.multi);
    if since(7, 4) {
        line.field("watch", client.watch);
    }
    line.field("qbuf", client.qbuf);
    line.field("qbuf-free", client.qbuf_free);
    line.field("argv-mem", client.argv_mem);
    if since(7, 0) {
        line.field("multi-mem", client.multi_mem);
        line.field("rbs", client.rbs);
        line.field("rbp", client.rbp);
    }
    line.field("obl", client.obl);
    line.field("oll", client.oll);
    line.field("omem", client.omem);
    line.field("tot-mem", client.tot_mem);
    line.field("events", &client.events);
    line.field("cmd", last_command(client, server));
    line.field("user", &client.user);
    line.field("redir", client.redir);
    if since(7, 0) {
        line.field("resp", client.resp);
    }
    if since(7, 2) {
        line.field("lib-name", &client.lib_name);
        line.field("lib-ver", &client.lib_ver);
    }
    if since(8, 0) {
        line.field("io-thread", 0);
    }
    // Redis counts traffic for each client since 8.2, Valkey since 8.1.
    if since(8, 2) || server.is_valkey(8, 1) {
        line.field("tot-net-in", client.tot_net_in);
        line.field("tot-net-out", client.tot_net_out);
        line.field("tot-cmds", client.tot_cmds);
    }
    line.0.push('\n');
    line.0
}

/// Most lines are shorter.
const LINE_LEN: usize = 512;

/// Before Redis 7 subcommands were not told apart.
fn last_command(client: &ClientView, server: ServerVersion) -> &str {
    match client.cmd.split_once('|') {
        _ if client.cmd.is_empty() => "NULL",
        Some((container, _)) if !server.like_redis(7, 0) => container,
        _ => &client.cmd,
    }
}

struct Line(String);

impl Line {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let separator = if self.0.is_empty() { "" } else { " " };
        write!(self.0, "{separator}{name}={value}").expect("a string takes all");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The client whose lines were recorded from the servers.
    pub(in super::super) fn recorded() -> ClientView {
        ClientView {
            id: 8,
            addr: "127.0.0.1:35088".into(),
            laddr: "127.0.0.1:27170".into(),
            fd: 8,
            name: "ok".into(),
            flags: "N".into(),
            multi: -1,
            qbuf: 26,
            qbuf_free: 20448,
            argv_mem: 10,
            rbs: 16384,
            rbp: 16384,
            tot_mem: 37658,
            events: "r".into(),
            cmd: "client|info".into(),
            user: "default".into(),
            redir: -1,
            resp: 2,
            tot_net_in: 812,
            tot_net_out: 6627,
            tot_cmds: 22,
            ..ClientView::default()
        }
    }

    #[test]
    fn lines_have_the_fields_of_the_servers_version() {
        assert_eq!(
            format_line(&recorded(), ServerVersion::redis(7, 0)),
            "id=8 addr=127.0.0.1:35088 laddr=127.0.0.1:27170 fd=8 name=ok age=0 idle=0 flags=N \
             db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=26 qbuf-free=20448 argv-mem=10 multi-mem=0 \
             rbs=16384 rbp=16384 obl=0 oll=0 omem=0 tot-mem=37658 events=r cmd=client|info \
             user=default redir=-1 resp=2\n"
        );
        assert_eq!(
            format_line(&recorded(), ServerVersion::redis(6, 2)),
            "id=8 addr=127.0.0.1:35088 laddr=127.0.0.1:27170 fd=8 name=ok age=0 idle=0 flags=N \
             db=0 sub=0 psub=0 multi=-1 qbuf=26 qbuf-free=20448 argv-mem=10 obl=0 oll=0 omem=0 \
             tot-mem=37658 events=r cmd=client user=default redir=-1\n"
        );
        assert_eq!(
            format_line(&recorded(), ServerVersion::valkey(9, 1)),
            "id=8 addr=127.0.0.1:35088 laddr=127.0.0.1:27170 fd=8 name=ok age=0 idle=0 flags=N \
             capa= db=0 sub=0 psub=0 ssub=0 multi=-1 watch=0 qbuf=26 qbuf-free=20448 argv-mem=10 \
             multi-mem=0 rbs=16384 rbp=16384 obl=0 oll=0 omem=0 tot-mem=37658 events=r \
             cmd=client|info user=default redir=-1 resp=2 lib-name= lib-ver= tot-net-in=812 \
             tot-net-out=6627 tot-cmds=22\n"
        );
    }

    #[test]
    fn a_client_that_has_sent_nothing_has_no_command() {
        let client = ClientView {
            cmd: String::new(),
            multi: 3,
            resp: 3,
            ..recorded()
        };
        let line = format_line(&client, ServerVersion::redis(7, 0));
        for part in [" multi=3 ", " cmd=NULL ", " resp=3\n"] {
            assert!(line.contains(part), "{part:?} in {line}");
        }
    }
}
