//! Bodies: from the bytes of a request to what is asked for in them.
//!
//! Pure functions, where hostile input ends: what they let through has its form, is within its limits, and its
//! signatures hold. Whether the caller may ask for it is decided behind them.

use api::{
    command::{
        AttestRequest, ConsumerProbeRequest, ConsumerRequest, PlainRequest, RenewRequest, RotateRequest,
        TokenRequest, UserRequest, WithdrawRequest,
    },
    join::{JoinRequest, RECOVER_CONTEXT, REJOIN_CONTEXT, RecoverRequest, RejoinProof},
    node::CertificateRequest,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuthorityType, Code, CommandId, ConsumerName, Order, TokenHash, UserName,
    authority::KeyKind,
    command::{Join, KeyRequest, Rejoin, Rotate},
    event::LeafUse,
    fact::{FactReport, MAX_REPORT_BYTES},
};
use pki::{Certificate, csr, pem, statement};
use serde::de::DeserializeOwned;

use crate::reply::No;

pub use api::command::Wanted;

pub mod sign;

/// A recovery whose request is signed with the key of the certificate that came with it.
#[derive(Clone, PartialEq, Debug)]
pub struct Recovery {
    /// The old certificate. That the log knows it is still to be seen.
    pub certificate: Certificate,
    /// The key to certify.
    pub key: KeyRequest,
}

/// `POST /v1/rotate`, with the step that it is about.
///
/// # Errors
/// `bad_request`.
pub fn rotation(body: &[u8]) -> Result<(Wanted, Rotate), No> {
    let request: RotateRequest = parse(body)?;
    let rotate = request.order();
    let order = Order::Rotate(rotate.clone());
    Ok((wanted(request.id, request.reason, order), rotate))
}

/// What needs no more than an id and a reason beside the path, which says the order.
///
/// # Errors
/// `bad_request`.
pub fn plain(body: &[u8], order: Order) -> Result<Wanted, No> {
    let request: PlainRequest = parse(body)?;
    Ok(wanted(request.id, request.reason, order))
}

/// `POST /v1/tokens`.
///
/// # Errors
/// `bad_request`, `token_invalid`.
pub fn token(body: &[u8]) -> Result<Wanted, No> {
    let request: TokenRequest = parse(body)?;
    let (id, reason) = (request.id, request.reason.clone());
    Ok(wanted(id, reason, request.order()?))
}

/// `POST /v1/users`, with the new operator's name.
///
/// # Errors
/// `bad_request`, `csr_invalid`.
pub fn user(body: &[u8]) -> Result<(Wanted, UserName), No> {
    let request: UserRequest = parse(body)?;
    let user: UserName = request.name.parse().map_err(No::bad_request)?;
    let order = Order::AddUser {
        user: user.clone(),
        roles: request.roles.into_iter().collect(),
        logins: request.logins,
        key: key_of(&request.csr)?,
    };
    Ok((wanted(request.id, request.reason, order), user))
}

/// `POST /v1/consumers`.
///
/// # Errors
/// `bad_request`.
pub fn consumer(body: &[u8]) -> Result<Wanted, No> {
    let request: ConsumerRequest = parse(body)?;
    let (id, reason) = (request.id, request.reason.clone());
    Ok(wanted(id, reason, request.order()?))
}

/// `POST /v1/consumers/{name}/attest`.
///
/// # Errors
/// `bad_request`.
pub fn attestation(body: &[u8], consumer: ConsumerName) -> Result<Wanted, No> {
    let request: AttestRequest = parse(body)?;
    let (id, reason) = (request.id, request.reason.clone());
    Ok(wanted(id, reason, request.order(consumer)))
}

/// `POST /v1/consumers/{name}/probe`: what is to be attested is still to be seen.
///
/// # Errors
/// `bad_request`.
pub fn look(body: &[u8]) -> Result<ConsumerProbeRequest, No> {
    parse(body)
}

/// `POST /v1/consumers/{name}/withdraw`.
///
/// # Errors
/// `bad_request`.
pub fn withdrawal(body: &[u8], consumer: ConsumerName) -> Result<Wanted, No> {
    let request: WithdrawRequest = parse(body)?;
    let order = request.order(consumer);
    Ok(wanted(request.id, request.reason, order))
}

/// `POST /v1/users/self/certificate`: by the issuer that the current row names.
///
/// # Errors
/// `bad_request`, `csr_invalid`.
pub fn renewal(body: &[u8]) -> Result<Wanted, No> {
    let request: RenewRequest = parse(body)?;
    let order = Order::RequestCertificate {
        authority_type: AuthorityType::User,
        usage: LeafUse::Client,
        issuer: None,
        key: key_of(&request.csr)?,
        form: KeyKind::Tls,
    };
    Ok(wanted(request.id, request.reason, order))
}

