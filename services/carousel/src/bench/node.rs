//! One node of the simulated fleet: real keys and requests, the agent's own plan, and no socket.
//!
//! It does what an agent does with [`reconcile`], but a generation passes its proof without a handshake, and nothing of
//! it is on a disk: both are the node's own work on a machine of its own.

use std::{collections::BTreeMap, time::Duration};

use domain::{
    Answer, AuthorityType, BootId, CertDigest, Command, Credential, Hostname, NodeId, Order, Principal,
    SpkiPin, Timestamp, TokenHash,
    command::Join,
    desired::desired,
    event::LeafUse,
    fact::{FactReport, Seen},
    reconcile::{Generation, Have, Leaf, Proof, Step, facts, reconcile},
};
use execution::{ExecuteError, Executor, Fold, Issued, NotIssued};
use pki::{Certificate, KeyPair, csr};

use super::BenchError;

/// How long a certificate may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What every node shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) fold: Fold,
    pub(crate) executor: Executor,
    pub(crate) token: TokenHash,
}

/// One node.
pub(crate) struct Node {
    id: NodeId,
    boot: BootId,
    seq: u64,
    installed: Generation,
    proof: Proof,
    received: Vec<Leaf>,
    serving: bool,
    reported: Option<(Generation, bool)>,
    /// Digests of its certificates, by key; three at the most.
    digests: Vec<(SpkiPin, CertDigest)>,
}

impl Node {
    /// Joins with the fleet's token, and brings itself up to the row.
    pub(crate) async fn join(shared: &Shared, hostname: Hostname) -> Result<Self, BenchError> {
        let (pem, key) = request();
        let join = Order::Join(Join {
            token: shared.token,
            hostname,
            key: verified(&pem)?,
            rejoin: None,
        });
        let command = shared.executor.own_command(Principal::Anonymous, join);
        let answered = shared.executor.execute(command).await?;
        let Answer::Joined { node, authorization } = answered.answer else {
            return Err(BenchError::Stuck(
                "a join was answered with something else".into(),
            ));
        };
        let issued = certificate(shared, authorization).await?;
        let mut joined = Self {
            id: node,
            boot: BootId(uuid::Uuid::now_v7()),
            seq: 0,
            installed: Generation::default(),
            proof: Proof::Due,
            received: vec![],
            serving: false,
            reported: None,
            digests: vec![],
        };
        joined.take(LeafUse::Both, &key, &issued)?;
        joined.follow(shared).await?;
        Ok(joined)
    }

    /// Takes the plan's steps until none is left: the node has reached the row, and reported it.
    pub(crate) async fn follow(&mut self, shared: &Shared) -> Result<(), BenchError> {
        loop {
            let id = self.id;
            let Some(want) = shared.fold.read(|state| desired(state, &id)) else {
                return Err(BenchError::Stuck("a node of the fleet is unknown".into()));
            };
            let mut steps = reconcile(&self.have(shared.executor.now()), &want);
            // As the agent: what is about to change is reported once it has.
            let is_change = |step: &Step| matches!(step, Step::Request { .. } | Step::Install(_));
            if steps.iter().any(is_change) {
                steps.retain(|step| *step != Step::Report);
            }
            let mut left = false;
            for step in steps {
                left |= self.step(shared, step).await?;
            }
            if !left {
                return Ok(());
            }
        }
    }

