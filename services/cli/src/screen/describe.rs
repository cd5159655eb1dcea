//! One event in a person's words: who, what, why.

use std::collections::BTreeMap;

use domain::{
    Event, Fact, NodeId, Order, Principal,
    authority::KeyKind,
    command::{Mode, Rotate},
    event::{CommandRefused, NodeReported, Occasion, RotationHeld, RotationOutcome, RotationPhaseEntered},
    id::SystemActor,
    probe::Sight,
};

use crate::text::{Paint, count};

/// The names by which people know the nodes.
pub type Names = BTreeMap<NodeId, String>;

/// What a row says of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// Who.
    pub who: String,
    /// What happened.
    pub what: String,
    /// Why, as it was given.
    pub why: String,
    /// How it is painted.
    pub paint: Paint,
}

/// The event in words.
pub fn describe(event: &Event, names: &Names) -> Described {
    let (paint, what) = what(&event.fact, names);
    Described {
        who: author(event, names),
        what,
        why: event.header.reason.clone().unwrap_or_else(|| "-".into()),
        paint,
    }
}

/// Who did it. Whoever joins or comes back has no certificate to say who it is: the event says it.
pub fn author(event: &Event, names: &Names) -> String {
    let actor = &event.header.actor;
    if *actor != Principal::Anonymous {
        return who(actor, names);
    }
    match &event.fact {
        Fact::NodeJoined(f) => format!("node {}", f.hostname),
        Fact::NodeRejoined(f) => format!("node {}", f.hostname),
        Fact::AccessTokenUsed(f) => format!("node {}", f.hostname),
        Fact::NodeRecovered(f) => format!("node {}", node(f.node, names)),
        Fact::AuthorizationGranted(f) => who(&f.holder, names),
        _ => who(actor, names),
    }
}

/// A principal as people call it.
pub fn who(principal: &Principal, names: &Names) -> String {
    match principal {
        Principal::Node(id) => format!("node {}", node(*id, names)),
        Principal::Gateway(_) => "gateway".into(),
        Principal::User(name) => name.to_string(),
        Principal::External(name) => format!("external {name}"),
        Principal::System(SystemActor::Clock) => "clock".into(),
        Principal::System(SystemActor::Signer) => "signer".into(),
        Principal::System(SystemActor::Host) => "host".into(),
        Principal::Anonymous => "anybody".into(),
    }
}

fn node(id: NodeId, names: &Names) -> String {
    names.get(&id).cloned().unwrap_or_else(|| id.to_string())
}

fn what(fact: &Fact, names: &Names) -> (Paint, String) {
    match fact {
        Fact::CommandRefused(f) => (Paint::Bad, refused(f)),
        Fact::RotationHeld(f) => (Paint::Warn, held(f)),
        Fact::RotationPhaseEntered(f) => phase_entered(f),
        Fact::NodeReported(f) => reported(f),
        Fact::AuthorizationVoided(f) => (
            Paint::Warn,
            format!("a certificate is not to be signed: {}", f.why),
        ),
        Fact::CertificateRefused(f) => (Paint::Bad, format!("REFUSED to sign: {}", f.why)),
        Fact::MemberLost(f) => (
            Paint::Bad,
            format!(
                "gateway {} not heard of for {}",
                f.member,
                crate::text::span(f.silent_ms)
            ),
        ),
        other => (Paint::Plain, plain(other, names)),
    }
}

/// A step that is held for no node is held for something that is named.
fn held(f: &RotationHeld) -> String {
    let why = if f.lagging == 0 && !f.names.is_empty() {
        format!("waits for {}", f.names.join(", "))
    } else {
        format!("{} lagging", f.lagging)
    };
    format!("HELD {}: {why}, due {}", f.authority_type, f.due)
}

fn phase_entered(f: &RotationPhaseEntered) -> (Paint, String) {
    let outcome = match f.outcome {
        Some(RotationOutcome::Completed) => " (completed)",
        Some(RotationOutcome::RolledBack) => " (rolled back)",
        None => "",
    };
    let mut text = format!("{}: {} -> {}{outcome}", f.authority_type, f.from, f.to);
    let over = over(f);
    if f.forced {
        return (Paint::Warn, format!("FORCED {text}, over {over}"));
    }
    if f.gate.overridden > 0 {
        return (Paint::Warn, format!("{text}, past {over}"));
    }
    if f.outcome.is_some() && f.gate.excluded > 0 {
        text.push_str(&format!(", without {}", count(f.gate.excluded, "excluded node")));
        return (Paint::Warn, text);
    }
    (Paint::Plain, text)
}

