//! A way to the control plane with an operator's identity: mTLS, trust kept current, the identity renewed.
//!
//! Whoever uses an identity keeps it alive: a certificate past half its life, one of an authority that the row no
//! longer names, or a trust set older than the newest bundle is replaced on the way. So a rotation does not lock
//! out operators, and does not wait for their certificates longer than until they next use the tool.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use api::{
    Client, ClientError, Connect,
    client::{EventStream, Tracer},
    command::{RenewRequest, UserCertificateAnswer},
    route,
    shape::{Whoami, command_id},
};
use domain::{AuthorityType, Code, Position, SpkiPin, Timestamp, trust::SignedBundle};
use mtls::{
    ClientAuth, Credential, EpochError, Epochs, Expect, Now, PeerFault, SessionRegistry, TlsError, TrustEpoch,
};
use pki::{BundleError, KeyPair, bundle, csr};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use crate::identity::{Identity, IdentityError, Lock, ServerUrl};

pub use door::Door;

mod door;

/// How long a request is repeated while the control plane says that it cannot answer just now.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a signature is asked for again that a step of a rotation overtook.
const SIGNED_AGAIN: u32 = 5;
/// How long between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Why the control plane cannot be talked to, or what it says instead of an answer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The identity's certificate, key and trust cannot be made into a TLS configuration.
    #[error("the identity's certificate and key cannot be used")]
    Epoch(#[from] EpochError),
    /// The server's address is malformed.
    #[error("{0}")]
    Server(String),
    /// The control plane of this identity was never started, so nobody knows its address.
    #[error("{} names no server yet", .0.display())]
    NoServer(PathBuf),
    /// The server's authority is unknown, and its signed bundle does not help.
    #[error("{} presents a CA that this identity does not know: {}", .0.server, .0.detail)]
    Untrusted(Box<Untrusted>),
    /// The control plane does not take this identity's certificate.
    #[error("{server} does not accept this identity: {why}")]
    NotAccepted {
        /// The server.
        server: String,
        /// Why, as far as TLS tells.
        why: String,
        /// The end of our certificate's life.
        not_after: Option<Timestamp>,
    },
    /// No answer, or the answer is no.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// Everything for the page that explains an unknown authority.
#[derive(Debug)]
pub struct Untrusted {
    /// The server.
    pub server: String,
    /// The identity file.
    pub identity: PathBuf,
    /// The authority that the server's certificate names.
    pub presented: Option<SpkiPin>,
    /// Who is trusted.
    pub trusted: Vec<SpkiPin>,
    /// Why the server's bundle was not installed; none if it verified and did not help.
    pub bundle: Option<String>,
    /// What TLS said.
    pub detail: String,
}

impl std::fmt::Display for Untrusted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

/// A client for an identity: each request dials anew with the epoch that `epochs` holds then.
///
/// # Errors
/// [`ConnectError`] when the identity is not usable.
pub fn client(
    identity: &Identity,
    server: &ServerUrl,
    now: &Now,
    sessions: &SessionRegistry,
) -> Result<(Client, Epochs), ConnectError> {
    let epochs = Epochs::new(epoch(identity, now)?);
    let expect = Expect::Gateway {
        cluster: identity.cluster.clone(),
    };
    let door: Arc<dyn Connect> = Arc::new(Door::certified(
        server.authority(),
        epochs.clone(),
        sessions.clone(),
        expect,
    ));
    Ok((Client::new(door), epochs))
}

/// What an identity trusts and presents.
///
/// # Errors
/// [`ConnectError`].
pub fn epoch(identity: &Identity, now: &Now) -> Result<Arc<TrustEpoch>, ConnectError> {
    let trust = identity.trust()?;
    let key = identity.key_pair()?;
    let chain = pki::pem::certificates(&identity.certificate).unwrap_or_default();
    let epoch = TrustEpoch::builder(now.clone())
        .trust(AuthorityType::Host, bundle::authorities(&trust))
        .deny(trust.denied.iter().map(|d| d.digest))
        .client(Credential::new(chain, &key)?)
        .client_auth(ClientAuth::Optional)
        .build()?;
    Ok(epoch)
}

/// An operator's way to the control plane.
pub struct Session {
    path: PathBuf,
    server: ServerUrl,
    now: Now,
    client: Client,
    long: Client,
    epochs: Epochs,
    identity: Mutex<Identity>,
}

impl Session {
    /// The identity file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the identity; dials nobody yet. `server` overrides the file's.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn open(path: &Path, server: Option<&str>, now: Now) -> Result<Self, ConnectError> {
        let identity = Identity::load(path)?;
        let text = server.unwrap_or(&identity.server);
        if text.is_empty() {
            return Err(ConnectError::NoServer(path.to_owned()));
        }
        let server: ServerUrl = text
            .parse()
            .map_err(|e: crate::identity::InvalidServer| ConnectError::Server(e.to_string()))?;
        let (client, epochs) = client(&identity, &server, &now, &SessionRegistry::new())?;
        Ok(Self {
            path: path.to_owned(),
            server,
            now,
            long: client.clone().with_timeout(Duration::from_secs(900)),
            client,
            epochs,
            identity: Mutex::new(identity),
        })
    }

    /// The same, with a trace of each request.
    #[must_use]
    pub fn with_tracer(mut self, tracer: Tracer) -> Self {
        self.client = self.client.with_tracer(tracer.clone());
        self.long = self.long.with_tracer(tracer);
        self
    }

    /// The server's address, `https://host:port`.
    pub fn server(&self) -> String {
        self.server.to_string()
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.now.timestamp()
    }

    /// A copy of the identity as it is now.
    pub async fn identity(&self) -> Identity {
        self.identity.lock().await.clone()
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ConnectError> {
        self.repeat(|| self.client.get(path)).await
    }

    /// The bytes of a document, unchanged.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn get_bytes(&self, path: &str) -> Result<Vec<u8>, ConnectError> {
        let bytes = self.repeat(|| self.client.get_bytes(path)).await?;
        Ok(bytes.to_vec())
    }

    /// The same for what may take minutes: reading the whole log.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn get_slow<T: DeserializeOwned>(&self, path: &str) -> Result<T, ConnectError> {
        self.repeat(|| self.long.get(path)).await
    }

    /// Sends a command. Repeated with the same body, and so the same id, when the answer was lost: the control
    /// plane gives its first answer again.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ConnectError> {
        // A phase command itself answers after at most 10 s, a refusal because of members as late.
        self.repeat(|| self.client.post(path, body)).await
    }

    /// Sends a command whose answer is a signature: anew, with a new id, where the row moved on between the decision and the
    /// signature. `make` makes the body, each time with another id.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn post_for_signature<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        make: impl Fn() -> B,
    ) -> Result<T, ConnectError> {
        let mut left = SIGNED_AGAIN;
        loop {
            match self.post(path, &make()).await {
                Err(ConnectError::Client(ClientError::Problem(problem)))
                    if problem.code == Code::StaleView && left > 0 =>
                {
                    left -= 1;
                }
                answer => return answer,
            }
        }
    }

    /// Opens an event stream.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn stream(&self, path: &str) -> Result<EventStream, ConnectError> {
        let idle = Duration::from_secs(4 * api::node::HEARTBEAT_S);
        self.repeat(|| self.client.sse(path, idle)).await
    }

    /// Renews the identity file if that is due, and returns who we are. What cannot be renewed is returned as a
    /// warning: the identity may still do for this command.
    ///
    /// # Errors
    /// [`ConnectError`] when not even that can be asked.
    pub async fn keep_current(&self) -> Result<(Whoami, Option<String>), ConnectError> {
        let me: Whoami = self.get(route::WHOAMI).await?;
        let warning = match self.renew_if_due(&me).await {
            Ok(()) => None,
            Err(error) => Some(format!(
                "{} could not be renewed: {}",
                self.path.display(),
                crate::failure::in_words(&error)
            )),
        };
        Ok((me, warning))
    }

    async fn renew_if_due(&self, me: &Whoami) -> Result<(), ConnectError> {
        let (stale_trust, due) = {
            let identity = self.identity.lock().await;
            (
                identity.trust()?.revision < me.bundle_revision,
                is_due(&identity, me, self.now())?,
            )
        };
        if stale_trust && !due {
            self.refresh_trust().await.map(drop)
        } else if due {
            self.renew(me).await
        } else {
            Ok(())
        }
    }

    async fn renew(&self, me: &Whoami) -> Result<(), ConnectError> {
        let _held = Lock::hold(&self.path).await?;
        let mut newest = Identity::load(&self.path)?;
        if is_due(&newest, me, self.now())? {
            let key = KeyPair::generate();
            let body = RenewRequest {
                id: command_id(self.now(), pki::random()),
                reason: None,
                csr: csr::make_pem(&key),
            };
            let answer: UserCertificateAnswer = self.post(route::USER_RENEW, &body).await?;
            // Crash point: the certificate is issued and the file holds the old one, which still counts until it
            // expires; the next use renews again.
            newest.certificate = answer.certificate;
            newest.key = key.to_pem();
            let _ = newest.install(answer.bundle, self.now());
            newest.save(&self.path)?;
        }
        self.adopt(newest).await
    }

    /// Puts an identity in force for everything dialled from now on.
    async fn adopt(&self, identity: Identity) -> Result<(), ConnectError> {
        self.epochs.store(epoch(&identity, &self.now)?);
        *self.identity.lock().await = identity;
        Ok(())
    }

    /// Fetches the signed host bundle from whoever answers, and installs it if it verifies. Says whether our trust
    /// changed.
    async fn refresh_trust(&self) -> Result<Result<bool, BundleError>, ConnectError> {
        let anybody: Arc<dyn Connect> = Arc::new(Door::anybody(self.server.authority()));
        let path = route::fill(route::TRUST, AuthorityType::Host.name());
        let offered: SignedBundle = Client::new(anybody).get(&path).await?;
        let now = self.now();
        let mut probe = self.identity.lock().await.clone();
        if let Err(error) = probe.install(offered.clone(), now) {
            return Ok(Err(error));
        }
        let before = self.identity.lock().await.trust()?.revision;
        let written = crate::identity::update(&self.path, |identity| {
            identity.install(offered, now).unwrap_or(false)
        });
        // A file that cannot be written (a read-only mount) is no reason not to go on with what verified.
        let newest = written.await.unwrap_or(probe);
        let changed = newest.trust()?.revision > before;
        self.adopt(newest).await?;
        Ok(Ok(changed))
    }

    /// Runs a request; refreshes trust once if the server's issuer is unknown, and asks again for a while where the
    /// control plane says that it cannot answer just now.
    async fn repeat<T, F>(&self, request: impl Fn() -> F) -> Result<T, ConnectError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let (mut refreshed, mut redialled) = (false, false);
        loop {
            let error = match request().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let in_time = tokio::time::Instant::now() < deadline;
            match &error {
                ClientError::Trust { source, .. } if !refreshed && is_unknown_issuer(&**source) => {
                    refreshed = true;
                    match self.refresh_trust().await {
                        Ok(Ok(true)) => {}
                        Ok(Ok(false)) => return Err(self.untrusted(&**source, None).await),
                        Ok(Err(why)) => return Err(self.untrusted(&**source, Some(why.to_string())).await),
                        Err(why) => {
                            let why = crate::failure::in_words(&why);
                            return Err(self.untrusted(&**source, Some(why)).await);
                        }
                    }
                }
                ClientError::Trust { source, .. } => return Err(self.distrust(&**source).await),
                ClientError::Problem(problem) if in_time && passes_by_itself(problem.code) => {
                    tokio::time::sleep(PAUSE).await;
                }
                // A change of trust closes connections, ours as well: dialled again, the same command id gives
                // the first answer.
                ClientError::Unreachable { .. } if in_time && !redialled => {
                    redialled = true;
                    tokio::time::sleep(PAUSE).await;
                }
                _ => return Err(error.into()),
            }
        }
    }

    async fn distrust(&self, source: &(dyn std::error::Error + Send + Sync + 'static)) -> ConnectError {
        match source.downcast_ref::<TlsError>() {
            Some(TlsError::Refused(refusal)) => ConnectError::NotAccepted {
                server: self.server(),
                why: refusal.to_string(),
                not_after: self.identity.lock().await.leaf().ok().map(|leaf| leaf.not_after),
            },
            _ => self.untrusted(source, None).await,
        }
    }

    async fn untrusted(
        &self,
        source: &(dyn std::error::Error + Send + Sync + 'static),
        bundle: Option<String>,
    ) -> ConnectError {
        let presented = match source.downcast_ref::<TlsError>() {
            Some(TlsError::Peer(PeerFault::UnknownIssuer { presented, .. })) => *presented,
            _ => None,
        };
        let trusted = self
            .identity
            .lock()
            .await
            .trust()
            .map(|trust| trust.trusted())
            .unwrap_or_default();
        ConnectError::Untrusted(Box::new(Untrusted {
            server: self.server(),
            identity: self.path.clone(),
            presented,
            trusted: trusted.into_iter().collect(),
            bundle,
            detail: crate::failure::in_words(source),
        }))
    }
}

/// Is a new certificate due: half the life over, or an issuer other than the row's?
fn is_due(identity: &Identity, me: &Whoami, now: Timestamp) -> Result<bool, IdentityError> {
    let leaf = identity.leaf()?;
    let life = leaf.not_after.since_ms(leaf.not_before);
    let is_old = now.since_ms(leaf.not_before) >= life / 2;
    Ok(is_old || leaf.issuer != Some(me.row_issuer))
}

fn is_unknown_issuer(source: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(
        source.downcast_ref::<TlsError>(),
        Some(TlsError::Peer(
            PeerFault::UnknownIssuer { .. } | PeerFault::BadSignature
        ))
    )
}

/// Refusals that say "not now" and not "no".
fn passes_by_itself(code: Code) -> bool {
    matches!(
        code,
        Code::NotServing | Code::ViewsLagging | Code::RateLimited | Code::SignerUnavailable
    )
}

/// Keeps an identity file alive without a command: `serve` does it for `admin.identity` at each phase event and at
/// half life. A renewed identity is presented once, so that rotations of `user` need not wait for its expiry.
///
/// # Errors
/// [`ConnectError`]; the file is unchanged then, or holds a newer identity that was not presented yet.
pub async fn keep_alive(path: &Path, now: Now) -> Result<Position, ConnectError> {
    let session = Session::open(path, None, now)?;
    let me: Whoami = session.get(route::WHOAMI).await?;
    session.renew_if_due(&me).await?;
    // With the new certificate, if there is one: this is the presenting.
    let again: Whoami = session.get(route::WHOAMI).await?;
    Ok(again.position)
}
