//! Certificate revocation lists (RFC 5280, section 5): what one authority has signed for TLS and does not stand for any
//! more, signed by that authority.

use domain::{Serial, Timestamp, decide::certificates::NOT_BEFORE_BACK_MS, trust::BUNDLE_LIFE_MS};
use rcgen::{CertificateRevocationListParams, Issuer, KeyIdMethod, RevokedCertParams, SerialNumber};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use crate::{
    adapter::{Signing, x509_time},
    authority::CaCert,
    issue::IssueError,
    key::CaSigner,
};

/// The algorithm's name before the signature (RFC 5758, section 3.2), DER: the reader is lenient with what nobody signs.
const ECDSA_WITH_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];

/// What stands in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    /// The certificates that count no more and have not expired, with when they were revoked; in any order.
    pub revoked: Vec<(Serial, Timestamp)>,
    /// Rises with each list of an authority.
    pub number: u64,
    /// From when on it counts.
    pub this_update: Timestamp,
    /// Until when there is a newer one.
    pub next_update: Timestamp,
}

impl Content {
    /// The list that is signed beside a bundle, and counts as long.
    pub fn of_bundle(revoked: Vec<(Serial, Timestamp)>, expires: Timestamp) -> Self {
        let signed = expires.minus_ms(BUNDLE_LIFE_MS);
        Self {
            revoked,
            // Milliseconds: two bundles of a type are never signed at one moment, and a later one counts for longer.
            number: u64::try_from(expires.0).unwrap_or_default(),
            this_update: signed.minus_ms(NOT_BEFORE_BACK_MS),
            next_update: expires,
        }
    }
}

/// Signs a list, DER.
///
/// # Errors
/// [`IssueError`].
pub fn make(content: &Content, ca: &CaCert, signer: &dyn CaSigner) -> Result<Vec<u8>, IssueError> {
    if signer.public_key() != &ca.parsed().public_key {
        return Err(IssueError::OtherKey);
    }
    let time = |at| {
        x509_time(at).ok_or(IssueError::Authorization(
            "its times cannot stand in a revocation list",
        ))
    };
    let revoked = content.revoked.iter().map(|(serial, at)| {
        Ok(RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial.0),
            revocation_time: time(*at)?,
            reason_code: None,
            invalidity_date: None,
        })
    });
    let params = CertificateRevocationListParams {
        this_update: time(content.this_update)?,
        next_update: time(content.next_update)?,
        crl_number: SerialNumber::from(content.number),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect::<Result<_, IssueError>>()?,
        key_identifier_method: KeyIdMethod::PreSpecified(ca.pin().0.to_vec()),
    };
    let signing = Signing::new(signer);
    let issuer = Issuer::from_ca_cert_der(ca.der(), &signing).map_err(IssueError::Encode)?;
    let made = params
        .signed_by(&issuer)
        .map_err(|error| match signing.take_failure() {
            Some(refused) => IssueError::Sign(refused),
            None => IssueError::Encode(error),
        })?;
    Ok(made.der().to_vec())
}

/// Is this list signed by this authority, and does it say exactly that?
///
/// # Errors
/// What is wrong, in words that follow "the revocation list".
pub fn check(der: &[u8], content: &Content, ca: &CaCert) -> Result<(), String> {
    let (rest, list) = CertificateRevocationList::from_der(der).map_err(|_| "cannot be read")?;
    let signature = &list.signature_value.data;
    let length = u8::try_from(signature.len() + 1).unwrap_or_default();
    let end = [ECDSA_WITH_SHA256, &[3, length, 0], &signature[..]].concat();
    let is_whole = rest.is_empty() && der.ends_with(&end);
    let signed = list.tbs_cert_list.as_ref();
    if !is_whole || !ca.parsed().public_key.verifies(signed, signature) {
        return Err("is not signed by its authority".into());
    }
    let seconds = |at: Timestamp| at.0.div_euclid(1000);
    let times = (
        list.last_update().timestamp(),
        list.next_update().map(|at| at.timestamp()),
    );
    if times != (seconds(content.this_update), Some(seconds(content.next_update))) {
        return Err("counts for another time".into());
    }
    let number = list.crl_number().map(|number| number.to_u64_digits());
    if number != Some(vec![content.number]) {
        return Err("bears another number".into());
    }
    let mut found: Vec<(Vec<u8>, i64)> = list
        .iter_revoked_certificates()
        .map(|entry| (entry.raw_serial().to_vec(), entry.revocation_date.timestamp()))
        .collect();
    let mut expected: Vec<_> = content
        .revoked
        .iter()
        .map(|(serial, at)| (serial.0.to_vec(), seconds(*at)))
        .collect();
    found.sort();
    expected.sort();
    if found != expected {
        return Err("names other certificates than those that were revoked".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NOW, authority};
    use domain::AuthorityType;

    fn content() -> Content {
        Content {
            revoked: vec![
                (Serial::of_random([7; 16]), NOW),
                (Serial::of_random([9; 16]), NOW),
            ],
            number: 41,
            this_update: NOW,
            next_update: NOW.plus_ms(86_400_000),
        }
    }

    #[test]
    fn a_list_says_what_was_put_in_and_anything_else_is_seen() {
        let (key, ca) = authority(AuthorityType::Db, 1);
        let made = make(&content(), &ca, &key).unwrap();
        assert_eq!(check(&made, &content(), &ca), Ok(()));
        let others: [fn(&mut Content); 5] = [
            |c| c.number += 1,
            |c| c.revoked.truncate(1),
            |c| c.revoked[0].1 = c.revoked[0].1.plus_ms(1_000),
            |c| c.this_update = c.this_update.plus_ms(1_000),
            |c| c.next_update = c.next_update.plus_ms(1_000),
        ];
        for change in others {
            let mut other = content();
            change(&mut other);
            assert!(check(&made, &other, &ca).is_err(), "{other:?}");
        }
        let (strangers, stranger) = authority(AuthorityType::Db, 2);
        assert!(check(&made, &content(), &stranger).is_err());
        assert!(matches!(
            make(&content(), &ca, &strangers),
            Err(IssueError::OtherKey)
        ));
        for at in 0..made.len() {
            let mut changed = made.clone();
            changed[at] ^= 1;
            assert!(check(&changed, &content(), &ca).is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_empty_list_is_a_list() {
        let (key, ca) = authority(AuthorityType::Db, 1);
        let empty = Content {
            revoked: vec![],
            ..content()
        };
        let made = make(&empty, &ca, &key).unwrap();
        assert_eq!(check(&made, &empty, &ca), Ok(()));
    }
}
