//! Sockets that systemd has opened (`LISTEN_FDS`).

use std::fs;
use std::process::Command;

use super::chain::Chain;
use super::support::{
    RawClient, RedisServer, ReservedPort, WeirProcess, binary, encode, wait_until,
};

/// Does for a program what systemd does: opens sockets, says so, becomes the program.
const LAUNCHER: &str = "\
import os, socket, sys
names, sockets = [], []
for spec in sys.argv[1].split(','):
    name, address = spec.split('=', 1)
    if address.startswith('unix:'):
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(address[5:])
    else:
        host, port = address.rsplit(':', 1)
        opened = socket.socket()
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, int(port)))
    opened.listen(100)
    names.append(name)
    sockets.append(os.dup(opened.fileno()))
high = [os.dup2(fd, 100 + place) for place, fd in enumerate(sockets)]
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place, inheritable=True)
os.closerange(3 + len(high), 256)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=':'.join(names))
os.execv(sys.argv[2], sys.argv[2:])
";

fn launch(sockets: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .args(["-c", LAUNCHER, sockets])
        .arg(binary().get_program());
    command
}

#[test]
fn sockets_of_systemd_are_used_by_their_addresses_and_outlive_weir() {
    let redis = RedisServer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("weir.sock");
    let (listen, admin) = (ReservedPort::new(), ReservedPort::new());
    let stranger = ReservedPort::new();
    let settings = directory.path().join("weir.toml");
    let text = format!(
        "admin.listen = \"{}\"\n[route.main]\nlisten = [\"{}\", \"unix:{}\"]\nbackend = \"{}\"\n",
        admin.address(),
        listen.address(),
        file.display(),
        redis.address()
    );
    fs::write(&settings, text).expect("a file");
    let mut command = launch(&format!(
        "clients={},local=unix:{},pages={},stranger={}",
        listen.address(),
        file.display(),
        admin.address(),
        stranger.address()
    ));
    command.arg("--config").arg(&settings);
    let address = redis.address();
    let mut chain = Chain::of(WeirProcess::with_command(command, listen, admin, address));
    chain.weir.wait_for_log("is at no address of the settings");
    chain.weir.wait_for_log("(stranger)");
    wait_until("Weir is ready", || chain.weir.get("/readyz").0 == 200);
    let ping = || {
        use std::io::{Read, Write};
        let mut local = std::os::unix::net::UnixStream::connect(&file).expect("the file");
        local.write_all(&encode(&["PING"])).expect("it is read");
        let mut reply = [0; 7];
        local.read_exact(&mut reply).expect("a reply");
        assert_eq!(&reply, b"+PONG\r\n");
    };
    ping();
    // The next process has them from this one, and still does not own the file.
    chain.upgrade();
    chain.wait_for_elders();
    ping();
    chain.signal(libc::SIGTERM);
    let pid = chain.pid();
    wait_until("Weir has ended", || !super::chain::runs(pid));
    assert!(file.exists(), "systemd's file");
}

#[test]
fn what_is_said_of_the_sockets_has_to_be_so() {
    let redis = RedisServer::start();
    let weir = |count: &str, pid_is_right: bool| {
        let port = ReservedPort::new();
        let mut command = Command::new("sh");
        let pid = if pid_is_right { "$$" } else { "1" };
        let script = format!("LISTEN_PID={pid} LISTEN_FDS={count} exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(binary().get_program());
        command.args(["--listen", &port.address().to_string(), "--admin", "off"]);
        command.args(["--backend", &redis.address().to_string()]);
        (command, port)
    };
    for (count, complaint) in [("many", "expected a number"), ("40", "fewer descriptors")] {
        let (mut command, _port) = weir(count, true);
        let output = command.output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && said.contains(complaint),
            "{said}"
        );
    }
    // Meant for another process.
    let (command, port) = weir("40", false);
    let mut command = command;
    let mut child = command.spawn().expect("it starts");
    wait_until("it serves", || {
        RawClient::try_connect(None, port.address())
            .and_then(|mut client| client.try_command(&["PING"]))
            .is_ok()
    });
    child.kill().expect("it runs");
    child.wait().expect("it has ended");
}
