//! The control plane in small certifies host keys of sshd.

use std::{collections::BTreeMap, path::Path};

use api::node::{CertificateAnswer, CertificateRequest};
use domain::{
    AuthorizationId, Code, NodeId, Position, Principal, Serial, SpkiPin,
    event::{AuthorizationGranted, Form, LeafUse},
};
use http::Response;
use pki::{
    KeyPair,
    ssh::{SshCertificate, SshProfile, SshPublicKey},
};

use super::{
    Inner,
    routes::{Body, json, problem},
};
use crate::disk::credential::SshdCertificate;

/// The line of a new host key.
pub(crate) fn host_key() -> String {
    pki::ssh::public_line(KeyPair::generate().public(), "root@n1")
}

/// Puts the public half of a new host key there; its pin.
pub(crate) fn new_host_key(path: &Path) -> SpkiPin {
    let line = host_key();
    std::fs::write(path, format!("{line}\n")).unwrap();
    SshPublicKey::parse(&line).unwrap().pin()
}

impl Inner {
    /// A certificate of this node's sshd, as the agent holds it.
    pub(crate) fn sshd_certificate(&self, position: Position) -> SshdCertificate {
        let key = SshPublicKey::parse(&host_key()).unwrap();
        let (made, issuer, _) = self.certify_sshd(self.node, &key);
        SshdCertificate::new(&made, issuer, position)
    }

    /// A certificate of a host's key from the SSH authority of the row, for somebody.
    fn certify_sshd(&self, node: NodeId, key: &SshPublicKey) -> (SshCertificate, SpkiPin, Position) {
        let issuer = self.bundle().ssh_issuer().unwrap();
        let mut state = self.state();
        let keys = [Some(state.ssh_active.clone()), state.ssh_prepared.clone()];
        let signer = keys
            .into_iter()
            .flatten()
            .find(|k| k.spki_pin() == issuer)
            .unwrap();
        let stamp = (self.now(), state.ttl_ms, state.phase);
        let granted = AuthorizationGranted {
            serial: Serial::of_random_ssh(pki::random()),
            form: Form::Ssh {
                principals: vec![state.name.into(), "192.0.2.1".into()],
                critical_options: BTreeMap::new(),
                extensions: vec![],
            },
            ..self.granted(&Principal::Node(node), LeafUse::Server, issuer, stamp)
        };
        let profile = SshProfile::of(&granted).unwrap();
        let made = pki::ssh::issue(&profile, key, signer.as_ref()).unwrap();
        (made, issuer, Position(state.next_position()))
    }

    pub(super) fn certificate_of_sshd(&self, asked: &CertificateRequest) -> Response<Body> {
        if let Some(code) = self.state().refuse_sshd {
            return problem(code);
        }
        let key = SshPublicKey::parse(&asked.csr).unwrap();
        if asked.issuer != self.bundle().ssh_issuer() {
            return problem(Code::StaleView);
        }
        assert_eq!(asked.usage, LeafUse::Server);
        let holder = self.misissued_to();
        let (made, _, position) = self.certify_sshd(holder, &key);
        json(&CertificateAnswer {
            authorization: AuthorizationId(uuid::Uuid::from_u128(1)),
            not_after: made.profile().valid_before,
            certificate: made.to_line(),
            position,
        })
    }
}
