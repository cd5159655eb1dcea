//! Credentials that are signed by hand, in the demo: an application asks for one again and again, as `auth sign` and
//! `auth token` do, and shows each to a node, which verifies it by what its agent holds at that moment.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use api::{
    command::{SignAnswer, SignRequest, SignTokenRequest},
    route,
    shape::command_id,
};
use cli::{connect::Session, failure::in_words};
use domain::{AuthorityType, SpkiPin, authority::KeyKind, event::LeafUse};
use pki::{CaCert, KeyPair, csr, jwe::Receiver, jwt, ssh};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::traffic::{Failure, Note, Wire};

/// The pause between two credentials: the demo is about rotating, and not about signing a lot.
const PAUSE: Duration = Duration::from_millis(40);
/// What the application is called.
const NAME: &str = "demo-app";

/// A node as a verifier.
#[derive(Clone)]
pub(super) struct Verifier {
    /// `n01`.
    pub name: String,
    /// `D/current` of its agent.
    pub current: PathBuf,
}

/// A credential that somebody has in hand.
#[derive(Clone)]
pub(super) struct Credential {
    authority_type: AuthorityType,
    /// The key that signed it.
    pub issuer: SpkiPin,
    form: Form,
}

#[derive(Clone)]
enum Form {
    /// The leaf, DER.
    Tls(Vec<u8>),
    Ssh(Box<ssh::SshCertificate>),
    Token(String),
}

