//! A primary with replicas, and sentinels that watch them: real servers.

use std::process::Command;

use tempfile::TempDir;

use super::process::Process;
use super::{RawClient, RedisServer, ReservedPort, wait_until};

/// One primary, the first, and its replicas.
#[derive(Debug)]
pub struct Replicas {
    /// The servers; which one is the primary changes.
    pub nodes: Vec<RedisServer>,
}

impl Replicas {
    /// Starts `count` servers of which the first is the primary, and waits until the
    /// others have its data.
    pub fn start(count: usize) -> Replicas {
        Replicas::with(count, &[])
    }

    /// The same with more arguments for each.
    pub fn with(count: usize, arguments: &[&str]) -> Replicas {
        let quick = ["--repl-diskless-sync-delay", "0", "--repl-timeout", "5"];
        let arguments = [&quick[..], arguments].concat();
        let nodes = (0..count).map(|_| RedisServer::with(&arguments)).collect();
        let replicas = Replicas { nodes };
        for node in 1..count {
            replicas.follow(node, 0);
        }
        replicas.wait_until_linked(0);
        // A primary begins to stream only when its replica has said that it has loaded.
        let mut primary = replicas.nodes[0].client();
        primary.expect_command(&["SET", "warm-up", ""], "+OK\r\n");
        primary.expect_command(&["DEL", "warm-up"], ":1\r\n");
        for node in 1..count {
            replicas.wait_until_caught_up(node, 0);
        }
        replicas
    }

    /// Has one server copy another.
    pub fn follow(&self, node: usize, primary: usize) {
        let port = self.nodes[primary].port().to_string();
        let command = ["REPLICAOF", "127.0.0.1", &port];
        self.nodes[node]
            .client()
            .expect_command(&command, "+OK\r\n");
    }

    /// Waits until all that copy `primary` hear from it.
    pub fn wait_until_linked(&self, primary: usize) {
        let port = self.nodes[primary].port().to_string();
        wait_until("replicas have their primary's data", || {
            self.nodes.iter().enumerate().all(|(index, node)| {
                if index == primary || node.info("replication", "role") == "master" {
                    return true;
                }
                node.info("replication", "master_port") != port
                    || node.info("replication", "master_link_status") == "up"
            })
        });
    }

    /// Waits until a replica has everything that `primary` has.
    pub fn wait_until_caught_up(&self, node: usize, primary: usize) {
        wait_until("the replica has caught up", || {
            let offset = |it: usize| self.nodes[it].info("replication", "master_repl_offset");
            offset(node) == offset(primary)
        });
    }

    /// Makes one server the primary by hand, and has the others that answer copy it.
    pub fn promote(&self, node: usize, others: &[usize]) {
        let command = ["REPLICAOF", "NO", "ONE"];
        self.nodes[node]
            .client()
            .expect_command(&command, "+OK\r\n");
        for &other in others {
            self.follow(other, node);
        }
    }

    /// The settings of a `replicated` backend with these servers, in this order.
    pub fn settings(&self, order: &[usize]) -> String {
        let nodes: Vec<String> = order
            .iter()
            .map(|&node| format!("\"{}\"", self.nodes[node].address()))
            .collect();
        format!(
            "topology = \"replicated\"\nnodes = [{}]\n",
            nodes.join(", ")
        )
    }
}

/// Three sentinels that watch one primary, which they call `main`.
#[derive(Debug)]
pub struct Sentinels {
    sentinels: Vec<Sentinel>,
}

#[derive(Debug)]
struct Sentinel {
    password: String,
    process: Option<Process>,
    port: ReservedPort,
    directory: TempDir,
}

impl Sentinels {
    /// Watches the first of `replicas`; a failover begins when it has been away for three
    /// seconds.
    pub fn watch(replicas: &Replicas, settings: &str) -> Sentinels {
        Sentinels::with_password(replicas, settings, "")
    }