/// What a step passed over: nodes by the gate's count, the rest by what its names say.
fn over(f: &RotationPhaseEntered) -> String {
    let nodes = f.gate.required.saturating_sub(f.gate.reached);
    let named = |kind: &str| f.passed_over.iter().filter(|name| name.starts_with(kind)).count() as u64;
    let mut parts = Vec::new();
    if nodes > 0 {
        parts.push(count(nodes, "node"));
    }
    for (kind, noun) in [
        ("consumer ", "consumer"),
        ("time condition ", "time condition"),
        ("publication ", "publication time"),
    ] {
        if named(kind) > 0 {
            parts.push(count(named(kind), noun));
        }
    }
    if parts.is_empty() {
        parts.push(count(f.gate.overridden, "obstacle"));
    }
    if f.outcome.is_some() && f.gate.excluded > 0 {
        parts.push(count(f.gate.excluded, "excluded node"));
    }
    parts.join(", ")
}

fn refused(f: &CommandRefused) -> String {
    let times = if f.count > 1 {
        format!(" ({} times)", f.count)
    } else {
        String::new()
    };
    let asked = match f.order.as_deref() {
        // A step is read as the step that it would have been.
        Some(Order::Rotate(Rotate {
            authority_type,
            target: Some(to),
            ..
        })) => format!("{authority_type} -> {to}"),
        _ => {
            let target = f.target.as_ref().map(|t| format!(" {t}")).unwrap_or_default();
            format!("{}{target}", f.command)
        }
    };
    format!("REFUSED {asked}: {}{times}", f.code)
}

fn reported(f: &NodeReported) -> (Paint, String) {
    match &f.report.failure {
        Some(failure) => (
            Paint::Bad,
            format!(
                "FAILED {}: {} ({})",
                failure.step,
                failure.detail,
                count(failure.count, "time")
            ),
        ),
        None => (Paint::Plain, "reported its facts".into()),
    }
}

/// Everything that is neither a warning nor a refusal.
fn plain(fact: &Fact, names: &Names) -> String {
    match fact {
        Fact::ClusterCreated(f) => format!("cluster {} created by Carousel {}", f.cluster, f.version),
        Fact::ClusterClockAccepted(f) => {
            format!("clock accepted, {} behind", crate::text::span(f.behind_ms))
        }
        Fact::RotationResumed(f) => format!("{}: goes on to {}", f.authority_type, f.due),
        Fact::RotationModeChanged(f) => {
            let mode = match f.mode {
                Mode::Manual => "manual",
                Mode::Automatic => "automatic",
            };
            format!("{}: mode is {mode} from now on", f.authority_type)
        }
        Fact::RotationSettled(f) => {
            format!(
                "{}: settled, {} hold the new row",
                f.authority_type,
                count(f.required, "node")
            )
        }
        Fact::NodeJoined(f) => format!("node {} joined", f.hostname),
        Fact::NodeRejoined(f) => format!("node {} joined again", f.hostname),
        Fact::NodeRecovered(f) => format!("node {} recovered", node(f.node, names)),
        Fact::NodeExcluded(f) => format!("node {} excluded", node(f.node, names)),
        Fact::NodeIncluded(f) => format!("node {} included again", node(f.node, names)),
        Fact::NodeRemoved(f) => format!("node {} removed", node(f.node, names)),
        Fact::MemberStarted(_) => "begins to serve".into(),
        Fact::MemberReported(_) => "reported its facts".into(),
        Fact::MemberStopped(_) => "stops serving".into(),
        Fact::AccessTokenCreated(f) => {
            let names: Vec<_> = f.grant.names.iter().map(ToString::to_string).collect();
            format!("join token for {} ({})", names.join(", "), count(f.uses, "use"))
        }
        Fact::AccessTokenUsed(f) => format!("join token used by {}", f.hostname),
        Fact::AccessTokenRemoved(f) => format!("join token {} removed", f.token),
        Fact::AccessUserAdded(f) => format!("user {} added", f.user),
        Fact::AccessUserRemoved(f) => format!("user {} removed", f.user),
        Fact::AccessRecovered(f) => format!("administrator {} recovered on the host", f.user),
        Fact::AccessNamesReleased(f) => format!("names of node {} are free again", node(f.node, names)),
        Fact::AccessCertificatesRevoked(f) => format!("certificates of {} revoked", f.target),
        Fact::AccessCredentialPresented(f) => format!("new certificate of {} in use", who(&f.holder, names)),
        other => kept(other, names),
    }
}

