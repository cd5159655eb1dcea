//! Certificates that peers present.

use std::sync::{Arc, OnceLock};

use domain::{AuthorityType, Principal, SpkiPin, identity::parse_uri};
use mtls::{Now, PeerRole, TrustEpoch};
use pki::{CaCert, Certificate, issuer_among, verify_signed_by};

use crate::{
    Form, edit,
    made::{Made, NOW, made},
    speaks,
};

pub(crate) fn run(input: &[u8]) {
    match Form::of(input) {
        Form::Raw(raw) => {
            read(raw, None);
            if let Some(all) = std::str::from_utf8(raw).ok().and_then(pki::pem::certificates) {
                all.iter().for_each(|der| read(der, None));
            }
        }
        Form::Edits(which, mut u) => {
            let Made { host, next, leaf, .. } = made();
            let good = if which % 2 == 0 { &leaf[..] } else { host.1.der() };
            if which < 4 {
                let Ok(edited) = edit::der(&mut u, good) else {
                    return;
                };
                // What was signed may stand in it unchanged, with something else around it.
                let (body, _) = edit::parts(good);
                let is_signed = edited.windows(body.len()).any(|part| part == body);
                read(&edited, is_signed.then(|| host.1.pin()));
            } else {
                // Signed by the authority, or by one that is not trusted.
                let (body, algorithm) = edit::parts(good);
                let Ok(body) = edit::der(&mut u, &body) else {
                    return;
                };
                let (key, ca) = if which < 8 { host } else { next };
                let signed = edit::resigned(&body, &algorithm, &key.sign_der(&body));
                read(&signed, Some(ca.pin()));
            }
        }
    }
}

/// A host that trusts the first authority of each type, and not the next.
fn epoch() -> &'static Arc<TrustEpoch> {
    static EPOCH: OnceLock<Arc<TrustEpoch>> = OnceLock::new();
    EPOCH.get_or_init(|| {
        let builder = TrustEpoch::builder(Now::new(|| NOW.0));
        let builder = builder.trust(AuthorityType::Host, [made().host.1.clone()]);
        let builder = builder.trust(AuthorityType::User, [made().user.1.clone()]);
        builder.build().expect("two authorities are an epoch")
    })
}

/// `signer`: who has signed it; no input can hold a signature of a key that this process made.
fn read(der: &[u8], signer: Option<SpkiPin>) {
    let Made {
        host,
        user,
        next,
        cluster,
        ..
    } = made();
    let parsed = Certificate::parse(der);
    match &parsed {
        Err(error) => speaks(error),
        Ok(certificate) => {
            assert_eq!(certificate.digest.0, pki::sha256(der));
            assert_eq!(certificate.spki, certificate.public_key.pin());
            // One spelling of a holder is one holder.
            if let Some(holder) = certificate.principal(cluster) {
                assert!(!matches!(holder, Principal::System(_) | Principal::Anonymous));
            }
            if let Err(error) = CaCert::from_der(der) {
                speaks(&error);
            }
        }
    }
    let signed_by =
        [&host.1, &user.1, &next.1].map(|ca| verify_signed_by(der, ca.der()).is_ok().then(|| ca.pin()));
    assert!(
        signed_by.iter().flatten().all(|ca| Some(*ca) == signer),
        "an authority that did not sign"
    );
    if let Some(issuer) = issuer_among(der, [&host.1, &user.1, &next.1]) {
        assert!(signed_by.contains(&Some(issuer)), "an issuer that did not sign");
    }
    for role in [PeerRole::Client, PeerRole::Server] {
        match epoch().judge(der, role) {
            Err(fault) => speaks(&fault),
            Ok(peer) => {
                let certificate = parsed.as_ref().expect("who is accepted can be read");
                assert_eq!(Some(peer.issuer), signer, "accepted without a signature");
                assert!(
                    [host.1.pin(), user.1.pin()].contains(&peer.issuer),
                    "accepted by an authority that is not trusted"
                );
                assert!(
                    certificate.not_before <= NOW && NOW <= certificate.not_after,
                    "accepted out of its time"
                );
                assert_eq!(certificate.uri.as_deref(), Some(&*peer.uri));
                assert!(role == PeerRole::Client || peer.authority_type == AuthorityType::Host);
                assert!(if role == PeerRole::Client {
                    certificate.client
                } else {
                    certificate.server
                });
                assert!(epoch().still_accepts(&peer).is_ok());
                if let Some(holder) = peer.principal(cluster) {
                    assert_eq!(parse_uri(&peer.uri), Some((cluster.clone(), holder)));
                }
            }
        }
    }
}
