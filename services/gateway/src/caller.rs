//! Who calls: from a verified certificate to a principal with roles, by the log and nothing else.

use std::collections::BTreeSet;

use domain::{
    Code, Credential, NodeId, Principal, Refusal, UserName,
    access::{Action, RoleName, permits},
    identity::identify,
};
use mtls::PeerIdentity;

use crate::{
    app::App,
    door::Connection,
    firsts,
    reply::No,
    route::{Accepts, Route},
    strangers::Alert,
};

/// A caller that was let in.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) roles: BTreeSet<RoleName>,
    /// The certificate it presented; none on public routes without one.
    pub(crate) peer: Option<PeerIdentity>,
}

impl Caller {
    /// The node that calls. Routes for nodes accept nothing else.
    pub(crate) fn node(&self) -> Result<NodeId, No> {
        match self.principal {
            Principal::Node(node) => Ok(node),
            _ => Err(No::new(Code::NotPermitted, "this is for nodes alone")),
        }
    }

    /// The person or program that calls.
    pub(crate) fn user(&self) -> Result<&UserName, No> {
        match &self.principal {
            Principal::User(name) => Ok(name),
            _ => Err(No::new(Code::NotPermitted, "this is for operators alone")),
        }
    }

    /// May it do this, by its kind and its roles?
    pub(crate) fn may(&self, action: Action) -> bool {
        permits(&self.principal, &self.roles, action)
    }

    /// What it lacks, for people.
    pub(crate) fn lacks(&self, action: Action) -> No {
        let needed = match action {
            Action::Rotate => "the role operator",
            Action::Administer => "the role admin",
            Action::Sign => "the role operator for databases, and admin for all else",
            _ => "a role",
        };
        let has: Vec<_> = self
            .roles
            .iter()
            .map(|r| format!("{r:?}").to_lowercase())
            .collect();
        let text = format!(
            "{} has the roles [{}]; this needs {needed}",
            self.principal,
            has.join(", ")
        );
        No::new(Code::NotPermitted, text)
    }

    /// The certificate it presented, as what proves it.
    pub(crate) fn credential(&self) -> Option<Credential> {
        self.peer.as_ref().map(|p| Credential::Certificate(p.digest))
    }

    /// What the gateway saw of the connection.
    pub(crate) fn require_peer(&self) -> Result<&PeerIdentity, No> {
        self.peer.as_ref().ok_or_else(unauthenticated)
    }
}

/// Lets a request in, or says why not: identity first, then the kind of principal, then its roles now.
///
/// The roles of a command are looked at where it is decided and not here: so its refusal is on record, and the
/// log says who tried what.
pub(crate) async fn admit(app: &App, connection: &Connection, route: &Route) -> Result<Caller, No> {
    if route.accepts == Accepts::Public {
        // A certificate that was presented says nothing here: the answer is for everybody.
        let principal = Principal::Anonymous;
        return Ok(Caller {
            principal,
            roles: BTreeSet::new(),
            peer: connection.peer.clone(),
        });
    }
    let Some(peer) = connection.peer.clone() else {
        app.strangers.count("no_certificate");
        return Err(unauthenticated());
    };
    let principal = match identity(app, &peer).await {
        Ok(principal) => principal,
        Err(refusal) => {
            alert(app, connection, &peer, &refusal);
            return Err(refusal.into());
        }
    };
    if !route.accepts.kind(&principal) {
        return Err(No::new(
            Code::NotPermitted,
            format!("{principal} has no business here"),
        ));
    }
    let roles = match &principal {
        Principal::User(name) => app.fold.read(|s| s.users.get(name).cloned().unwrap_or_default()),
        _ => BTreeSet::new(),
    };
    let caller = Caller {
        principal,
        roles,
        peer: Some(peer.clone()),
    };
    if !route.is_command() && !caller.may(route.action) {
        return Err(caller.lacks(route.action));
    }
    let principal = &caller.principal;
    match principal {
        Principal::Node(node) => {
            app.presences.saw(*node, app.now());
            app.firsts.saw(app, *node, peer.digest);
        }
        // A person reports nothing: the time condition of the authority before ends with this alone. If it could
        // not be recorded, the next request says it again.
        Principal::User(_) => drop(firsts::record(app, principal, peer.digest).await),
        _ => {}
    }
    Ok(caller)
}

/// Would the certificate still be let in? Asked at each heartbeat of a stream, because a stream outlives the
/// request that opened it: users are removed, certificates are superseded.
pub(crate) fn still_counts(app: &App, peer: Option<&PeerIdentity>) -> bool {
    let counts = |peer: &PeerIdentity| {
        app.fold
            .read(|state| identify(state, &peer.presented(), state.now(app.now())).is_ok())
    };
    peer.is_some_and(counts)
}

/// Looks the certificate up in the log. One that is not known may be newer than the state: then the log is
/// read to its end before the answer is no.
async fn identity(app: &App, peer: &PeerIdentity) -> Result<Principal, Refusal> {
    let look = || {
        app.fold
            .read(|state| identify(state, &peer.presented(), state.now(app.now())))
    };
    match look() {
        Err(refusal) if refusal.code == Code::CertificateUnknown => {
            if app.catch_up_together().await.is_err() {
                let text =
                    "the log cannot be read to its end now, and this certificate is not known before it";
                return Err(Refusal::new(Code::LogUnavailable, text));
            }
            look()
        }
        known => known,
    }
}

fn alert(app: &App, connection: &Connection, peer: &PeerIdentity, refusal: &Refusal) {
    let kind = match refusal.code {
        Code::CertificateSuperseded => Alert::Superseded,
        Code::CertificateUnknown => Alert::Unknown,
        _ => return,
    };
    app.strangers.alert(
        kind,
        &peer.uri,
        connection.from,
        &refusal.text,
        app.clock.monotonic(),
    );
}

fn unauthenticated() -> No {
    No::new(
        Code::Unauthenticated,
        "this needs a client certificate of this cluster",
    )
}
