//! The agent's plan: from what a node has to what it should hold, whatever it missed in between.
//!
//! Level-triggered and pure. The shell takes the steps in order and asks again after each change, so a
//! crash between two steps needs no memory: what is on disk is the plan's only input. The order inside a
//! node is: widen trust, change certificates, prove, narrow trust last. Towards peers any order would be
//! safe (the gate sees to that); the node's own proof needs this one.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    access::Uses,
    authority::AuthorityType,
    desired::{DesiredAuthority, DesiredState},
    event::LeafUse,
    fact::{FactsByType, TypeFacts},
    id::{Position, SpkiPin},
    rules::{Rule, holds},
    time::{SECOND_MS, Timestamp},
    trust::Bundle,
};

mod leaves;
mod sshd;
#[cfg(test)]
mod tests;

pub use leaves::renewal_due;

/// How long an agent looks for a gateway after its start before it serves what it has, in milliseconds.
pub const UNSYNCED_AFTER_MS: u64 = 30 * SECOND_MS;

/// The type whose certificates a node presents; of every other type it is a verifier.
const LEAF_TYPE: AuthorityType = AuthorityType::Host;

/// A certificate of the node's own, with its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// What it may be used for.
    pub usage: LeafUse,
    /// The authority that signed it.
    pub issuer: SpkiPin,
    /// Its key; names the leaf, since no key is certified twice.
    pub spki: SpkiPin,
    /// The log position of `certificate.issued`: the order of certificates.
    pub position: Position,
    /// The start of its life.
    pub not_before: Timestamp,
    /// The end of it.
    pub not_after: Timestamp,
}

/// What one directory of the agent holds and `current` points at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Generation {
    /// Per type, the revision of the signed bundle that it was installed under.
    pub revisions: BTreeMap<AuthorityType, Position>,
    /// Per type, the authorities that it trusts.
    pub trusted: BTreeMap<AuthorityType, BTreeSet<SpkiPin>>,
    /// What it presents as a TLS client.
    pub client: Option<Leaf>,
    /// What it serves; the same leaf as `client` while the row names one issuer for both roles.
    pub server: Option<Leaf>,
    /// The certificate of the node's sshd, whose key is sshd's own.
    pub ssh: Option<Leaf>,
}

impl Generation {
    /// Does the other one hold the same trust and certificates? Then only the revision differs, and an
    /// installation writes no new files and needs no reload, only the proof and a report.
    pub fn same_material(&self, other: &Self) -> bool {
        let held = |of: &Self| (of.client.clone(), of.server.clone(), of.ssh.clone());
        self.trusted == other.trusted && held(self) == held(other)
    }

    /// Is the authority trusted for any type?
    fn trusts(&self, issuer: &SpkiPin) -> bool {
        self.trusted.values().any(|pins| pins.contains(issuer))
    }
}

/// What is known of the installed generation: do a real handshake and the CA names agree with it?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Not tried since it was installed (or since the start of the agent).
    Due,
    /// It is served and in force.
    Passed,
    /// It is not; so many times in a row.
    Failed {
        /// How often in a row; the shell waits longer each time.
        count: u32,
    },
}

/// A request for a certificate that was sent, or is about to be, and is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InFlight {
    /// What it is to be used for.
    pub usage: LeafUse,
    /// The authority that was asked for.
    pub issuer: SpkiPin,
    /// The key that is to be certified, durable since before the request was sent.
    pub spki: SpkiPin,
}

/// The sshd that the agent keeps a certificate for.
///
/// Its key stays the same and is not the agent's: only the certificate is replaced, so that one which is lost is asked
/// for again and nothing need be kept for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sshd {
    /// Its host key; none where it cannot be read now, and what is installed stays.
    pub key: Option<SpkiPin>,
    /// Does the installed certificate name another node, or not the names of this one? It was made before a new join.
    pub is_anothers: bool,
    /// The newest certificate that came for it and is not installed.
    pub received: Option<Leaf>,
    /// The authority that was asked and has not answered.
    pub asked: Option<SpkiPin>,
}

