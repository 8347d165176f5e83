//! A child process whose output is kept and that never outlives its owner.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use super::{DEADLINE, wait_until};

/// A running child process: SIGKILLed when dropped, its output collected line by line.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` and collects what it writes to stdout and stderr.
    pub fn spawn(name: impl Into<String>, command: &mut Command) -> Self {
        let name = name.into();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let output = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            collect(child.stdout.take().expect("piped"), Arc::clone(&output)),
            collect(child.stderr.take().expect("piped"), Arc::clone(&output)),
        ];
        Self {
            name,
            child,
            output,
            readers,
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything the process has written so far.
    pub fn output(&self) -> String {
        self.output.lock().expect("readers do not panic").clone()
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Sends `signal` (`libc::SIGTERM`, ...) to a process that still runs.
    pub fn signal(&mut self, signal: i32) {
        if self.is_running() {
            // SAFETY: kill takes no pointers, and the id is of our own child, which has not
            // been waited for, so the kernel cannot have given it to another process.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }

    /// Waits for the process to end by itself; panics after the deadline.
    pub fn wait(&mut self) -> ExitStatus {
        let given_up_at = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.readers
                    .drain(..)
                    .for_each(|reader| reader.join().expect("a reader"));
                return status;
            }
            assert!(
                Instant::now() < given_up_at,
                "{} did not end; it wrote:\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Waits until `ready` holds; panics with the process's output if it ends before.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut(&str) -> bool) {
        let name = self.name.clone();
        wait_until(&format!("{name}: {what}"), || {
            // What a process has written may be read a moment after its end.
            let ended = !self.is_running() && self.readers.iter().all(JoinHandle::is_finished);
            let output = self.output();
            let is_ready = ready(&output);
            assert!(
                !ended || is_ready,
                "{name} ended early; it wrote:\n{output}"
            );
            is_ready
        });
    }

    /// SIGKILLs the process and waits until it is gone.
    pub fn kill(&mut self) {
        // Killing fails only when the process is gone already, which is what is wanted.
        let _ = self.child.kill();
        self.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "--- {} wrote:\n{}",
                self.name,
                last_lines(&self.output(), 60)
            );
        }
    }
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            into.lock()
                .expect("no panic holds it")
                .push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
