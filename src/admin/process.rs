//! What the kernel counts for the process, under the names that Prometheus's
//! own libraries use: <https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>.

use std::fs;
use std::time::Duration;

use rlimit::Resource;

use crate::metrics::{Exposition, Kind};

/// Writes CPU time, memory and file descriptors. What the system does not tell
/// (no `/proc`) is left out.
pub fn expose_process(out: &mut Exposition) {
    if let Some(cpu) = cpu_time() {
        let help = "Processor time used, by user and kernel together.";
        out.family("process_cpu_seconds_total", help, Kind::Counter);
        out.sample(&[], cpu.as_secs_f64());
    }
    if let Some(bytes) = resident_bytes() {
        out.family(
            "process_resident_memory_bytes",
            "Memory in use.",
            Kind::Gauge,
        );
        out.sample(&[], bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        out.family(
            "process_open_fds",
            "File descriptors that are open.",
            Kind::Gauge,
        );
        out.sample(&[], open.count());
    }
    if let Ok((soft, _)) = Resource::NOFILE.get() {
        out.family(
            "process_max_fds",
            "File descriptors that may be open.",
            Kind::Gauge,
        );
        out.sample(&[], soft);
    }
}

fn cpu_time() -> Option<Duration> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to memory of the right type, which the call fills.
    let failed = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0;
    if failed {
        return None;
    }
    // SAFETY: the call succeeded; besides, all zeroes are a valid `rusage`.
    let usage = unsafe { usage.assume_init() };
    let time = |spent: libc::timeval| {
        Duration::from_secs(spent.tv_sec as u64) + Duration::from_micros(spent.tv_usec as u64)
    };
    Some(time(usage.ru_utime) + time(usage.ru_stime))
}

/// From the line `VmRSS:    1234 kB` of proc_pid_status(5).
fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_used_time_and_memory() {
        assert!(cpu_time().unwrap() > Duration::ZERO);
        if cfg!(target_os = "linux") {
            assert!(resident_bytes().unwrap() > 100_000);
        }
    }

    #[test]
    fn every_family_stands_once() {
        let mut out = Exposition::new();
        expose_process(&mut out);
        let text = out.finish();
        for name in ["process_cpu_seconds_total", "process_max_fds"] {
            let lines = text
                .lines()
                .filter(|line| line.starts_with(&format!("{name} ")));
            assert_eq!(lines.count(), 1, "{text}");
        }
    }
}