/// What a node has.
#[derive(Clone, PartialEq, Debug)]
pub struct Have {
    /// The time.
    pub now: Timestamp,
    /// What `current` points at.
    pub installed: Generation,
    /// What is known of it.
    pub proof: Proof,
    /// The newest generation that passed: what is restored on failure and presented to a gateway.
    pub last_passed: Option<Generation>,
    /// Certificates that were issued to this node and are not installed (and whose keys are here).
    pub received: Vec<Leaf>,
    /// Requests without an answer.
    pub in_flight: Vec<InFlight>,
    /// The node's sshd, where it is to have a certificate.
    pub sshd: Option<Sshd>,
    /// Is the listener open (and do hooks run)?
    pub serving: bool,
    /// Has a gateway named the newest desired state since this start, and is it in `want`? One that lacks the
    /// row of a type that the node uses does not count: the newest row of that type is not signed yet. The
    /// bundle in the answer to a recovery counts for its type.
    pub synced: bool,
    /// Time since this start, in milliseconds.
    pub since_start_ms: u64,
    /// The issuers that live sessions stand on, ours or the peer's.
    pub sessions_on: BTreeSet<SpkiPin>,
    /// Of those, the ones on which only sessions with excluded peers stand: they do not hold the gate.
    pub only_excluded_on: BTreeSet<SpkiPin>,
    /// The issuer on which sessions are being drained; the shell closes what is left after the timeout.
    pub draining: Option<SpkiPin>,
    /// What was last reported since this start, with the flag for sessions on the retiring issuer.
    pub reported: Option<(Generation, bool)>,
    /// The share of a leaf's life after which it is renewed, in thousandths: 450 to 550, drawn per node,
    /// so that a fleet does not renew all at once.
    pub renew_permille: u16,
}

/// One step of the plan.
#[allow(
    clippy::large_enum_variant,
    reason = "a plan has a handful of steps and lives for a moment; a box would only be in the way"
)]
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Report the facts of the installed generation, which passed.
    Report,
    /// The proof failed: put the last generation that passed back, whole. The certificates of what failed
    /// go back to the received ones with their keys: a gateway may have seen them, and then nothing earlier counts.
    /// The shell waits before it asks
    /// for the next plan, longer with each failure in a row: the plan is then the same again.
    Restore,
    /// Write this generation and let `current` point at it, atomically. The proof is due again.
    Install(Generation),
    /// Prove the installed generation by a handshake. On success it becomes the last one that passed.
    Prove,
    /// Throw away a received certificate and its key.
    Discard {
        /// Its key.
        spki: SpkiPin,
    },
    /// Make a key, keep it durably, and ask for a certificate of this authority. The shell sends it over
    /// its certified connection, or as a recovery where it has none that a gateway accepts.
    Request {
        /// What it is to be used for.
        usage: LeafUse,
        /// The authority.
        issuer: SpkiPin,
    },
    /// Ask this authority for a certificate of sshd's key.
    CertifySshd {
        /// The authority.
        issuer: SpkiPin,
    },
    /// Open the listener and let hooks run.
    Serve,
    /// Let sessions on this issuer come to their end, and close them after the drain timeout.
    Drain {
        /// The retiring issuer.
        issuer: SpkiPin,
    },
    /// Close every session that stands on this issuer: it is trusted no more.
    Close {
        /// The issuer.
        issuer: SpkiPin,
    },
}

