//! Authorities in the wrong hands: stolen ones and made-up ones, and the certificates that they give.

use std::sync::Arc;

use carousel_tests::TestDir;
use domain::{
    AuthorityType, AuthorizationId, ClusterName, Phase, Principal, Serial, Timestamp,
    event::{AuthorizationGranted, LeafUse, Occasion},
    time::{DAY_MS, MINUTE_MS},
};
use pki::{Blueprint, CaCert, CaSigner, KeyPair};
use runtime::clock::SystemClock;
use signer::{FileStore, KeyStore};
use uuid::Uuid;

use crate::{proof::copy_dir, world::World};

/// An authority whose key somebody has who should not.
pub(crate) struct Authority {
    pub(crate) authority_type: AuthorityType,
    pub(crate) ca: CaCert,
    signer: Arc<dyn CaSigner>,
}

/// A certificate in PEM, and its key.
pub(crate) struct Forged {
    pub(crate) certificate: String,
    pub(crate) key: KeyPair,
}

impl Authority {
    /// Copies of the keys of these types as they are now, with what opens them: as a thief has them for ever.
    pub(crate) fn stolen(world: &World, types: &[AuthorityType]) -> Vec<Self> {
        let loot = TestDir::new("loot");
        copy_dir(&world.data().join("keys"), loot.path());
        let store = FileStore::open(loot.path()).expect("the copy opens");
        let of_type = |of: AuthorityType| trusted(world, of).into_iter().map(move |ca| (of, ca));
        let all = types.iter().copied().flat_map(of_type);
        all.map(|(authority_type, ca)| Self {
            authority_type,
            signer: store.signer(&ca.pin()).expect("the thief has the key"),
            ca,
        })
        .collect()
    }

    /// One that anybody can make, under the very name of the cluster's first one.
    pub(crate) fn made_up(authority_type: AuthorityType) -> Self {
        let key = KeyPair::generate();
        let blueprint = Blueprint {
            cluster: &cluster(),
            authority_type,
            generation: 1,
            serial: Serial::of_random([9; 16]),
            now: now(),
        };
        Self {
            authority_type,
            ca: pki::authority::make(&blueprint, &key).expect("an authority as good as ours"),
            signer: Arc::new(key),
        }
    }

    /// A leaf that differs from a genuine one only in that the log does not know it.
    pub(crate) fn forge(&self, holder: &Principal) -> Forged {
        let (key, cluster) = (KeyPair::generate(), cluster());
        let usage = match holder {
            Principal::Node(_) | Principal::Gateway(_) => LeafUse::Both,
            _ => LeafUse::Client,
        };
        let granted = AuthorizationGranted {
            authorization: AuthorizationId(Uuid::from_u128(1)),
            uri: holder.uri(&cluster),
            holder: holder.clone(),
            authority_type: self.authority_type,
            issuer: self.ca.pin(),
            usage,
            occasion: Occasion::Renewal,
            spki: key.spki_pin(),
            public_key: key.public().to_base64(),
            common_name: "n1".into(),
            names: vec![],
            addresses: vec![],
            serial: Serial::of_random([7; 16]),
            not_before: now().minus_ms(5 * MINUTE_MS),
            not_after: now().plus_ms(DAY_MS),
            rotation: None,
            phase: Phase::Standby,
            form: domain::event::Form::Tls,
        };
        let leaf = pki::issue(&granted, &cluster, &self.ca, &*self.signer).expect("a leaf as good as ours");
        Forged {
            certificate: pki::pem::encode_certificates([&leaf.der[..]]),
            key,
        }
    }
}

/// The authorities of a type that the cluster trusts now.
pub(crate) fn trusted(world: &World, of: AuthorityType) -> Vec<CaCert> {
    let args = ["auth", "export", &format!("--type={of}"), "--as", "pem"];
    let pem = world.carousel(&args).expect_code(0);
    let ders = pki::pem::certificates(&pem).expect("PEM");
    let ders = ders.iter();
    ders.map(|der| CaCert::from_der(der).expect("an authority"))
        .collect()
}

pub(crate) fn cluster() -> ClusterName {
    "acme.cluster".parse().expect("a name")
}

pub(crate) fn now() -> Timestamp {
    Timestamp(SystemClock::shared().now_ms())
}
