//! The operator: phase commands, and how long a command of one event takes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use api::{
    command::{CommandAnswer, RotateRequest, TokenAnswer, TokenRequest},
    route,
    shape::{Status, command_id},
};
use cli::connect::Session;
use domain::{AuthorityType, Phase, TokenHash, access::Uses, time::HOUR_MS};
use mtls::Now;
use runtime::clock::SystemClock;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::spread::Spread;
use crate::bench::BenchError;

/// Between two commands whose time is taken.
const EVERY: Duration = Duration::from_millis(100);
/// Between two looks at the status.
const LOOK: Duration = Duration::from_millis(250);

/// An administrator with an identity file.
pub(crate) struct Operator(Session);

impl Operator {
    /// The one that `init` made.
    pub(crate) fn new(identity: &Path, url: &str) -> Result<Self, BenchError> {
        let clock = SystemClock::shared();
        let now = Now::new(move || clock.now_ms());
        Ok(Self(Session::open(identity, Some(url), now)?))
    }

    /// Makes a token for so many agents: one event.
    pub(crate) async fn token(&self, secret: &str, uses: u32) -> Result<TokenAnswer, BenchError> {
        let body = TokenRequest {
            id: command_id(self.0.now(), pki::random()),
            reason: None,
            hash: TokenHash(pki::sha256(secret.as_bytes())),
            names: vec!["*.fleet.bench".into()],
            addresses: vec![],
            types: [(AuthorityType::Host, Uses::ALL)].into(),
            uses,
            ttl_ms: 24 * HOUR_MS,
        };
        Ok(self.0.post(route::TOKENS, &body).await?)
    }

    /// Enters a phase of the host authority's rotation.
    pub(crate) async fn enter(&self, phase: Phase) -> Result<CommandAnswer, BenchError> {
        let body = RotateRequest::manual(
            command_id(self.0.now(), pki::random()),
            AuthorityType::Host,
            Some(phase),
        );
        Ok(self.0.post(route::ROTATE, &body).await?)
    }

    /// Waits until no node lags any more, and keeps the identity's trust current.
    pub(crate) async fn reached(&self, phase: Phase, patience: Duration) -> Result<(), BenchError> {
        let deadline = Instant::now() + patience;
        loop {
            let status: Status = self.0.get(route::STATUS).await?;
            let mut authorities = status.authorities.iter();
            let host = authorities.find(|of| of.authority_type == AuthorityType::Host);
            let nodes = host.filter(|of| of.rotation.phase == phase).map(|of| of.nodes);
            if nodes.is_some_and(|nodes| nodes.lagging == 0) {
                self.0.keep_current().await?;
                return Ok(());
            }
            if Instant::now() >= deadline {
                let text = format!(
                    "{phase} was not reached within {} s: {nodes:?}",
                    patience.as_secs()
                );
                return Err(BenchError::Stuck(text));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Gives so many commands of one event, or as many as there is time for until `stop`: each has a connection of its
    /// own, and its time counts from the moment when it was due.
    pub(crate) async fn commands(&self, most: usize, stop: CancellationToken) -> Result<Spread, BenchError> {
        let mut due = tokio::time::interval(EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut times = vec![];
        while times.len() < most {
            let at = tokio::select! {
                () = stop.cancelled() => break,
                at = due.tick() => at,
            };
            let secret: [u8; 16] = pki::random();
            self.token(&format!("{:032x}", u128::from_be_bytes(secret)), 1)
                .await?;
            times.push(at.elapsed());
        }
        Ok(Spread::of(times))
    }
}
