//! Processor time of other processes, read at the edges of the measured time.

use std::fs;
use std::str::FromStr;

use serde_json::{Map, Value, json};

/// A process to watch: `proxy=1234`.
#[derive(Debug, Clone)]
pub struct Watched {
    name: String,
    pid: u32,
}

impl FromStr for Watched {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = text.split_once('=').ok_or("expected NAME=PID")?;
        let pid = pid.parse().map_err(|error| format!("{pid}: {error}"))?;
        Ok(Self {
            name: name.to_owned(),
            pid,
        })
    }
}

/// The seconds of processor time that each has used so far, all its threads together, in
/// the kernel and outside it.
pub fn used(watched: &[Watched]) -> Vec<f64> {
    watched
        .iter()
        .map(|process| seconds(process.pid).unwrap_or(f64::NAN))
        .collect()
}

/// What each used between two readings.
pub fn difference(watched: &[Watched], before: &[f64], after: &[f64]) -> Value {
    let used = watched.iter().zip(before.iter().zip(after));
    let used = used.map(|(process, (before, after))| (process.name.clone(), json!(after - before)));
    Value::Object(used.collect::<Map<_, _>>())
}

fn seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name comes in brackets and may hold anything, also brackets.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    // The unit is a hundredth of a second on every Linux that there is (USER_HZ).
    Some((user + system) / 100.0)
}
