//! What people read. Each answer is at or after the last position durable when the question arrived.

use api::{
    At,
    problem::Laggard,
    shape::{AuthorityStatusDoc, Whoami},
};
use domain::{Code, Position};

use super::{Asked, check};
use crate::{
    app::App,
    reply::{self, No, Reply},
};

impl Asked {
    /// As of when, and what the views must hold before they answer.
    pub(super) async fn moment(&self) -> Result<(At, Position), No> {
        let at = self.parse_parameter::<At>("at")?.unwrap_or_default();
        Ok((at, self.app.catch_up().await?))
    }
}

pub(super) async fn status(asked: &Asked) -> Reply {
    let (at, end) = asked.moment().await?;
    let mut status = asked.app.queries.status(at, end).await?;
    if at == At::Newest {
        let presences = asked.app.presences_everywhere().await;
        for AuthorityStatusDoc { lagging, .. } in &mut status.authorities {
            see_by(&asked.app, &presences, lagging);
        }
        // A schedule that stands still says why.
        if let Some(why) = check::suspect_clock(&asked.app) {
            let next = check::ACCEPT_CLOCK;
            status
                .warnings
                .insert(0, format!("{why}; if it is right: {next}"));
        }
    }
    reply::json(&status)
}

pub(super) async fn nodes(asked: &Asked) -> Reply {
    let (at, end) = asked.moment().await?;
    let mut nodes = asked.app.queries.nodes(at, end).await?;
    let presences = asked.app.presences_everywhere().await;
    let now = asked.app.now();
    for node in &mut nodes {
        // Presence is of now, whatever the rest is of: an earlier one was never written down.
        node.status = presences.of(node.metadata.name, node.spec.last_reported, now);
    }
    reply::json(&nodes)
}

pub(super) async fn authorities(asked: &Asked) -> Reply {
    let (at, end) = asked.moment().await?;
    reply::json(&asked.app.queries.authorities(at, end).await?)
}

pub(super) async fn rotations(asked: &Asked) -> Reply {
    let (_, end) = asked.moment().await?;
    reply::json(&asked.app.queries.rotations(end).await?)
}

pub(super) async fn tokens(asked: &Asked) -> Reply {
    let (_, end) = asked.moment().await?;
    reply::json(&asked.app.queries.tokens(end).await?)
}

pub(super) async fn certificates(asked: &Asked) -> Reply {
    let (at, end) = asked.moment().await?;
    reply::json(&asked.app.queries.certificates(at, end).await?)
}

pub(super) async fn users(asked: &Asked) -> Reply {
    let (_, end) = asked.moment().await?;
    reply::json(&asked.app.queries.users(end).await?)
}

pub(super) async fn consumers(asked: &Asked) -> Reply {
    let (_, end) = asked.moment().await?;
    reply::json(&asked.app.queries.consumers(end).await?)
}

/// `GET /v1/whoami`: also what a CLI needs to know whether to renew its identity.
pub(super) async fn whoami(asked: &Asked) -> Reply {
    asked.app.catch_up().await?;
    let peer = asked.caller.require_peer()?;
    let (row_issuer, bundle_revision, position) = asked.app.fold.read(|s| {
        let issuer = s
            .types
            .get(&peer.authority_type)
            .and_then(|of| of.client_issuer());
        let host = s
            .types
            .get(&domain::AuthorityType::Host)
            .and_then(|of| of.bundle.as_ref());
        (issuer, host.map(|b| b.revision).unwrap_or_default(), s.position)
    });
    reply::json(&Whoami {
        cluster: asked.app.cluster()?.to_string(),
        principal: asked.caller.principal.clone(),
        roles: asked.caller.roles.clone(),
        certificate: peer.digest,
        issuer: peer.issuer,
        not_after: peer.not_after,
        row_issuer: row_issuer
            .ok_or_else(|| No::new(Code::Internal, "the authority of this certificate has no key"))?,
        bundle_revision,
        position,
    })
}

/// Adds presence and the agent's own failure to laggards.
pub(super) async fn see(app: &App, laggards: &mut [Laggard]) {
    // Nobody is asked where there is nobody to look for.
    if laggards.is_empty() {
        return;
    }
    see_by(app, &app.presences_everywhere().await, laggards);
}

fn see_by(app: &App, presences: &crate::Presences, laggards: &mut [Laggard]) {
    let now = app.now();
    for laggard in laggards {
        laggard.status = presences.of(laggard.node, laggard.status.last_seen, now);
        if laggard.failure.is_none() {
            laggard.failure = app.fold.read(|s| {
                s.nodes
                    .get(&laggard.node)?
                    .report
                    .as_ref()?
                    .report
                    .failure
                    .clone()
            });
        }
    }
}
