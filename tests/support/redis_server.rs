//! A real Redis (or Valkey) server of a test's own.

use std::net::SocketAddr;
use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::{DIRECT_SOURCE, RawClient, ReservedPort};

/// A Redis server on a free port, in a directory of its own, killed when dropped.
///
/// The binary is `redis-server` from the `PATH`, or what `WEIR_TEST_REDIS_SERVER`
/// names, so that `make test-versions` can run every test against others.
#[derive(Debug)]
pub struct RedisServer {
    process: Process,
    port: ReservedPort,
    arguments: Vec<String>,
    directory: TempDir,
}

impl RedisServer {
    /// Starts a server with Redis's defaults, without persistence.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with more arguments, such as `&["--maxclients", "64"]`.
    /// Returns when it answers `PING` (an error reply, such as `-NOAUTH`, is an answer).
    pub fn with(arguments: &[&str]) -> Self {
        let port = ReservedPort::new();
        let directory = tempfile::tempdir().expect("a directory");
        let arguments = arguments
            .iter()
            .map(|argument| argument.to_string())
            .collect::<Vec<_>>();
        let process = spawn(&port, &arguments, &directory);
        let mut server = Self {
            process,
            port,
            arguments,
            directory,
        };
        server.wait_until_it_answers();
        server
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port.port()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The server's working directory.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// A connection straight to the server, which [`super::ConnectionWatch`] does not count,
    /// authenticated if the server was started with `--requirepass`.
    pub fn client(&self) -> RawClient {
        let mut client = RawClient::connect_from(DIRECT_SOURCE, self.address());
        if let Some(password) = self.password() {
            client.expect_command(&["AUTH", password], "+OK\r\n");
        }
        client
    }

    /// The password that the server was started with.
    pub fn password(&self) -> Option<&str> {
        let at = self
            .arguments
            .iter()
            .position(|argument| argument == "--requirepass")?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    /// Runs one command straight on the server and returns the raw reply.
    pub fn command(&self, arguments: &[&str]) -> Vec<u8> {
        self.client().command(arguments)
    }

    /// One field of `INFO`, such as `("clients", "blocked_clients")`.
    pub fn info(&self, section: &str, field: &str) -> String {
        let reply = self.command(&["INFO", section]);
        let text = String::from_utf8_lossy(&reply).into_owned();
        text.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .unwrap_or_else(|| panic!("INFO {section} has no {field}:\n{text}"))
            .to_owned()
    }

    /// The server's version, such as `(7, 0)`. Valkey says which Redis it stands for in
    /// `redis_version` and its own in `valkey_version`; the latter wins.
    pub fn version(&self) -> (u32, u32) {
        let info = String::from_utf8_lossy(&self.command(&["INFO", "server"])).into_owned();
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
        let version = field("valkey_version:").or_else(|| field("redis_version:"));
        let version = version.expect("every server names its version");
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// The version of Redis that the server is, or is compatible with, such as `(7, 2)`.
    pub fn compatible_version(&self) -> (u32, u32) {
        let version = self.info("server", "redis_version");
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Whether the server was built with TLS.
    pub fn is_built_with_tls() -> bool {
        // It ends by itself: for want of TLS, or of the certificate that TLS needs.
        let outcome = Command::new(binary())
            .args(["--port", "0", "--tls-port", "1"])
            .output()
            .expect("a server that can be run");
        let told = [outcome.stdout, outcome.stderr].concat();
        let told = String::from_utf8_lossy(&told);
        !told.contains("Bad directive") && !told.contains("Failed finding TLS support")
    }

    /// Whether the server is Valkey and not Redis.
    pub fn is_valkey(&self) -> bool {
        String::from_utf8_lossy(&self.command(&["INFO", "server"])).contains("valkey_version:")
    }

    /// SIGSTOP: the server hangs; its sockets stay open and nothing answers.
    pub fn stop(&mut self) {
        self.process.signal(libc::SIGSTOP);
    }

    /// SIGCONT: the server goes on where it was stopped.
    pub fn cont(&mut self) {
        self.process.signal(libc::SIGCONT);
    }

    /// SIGKILL: the server dies; its port refuses connections until [`Self::restart`].
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts the server again on the same port (killing it first if it runs) and does not
    /// wait for it: it may be loading its data for a while.
    pub fn begin_restart(&mut self) {
        self.process.kill();
        self.process = spawn(&self.port, &self.arguments, &self.directory);
    }

    /// Starts the server again on the same port (killing it first if it runs). Its data is gone
    /// unless the test configured persistence.
    pub fn restart(&mut self) {
        self.begin_restart();
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        let address = self.port.address();
        self.process.wait_until("answers PING", |_| {
            RawClient::try_connect(Some(DIRECT_SOURCE), address)
                .ok()
                .and_then(|mut client| client.try_command(&["PING"]).ok())
                .is_some_and(|reply| !reply.starts_with(b"-LOADING"))
        });
    }
}

fn binary() -> String {
    std::env::var("WEIR_TEST_REDIS_SERVER").unwrap_or("redis-server".to_owned())
}

fn spawn(port: &ReservedPort, arguments: &[String], directory: &TempDir) -> Process {
    let binary = binary();
    Process::spawn(
        format!("{binary} on port {}", port.port()),
        Command::new(&binary)
            .args(["--port", &port.port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            // Redis's protected mode takes only 127.0.0.1 for the machine itself, and the
            // tests' own connections come from another of its addresses.
            .args(["--protected-mode", "no"])
            .args(["--dir", directory.path().to_str().expect("a UTF-8 path")])
            .args(arguments),
    )
}
