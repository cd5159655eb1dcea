//! A server of the thief's: our TLS, and as much HTTP as an agent needs to be lied to.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use api::{Problem, node::DesiredUpdate};
use domain::{AuthorityType, Code, trust::SignedBundle};
use mtls::{ClientAuth, Credential, Epochs, Now, SessionRegistry, TrustEpoch};
use pki::CaCert;
use runtime::clock::SystemClock;
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use crate::{forged::Forged, wire};

/// What the impostor has at hand.
pub(crate) struct Script {
    /// The certificate that it presents.
    pub(crate) presents: Forged,
    /// Certificates that it sends along, PEM.
    pub(crate) beside: String,
    /// Whose clients it takes.
    pub(crate) trusts: Vec<CaCert>,
    /// What it hands out as the trust bundle, one after the other, the last one for ever.
    pub(crate) bundles: Vec<SignedBundle>,
    /// What it sends over each stream; without anything it knows nobody's certificate.
    pub(crate) feed: Vec<DesiredUpdate>,
}

/// The running server; gone when this is dropped.
pub(crate) struct Impostor {
    pub(crate) url: String,
    stage: Arc<Stage>,
    _stop: oneshot::Sender<()>,
}

struct Stage {
    script: Script,
    epochs: Epochs,
    sessions: SessionRegistry,
    handed_out: AtomicUsize,
    /// Everything that was ever sent to it.
    heard: Mutex<String>,
}

impl Impostor {
    pub(crate) fn start(script: Script) -> Self {
        let clock = SystemClock::shared();
        let chain = script.presents.certificate.clone() + &script.beside;
        let credential = Credential::from_pem(&chain, &script.presents.key.to_pem());
        let epoch = TrustEpoch::builder(Now::new(move || clock.now_ms()))
            .trust(AuthorityType::Host, script.trusts.clone())
            .client_auth(ClientAuth::Optional)
            .server(credential.expect("a certificate and its key"))
            .build()
            .expect("a usable epoch");
        let stage = Arc::new(Stage {
            script,
            epochs: Epochs::new(epoch),
            sessions: SessionRegistry::new(),
            handed_out: AtomicUsize::new(0),
            heard: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket of ours");
        let url = format!("https://{}", listener.local_addr().expect("a port"));
        let acting = stage.clone();
        thread::spawn(move || {
            wire::runtime().block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = acting.receive(listener) => {}
                }
            });
        });
        Self {
            url,
            stage,
            _stop: stop,
        }
    }

    /// Was it ever sent this?
    pub(crate) fn heard(&self, needle: &str) -> bool {
        self.stage.heard.lock().expect("no panic").contains(needle)
    }
}

impl Stage {
    async fn receive(self: Arc<Self>, listener: std::net::TcpListener) {
        let listener = TcpListener::from_std(listener).expect("a socket of ours");
        let mut guests = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            guests.spawn(self.clone().guest(tcp));
        }
    }

    /// One connection. How it ends is the guest's affair.
    async fn guest(self: Arc<Self>, tcp: TcpStream) {
        if let Ok(mut accepted) = mtls::accept(tcp, &self.epochs, &self.sessions).await {
            let _ = self.answer(&mut accepted.stream).await;
        }
    }

    /// One request; the head says it all. What follows is kept, too: a token would be in it.
    async fn answer(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> std::io::Result<()> {
        let mut request = String::new();
        while !request.contains("\r\n\r\n") {
            let mut part = [0; 4096];
            let read = stream.read(&mut part).await?;
            if read == 0 {
                return Ok(());
            }
            let part = String::from_utf8_lossy(&part[..read]).into_owned();
            self.heard.lock().expect("no panic").push_str(&part);
            request.push_str(&part);
        }
        if request.starts_with("GET /v1/trust/host ") {
            let next = self.handed_out.fetch_add(1, Ordering::Relaxed);
            let bundles = &self.script.bundles;
            return document(stream, "200 OK", &bundles[next.min(bundles.len() - 1)]).await;
        }
        if request.starts_with("GET /v1/node/stream ") && !self.script.feed.is_empty() {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                .await?;
            for update in &self.script.feed {
                let data = serde_json::to_string(update).expect("plain data");
                stream
                    .write_all(format!("event: desired\ndata: {data}\n\n").as_bytes())
                    .await?;
            }
            stream.flush().await?;
            // Until the other side has had enough.
            return tokio::io::copy(stream, &mut tokio::io::sink()).await.map(drop);
        }
        let code = match request.split(' ').nth(1) {
            Some("/v1/recover") => Code::RecoveryRefused,
            _ => Code::CertificateUnknown,
        };
        document(stream, "403 Forbidden", &Problem::new(code, "no")).await
    }
}

async fn document(
    stream: &mut (impl AsyncWrite + Unpin),
    status: &str,
    content: &impl Serialize,
) -> std::io::Result<()> {
    let body = serde_json::to_string(content).expect("plain data");
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await?;
    stream.shutdown().await
}