/// The steps that can be taken now, in order. Empty when nothing is left to do.
///
/// `want` names every type that the node is granted, also where the newest message left one out because its row
/// was not signed yet: what is not in it is trusted no more.
///
/// At most one of `Restore`, `Install` and `Prove` is among them: each changes what the next depends on.
pub fn reconcile(have: &Have, want: &DesiredState) -> Vec<Step> {
    let mut steps = Vec::new();
    if have.proof == Proof::Passed && have.reported.as_ref() != Some(&reportable(have, want)) {
        steps.push(Step::Report);
    }
    let change = change(have, want);
    let is_settled = change.is_none();
    steps.extend(change);
    if let Some(row) = row_of(have, want, LEAF_TYPE) {
        steps.extend(
            leaves::unfit(have, row)
                .into_iter()
                .map(|spki| Step::Discard { spki }),
        );
        steps.extend(
            leaves::missing(have, row)
                .into_iter()
                .map(|(usage, issuer)| Step::Request { usage, issuer }),
        );
        steps.extend(sshd::missing(have, row).map(|issuer| Step::CertifySshd { issuer }));
    }
    if !have.serving && may_serve(have, want, is_settled) {
        steps.push(Step::Serve);
    }
    steps.extend(sessions(have, want));
    steps
}

/// Is a bundle or desired state of this revision newer than (or the same as) what is installed?
///
/// The agent persists the installed revision, so the answer is the same after a restart: an old document
/// that is replayed to a node, by a slow gateway or by a thief, never takes it back.
pub fn accepts_revision(installed: Option<Position>, offered: Position) -> bool {
    !holds(Rule::RevisionsOnlyRise) || installed.is_none_or(|installed| offered >= installed)
}

/// The row that a verified bundle names: an installed bundle is the newest desired state of its type.
///
/// `before` lends what a bundle does not carry (peers excluded from the same rotation).
pub fn desired_of_bundle(bundle: &Bundle, uses: Uses, before: Option<&DesiredAuthority>) -> DesiredAuthority {
    if let (false, Some(before)) = (holds(Rule::BundleIsDesiredState), before) {
        return DesiredAuthority {
            trusted: bundle.trusted(),
            ..before.clone()
        };
    }
    let same_rotation = before.filter(|b| b.rotation == bundle.rotation);
    DesiredAuthority {
        revision: bundle.revision,
        rotation: bundle.rotation,
        phase: bundle.phase,
        uses,
        trusted: bundle.trusted(),
        client_issuer: uses.client.then(|| bundle.client_issuer()).flatten(),
        server_issuer: uses.server.then(|| bundle.server_issuer()).flatten(),
        ssh_issuer: uses.server.then(|| bundle.ssh_issuer()).flatten(),
        also_serve: None,
        retiring: bundle.retiring_issuer(),
        excluded_peers: same_rotation
            .map(|b| b.excluded_peers.clone())
            .unwrap_or_default(),
        started: same_rotation.and_then(|b| b.started),
    }
}

/// The facts of a generation that passed, per type, as they are reported.
pub fn facts(generation: &Generation, sessions_on_retiring: bool, sessions_of_excluded: bool) -> FactsByType {
    let of_type = |t: AuthorityType, trusted: &BTreeSet<SpkiPin>| {
        let leaf = |leaf: &Option<Leaf>| leaf.clone().filter(|_| t == LEAF_TYPE);
        let (client, server) = (leaf(&generation.client), leaf(&generation.server));
        let ssh = leaf(&generation.ssh);
        TypeFacts {
            revision: generation.revisions.get(&t).copied().unwrap_or_default(),
            trusted: trusted.clone(),
            client_issuer: client.as_ref().map(|l| l.issuer),
            server_issuer: server.as_ref().map(|l| l.issuer),
            client_not_after: client.map(|l| l.not_after),
            server_not_after: server.map(|l| l.not_after),
            ssh_issuer: ssh.as_ref().map(|l| l.issuer),
            ssh_not_after: ssh.map(|l| l.not_after),
            sessions_on_retiring: t == LEAF_TYPE && sessions_on_retiring,
            sessions_of_excluded: t == LEAF_TYPE && sessions_of_excluded,
        }
    };
    generation
        .trusted
        .iter()
        .map(|(t, trusted)| (*t, Box::new(of_type(*t, trusted))))
        .collect()
}