    /// Takes one step; says whether the plan may be another one now.
    async fn step(&mut self, shared: &Shared, step: Step) -> Result<bool, BenchError> {
        match step {
            Step::Install(generation) => {
                let used: Vec<SpkiPin> = generation
                    .client
                    .iter()
                    .chain(&generation.server)
                    .map(|l| l.spki)
                    .collect();
                self.received.retain(|leaf| !used.contains(&leaf.spki));
                self.digests.retain(|(key, _)| {
                    used.contains(key) || self.received.iter().any(|leaf| leaf.spki == *key)
                });
                self.installed = generation;
                self.proof = Proof::Due;
            }
            Step::Request { usage, issuer } => {
                let (pem, key) = request();
                let order = Order::RequestCertificate {
                    authority_type: AuthorityType::Host,
                    usage,
                    issuer: Some(issuer),
                    key: verified(&pem)?,
                    form: domain::authority::KeyKind::Tls,
                };
                let answered = shared.executor.execute(self.command(shared, order)).await?;
                let Answer::Authorized { authorization } = answered.answer else {
                    return Err(BenchError::Stuck(
                        "a request was answered with something else".into(),
                    ));
                };
                let issued = certificate(shared, authorization).await?;
                self.take(usage, &key, &issued)?;
            }
            Step::Report => {
                self.seq += 1;
                let report = FactReport {
                    boot: self.boot,
                    seq: self.seq,
                    version: env!("CARGO_PKG_VERSION").into(),
                    addr: None,
                    authorities: facts(&self.installed, false, false),
                    failure: None,
                    unsynced: false,
                    labels: BTreeMap::new(),
                };
                let (certificate, issuer) = self.presented()?;
                let seen = Seen {
                    certificate,
                    issuer,
                    from: None,
                };
                let node = self.id;
                let order = Order::Report { node, report, seen };
                shared.executor.execute(self.command(shared, order)).await?;
                self.reported = Some((self.installed.clone(), false));
            }
            Step::Discard { spki } => self.received.retain(|leaf| leaf.spki != spki),
            Step::Serve => self.serving = true,
            Step::Prove => self.proof = Proof::Passed,
            // Nodes of the benchmark have no sshd.
            Step::Restore | Step::CertifySshd { .. } | Step::Drain { .. } | Step::Close { .. } => {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn have(&self, now: Timestamp) -> Have {
        Have {
            now,
            installed: self.installed.clone(),
            proof: self.proof,
            last_passed: Some(self.installed.clone()),
            received: self.received.clone(),
            in_flight: vec![],
            sshd: None,
            serving: self.serving,
            synced: true,
            since_start_ms: 0,
            sessions_on: Default::default(),
            only_excluded_on: Default::default(),
            draining: None,
            reported: self.reported.clone(),
            renew_permille: 500,
        }
    }

    /// Reads a certificate as the agent does before it keeps it.
    fn take(&mut self, usage: LeafUse, key: &KeyPair, issued: &Issued) -> Result<(), BenchError> {
        let der = crate::plane::der(&issued.certificate)
            .ok_or_else(|| BenchError::Stuck("a certificate is no base64".into()))?;
        let certificate = Certificate::parse(&der).map_err(|e| BenchError::Stuck(e.to_string()))?;
        let spki = key.spki_pin();
        if certificate.public_key.pin() != spki {
            return Err(BenchError::Stuck("a certificate is of another key".into()));
        }
        self.digests.push((spki, issued.digest));
        self.received.push(Leaf {
            usage,
            issuer: issued.issuer,
            spki,
            position: issued.position,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
        });
        Ok(())
    }

    fn presented(&self) -> Result<(CertDigest, SpkiPin), BenchError> {
        let client = self.installed.client.as_ref();
        client
            .and_then(|leaf| {
                let (_, digest) = self.digests.iter().find(|(key, _)| *key == leaf.spki)?;
                Some((*digest, leaf.issuer))
            })
            .ok_or_else(|| BenchError::Stuck("a node has nothing to present".into()))
    }

    /// A command of the node, over a connection with its certificate.
    fn command(&self, shared: &Shared, order: Order) -> Command {
        Command {
            credential: self
                .presented()
                .ok()
                .map(|(digest, _)| Credential::Certificate(digest)),
            ..shared.executor.own_command(Principal::Node(self.id), order)
        }
    }
}

/// A fresh key and its request, as they are made on the node.
fn request() -> (String, KeyPair) {
    let key = KeyPair::generate();
    (csr::make_pem(&key), key)
}

/// The gateway's look at a request.
fn verified(pem: &str) -> Result<domain::command::KeyRequest, BenchError> {
    csr::parse_and_verify(pem.as_bytes()).map_err(|e| BenchError::Stuck(e.to_string()))
}

async fn certificate(shared: &Shared, authorization: domain::AuthorizationId) -> Result<Issued, BenchError> {
    shared
        .fold
        .issued(authorization, PATIENCE)
        .await
        .map_err(|error| match error {
            NotIssued::NotYet => {
                BenchError::Stuck(format!("a certificate took longer than {} s", PATIENCE.as_secs()))
            }
            NotIssued::Refused(why) | NotIssued::Log(why) => {
                BenchError::Command(ExecuteError::Unavailable(format!("no certificate: {why}")))
            }
        })
}
