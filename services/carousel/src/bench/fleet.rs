//! `bench fleet`: one rotation of the host authority over a simulated fleet, on the embedded log.

use std::time::Instant;

use cli::args::FleetArgs;
use domain::Phase;
use serde::Serialize;

use super::{
    BenchError, Report,
    machine::{Machine, peak_mib, process_cpu},
    raw::{self, PerCertificate},
    rig::{PHASES, Place, Rig},
    say,
};

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Fleet {
    machine: Machine,
    nodes: u32,
    /// Until every node had joined with its first certificate.
    join_s: f64,
    /// The whole rotation, from the first command until the last node had reported `standby`.
    rotation_s: f64,
    /// Each phase of it.
    phases_s: Vec<(Phase, f64)>,
    /// CPU time of the process meanwhile, all threads.
    cpu_s: f64,
    events: u64,
    events_per_s: f64,
    certificates: u64,
    certificates_per_s: f64,
    peak_mib: u64,
    raw: Raw,
    /// `rotation_s` over what the raw work takes on all cores: (agents + ours) / cores + append.
    ratio: f64,
}

/// The same work without anything of ours around it.
#[derive(Debug, Serialize)]
struct Raw {
    /// One thread: key and request of every certificate.
    agents_cpu_s: f64,
    /// One thread: the look at every request, and every signature.
    ours_cpu_s: f64,
    /// SQLite alone, with the same bytes, settings and group size.
    append_s: f64,
    append_events_per_s: f64,
    append_mib: f64,
}

pub(crate) async fn measure(args: &FleetArgs) -> Result<Fleet, BenchError> {
    let place = Place::new(args.data_dir.clone())?;
    let per_certificate = tokio::task::spawn_blocking(PerCertificate::measure)
        .await
        .map_err(|e| BenchError::Raw(e.to_string()))?;
    let rig = Rig::start(&place.path, args.nodes).await?;
    let began = Instant::now();
    let mut nodes = rig.join(args.nodes).await?;
    let join_s = began.elapsed().as_secs_f64();
    say(&format!("{} nodes have joined in {join_s:.1} s", args.nodes));
    let start = rig.core.fold.position().0;
    let (began, cpu) = (Instant::now(), process_cpu());
    let mut phases_s = vec![];
    for phase in PHASES {
        let entered = Instant::now();
        rig.enter(phase).await?;
        nodes = rig.follow(nodes).await?;
        rig.reached(phase).await?;
        let took = entered.elapsed().as_secs_f64();
        say(&format!("{phase} in {took:.1} s"));
        phases_s.push((phase, took));
    }
    let (rotation_s, cpu_s) = (began.elapsed().as_secs_f64(), (process_cpu() - cpu).as_secs_f64());
    let (end, peak_mib) = (rig.core.fold.position().0, peak_mib());
    let appended = raw::append(&rig.core.log, start, &place.path).await?;
    rig.stop().await;
    // Two a node: the client's in update_clients, the server's in update_servers.
    let certificates = u64::from(args.nodes) * 2;
    let count = u32::try_from(certificates).unwrap_or(u32::MAX);
    let machine = Machine::this();
    let raw_s =
        (per_certificate.both() * count).as_secs_f64() / machine.cores as f64 + appended.took.as_secs_f64();
    Ok(Fleet {
        nodes: args.nodes,
        join_s,
        rotation_s,
        phases_s,
        cpu_s,
        events: end - start,
        events_per_s: (end - start) as f64 / rotation_s,
        certificates,
        certificates_per_s: certificates as f64 / rotation_s,
        peak_mib,
        raw: Raw {
            agents_cpu_s: (per_certificate.agent * count).as_secs_f64(),
            ours_cpu_s: (per_certificate.ours * count).as_secs_f64(),
            append_s: appended.took.as_secs_f64(),
            append_events_per_s: appended.events as f64 / appended.took.as_secs_f64(),
            append_mib: appended.bytes as f64 / (1024.0 * 1024.0),
        },
        ratio: rotation_s / raw_s,
        machine,
    })
}

impl Report for Fleet {
    fn text(&self) -> String {
        let phases: Vec<String> = self
            .phases_s
            .iter()
            .map(|(phase, s)| format!("{phase} {s:.1}"))
            .collect();
        let raw = &self.raw;
        format!(
            "{} nodes on {} cores ({})\n\
             join       {:.1} s, {:.0} nodes/s\n\
             rotation   {:.1} s ({}), {:.1} s of CPU, {:.2} ms a node\n\
             events     {}, {:.0}/s\n\
             certs      {}, {:.0}/s, each durable and logged\n\
             memory     {} MiB at the most\n\
             raw        agents {:.1} s + verify and sign {:.1} s of one thread; append {:.1} s ({:.0} events/s, {:.0} MiB)\n\
             ratio      {:.2} (rotation / (raw CPU / cores + raw append))\n",
            self.nodes,
            self.machine.cores,
            self.machine.processor,
            self.join_s,
            f64::from(self.nodes) / self.join_s,
            self.rotation_s,
            phases.join(", "),
            self.cpu_s,
            self.rotation_s * 1000.0 / f64::from(self.nodes),
            self.events,
            self.events_per_s,
            self.certificates,
            self.certificates_per_s,
            self.peak_mib,
            raw.agents_cpu_s,
            raw.ours_cpu_s,
            raw.append_s,
            raw.append_events_per_s,
            raw.append_mib,
            self.ratio,
        )
    }
}