/// The keys that must not be deleted: of what is installed, of what was received, of the last generation
/// that passed (it is what a gateway accepts when the installed one fails), and of every request in
/// flight (its certificate may be in the log already, and nothing else proves who we are then).
pub fn keys_to_keep(have: &Have) -> BTreeSet<SpkiPin> {
    let of = |g: &Generation| {
        g.client
            .iter()
            .chain(&g.server)
            .map(|leaf| leaf.spki)
            .collect::<Vec<_>>()
    };
    let mut keep: BTreeSet<_> = of(&have.installed).into_iter().collect();
    keep.extend(have.received.iter().map(|leaf| leaf.spki));
    if holds(Rule::KeepProvenAndInFlight) {
        keep.extend(have.last_passed.iter().flat_map(of));
        keep.extend(have.in_flight.iter().map(|request| request.spki));
    }
    keep
}

/// The certificate to present to a gateway: of the last generation that passed, since presenting a later one
/// supersedes it and nothing would be left if that one then failed its proof. Only where it is of no use any
/// more (expired, or refused as unknown or untrusted) the installed one is presented unproven: after a join
/// or a recovery there is no other way to the rest of what the row asks for.
pub fn presentable<'a>(have: &'a Have, refused: &BTreeSet<SpkiPin>) -> Option<&'a Leaf> {
    let is_usable =
        |leaf: &&Leaf| leaf.usage.client() && have.now < leaf.not_after && !refused.contains(&leaf.spki);
    let passed = have.last_passed.as_ref().and_then(|g| g.client.as_ref());
    let passed = passed.filter(|_| holds(Rule::KeepProvenAndInFlight));
    passed
        .filter(is_usable)
        .or_else(|| have.installed.client.as_ref().filter(is_usable))
}

/// Is a certificate at hand that the plan will install and the node can then present, so that no way back is
/// needed? It may have to wait: after a failed proof nothing is installed for a while.
pub fn has_way_forward(have: &Have, want: &DesiredState, refused: &BTreeSet<SpkiPin>) -> bool {
    row_of(have, want, LEAF_TYPE).is_some_and(|row| leaves::has_client_at_hand(have, row, refused))
}

/// The row of a type, unless it is older than what is installed: then what is there stays.
fn row_of<'a>(have: &Have, want: &'a DesiredState, of: AuthorityType) -> Option<&'a DesiredAuthority> {
    let row = want.authorities.get(&of)?;
    accepts_revision(have.installed.revisions.get(&of).copied(), row.revision).then_some(row)
}

/// The one change of the installed generation that is due.
fn change(have: &Have, want: &DesiredState) -> Option<Step> {
    let next = next_generation(have, want);
    match have.proof {
        Proof::Failed { .. } => {
            // Nothing is built upon what failed, except where there is nothing to go back to.
            let back = have
                .last_passed
                .as_ref()
                .filter(|passed| **passed != have.installed)
                .filter(|passed| may_go_back_to(have, want, passed));
            Some(match (back, next) {
                (Some(_), _) => Step::Restore,
                (None, Some(next)) => Step::Install(next),
                (None, None) => Step::Prove,
            })
        }
        // A proof needs the listener; before it opens, the steps follow each other without one.
        Proof::Due if have.serving => Some(Step::Prove),
        Proof::Due | Proof::Passed => next.map(Step::Install),
    }
}

/// May what passed before be served again? While running, yes: the gate waits for this node. But where nothing
/// has passed since the start, it may be of a time before the node slept, and trust what was retired meanwhile:
/// the row is kept then, and proven again. (What was reported has passed since the start.) Nor is a certificate
/// put back whose life is over: nobody would accept it, and what failed may be the renewal of just that.
fn may_go_back_to(have: &Have, want: &DesiredState, passed: &Generation) -> bool {
    let is_within_rows = || {
        want.authorities
            .keys()
            .filter_map(|t| Some((t, row_of(have, want, *t)?)))
            .all(|(t, row)| {
                passed
                    .trusted
                    .get(t)
                    .is_none_or(|trusted| trusted.is_subset(&row.trusted))
            })
    };
    let row = row_of(have, want, LEAF_TYPE);
    leaves::none_has_expired(passed, row, have.now)
        && (have.reported.is_some() || !holds(Rule::HoldBeforeServing) || is_within_rows())
}

