//! A Weir and those that take its place, one after the other.

use std::fs;

use super::support::{RedisServer, WeirProcess, wait_until};

/// Processes that share a log; all die with this.
pub struct Chain {
    pub weir: WeirProcess,
    pids: Vec<u32>,
}

impl Chain {
    pub fn start(redis: &RedisServer, process: &str, backend: &str, rest: &str) -> Chain {
        Chain::of(WeirProcess::with_config(
            redis,
            &config(process, backend, rest),
        ))
    }

    pub fn of(weir: WeirProcess) -> Chain {
        let pids = vec![weir.pid()];
        Chain { weir, pids }
    }

    /// The process that serves.
    pub fn pid(&self) -> u32 {
        *self.pids.last().expect("the first")
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes no pointers; the process is one that this test started, and it
        // was not waited for, or is a descendant that still runs.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// Has the process that serves replaced.
    pub fn upgrade(&mut self) {
        let before = self.handed_over().len();
        self.signal(libc::SIGUSR2);
        self.wait_for_successor(before);
    }

    /// Waits for one more than `before` to have taken over.
    pub fn wait_for_successor(&mut self, before: usize) {
        let refusals = |log: &str| log.matches("no upgrade").count();
        let refused = refusals(&self.weir.log());
        wait_until("another process has taken over", || {
            let log = self.weir.log();
            assert!(refusals(&log) <= refused, "{log}");
            // Who connects before it has opened its doors may get in by the other's.
            let last = log.rfind("handing over").unwrap_or_default();
            self.handed_over().len() > before && log[last..].contains("serving route=")
        });
        self.pids.push(self.handed_over()[before]);
    }

    /// The process that serves has died, and the one before it serves again.
    pub fn go_back(&mut self) {
        self.pids.pop();
    }

    /// Waits until all but the process that serves have ended.
    pub fn wait_for_elders(&mut self) {
        let (_, elders) = self.pids.split_last().expect("the first");
        let elders = elders.to_vec();
        wait_until("the processes before have ended", || {
            let first = self.weir.is_running();
            !first && elders.iter().all(|pid| !runs(*pid))
        });
    }

    /// Waits until the process that serves knows that it is alone.
    pub fn wait_for_budget(&self, upgrades: usize) {
        wait_until("the whole budget is the new one's", || {
            let log = self.weir.log();
            log.matches("the whole budget is here").count() >= upgrades
        });
    }

    fn handed_over(&self) -> Vec<u32> {
        let log = self.weir.log();
        let lines = log.lines().filter(|line| line.contains("handing over"));
        lines
            .filter_map(|line| line.split("pid=").nth(1)?.split(' ').next()?.parse().ok())
            .collect()
    }
}

pub fn config(process: &str, backend: &str, rest: &str) -> String {
    format!(
        "[process]\nworkers = 2\n{process}\n[admin]\nlisten = \"{{admin}}\"\n\
         [route.main]\nlisten = \"{{listen}}\"\n\
         [route.main.backend]\naddress = \"{{backend}}\"\n{backend}\n{rest}\n"
    )
}

/// Whether there is such a process, and not only what is left of one.
pub fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z')
}

impl Drop for Chain {
    fn drop(&mut self) {
        for pid in self.pids.iter().chain(&self.handed_over()) {
            if runs(*pid) {
                // SAFETY: as in `signal`.
                unsafe { libc::kill(*pid as i32, libc::SIGKILL) };
            }
        }
    }
}
