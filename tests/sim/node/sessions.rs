//! Sessions between agents: begun where both sides accept each other, drained, closed.

use super::*;

impl World {
    pub fn drain_is_over(&mut self, i: usize, boot: BootId, issuer: SpkiPin) {
        if self.agents[i].boot == boot && self.agents[i].draining == Some(issuer) {
            self.close_sessions(i, issuer);
            self.agents[i].draining = None;
            self.agent_steps(i);
        }
    }

    /// Ends the sessions of an agent that stand on an issuer; the peer notices.
    pub(super) fn close_sessions(&mut self, i: usize, issuer: SpkiPin) {
        let is_on = |s: &Session| s.client_issuer == issuer || s.server_issuer == issuer;
        let mut peers = vec![];
        self.sessions.retain(|s| {
            let ends = (s.client == i || s.server == i) && is_on(s);
            if ends {
                peers.push(if s.client == i { s.server } else { s.client });
            }
            !ends
        });
        for peer in peers {
            let at = self.now + 5;
            self.queue.at(at, Msg::Follow(Actor::Agent(peer)));
        }
    }

    /// Two nodes begin to talk, if they can.
    pub fn sessions_tick(&mut self) {
        let next = self.now + self.rng.span(5 * SECOND, 40 * SECOND);
        self.queue.at(next, Msg::Tick(Actor::Sessions));
        let (client, server) = (
            self.rng.below(self.agents.len()),
            self.rng.below(self.agents.len()),
        );
        if client == server || !self.interoperate(client, server) || self.sessions.len() > 12 {
            return;
        }
        let (Some(client_issuer), Some(server_issuer)) =
            (self.agents[client].issuers().0, self.agents[server].issuers().1)
        else {
            return;
        };
        self.sessions.push(Session {
            client,
            server,
            client_issuer,
            server_issuer,
        });
        self.agent_steps(client);
        self.agent_steps(server);
        if self.rng.chance(500) && !self.sessions.is_empty() {
            let gone = self.rng.below(self.sessions.len());
            self.sessions.swap_remove(gone);
        }
    }
}
