//! The figures of `bench gateway`, and how they are shown.

use domain::Phase;
use serde::Serialize;

use super::{raw::Raw, spread::Spread};
use crate::bench::{Report, machine::Machine};

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Gateway {
    pub(crate) machine: Machine,
    pub(crate) agents: u32,
    /// All at one moment, until each had reported its first certificate.
    pub(crate) join: Spread,
    /// From when a control plane that was killed serves again, until each had its stream.
    pub(crate) back: Spread,
    pub(crate) rotation_s: f64,
    pub(crate) phases_s: Vec<(Phase, f64)>,
    pub(crate) commands: Commands,
    pub(crate) storm: Storm,
    pub(crate) memory: Memory,
    pub(crate) raw: Raw,
}

/// Commands of one event, each over a connection of its own.
#[derive(Debug, Serialize)]
pub(crate) struct Commands {
    pub(crate) idle: Spread,
    pub(crate) rotating: Spread,
}

/// A restart when every agent needs a certificate, and others join.
#[derive(Debug, Serialize)]
pub(crate) struct Storm {
    pub(crate) back: Spread,
    /// Those that had theirs before the control plane was killed; they count as renewed at once.
    pub(crate) renewed_before: u32,
    pub(crate) renewals: Spread,
    pub(crate) joins: Spread,
    pub(crate) peak_mib: u64,
}

/// The control plane's process.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    /// The difference that one idle agent with its stream makes, both weighed after a start.
    pub(crate) agent_kib: f64,
    pub(crate) empty_mib: u64,
    pub(crate) full_mib: u64,
    pub(crate) join_peak_mib: u64,
    pub(crate) rotation_peak_mib: u64,
}

impl Report for Gateway {
    fn text(&self) -> String {
        let phases = self.phases_s.iter().map(|(phase, s)| format!("{phase} {s:.1}"));
        let phases: Vec<_> = phases.collect();
        let (commands, storm, memory, raw) = (&self.commands, &self.storm, &self.memory, &self.raw);
        let each = |s: f64| s * 1e3 / f64::from(self.agents);
        format!(
            "{} agents on {} cores ({})\n\
             join       {}, {:.0} agents/s\n\
             rotation   {:.1} s ({}), {:.2} ms an agent\n\
             commands   idle {}; during the rotation {}\n\
             restart    all back in {:.1} s (half {:.1})\n\
             storm      all back in {:.1} s; renewals {}; joins {}\n\
             memory     {:.1} KiB an idle agent ({} MiB with all, {} with none); at the most {} MiB in the joins, {} in \
             the rotation, {} in the storm\n\
             raw        a handshake {:.2} ms of CPU for both sides, {:.0}/s a thread; a round trip {}; a TLS connection \
             {:.1} KiB\n\
             ratio      join {:.1} (time of an agent / handshake on all cores); command {:.1} (idle p50 / handshake and \
             round trip); memory {:.1}\n",
            self.agents,
            self.machine.cores,
            self.machine.processor,
            seconds(&self.join),
            f64::from(self.agents) / self.join.last_s,
            self.rotation_s,
            phases.join(", "),
            each(self.rotation_s),
            millis(&commands.idle),
            millis(&commands.rotating),
            self.back.last_s,
            self.back.p50_s,
            storm.back.last_s,
            seconds(&storm.renewals),
            seconds(&storm.joins),
            memory.agent_kib,
            memory.full_mib,
            memory.empty_mib,
            memory.join_peak_mib,
            memory.rotation_peak_mib,
            storm.peak_mib,
            raw.handshake_ms,
            raw.handshakes_per_s,
            millis(&raw.trip),
            raw.connection_kib,
            each(self.join.last_s) * self.machine.cores as f64 / raw.handshake_ms,
            commands.idle.p50_s * 1e3 / (raw.handshake_ms + raw.trip.p50_s * 1e3),
            memory.agent_kib / raw.connection_kib.max(f64::MIN_POSITIVE),
        )
    }
}

fn seconds(of: &Spread) -> String {
    format!("{:.1} s (p50 {:.1}, p99 {:.1})", of.last_s, of.p50_s, of.p99_s)
}

fn millis(of: &Spread) -> String {
    format!("p50 {:.2} ms, p99 {:.2} ms", of.p50_s * 1e3, of.p99_s * 1e3)
}
