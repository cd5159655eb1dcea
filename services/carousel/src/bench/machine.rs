//! What the figures were measured on, and what the kernel says of this process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// The machine, as far as it matters for a figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) processor: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
}

impl Machine {
    pub(crate) fn this() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = info.lines().find(|line| line.starts_with("model name"));
        let name = name.and_then(|line| line.split_once(": "));
        Self {
            processor: name.map_or("unknown", |(_, name)| name.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
        }
    }
}

/// The most memory that this process has held, in MiB.
pub(crate) fn peak_mib() -> u64 {
    memory_kib(std::process::id(), "VmHWM:") / 1024
}

/// What the kernel says of a process's memory, in KiB: `VmRSS:` now, `VmHWM:` at the most.
pub(crate) fn memory_kib(process: u32, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let found = status.lines().find_map(|line| line.strip_prefix(which));
    let kib = found.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
    kib.unwrap_or_default()
}

/// CPU time of this thread.
pub(crate) fn thread_cpu() -> Duration {
    of(ClockId::ThreadCPUTime)
}

/// CPU time of this process.
pub(crate) fn process_cpu() -> Duration {
    of(ClockId::ProcessCPUTime)
}

fn of(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}
