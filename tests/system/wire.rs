//! Requests as a stranger's program would send them: our TLS, any certificate, any body.

use std::{fs, sync::Arc};

use api::{Client, ClientError, Connect, ConnectError, Problem, client::Io};
use domain::AuthorityType;
use futures::future::BoxFuture;
use mtls::{ClientAuth, Credential, Epochs, Expect, Now, SessionRegistry, TrustEpoch};
use pki::CaCert;
use runtime::clock::SystemClock;
use serde_json::Value;

use crate::world::{Agent, World};

/// A way to one gateway, with or without a certificate.
pub(crate) struct Wire {
    authority: String,
    trusted: Vec<CaCert>,
    credential: Option<(String, String)>,
}

impl Wire {
    /// To this world's gateway, trusting its host authorities, presenting nothing.
    pub(crate) fn of(world: &World) -> Self {
        let pem = world
            .carousel(&["auth", "export", "--type=host", "--as", "pem"])
            .expect_code(0);
        let ders = pki::pem::certificates(&pem).expect("PEM");
        Self {
            authority: world.url.trim_start_matches("https://").to_owned(),
            trusted: ders
                .iter()
                .map(|der| CaCert::from_der(der).expect("an authority"))
                .collect(),
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
            authority: self.authority.clone(),
            trusted: self.trusted.clone(),
            credential: Some((certificate.into(), key.into())),
        }
    }

    /// The same, presenting nothing.
    pub(crate) fn anonymous(&self) -> Self {
        Self {
            authority: self.authority.clone(),
            trusted: self.trusted.clone(),
            credential: None,
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
        let path = path.to_owned();
        self.ask(async move |client| client.get(&path).await)
    }

    /// Likewise.
    pub(crate) fn try_post(self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let (path, body) = (path.to_owned(), body.clone());
        self.ask(async move |client| client.post(&path, &body).await)
    }

    fn ask(
        self,
        question: impl AsyncFnOnce(Client) -> Result<Value, ClientError>,
    ) -> Result<Value, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(question(Client::new(Arc::new(self))))
    }

    /// A connection of its own, for what is not a request of the API's client.
    pub(crate) async fn dial(&self) -> Result<mtls::Connected, mtls::TlsError> {
        let (epochs, sessions) = (Epochs::new(self.epoch()), SessionRegistry::new());
        let expect = Expect::Gateway {
            cluster: "acme.cluster".parse().expect("a name"),
        };
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
}

fn answered(answer: Result<Value, ClientError>) -> Result<Value, Box<Problem>> {
    match answer {
        Ok(answer) => Ok(answer),
        Err(ClientError::Problem(problem)) => Err(problem),
        Err(other) => panic!("no answer of the API: {other:?}"),
    }
}