/// The next generation on the way: widened, or with the certificates, or narrowed; none when it is there.
fn next_generation(have: &Have, want: &DesiredState) -> Option<Generation> {
    let mut next = have.installed.clone();
    let mut is_wide = true;
    for t in want.authorities.keys() {
        let Some(row) = row_of(have, want, *t) else {
            continue;
        };
        let trusted = next.trusted.entry(*t).or_default();
        is_wide &= row.trusted.is_subset(trusted);
        trusted.extend(row.trusted.iter().copied());
        next.revisions.insert(*t, row.revision);
    }
    if let Some(row) = row_of(have, want, LEAF_TYPE) {
        next.ssh = sshd::next(have, row);
    }
    // Certificates of an authority that is not trusted here yet would fail the node's own proof.
    if is_wide && let Some(row) = row_of(have, want, LEAF_TYPE) {
        leaves::take_received(have, row, &mut next);
    }
    let leaves_changed = next.client != have.installed.client || next.server != have.installed.server;
    let is_proven = have.proof == Proof::Passed || !have.serving;
    if is_wide && !leaves_changed && is_proven {
        for t in want.authorities.keys() {
            let Some(row) = row_of(have, want, *t) else {
                continue;
            };
            if *t != LEAF_TYPE || leaves::match_row(&next, row) {
                next.trusted.insert(*t, row.trusted.clone());
            }
        }
        // What the node is not granted any more goes as well: `want` names a type for as long as it is granted. A
        // report that held on to another one would be refused for ever.
        let is_granted = |t: &AuthorityType| *t == LEAF_TYPE || want.authorities.contains_key(t);
        next.trusted.retain(|t, _| is_granted(t));
        next.revisions.retain(|t, _| is_granted(t));
    }
    (next != have.installed).then_some(next)
}

/// What a report would say now: the generation, and whether a session stands on the retiring issuer.
fn reportable(have: &Have, want: &DesiredState) -> (Generation, bool) {
    let retiring = want.authorities.get(&LEAF_TYPE).and_then(|row| row.retiring);
    let holds_gate = |issuer| have.sessions_on.contains(&issuer) && !have.only_excluded_on.contains(&issuer);
    (have.installed.clone(), retiring.is_some_and(holds_gate))
}

/// May the listener open? Only while holding the row that a gateway named since this start; a node that
/// slept through a rotation would else accept the retired authority again. If no gateway answers,
/// availability is chosen over the rule: it serves what it has and says that it is unsynced.
fn may_serve(have: &Have, want: &DesiredState, is_settled: bool) -> bool {
    if !holds(Rule::HoldBeforeServing) {
        return true;
    }
    let has_something = !have.installed.trusted.is_empty();
    if !have.synced {
        return has_something && have.since_start_ms >= UNSYNCED_AFTER_MS;
    }
    has_something
        && is_settled
        && row_of(have, want, LEAF_TYPE)
            .is_none_or(|row| leaves::match_row(&have.installed, row) && leaves::are_alive(have, row))
}

/// What becomes of live sessions: drained from the phase on in which an issuer retires, and only once the
/// new certificates are proven (a peer that reconnects must meet them); closed once it is not trusted.
fn sessions(have: &Have, want: &DesiredState) -> Vec<Step> {
    let row = row_of(have, want, LEAF_TYPE);
    let drained = row.and_then(|row| {
        let issuer = row.retiring?;
        let is_due = have.proof == Proof::Passed
            && leaves::match_row(&have.installed, row)
            && have.sessions_on.contains(&issuer)
            && have.draining != Some(issuer);
        is_due.then_some(Step::Drain { issuer })
    });
    let closed = have
        .sessions_on
        .iter()
        .filter(|issuer| !have.installed.trusts(issuer))
        .map(|issuer| Step::Close { issuer: *issuer });
    drained.into_iter().chain(closed).collect()
}