/// External consumers.
fn consumer(fact: &Fact) -> String {
    match fact {
        Fact::ConsumerAdded(f) => {
            let probed = f.probe.as_ref().map(|at| format!(", probed at {at}"));
            let probed = probed.unwrap_or_default();
            format!("{}: consumer {} registered{probed}", f.authority_type, f.consumer)
        }
        Fact::ConsumerAttested(f) => {
            let saw = f.saw.as_ref().map(Sight::in_words);
            let saw = saw.map(|saw| format!(" by a probe, which saw {saw}"));
            let (t, saw) = (f.authority_type, saw.unwrap_or_default());
            format!("{t}: consumer {} attested {}{saw}", f.consumer, f.phase)
        }
        Fact::ConsumerWithdrawn(f) => format!("{}: consumer {} withdrawn", f.authority_type, f.consumer),
        _ => String::new(),
    }
}

/// Consumers, keys and certificates.
fn kept(fact: &Fact, names: &Names) -> String {
    match fact {
        Fact::ConsumerAdded(_) | Fact::ConsumerAttested(_) | Fact::ConsumerWithdrawn(_) => consumer(fact),
        Fact::CommandNoop(f) => format!("{}: nothing to do, {}", f.command, f.text),
        Fact::AuthorizationGranted(f) => {
            let occasion = match f.occasion {
                Occasion::Genesis => "first start",
                Occasion::Join => "join",
                Occasion::Renewal => "renewal",
                Occasion::Recovery => "recovery",
                Occasion::Login => "login",
                Occasion::Signing => "signing",
            };
            format!(
                "{} authorised for {} ({occasion}, {})",
                what_of_kind(f.form.kind()),
                f.common_name,
                f.authority_type
            )
        }
        Fact::AuthorityKeyGenerated(f) => {
            format!(
                "{}: {}key of generation {} made",
                f.authority_type,
                of_kind(f.key.kind),
                f.key.generation
            )
        }
        Fact::AuthorityActivated(f) => {
            let (key, id) = (of_kind(f.kind), f.authority.short());
            format!("{}: {key}{id} is active", f.authority_type)
        }
        Fact::AuthorityRetired(f) => format!("{}: {} is retired", f.authority_type, f.authority.short()),
        Fact::AuthorityDestroyed(f) => {
            format!(
                "{}: key of {} destroyed in {}",
                f.authority_type,
                f.authority.short(),
                f.stores.join(", ")
            )
        }
        Fact::AuthorityBundleSigned(f) => {
            format!(
                "{}: trust bundle signed for {}, revision {}",
                f.authority_type, f.phase, f.revision
            )
        }
        Fact::CertificateIssued(f) => {
            format!(
                "{} issued to {} ({})",
                what_of_kind(f.kind),
                who(&f.holder, names),
                f.authority_type
            )
        }
        Fact::CertificateRevoked(f) => {
            let n = count(f.certificates.len() as u64, "certificate");
            format!("{n} of {} revoked: {}", who(&f.holder, names), f.why)
        }
        // Said by `what` and `plain`; a fact of a later version would be called by its type.
        other => other.type_name().into(),
    }
}
fn what_of_kind(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Tls => "certificate",
        KeyKind::Ssh => "SSH certificate",
        KeyKind::Jwt => "token",
    }
}

/// Which of a type's keys; X.509 goes without saying.
fn of_kind(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Tls => "",
        KeyKind::Ssh => "SSH ",
        KeyKind::Jwt => "JWT ",
    }
}
