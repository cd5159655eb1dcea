//! What the member reports of itself: the facts of what is installed, as events on its own subject.

use std::time::Duration;

use domain::{
    AuthorityType, Order, Position,
    fact::{FactsByType, TypeFacts},
    phase::Phase,
};

use super::{Member, Trouble, wanted::Wanted};

impl Member {
    /// Does the log still hold this start as running?
    pub(super) fn is_recorded(&self) -> bool {
        let (member, boot) = (self.app.config.member, self.boot);
        self.app.fold.read(|s| {
            s.members
                .get(&member)
                .is_some_and(|m| m.running && m.boot == Some(boot))
        })
    }

    /// Does the state hold the newest report of this start? An answer alone does not say so: it comes also when
    /// the fold is late, and for a report that said nothing new and never went to the log.
    pub(super) fn is_read_back(&self) -> bool {
        let (member, boot, seq) = (self.app.config.member, self.boot, self.seq);
        self.app.fold.read(|s| {
            s.members
                .get(&member)
                .is_some_and(|m| m.boot == Some(boot) && m.seq >= seq)
        })
    }

    /// What is installed, as facts; before the first row is held, with revision 0: measured under nothing.
    pub(super) fn facts(&self) -> FactsByType {
        let held = self.app.held.borrow();
        let epoch = self.app.epochs.load();
        let rows = [AuthorityType::Host, AuthorityType::User];
        let facts = rows
            .into_iter()
            .filter(|t| !epoch.trusted(*t).is_empty())
            .map(|t| {
                let is_host = t == AuthorityType::Host;
                let (client, server) = (
                    epoch.client().filter(|_| is_host),
                    epoch.server().filter(|_| is_host),
                );
                let facts = TypeFacts {
                    revision: held.get(&t).copied().unwrap_or(Position(0)),
                    trusted: epoch.trusted(t),
                    client_issuer: client.map(|c| c.issuer()),
                    server_issuer: server.map(|c| c.issuer()),
                    client_not_after: client.map(|c| c.certificate().not_after),
                    server_not_after: server.map(|c| c.certificate().not_after),
                    sessions_on_retiring: is_host
                        && self.draining.is_some()
                        && self.is_in(Phase::UpdateServers),
                    sessions_of_excluded: false,
                    ssh_issuer: None,
                    ssh_not_after: None,
                };
                (t, Box::new(facts))
            });
        facts.collect()
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.installed
            .as_ref()
            .and_then(Wanted::host)
            .is_some_and(|row| row.phase == phase)
    }

    pub(super) fn report_is_due(&self) -> bool {
        self.reported.as_ref() != Some(&self.facts())
    }

    pub(super) async fn start(&mut self) -> Result<(), Trouble> {
        self.seq += 1;
        let facts = self.facts();
        let (member, boot, seq, config) = (self.app.config.member, self.boot, self.seq, &self.app.config);
        let order = Order::StartMember {
            member,
            boot,
            seq,
            service: domain::state::GATEWAY.into(),
            names: config.names.clone(),
            addresses: config.addresses.clone(),
            facts: facts.clone(),
        };
        self.execute(order).await?;
        self.reported = Some(facts);
        Ok(())
    }

    pub(super) async fn report(&mut self) -> Result<(), Trouble> {
        self.seq += 1;
        let facts = self.facts();
        let (member, boot, seq) = (self.app.config.member, self.boot, self.seq);
        let sent = self.app.serving.stamp();
        self.execute(Order::ReportMember {
            member,
            boot,
            seq,
            facts: facts.clone(),
        })
        .await?;
        if self.is_read_back() {
            self.app.serving.heard(sent);
        }
        self.reported = Some(facts);
        Ok(())
    }

    pub(super) async fn stop(&self) {
        let order = Order::StopMember {
            member: self.app.config.member,
            boot: self.boot,
        };
        // Without it the orchestrator waits 30 s and finds out by itself.
        let stopping = tokio::time::timeout(Duration::from_secs(3), self.execute(order)).await;
        match stopping {
            Ok(Ok(_)) => tracing::info!("the gateway's stop is recorded"),
            Ok(Err(error)) => tracing::warn!(%error, "the gateway's stop could not be recorded"),
            Err(_) => tracing::warn!("the gateway's stop could not be recorded in time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Gateway, testing::World};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_report_that_says_nothing_new_proves_nothing() {
        let w = World::new().await;
        let Gateway { app, mut member, .. } = w.open(w.config("127.0.0.1:0")).await.unwrap();
        member.start().await.unwrap();
        assert!(member.is_read_back(), "a start is an event");
        app.serving.begin(app.serving.stamp());
        w.clock.advance(Duration::from_secs(15));
        // Answered from the state alone, as it would be with a log that nobody can reach.
        member.report().await.unwrap();
        assert!(!member.is_read_back());
        w.clock.advance(Duration::from_secs(6));
        assert!(app.serving.check().is_err(), "nothing was read back for 21 s");
    }
}