impl Credential {
    /// Does this node take it?
    ///
    /// # Errors
    /// Why not, in words.
    pub(super) fn shown_to(&self, node: &Verifier) -> Result<(), String> {
        let of = self.authority_type;
        let read = |name: String| {
            let path = node.current.join(name);
            std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        match &self.form {
            Form::Tls(leaf) => {
                let pem = String::from_utf8_lossy(&read(format!("{of}/trust.pem"))?).into_owned();
                let ders = pki::pem::certificates(&pem).ok_or("its trust cannot be read")?;
                let anchors: Vec<CaCert> = ders.iter().filter_map(|der| CaCert::from_der(der).ok()).collect();
                let issuer = pki::issuer_among(leaf, &anchors);
                issuer
                    .map(drop)
                    .ok_or_else(|| "the node does not trust its issuer".into())
            }
            Form::Ssh(certificate) => {
                let lines =
                    String::from_utf8_lossy(&read(format!("{of}/trusted_user_ca_keys"))?).into_owned();
                let keys = lines
                    .lines()
                    .filter_map(|line| ssh::SshPublicKey::parse(line).ok()?.p256());
                let mut signed = keys.map(|key| certificate.verify(&key));
                signed
                    .any(|signed| signed.is_ok())
                    .then_some(())
                    .ok_or_else(|| "the node does not trust its issuer".into())
            }
            Form::Token(token) => {
                let keys: jwt::Jwks = serde_json::from_slice(&read(format!("{of}/jwks.json"))?)
                    .map_err(|error| format!("its key set cannot be read: {error}"))?;
                jwt::read::<pki::credential::Claims>(token, &keys)
                    .map(drop)
                    .map_err(|error| error.to_string())
            }
        }
    }
}

/// The application.
pub(super) struct Application {
    pub authority_type: AuthorityType,
    pub identity: PathBuf,
    pub nodes: Vec<Verifier>,
    pub now: execution::Now,
    pub note: Note,
}

impl Application {
    /// Asks and shows until it is stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut rng = StdRng::seed_from_u64(7);
        while !stop.is_cancelled() {
            let node = &self.nodes[rng.random_range(0..self.nodes.len())];
            self.ask_and_show(node).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    async fn ask_and_show(&self, node: &Verifier) {
        let began = Instant::now();
        let asked = ask(&self.identity, self.authority_type, &self.now).await;
        let issuer = asked.as_ref().ok().map(|credential| credential.issuer);
        let shown = asked.and_then(|credential| {
            credential.shown_to(node)?;
            Ok(credential)
        });
        match shown {
            Ok(credential) => self
                .note
                .succeeded(began.elapsed(), &[credential.issuer], Wire::Credentials),
            Err(reason) => {
                let failure = Failure {
                    at: (self.now)(),
                    from: NAME.into(),
                    to: node.name.clone(),
                    phase: self.note.phase(),
                    reason,
                    presented: issuer,
                };
                self.note.failed(failure, Wire::Credentials);
            }
        }
    }
}

/// Asks for one, by the operator's identity.
///
/// # Errors
/// Why there is none, in words.
pub(super) async fn ask(
    identity: &Path,
    authority_type: AuthorityType,
    now: &execution::Now,
) -> Result<Credential, String> {
    let clock = now.clone();
    let session = Session::open(identity, None, mtls::Now::new(move || clock().0));
    let session = session.map_err(|error| in_words(&error))?;
    let kinds = authority_type.row().keys;
    let (issuer, form) = if kinds.contains(&KeyKind::Tls) {
        certificate(&session, authority_type).await
    } else if kinds.contains(&KeyKind::Ssh) {
        ssh_certificate(&session, authority_type).await
    } else {
        token(&session, authority_type).await
    }?;
    Ok(Credential {
        authority_type,
        issuer,
        form,
    })
}

fn request(session: &Session, authority_type: AuthorityType) -> SignRequest {
    let is_server = authority_type.row().usage_by_hand == LeafUse::Server;
    SignRequest {
        id: command_id(session.now(), pki::random()),
        reason: Some("demo".into()),
        authority_type,
        name: NAME.into(),
        csr: None,
        ssh_key: None,
        upn: None,
        names: is_server.then(|| "app.example".to_owned()).into_iter().collect(),
        addresses: vec![],
        principals: vec![],
        critical_options: Default::default(),
        extensions: vec![],
        ttl_ms: None,
    }
}

async fn sent<B: Serialize>(
    session: &Session,
    path: &str,
    make: impl Fn() -> B,
) -> Result<SignAnswer, String> {
    let answer = session.post_for_signature(path, make).await;
    answer.map_err(|error| in_words(&error))
}

async fn certificate(session: &Session, authority_type: AuthorityType) -> Result<(SpkiPin, Form), String> {
    let csr = csr::make_pem(&KeyPair::generate());
    let make = || SignRequest {
        csr: Some(csr.clone()),
        ..request(session, authority_type)
    };
    let answer = sent(session, route::SIGN, make).await?;
    let ders = pki::pem::certificates(&answer.credential).unwrap_or_default();
    let leaf = ders.first().ok_or("no certificate in the answer")?;
    Ok((answer.issuer, Form::Tls(leaf.to_vec())))
}

async fn ssh_certificate(
    session: &Session,
    authority_type: AuthorityType,
) -> Result<(SpkiPin, Form), String> {
    let line = ssh::public_line(KeyPair::generate().public(), "");
    let make = || SignRequest {
        ssh_key: Some(line.trim().to_owned()),
        principals: vec!["deploy".into()],
        ..request(session, authority_type)
    };
    let answer = sent(session, route::SIGN, make).await?;
    let certificate = ssh::SshCertificate::parse(&answer.credential).map_err(|error| error.to_string())?;
    Ok((answer.issuer, Form::Ssh(Box::new(certificate))))
}

async fn token(session: &Session, authority_type: AuthorityType) -> Result<(SpkiPin, Form), String> {
    let receiver = Receiver::generate();
    let make = || SignTokenRequest {
        id: command_id(session.now(), pki::random()),
        reason: Some("demo".into()),
        authority_type,
        name: NAME.into(),
        audience: vec!["https://api.example".into()],
        ttl_ms: None,
        public_key: receiver.public().to_base64(),
    };
    let answer = sent(session, route::SIGN_TOKEN, make).await?;
    let token = receiver
        .open(&answer.credential)
        .map_err(|error| error.to_string())?;
    Ok((answer.issuer, Form::Token(token.to_string())))
}
