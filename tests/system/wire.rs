//! Requests as a stranger's program would send them: our TLS, any certificate, any body.

use std::{fs, io, sync::Arc, time::Duration};

use api::{Client, ClientError, Connect, ConnectError, Problem, client::Io};
use domain::{AuthorityType, trust::SignedBundle};
use futures::future::BoxFuture;
use mtls::{ClientAuth, Credential, Epochs, Expect, Now, SessionRegistry, TlsError, TrustEpoch};
use pki::CaCert;
use runtime::clock::SystemClock;
use serde_json::Value;

use crate::{
    forged::{Forged, cluster, trusted},
    world::{Agent, World},
};

/// A way to one gateway, with or without a certificate.
#[derive(Clone)]
pub(crate) struct Wire {
    authority: String,
    trusted: Vec<CaCert>,
    credential: Option<(String, String)>,
}

/// What the door says to a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// It is done.
    Done,
    /// A refusal with its code.
    Refused(String),
    /// The certificate that was presented ends the handshake.
    NoHandshake,
}

impl Verdict {
    pub(crate) fn refused(code: &str) -> Self {
        Self::Refused(code.to_owned())
    }
}

impl Wire {
    /// To this world's gateway, trusting its host authorities, presenting nothing.
    pub(crate) fn of(world: &World) -> Self {
        Self {
            authority: world.url.trim_start_matches("https://").to_owned(),
            trusted: trusted(world, AuthorityType::Host),
            credential: None,
        }
    }

    /// As the administrator, by the identity that the control plane keeps current; `None` while there is none to read.
    pub(crate) fn of_admin(world: &World) -> Option<Self> {
        let text = fs::read_to_string(world.data().join("admin.identity")).ok()?;
        let identity: Value = serde_json::from_str(&text).ok()?;
        let document = identity["bundle"]["document"].as_str()?;
        let bundle: domain::trust::Bundle = serde_json::from_str(document).ok()?;
        let part = |name: &str| identity[name].as_str().map(str::to_owned);
        Some(Self {
            authority: world.url.trim_start_matches("https://").to_owned(),
            trusted: pki::bundle::authorities(&bundle).collect(),
            credential: Some((part("certificate")?, part("key")?)),
        })
    }

    /// The same, presenting this certificate.
    pub(crate) fn presenting(&self, certificate: &str, key: &str) -> Self {
        Self {
            credential: Some((certificate.into(), key.into())),
            ..self.anonymous()
        }
    }

    /// The same, presenting a forged one.
    pub(crate) fn forged(&self, forged: &Forged) -> Self {
        self.presenting(&forged.certificate, &forged.key.to_pem())
    }

    /// The same, presenting nothing.
    pub(crate) fn anonymous(&self) -> Self {
        Self {
            credential: None,
            ..self.clone()
        }
    }

    /// A node's client certificate and its key.
    pub(crate) fn files_of(&self, agent: &Agent) -> (String, String) {
        let read = |name: &str| fs::read_to_string(agent.dir.join("current").join(name)).expect("installed");
        (read("client.crt"), read("client.key"))
    }

    pub(crate) fn get(self, path: &str) -> Result<Value, Box<Problem>> {
        answered(self.try_get(path))
    }

    pub(crate) fn post(self, path: &str, body: &Value) -> Result<Value, Box<Problem>> {
        answered(self.try_post(path, body))
    }

    /// The same where it may be that nobody answers.
    pub(crate) fn try_get(self, path: &str) -> Result<Value, ClientError> {
        self.ask(async |client| client.get(path).await)
    }

    /// What is no JSON.
    pub(crate) fn bytes(self, path: &str) -> Vec<u8> {
        let answer = self.ask(async |client| client.get_bytes(path).await);
        answer.unwrap_or_else(|error| panic!("{path}: {error}")).to_vec()
    }

    /// Likewise.
    pub(crate) fn try_post(self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.ask(async |client| client.post(path, body).await)
    }

    /// The same where the answer has no words.
    pub(crate) fn try_tell(self, path: &str, body: &Value) -> Result<(), ClientError> {
        self.ask(async |client| client.post_only(path, body).await)
    }

    /// The newest signed bundle of the host authorities.
    pub(crate) fn bundle(&self) -> SignedBundle {
        let document = self.anonymous().get("/v1/trust/host").expect("it is public");
        serde_json::from_value(document).expect("a signed bundle")
    }

    /// What the door says: to a `POST` with this body, or to a `GET` without one.
    pub(crate) fn verdict(&self, path: &str, body: Option<&Value>) -> Verdict {
        runtime().block_on(self.clone().judged(path, body))
    }

    /// The same within a runtime, where several ask at once.
    pub(crate) async fn judged(self, path: &str, body: Option<&Value>) -> Verdict {
        let client = Client::new(Arc::new(self));
        let result = match body {
            Some(body) => client.post_only(path, body).await,
            // A stream does not end by itself: whoever hears it begin is let in.
            None => client.sse(path, Duration::from_secs(10)).await.map(drop),
        };
        match result {
            Ok(()) => Verdict::Done,
            Err(ClientError::Problem(problem)) => Verdict::refused(problem.code.name()),
            Err(ClientError::Trust { source, .. })
                if matches!(source.downcast_ref::<TlsError>(), Some(TlsError::Refused(_))) =>
            {
                Verdict::NoHandshake
            }
            Err(other) => panic!("no answer of the API to {path}: {other:?}"),
        }
    }

    fn ask<T>(self, question: impl AsyncFnOnce(Client) -> Result<T, ClientError>) -> Result<T, ClientError> {
        runtime().block_on(question(Client::new(Arc::new(self))))
    }

    /// A connection of its own, for what is not a request of the API's client.
    pub(crate) async fn dial(&self) -> Result<mtls::Connected, TlsError> {
        let (epochs, sessions) = (Epochs::new(self.epoch()), SessionRegistry::new());
        let expect = Expect::Gateway { cluster: cluster() };
        if self.credential.is_some() {
            mtls::connect(&self.authority, &epochs, &sessions, &expect).await
        } else {
            mtls::connect_anonymous(&self.authority, &epochs, &sessions, &expect).await
        }
    }

    fn epoch(&self) -> Arc<TrustEpoch> {
        let clock = SystemClock::shared();
        let mut builder = TrustEpoch::builder(Now::new(move || clock.now_ms()))
            .trust(AuthorityType::Host, self.trusted.clone())
            .client_auth(ClientAuth::Optional);
        if let Some((certificate, key)) = &self.credential {
            builder =
                builder.client(Credential::from_pem(certificate, key).expect("a certificate and its key"));
        }
        builder.build().expect("a usable epoch")
    }
}

impl Connect for Wire {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(async {
            let connected = self.dial().await;
            let connected = connected.map_err(|error| ConnectError::Trust(Box::new(error)))?;
            Ok(Box::new(connected.stream) as Box<dyn Io>)
        })
    }

    fn authority(&self) -> String {
        self.authority.clone()
    }

    fn judge(&self, error: &io::Error) -> Option<ConnectError> {
        // TLS 1.3: the verdict on our certificate arrives with the first read.
        mtls::refused_by_peer(error).map(|refusal| ConnectError::Trust(Box::new(TlsError::Refused(refusal))))
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn answered(answer: Result<Value, ClientError>) -> Result<Value, Box<Problem>> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(ClientError::Problem(problem)) => Err(problem),
        Err(other) => panic!("no answer of the API: {other:?}"),
    }
}
