//! The real `weir` binary, run as a user runs it.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use super::process::Process;
use super::{RawClient, RedisServer, ReservedPort, http, wait_until};

/// A running `weir`, on free ports, killed when dropped.
#[derive(Debug)]
pub struct WeirProcess {
    process: Process,
    listen: ReservedPort,
    admin: ReservedPort,
    backend: SocketAddr,
    config: Option<tempfile::TempDir>,
}

impl WeirProcess {
    /// Weir with its defaults in front of `redis`.
    pub fn in_front_of(redis: &RedisServer) -> Self {
        Self::with_args(redis, &[])
    }

    /// Weir in front of `redis` with more arguments, such as `&["--workers", "1"]`.
    pub fn with_args(redis: &RedisServer, arguments: &[&str]) -> Self {
        let (listen, admin) = (ReservedPort::new(), ReservedPort::new());
        let mut command = binary();
        command
            .args(["--listen", &listen.address().to_string()])
            .args(["--admin", &admin.address().to_string()])
            .args(["--backend", &redis.address().to_string()])
            .args(arguments);
        Self::start(command, listen, admin, redis.address(), None)
    }

    /// Weir with a config file. In its text `{listen}` and `{admin}` stand for the addresses
    /// of the free ports taken for this process, `{backend}` for the address of `redis`.
    pub fn with_config(redis: &RedisServer, config: &str) -> Self {
        let (listen, admin) = (ReservedPort::new(), ReservedPort::new());
        let config = filled(config, &listen, &admin, redis.address());
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("weir.toml");
        std::fs::write(&path, config).expect("a config file");
        let mut command = binary();
        command.arg("--config").arg(path);
        Self::start(command, listen, admin, redis.address(), Some(directory))
    }

    /// Weir with more settings in `[route.main.backend]`; other sections may follow.
    pub fn with_backend(redis: &RedisServer, settings: &str) -> Self {
        let head = "[admin]\nlisten = \"{admin}\"\n[route.main]\nlisten = \"{listen}\"\n\
                    [route.main.backend]\naddress = \"{backend}\"\n";
        Self::with_config(redis, &format!("{head}{settings}"))
    }

    /// As [`Self::with_config`], with another hosts file than the system's, in a namespace of mounts of its own.
    pub fn with_hosts(redis: &RedisServer, config: &str, hosts: &std::path::Path) -> Self {
        let (listen, admin) = (ReservedPort::new(), ReservedPort::new());
        let config = filled(config, &listen, &admin, redis.address());
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("weir.toml");
        std::fs::write(&path, config).expect("a config file");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--map-root-user", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
            .arg(hosts)
            .arg(binary().get_program())
            .arg("--config")
            .arg(path);
        Self::start(command, listen, admin, redis.address(), Some(directory))
    }

    /// Weir by this command, which has it listen at these addresses.
    pub fn with_command(
        command: Command,
        listen: ReservedPort,
        admin: ReservedPort,
        backend: SocketAddr,
    ) -> Self {
        Self::start(command, listen, admin, backend, None)
    }

    fn start(
        mut command: Command,
        listen: ReservedPort,
        admin: ReservedPort,
        backend: SocketAddr,
        config: Option<tempfile::TempDir>,
    ) -> Self {
        let address = listen.address();
        let mut process = Process::spawn("weir", &mut command);
        process.wait_until("serves clients", |_| {
            RawClient::try_connect(None, address)
                .and_then(|mut client| client.try_command(&["QUIT"]))
                .is_ok()
        });
        let weir = Self {
            process,
            listen,
            admin,
            backend,
            config,
        };
        // That was a client too; it is gone, and counted as gone, when this returns.
        if TcpStream::connect(weir.admin_address()).is_ok() {
            weir.wait_for_metric("weir_clients_connected", &[], 0.0);
        }
        weir
    }

    /// The file that it was started with.
    pub fn config_path(&self) -> PathBuf {
        let directory = self.config.as_ref().expect("started with a config file");
        directory.path().join("weir.toml")
    }

    /// A text for a config file with the same addresses in the places of `{listen}` and so on.
    pub fn filled(&self, config: &str) -> String {
        filled(config, &self.listen, &self.admin, self.backend)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.listen.address()
    }

    /// Where the operator looks.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin.address()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// A new client of this Weir.
    pub fn client(&self) -> RawClient {
        RawClient::connect(self.address())
    }

    /// What Weir has logged so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&mut self, text: &str) {
        self.process
            .wait_until(&format!("logs {text:?}"), |log| log.contains(text));
    }

    /// `GET path` on the admin address: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        http::get(self.admin_address(), path)
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The sum of all series of the metric `name` whose labels contain every one of `labels`
    /// (each as `key="value"`); 0 if there is none.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        self.metrics()
            .lines()
            .filter(|line| line.starts_with(name))
            .filter(|line| matches!(line.as_bytes().get(name.len()), Some(b' ' | b'{')))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until [`Self::metric`] is exactly this: workers count what they have done a moment
    /// behind the reply, and gauges by the clock.
    pub fn wait_for_metric(&self, name: &str, labels: &[&str], value: f64) {
        let mut last = f64::NAN;
        wait_until(&format!("{name} {labels:?} is {value}"), || {
            let now = self.metric(name, labels);
            if now != last {
                println!("{name} {labels:?}: {now}");
                last = now;
            }
            now == value
        });
    }

    /// Resident memory in bytes, as the kernel counts it.
    pub fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .expect("VmRSS");
        kib.trim().parse::<usize>().expect("a number") * 1024
    }

    /// Whether the process that was started still runs.
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Sends a signal, such as `libc::SIGHUP`.
    pub fn signal(&mut self, signal: i32) {
        self.process.signal(signal);
    }

    /// SIGTERM, then waits until Weir has ended by itself.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.signal(libc::SIGTERM);
        self.process.wait()
    }

    /// Waits until Weir has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }
}

fn filled(
    config: &str,
    listen: &ReservedPort,
    admin: &ReservedPort,
    backend: SocketAddr,
) -> String {
    config
        .replace("{listen}", &listen.address().to_string())
        .replace("{admin}", &admin.address().to_string())
        .replace("{backend}", &backend.to_string())
}

/// The binary under test, ready for arguments; for tests of the command line itself.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_weir"))
}
