//! A look at a server of somebody else sees whom it accepts and what it presents, and believes no borrowed certificate.

use std::{net::SocketAddr, sync::Arc};

use domain::{AuthorityType, event::LeafUse};
use pki::KeyPair;
use rustls::{
    ServerConfig,
    crypto::ring::{default_provider, sign::any_ecdsa_type},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{io::AsyncWriteExt, net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::{
    Epochs, TlsError, TrustEpoch, look,
    testing::{Ca, Hand, Server, node},
};

async fn look_at(addr: &str) -> Result<crate::Looked, TlsError> {
    look(addr.parse().unwrap(), "db.example").await
}

#[tokio::test]
async fn a_look_sees_whom_a_server_accepts_and_what_it_presents_without_a_certificate_of_its_own() {
    let (host, user) = (Ca::new(AuthorityType::Host, 1), Ca::new(AuthorityType::User, 1));
    let served = host.issue(&node(1), LeafUse::Both);
    let epoch = TrustEpoch::builder(Hand::new().now())
        .trust(AuthorityType::Host, [host.cert.clone()])
        .trust(AuthorityType::User, [user.cert.clone()])
        .server(served.clone())
        .build()
        .unwrap();
    let server = Server::holding(Epochs::new(epoch.clone())).await;
    let looked = look_at(&server.addr).await.unwrap();
    assert_eq!(looked.presented, served.der().to_vec());
    assert_eq!(looked.ca_names, epoch.ca_names());
    assert_eq!(looked.ca_names.len(), 2);
}

/// A server that presents a certificate and signs with that key, whether they belong together or not.
async fn presenting(certificate: Vec<u8>, key: &KeyPair) -> (SocketAddr, JoinSet<()>) {
    let pkcs8 = key.to_pkcs8_der();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&pkcs8[..]));
    let certified = CertifiedKey::new(vec![certificate.into()], any_ecdsa_type(&private).unwrap());
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = acceptor.accept(tcp).await;
        }
    });
    (at, tasks)
}

#[tokio::test]
async fn a_certificate_that_was_copied_from_somebody_is_not_presented_by_whoever_copied_it() {
    let host = Ca::new(AuthorityType::Host, 1);
    let (certificate, key) = host.issue_with_key(&node(1), LeafUse::Server);
    let (at, _own) = presenting(certificate.clone(), &key).await;
    let looked = look(at, "db.example").await.unwrap();
    assert_eq!(
        (looked.presented, looked.ca_names.len()),
        (certificate.clone(), 0)
    );
    let (at, _thief) = presenting(certificate, &KeyPair::generate()).await;
    assert!(look(at, "db.example").await.is_err());
}

#[tokio::test]
async fn what_does_not_speak_tls_is_an_error_and_no_panic() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let _ = tcp.write_all(&[0x16, 3, 3, 0xff, 0xff, 2, 0, 0, 9]).await;
        }
    });
    assert!(look(at, "db.example").await.is_err());
    assert!(look("127.0.0.1:1".parse().unwrap(), "db.example").await.is_err());
    assert!(look(at, "no name at all").await.is_err());
}