/// `POST /v1/node/certificates`, with the key that it is for.
///
/// # Errors
/// `bad_request`, `csr_invalid`.
pub fn certificate(body: &[u8]) -> Result<(Wanted, KeyRequest), No> {
    let request: CertificateRequest = parse(body)?;
    let form = if request.csr.starts_with("-----BEGIN") {
        KeyKind::Tls
    } else {
        KeyKind::Ssh
    };
    let key = match form {
        KeyKind::Ssh => sign::ssh_key(&request.csr)?,
        KeyKind::Tls | KeyKind::Jwt => key_of(&request.csr)?,
    };
    let order = Order::RequestCertificate {
        authority_type: request.authority_type,
        usage: request.usage,
        issuer: request.issuer,
        key: key.clone(),
        form,
    };
    Ok((wanted(request.id, None, order), key))
}

/// `POST /v1/node/facts`.
///
/// # Errors
/// `too_large`, `bad_request`.
pub fn report(body: &[u8]) -> Result<FactReport, No> {
    if body.len() > MAX_REPORT_BYTES {
        let text = format!("a fact report has at most {MAX_REPORT_BYTES} bytes");
        return Err(No::new(Code::TooLarge, text));
    }
    parse(body)
}

/// `POST /v1/join`. Of the token only its digest goes on.
///
/// # Errors
/// `bad_request`, `csr_invalid`, `recovery_refused`.
pub fn join(body: &[u8]) -> Result<Order, No> {
    let request: JoinRequest = parse(body)?;
    let hostname = request.hostname.parse().map_err(No::bad_request)?;
    let key = key_of(&request.csr)?;
    let rejoin = request.rejoin.as_ref();
    let rejoin = rejoin.map(|proof| rejoin_by(proof, &request.csr)).transpose()?;
    Ok(Order::Join(Join {
        token: TokenHash(execution::sha256(request.token.trim().as_bytes())),
        hostname,
        key,
        rejoin,
    }))
}

/// `POST /v1/recover`.
///
/// # Errors
/// `bad_request`, `csr_invalid`, `recovery_refused`.
pub fn recovery(body: &[u8]) -> Result<Recovery, No> {
    let request: RecoverRequest = parse(body)?;
    let key = key_of(&request.csr)?;
    let certificate = certificate_of(&request.certificate)?;
    verify(&certificate, RECOVER_CONTEXT, &request.csr, &request.signature)?;
    Ok(Recovery { certificate, key })
}

fn rejoin_by(proof: &RejoinProof, csr: &str) -> Result<Rejoin, No> {
    let proven_by = match (&proof.certificate, &proof.signature) {
        (Some(certificate), Some(signature)) => {
            let certificate = certificate_of(certificate)?;
            verify(&certificate, REJOIN_CONTEXT, csr, signature)?;
            Some(certificate.digest)
        }
        (None, None) => None,
        _ => {
            return Err(No::bad_request(
                "a rejoin proves itself with a certificate and a signature, or with neither",
            ));
        }
    };
    Ok(Rejoin {
        node: proof.node,
        proven_by,
    })
}

/// The certificate binds the key, and its digest the certificate: whether the log knows that digest as the
/// node's is decided where the command is.
fn verify(certificate: &Certificate, context: &str, csr: &str, signature: &str) -> Result<(), No> {
    let bad = |text: String| No::new(Code::RecoveryRefused, text);
    let signature = STANDARD
        .decode(signature)
        .map_err(|_| bad("the signature is not base64".into()))?;
    let key = certificate.public_key.spki_der();
    statement::verify(key, context, csr.as_bytes(), &signature).map_err(|e| bad(e.to_string()))
}

fn certificate_of(text: &str) -> Result<Certificate, No> {
    let bad = |text: String| No::new(Code::RecoveryRefused, text);
    let first = pem::certificates(text).and_then(|all| all.into_iter().next());
    let der = first.ok_or_else(|| bad("no certificate in PEM".into()))?;
    Certificate::parse(&der).map_err(|e| bad(e.to_string()))
}

/// The key of a certificate request, its signature verified; nothing else is read from it.
fn key_of(csr: &str) -> Result<KeyRequest, No> {
    csr::parse_and_verify(csr.as_bytes()).map_err(|e| No::new(Code::CsrInvalid, e.to_string()))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, No> {
    serde_json::from_slice(body)
        .map_err(|error| No::bad_request(format!("the body cannot be read: {}", domain::plain(error))))
}

fn wanted(id: CommandId, reason: Option<String>, order: Order) -> Wanted {
    Wanted { id, reason, order }
}
