//! The whole comparison at the end of a run: what the log's bytes say against every fold that grew with it.

use domain::{ClusterState, Principal, evolve::apply, id::SystemActor};
use eventlog::Stored;
use execution::codec::{Circumstances, decode, encode};

use super::*;
use crate::world::{Log, catch_up};

impl World {
    /// Writes the log down, reads it back and folds that: the truth and the fold of whoever follows equal it.
    ///
    /// Through the bytes, because the folds here grew from the same values in memory: a field that is not
    /// stored, or a fold that looks at anything but the log, would else never show.
    pub fn compare_replay(&mut self) {
        let replayed = match replay(&self.log) {
            Ok(replayed) => replayed,
            Err(text) => return self.violate(REPLAY, text),
        };
        let mut differs = vec![];
        if replayed != self.truth {
            differs.push("the state that grew with the log".to_owned());
        }
        let orchestrators = self.orchestrators.iter_mut().map(|o| &mut o.state);
        let gateways = self.gateways.iter_mut().map(|g| &mut g.state);
        let folds = orchestrators.chain(gateways).chain([&mut self.signer.state]);
        for (i, fold) in folds.enumerate() {
            catch_up(fold, &self.log);
            if *fold != replayed {
                differs.push(format!("fold {i} of orchestrators, gateways and signer"));
            }
        }
        if !differs.is_empty() {
            self.violate(REPLAY, format!("the replay differs from {differs:?}"));
        }
    }
}

/// The fold of the log as it is read back from its bytes.
fn replay(log: &Log) -> Result<ClusterState, String> {
    let cluster = "sim.cluster".parse().expect("it is a DNS name");
    let mut state = ClusterState::default();
    for event in &log.events {
        let header = &event.header;
        let is_signer = header.actor == Principal::System(SystemActor::Signer);
        let of = Circumstances {
            time: header.time,
            actor: header.actor.clone(),
            credential: header.credential.clone(),
            command: header.command.clone(),
            reason: header.reason.clone(),
            decided_at: header.decided_at,
            traceparent: None,
            service: if is_signer { "signer" } else { "orchestrator" },
        };
        let written = encode(&cluster, &event.fact, &of);
        let stored = Stored {
            position: header.position.0,
            subject: written.subject,
            data: written.data,
        };
        let mut read = decode(&stored).map_err(|e| format!("{} is not read back: {e}", header.position))?;
        // The writer draws the id of the event, which nothing depends on.
        read.header.id = header.id;
        if read != *event {
            return Err(format!("{} is read back as {read:?}", header.position));
        }
        apply(&mut state, &read);
    }
    Ok(state)
}