    /// The same for sentinels that want a password.
    pub fn with_password(replicas: &Replicas, settings: &str, password: &str) -> Sentinels {
        let port = replicas.nodes[0].port();
        let sentinels = (0..3)
            .map(|_| {
                let own = ReservedPort::new();
                let directory = tempfile::tempdir().expect("a directory");
                let config = format!(
                    "port {}\nbind 127.0.0.1\nprotected-mode no\ndir {}\n\
                     sentinel monitor main 127.0.0.1 {port} 2\n\
                     sentinel down-after-milliseconds main 3000\n\
                     sentinel failover-timeout main 6000\nsentinel parallel-syncs main 4\n{settings}\n",
                    own.port(),
                    directory.path().display(),
                );
                std::fs::write(directory.path().join("sentinel.conf"), config).expect("a file");
                let mut sentinel = Sentinel {
                    password: password.to_owned(),
                    process: None,
                    port: own,
                    directory,
                };
                sentinel.start();
                sentinel
            })
            .collect();
        let sentinels = Sentinels { sentinels };
        let others = replicas.nodes.len() - 1;
        wait_until("the sentinels know each other and the replicas", || {
            sentinels.sentinels.iter().all(|it| it.knows(others))
        });
        sentinels
    }

    /// Ends them all.
    pub fn kill_all(&mut self) {
        for sentinel in &mut self.sentinels {
            sentinel.process = None;
        }
    }

    /// The settings of a `sentinel` backend.
    pub fn settings(&self) -> String {
        self.settings_of(&[0, 1, 2])
    }

    /// The same with some of them only.
    pub fn settings_of(&self, which: &[usize]) -> String {
        let addresses: Vec<String> = which
            .iter()
            .map(|&it| format!("\"{}\"", self.sentinels[it].port.address()))
            .collect();
        let addresses = addresses.join(", ");
        format!("topology = \"sentinel\"\nsentinels = [{addresses}]\nsentinel_master = \"main\"\n")
    }

    /// How many connections, of those that are subscribed, one of them has from others than
    /// sentinels.
    pub fn subscribers(&self, which: usize) -> usize {
        let mut client = self.sentinels[which].client().expect("it answers");
        let reply = client.command(&["CLIENT", "LIST"]);
        let text = String::from_utf8_lossy(&reply).into_owned();
        text.lines()
            .filter(|it| it.contains("cmd=subscribe"))
            .count()
    }

    /// Has a failover made now.
    pub fn fail_over(&self) {
        let first = &self.sentinels[0];
        let mut client = first.client().expect("a sentinel that answers");
        wait_until("a sentinel has a replica to promote", || {
            // It asks its replicas every second what they are.
            let reply = client.command(&["SENTINEL", "FAILOVER", "main"]);
            let text = String::from_utf8_lossy(&reply).into_owned();
            assert!(
                text == "+OK\r\n" || text.starts_with("-NOGOODSLAVE "),
                "{text}"
            );
            text == "+OK\r\n"
        });
    }
}

impl Sentinel {
    fn start(&mut self) {
        let config = self.directory.path().join("sentinel.conf");
        let binary = std::env::var("WEIR_TEST_REDIS_SERVER").unwrap_or("redis-server".to_owned());
        self.process = Some(Process::spawn(
            format!("sentinel on port {}", self.port.port()),
            Command::new(binary).arg(config).arg("--sentinel"),
        ));
    }

    fn client(&self) -> Option<RawClient> {
        let mut client = RawClient::try_connect(None, self.port.address()).ok()?;
        if !self.password.is_empty() {
            client.try_command(&["AUTH", &self.password]).ok()?;
        }
        Some(client)
    }

    fn knows(&self, replicas: usize) -> bool {
        let Some(mut client) = self.client() else {
            return false;
        };
        let Ok(reply) = client.try_command(&["SENTINEL", "MASTER", "main"]) else {
            return false;
        };
        let text = String::from_utf8_lossy(&reply).into_owned();
        let field = |name: &str| {
            let mut lines = text.lines().skip_while(|line| *line != name);
            lines.nth(2).map(str::to_owned)
        };
        field("num-slaves") == Some(replicas.to_string())
            && field("num-other-sentinels") == Some("2".to_owned())
            && field("flags") == Some("master".to_owned())
    }
}
