//! X.509, SSH and JWT without files, clocks or networks: bytes in, bytes out.
//!
//! Everything a CA has to get right about certificates stands here once: keys ([`key`]), requests
//! ([`csr`]), authorities ([`authority`]), leaves ([`issue()`], checked again by [`lint()`]), the signed
//! trust documents ([`bundle`]), keys at rest ([`sealed`]), reading certificates ([`inspect`]),
//! signing a statement with the key of a certificate ([`statement`]), and what authorities sign beside X.509: SSH
//! certificates with their revocation lists ([`ssh`]), tokens with their key sets ([`jwt`]), and how a token travels to
//! whoever asked ([`jwe`]).
//!
//! What callers use most:
//!
//! ```text
//! KeyPair::generate() · from_pkcs8_pem(&str) · from_pkcs8_der(&[u8]) · to_pem() · spki_pin() · sign_der(&[u8])
//! csr::make(&KeyPair) -> Vec<u8> · csr::make_pem · csr::parse_and_verify(&[u8]) -> Result<KeyRequest, CsrError>
//! authority::make(&Blueprint, &dyn CaSigner) -> Result<CaCert, AuthorityError> · CaCert::from_base64
//! issue(&AuthorizationGranted, &ClusterName, &CaCert, &dyn CaSigner) -> Result<IssuedLeaf, IssueError>
//! lint(&[u8], &AuthorizationGranted, &ClusterName, &CaCert) -> Result<(), LintError>
//! bundle::sign(&Bundle, &KeyPair, replacements) · bundle::verify(&SignedBundle, &SpkiPin, now, cluster, type)
//! bundle::anchors(&Bundle) -> Vec<CertificateDer> · bundle::replace_key(&KeyPair, &KeyPair)
//! Kek::from_bytes([u8; 32]) · sealed::seal(&Kek, &Label, &[u8]) · sealed::unseal(&Kek, &Label, &[u8])
//! Certificate::parse(&[u8]) · verify_signed_by(leaf, ca) · issuer_among(leaf, &[CaCert])
//! ssh::issue(&SshProfile, &SshPublicKey, &dyn CaSigner) -> Result<SshCertificate, SshIssueError> · ssh::krl
//! jwt::unsigned(claims, typ, &PublicKey) · jwt::sign(&str, &dyn CaSigner) · jwt::read(token, &Jwks) · jwt::thumbprint
//! jwe::Receiver::generate() · seal(&str, &PublicKey) -> Result<String, JweError> · Receiver::open(self, &str)
//! statement::sign(&KeyPair, context, &[u8]) · statement::verify(spki, context, &[u8], &[u8])
//! ```

pub mod authority;
pub mod bundle;
pub mod credential;
pub mod crl;
pub mod csr;
pub mod inspect;
pub mod issue;
pub mod jwe;
pub mod jwt;
pub mod key;
pub mod lint;
mod logon;
pub mod pem;
pub mod sealed;
pub mod ssh;
pub mod statement;

mod adapter;
mod der;
mod names;

pub use authority::{AuthorityError, Blueprint, CaCert};
pub use bundle::BundleError;
pub use csr::CsrError;
pub use inspect::{Certificate, CertificateError, issuer_among, pin_of_certificate, verify_signed_by};
pub use issue::{IssueError, IssuedLeaf, issue};
pub use key::{CaSigner, KeyError, KeyPair, PublicKey, SignError, random, sha256};
pub use lint::{LintError, lint};
pub use sealed::{Kek, SealError};
pub use statement::StatementError;

#[cfg(test)]
mod testing;
