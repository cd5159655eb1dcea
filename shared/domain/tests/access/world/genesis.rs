//! The first facts of the small cluster: its keys and the first certificates.

use domain::{
    authority::{AuthorityKey, AuthorityType, KeyKind},
    command::{Genesis, Settings},
    event::{
        AuthorityActivated, AuthorityKeyGenerated, AuthorizationGranted, CertificateIssued, LeafUse, Occasion,
    },
    id::{AuthorizationId, Position, Principal, RotationId, Serial, SpkiPin},
    phase::Phase,
    time::{DAY_MS, HOUR_MS},
};

use super::{ADMIN, START, World, pin};

impl World {
    pub(crate) fn genesis(&mut self, settings: Settings) -> Genesis {
        let types = [AuthorityType::Host, AuthorityType::User, AuthorityType::Db];
        let keys: Vec<_> = types.into_iter().map(|t| self.first_key(t)).collect();
        let (host_ca, user_ca) = (keys[0].0.key.id, keys[1].0.key.id);
        let admin = Principal::User(ADMIN.parse().unwrap());
        let gateway = Principal::Gateway(self.gateway);
        let certificates = vec![
            self.first_certificate(admin, AuthorityType::User, user_ca, LeafUse::Client),
            self.first_certificate(gateway, AuthorityType::Host, host_ca, LeafUse::Both),
        ];
        Genesis {
            cluster: "acme.cluster".parse().unwrap(),
            settings,
            bundle_key: pin(0xb0b),
            bundle_public_key: "bundle".into(),
            keys,
            admin: ADMIN.parse().unwrap(),
            gateway: self.gateway,
            certificates,
        }
    }

    fn first_key(&mut self, authority_type: AuthorityType) -> (AuthorityKeyGenerated, AuthorityActivated) {
        let key = self.authority_key(1, None);
        let activated = AuthorityActivated {
            authority_type,
            kind: KeyKind::Tls,
            authority: key.id,
        };
        (AuthorityKeyGenerated { authority_type, key }, activated)
    }

    pub(crate) fn authority_key(&mut self, generation: u32, rotation: Option<RotationId>) -> AuthorityKey {
        AuthorityKey {
            id: self.pin(),
            kind: KeyKind::Tls,
            public_key: String::new(),
            generation,
            certificate: "ca".into(),
            algorithm: "ECDSA P-256".into(),
            storage: "software".into(),
            not_after: START.plus_ms(3_650 * DAY_MS),
            rotation,
            position: Position(0),
        }
    }

    fn first_certificate(
        &mut self,
        holder: Principal,
        authority_type: AuthorityType,
        issuer: SpkiPin,
        usage: LeafUse,
    ) -> (AuthorizationGranted, CertificateIssued) {
        let granted = AuthorizationGranted {
            authorization: AuthorizationId(self.uuid()),
            uri: domain::identity::uri(&"acme.cluster".parse().unwrap(), &holder),
            holder,
            authority_type,
            issuer,
            usage,
            occasion: Occasion::Genesis,
            spki: self.pin(),
            public_key: "key".into(),
            common_name: "first".into(),
            names: vec![],
            addresses: vec![],
            serial: Serial::of_random([7; 16]),
            not_before: self.now,
            not_after: self.now.plus_ms(12 * HOUR_MS),
            rotation: None,
            phase: Phase::Standby,
            form: domain::event::Form::Tls,
        };
        let issued = self.issued(&granted);
        (granted, issued)
    }
}
