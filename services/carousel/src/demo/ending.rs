//! The last screen of the demo, or its one line of JSON.

use std::path::PathBuf;

use api::audit::{VerifyOutcome, VerifyReport};
use cli::args::DemoArgs;
use domain::AuthorityType;
use tokio_util::sync::CancellationToken;

use super::{
    DemoError, Place, Rotated,
    fleet::Fleet,
    proof::Held,
    screen::grouped,
    traffic::{Counts, Failure, Tally},
};

/// Everything that the end tells.
pub(crate) struct Ending<'a> {
    pub args: &'a DemoArgs,
    pub rotations: Vec<Rotated>,
    pub counts: Counts,
    pub audit: VerifyReport,
    pub seconds: f64,
    pub kept: Option<PathBuf>,
}

impl Ending<'_> {
    /// Prints the end; with `--keep` waits until the person is done. Gives the exit code.
    pub(crate) async fn finish(
        mut self,
        fleet: &mut Fleet,
        place: Place,
        stop: CancellationToken,
    ) -> Result<u8, DemoError> {
        let good = self.is_good();
        // After a failure the evidence stays, asked for or not.
        let identity = fleet.home.admin_identity();
        if self.args.keep || !good || !place.is_temporary() {
            let kept = place.keep();
            if !good {
                self.write_failures(&kept);
            }
            self.kept = Some(kept);
        }
        if self.args.json {
            anstream::println!("{}", self.json());
        } else {
            let lines = if good { self.success() } else { self.failure() };
            anstream::println!("{}", lines.join("\n"));
        }
        if self.args.keep && good {
            anstream::eprintln!();
            anstream::eprintln!(
                "The control plane and its nodes keep running: {}",
                fleet.plane.url.as_deref().unwrap_or_default()
            );
            anstream::eprintln!("  export CAROUSEL_IDENTITY={}", identity.display());
            anstream::eprintln!("Ctrl-C ends them; the data stays.");
            stop.cancelled().await;
        }
        Ok(u8::from(!good))
    }

    /// No handshake failed, the log verifies, and the dropped authority is refused everywhere.
    fn is_good(&self) -> bool {
        let nodes = self.args.nodes as usize;
        let holds = |r: &Rotated| r.proof.holds(r.authority_type, nodes);
        self.counts.failed() == 0
            && self.counts.handshakes.total > 0
            && self.audit.verified
            && self.rotations.iter().all(holds)
    }

    fn json(&self) -> serde_json::Value {
        let rotation = |r: &Rotated| {
            let phases: Vec<_> = r
                .phases
                .iter()
                .map(|p| serde_json::json!({ "phase": p.phase, "seconds": round(p.seconds) }))
                .collect();
            serde_json::json!({ "type": r.authority_type, "id": r.id, "phases": phases })
        };
        let mut json = serde_json::json!({
            "nodes": self.args.nodes,
            "rotation": self.rotations.first().map(rotation),
            "handshakes": tally(self.counts.handshakes),
            "audit": { "events": self.audit.position.0, "verified": self.audit.verified },
            "seconds": round(self.seconds),
        });
        if self.counts.credentials.total > 0 {
            json["credentials"] = tally(self.counts.credentials);
        }
        if self.rotations.len() > 1 {
            json["rotations"] = self.rotations.iter().map(rotation).collect();
        }
        json
    }

    fn success(&self) -> Vec<String> {
        let verb = if self.args.rollback {
            "rolled back"
        } else {
            "rotated"
        };
        let what = match self.rotations.as_slice() {
            [one] => one.authority_type.row().title.to_owned(),
            many => format!("{} CAs", many.len()),
        };
        let mut lines = vec![format!(
            "{} {what} {verb} under load: {}, 0 failed.",
            super::symbol("✓", "ok"),
            self.counts.in_words()
        )];
        for rotated in &self.rotations {
            lines.push(String::new());
            lines.extend(self.rotation(rotated));
        }
        lines.extend(self.audit_lines());
        lines.push(String::new());
        let data = match &self.kept {
            Some(dir) => format!("Data kept in {}.", dir.display()),
            None => "Data removed (use --keep to look around).".to_owned(),
        };
        lines.push(format!(
            "  {} nodes, {:.1} s in all. {data}",
            self.args.nodes, self.seconds
        ));
        lines
            .push("  Settings shorter than in production: drain 1 s, each phase shown for 0.9 s.".to_owned());
        if self.args.nats.is_some() {
            lines.push("  The log's stream stays on the NATS server.".to_owned());
        }
        lines.push(String::new());
        if self.args.rollback {
            lines.push("Next: carousel demo            the whole way, to the new CA".into());
        } else {
            lines.push("Next: carousel demo --rollback     the same, changed its mind half way".into());
        }
        lines.push("      carousel demo --keep         then: carousel status, carousel audit ls".into());
        lines
    }

    fn rotation(&self, r: &Rotated) -> Vec<String> {
        let phases: Vec<_> = r
            .phases
            .iter()
            .map(|p| format!("{} {:.1} s", p.phase, p.seconds))
            .collect();
        let mut lines = vec![];
        if self.rotations.len() > 1 {
            lines.push(format!("  {}", r.authority_type.row().title));
        }
        lines.push(format!("  phases      {}", phases.join(", ")));
        lines.extend(self.proof(r));
        lines
    }

    /// What was counted before and after; nothing here is said that was not looked at.
    fn proof(&self, r: &Rotated) -> Vec<String> {
        let (nodes, proof) = (self.args.nodes, &r.proof);
        let pin = |pin: Option<domain::SpkiPin>| pin.map(|p| super::look().pin(&p)).unwrap_or_default();
        let (was, is, dropped) = if self.args.rollback {
            ("the CA", "the same CA", "new")
        } else {
            ("the old CA", "the new CA", "old")
        };
        let line = |head: &str, text: String| format!("  {head:<12}{text}");
        // Hosts serve what they were given; of the other types a node is a verifier, and what it trusts counts.
        let held = |held: &Held, which: &str, authority| match r.authority_type {
            AuthorityType::Host => format!("{}/{nodes} nodes serve {which}   {}", held.serve, pin(authority)),
            _ => format!("{}/{nodes} nodes trust {} alone", held.trust, pin(authority)),
        };
        let mut lines = vec![
            line("before", held(&proof.before, was, r.before)),
            line("after", held(&proof.after, is, r.after)),
        ];
        let (refused, tried) = (proof.refused, proof.tried);
        match r.authority_type {
            AuthorityType::Host => lines.push(line(
                "",
                format!(
                    "{refused}/{nodes} nodes refuse a client certificate of the {dropped} CA (tried: {tried})"
                ),
            )),
            AuthorityType::User => lines.push(line(
                "",
                format!("{refused}/1 gateway refuses a certificate of an operator of the {dropped} CA (tried: {tried})"),
            )),
            _ => lines.push(line(
                "",
                format!("{refused}/{nodes} nodes refuse what the {dropped} CA signed for an application (tried: {tried})"),
            )),
        }
        lines
    }

    fn audit_lines(&self) -> Vec<String> {
        let verdict = if self.audit.verified {
            "verified"
        } else {
            "NOT VERIFIED"
        };
        let mut lines = vec![format!(
            "  audit       {} events re-read: order, gaps, schemas, transitions, and every",
            grouped(self.audit.position.0)
        )];
        lines.push(format!(
            "              certificate authorised before it was issued: {verdict}"
        ));
        for check in self
            .audit
            .checks
            .iter()
            .filter(|c| c.outcome == VerifyOutcome::Failed)
        {
            lines.push(format!("              {}: {}", check.name, check.text));
        }
        lines
    }

    fn failure(&self) -> Vec<String> {
        let headline = match self.counts.failed() {
            0 => "The rotation ended, but its proof failed. This is a bug in Carousel.".to_owned(),
            failed => format!(
                "{} of {} failed. This is a bug in Carousel.",
                grouped(failed),
                self.counts.in_words()
            ),
        };
        let mut lines = vec![format!("{} {headline}", super::symbol("✗", "x")), String::new()];
        if let Some(first) = self.counts.failures.first() {
            lines.push(format!("  first       {}", in_words(first)));
            lines.push(format!("  reason      {}", first.reason));
        }
        for rotated in &self.rotations {
            lines.extend(self.rotation(rotated));
        }
        lines.extend(self.audit_lines());
        if let Some(kept) = &self.kept {
            lines.push(format!(
                "  kept        {}   log, handshakes.jsonl, agents' data",
                kept.display()
            ));
        }
        lines
    }

    fn write_failures(&self, dir: &std::path::Path) {
        let lines: Vec<String> = self
            .counts
            .failures
            .iter()
            .map(|f| failure_json(f).to_string())
            .collect();
        if let Err(error) = std::fs::write(dir.join("handshakes.jsonl"), lines.join("\n")) {
            anstream::eprintln!("warning: the failures could not be written: {error}");
        }
    }
}

fn in_words(f: &Failure) -> String {
    format!("{}  {} -> {} in {}", f.at, f.from, f.to, f.phase)
}

fn tally(of: Tally) -> serde_json::Value {
    serde_json::json!({ "total": of.total, "failed": of.failed })
}

fn failure_json(f: &Failure) -> serde_json::Value {
    serde_json::json!({
        "time": f.at, "from": f.from, "to": f.to, "phase": f.phase, "reason": f.reason, "presented": f.presented,
    })
}

/// Three decimals: what the clock of the demo is good for.
fn round(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}
