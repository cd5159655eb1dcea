//! The profile of a leaf, checked on the bytes: what the signer lets out and what the audit accepts.
//!
//! It parses with another library than the one that wrote the certificate, and expects every field and
//! every extension; what is not expected is an error, not a curiosity.

use domain::{
    ClusterName,
    event::{AuthorizationGranted, LeafUse},
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{ExtendedKeyUsage, GeneralName, ParsedExtension, X509Extension},
    x509::X509Version,
};

use crate::{
    adapter::from_x509_time,
    authority::CaCert,
    inspect::{CertificateError, address, verify_signed_by, x509},
    logon, names,
};

/// How a certificate differs from its authorisation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LintError {
    /// It cannot be read, or another key signed it.
    #[error("the certificate cannot stand for the authorisation")]
    Certificate(#[source] CertificateError),
    /// One field is not what was authorised.
    #[error("the certificate's {field} is {found}, authorised is {expected}")]
    Differs {
        /// Which field.
        field: &'static str,
        /// What stands in the certificate.
        found: String,
        /// What the authorisation says.
        expected: String,
    },
    /// An extension is missing, doubled, unknown or has the wrong criticality.
    #[error("the certificate's extension {oid} {wrong}")]
    Extension {
        /// Its object identifier.
        oid: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
}

/// Is this certificate exactly what was authorised, signed by this authority?
pub fn lint(
    der: &[u8],
    granted: &AuthorizationGranted,
    cluster: &ClusterName,
    ca: &CaCert,
) -> Result<(), LintError> {
    profile(der, granted, cluster, ca)?;
    verify_signed_by(der, ca.der()).map_err(LintError::Certificate)
}

/// Is this certificate exactly what was authorised? Whose signature it bears is not looked at: that is for whoever has just
/// had it signed, and [`CaSigner::sign_raw`](crate::CaSigner::sign_raw) answers with signatures that verify.
pub(crate) fn profile(
    der: &[u8],
    granted: &AuthorizationGranted,
    cluster: &ClusterName,
    ca: &CaCert,
) -> Result<(), LintError> {
    let certificate = x509(der).map_err(LintError::Certificate)?;
    if granted.issuer != ca.pin() {
        return Err(differs("issuer", ca.pin(), granted.issuer));
    }
    fields(&certificate, granted, cluster, ca)?;
    extensions(&certificate, granted)
}

fn fields(
    certificate: &X509Certificate<'_>,
    granted: &AuthorizationGranted,
    cluster: &ClusterName,
    ca: &CaCert,
) -> Result<(), LintError> {
    if certificate.version() != X509Version::V3 {
        return Err(differs("version", certificate.version(), X509Version::V3));
    }
    let serial = certificate.raw_serial();
    if serial != granted.serial.0 {
        return Err(differs("serial", hex(serial), granted.serial));
    }
    let spki = crate::key::sha256(certificate.public_key().raw);
    if spki != granted.spki.0 {
        return Err(differs("key", domain::SpkiPin(spki), granted.spki));
    }
    let validity = certificate.validity();
    for (field, found, expected) in [
        ("notBefore", validity.not_before, granted.not_before),
        ("notAfter", validity.not_after, granted.not_after),
    ] {
        // X.509 has whole seconds; the log has milliseconds.
        if found.timestamp() != expected.0.div_euclid(1000) {
            return Err(differs(field, from_x509_time(found), expected));
        }
    }
    if granted.not_after > ca.parsed().not_after {
        return Err(differs("notAfter", granted.not_after, ca.parsed().not_after));
    }
    let subject: Vec<_> = certificate
        .subject()
        .iter_attributes()
        .map(|a| {
            (
                a.attr_type().to_id_string(),
                a.as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let expected = [
        ("2.5.4.10".to_owned(), cluster.to_string()),
        ("2.5.4.3".to_owned(), names::cut(&granted.common_name)),
    ];
    if subject != expected {
        return Err(LintError::Differs {
            field: "subject",
            found: format!("{subject:?}"),
            expected: format!("{expected:?}"),
        });
    }
    Ok(())
}

const EXTENDED_USAGE: &str = "2.5.29.37";
/// The six extensions of a leaf, each exactly once.
const EXPECTED: [(&str, bool); 6] = [
    ("2.5.29.35", false), // authority key identifier
    ("2.5.29.17", false), // subject alternative name
    ("2.5.29.15", true),  // key usage
    (EXTENDED_USAGE, false),
    ("2.5.29.14", false), // subject key identifier
    ("2.5.29.19", true),  // basic constraints
];

fn extensions(certificate: &X509Certificate<'_>, granted: &AuthorizationGranted) -> Result<(), LintError> {
    // A leaf that only signs documents has no extended usage, and so no list of them.
    let has_usages = granted.usage != LeafUse::Signing;
    let expected = || {
        EXPECTED
            .iter()
            .filter(|(oid, _)| has_usages || *oid != EXTENDED_USAGE)
    };
    let mut seen = Vec::new();
    for extension in certificate.extensions() {
        let oid = extension.oid.to_id_string();
        let wrong = |wrong| LintError::Extension {
            oid: oid.clone(),
            wrong,
        };
        let (_, critical) = expected()
            .find(|(e, _)| *e == oid)
            .ok_or_else(|| wrong("is not in the profile"))?;
        if extension.critical != *critical {
            return Err(wrong("has the wrong criticality"));
        }
        if seen.contains(&oid) {
            return Err(wrong("stands there twice"));
        }
        value(extension, granted)?;
        seen.push(oid);
    }
    match expected().find(|(oid, _)| !seen.iter().any(|s| s == oid)) {
        Some((oid, _)) => Err(LintError::Extension {
            oid: (*oid).into(),
            wrong: "is missing",
        }),
        None => Ok(()),
    }
}

fn value(extension: &X509Extension<'_>, granted: &AuthorizationGranted) -> Result<(), LintError> {
    let oid = || extension.oid.to_id_string();
    let must = |holds: bool, wrong| {
        if holds {
            Ok(())
        } else {
            Err(LintError::Extension { oid: oid(), wrong })
        }
    };
    match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => {
            let key = id.key_identifier.as_ref().map(|k| k.0) == Some(&granted.issuer.0[..]);
            let only = id.authority_cert_issuer.is_none() && id.authority_cert_serial.is_none();
            must(key && only, "does not name the authorised issuer")
        }
        ParsedExtension::SubjectKeyIdentifier(id) => {
            must(id.0 == &granted.spki.0[..], "is not the pin of the key")
        }
        ParsedExtension::BasicConstraints(constraints) => must(
            !constraints.ca && constraints.path_len_constraint.is_none(),
            "makes it a CA",
        ),
        ParsedExtension::KeyUsage(usage) => must(usage.flags == 1, "allows more than digital signatures"),
        ParsedExtension::ExtendedKeyUsage(usage) => {
            must(usages(usage, granted), "is not the authorised usage")
        }
        ParsedExtension::SubjectAlternativeName(names) => alternative_names(&names.general_names, granted),
        _ => must(false, "cannot be read"),
    }
}

fn usages(usage: &ExtendedKeyUsage<'_>, granted: &AuthorizationGranted) -> bool {
    let expected: Vec<String> = logon::upn(granted)
        .map(|_| logon::dotted(&logon::SMART_CARD))
        .into_iter()
        .collect();
    let other: Vec<String> = usage.other.iter().map(ToString::to_string).collect();
    let others = usage.any
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || other != expected;
    !others && usage.client_auth == granted.usage.client() && usage.server_auth == granted.usage.server()
}

fn alternative_names(found: &[GeneralName<'_>], granted: &AuthorizationGranted) -> Result<(), LintError> {
    let mut expected = vec![format!("URI:{}", granted.uri)];
    expected.extend(granted.names.iter().map(|n| format!("DNS:{n}")));
    expected.extend(granted.addresses.iter().map(|a| format!("IP:{a}")));
    expected.extend(logon::upn(granted).map(|upn| format!("UPN:{upn}")));
    let found: Vec<_> = found
        .iter()
        .map(|name| match name {
            GeneralName::URI(uri) => format!("URI:{uri}"),
            GeneralName::DNSName(dns) => format!("DNS:{dns}"),
            GeneralName::IPAddress(bytes) => address(bytes).map_or("IP:?".into(), |a| format!("IP:{a}")),
            // Compared as it is encoded, so that nothing else fits into it.
            GeneralName::OtherName(oid, value)
                if oid.to_id_string() == logon::dotted(&logon::USER_PRINCIPAL_NAME)
                    && logon::upn(granted).and_then(logon::encoded).as_deref() == Some(*value) =>
            {
                format!("UPN:{}", logon::upn(granted).unwrap_or_default())
            }
            other => format!("{other:?}"),
        })
        .collect();
    if found == expected {
        return Ok(());
    }
    Err(differs(
        "alternative names",
        found.join(", "),
        expected.join(", "),
    ))
}

fn differs(field: &'static str, found: impl ToString, expected: impl ToString) -> LintError {
    LintError::Differs {
        field,
        found: found.to_string(),
        expected: expected.to_string(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
