//! Bodies that ask for a credential of a party without an agent, for a token, or for an SSH certificate.

use api::command::{RevokeRequest, RevokeTarget, SignRequest, SignTokenRequest, SshRequest};
use domain::{
    AuthorityType, Code, CommandId, Hostname, Order, Principal, UserName,
    authority::KeyKind,
    command::{KeyRequest, Sign},
    event::{Form, LeafUse},
};
use pki::{PublicKey, ssh::SshPublicKey};

use super::{Wanted, key_of, parse, wanted};
use crate::reply::No;

/// `POST /v1/sign`, with the party.
///
/// # Errors
/// `bad_request`, `csr_invalid`.
pub fn certificate(body: &[u8]) -> Result<(Wanted, Principal), No> {
    let request: SignRequest = parse(body)?;
    let (key, form) = match (&request.csr, &request.ssh_key) {
        (Some(csr), None) => {
            let form = request.upn.clone().map_or(Form::Tls, |upn| Form::Logon { upn });
            (key_of(csr)?, form)
        }
        (None, Some(_)) if request.upn.is_some() => {
            return Err(No::bad_request(
                "a user of a directory is named in certificates for TLS alone",
            ));
        }
        (None, Some(line)) => {
            let form = Form::Ssh {
                principals: request.principals.clone(),
                critical_options: request.critical_options.clone(),
                extensions: request.extensions.clone(),
            };
            (ssh_key(line)?, form)
        }
        _ => {
            return Err(No::bad_request(
                "give either `csr` or `ssh_key`: one key is certified at a time",
            ));
        }
    };
    let is_plain =
        request.principals.is_empty() && request.critical_options.is_empty() && request.extensions.is_empty();
    if form.kind() == KeyKind::Tls && !is_plain {
        return Err(No::bad_request(
            "principals, critical options and extensions are of SSH certificates alone",
        ));
    }
    let names: Result<Vec<Hostname>, _> = request.names.iter().map(|name| name.parse()).collect();
    let order = Sign {
        authority_type: request.authority_type,
        holder: request.name.parse().map_err(No::bad_request)?,
        form,
        names: names.map_err(No::bad_request)?,
        addresses: request.addresses,
        ttl_ms: request.ttl_ms,
        key,
    };
    Ok(asked_for(request.id, request.reason, order))
}

/// `POST /v1/sign/token`, with whose it is. `issuer` says what the type's tokens name as theirs.
///
/// # Errors
/// `bad_request`.
pub fn token(body: &[u8], issuer: impl Fn(AuthorityType) -> String) -> Result<(Wanted, Principal), No> {
    let request: SignTokenRequest = parse(body)?;
    let key = PublicKey::from_base64(&request.public_key).map_err(|_| {
        No::bad_request("`public_key` is no ECDSA P-256 key in base64: a token is sealed to one")
    })?;
    let order = Sign {
        authority_type: request.authority_type,
        holder: request.name.parse().map_err(No::bad_request)?,
        form: Form::Jwt {
            issuer: issuer(request.authority_type),
            audience: request.audience,
        },
        names: vec![],
        addresses: vec![],
        ttl_ms: request.ttl_ms,
        key: KeyRequest {
            spki: key.pin(),
            public_key: key.to_base64(),
        },
    };
    Ok(asked_for(request.id, request.reason, order))
}

/// `POST /v1/users/self/ssh`.
///
/// # Errors
/// `bad_request`, `csr_invalid`.
pub fn ssh(body: &[u8]) -> Result<Wanted, No> {
    let request: SshRequest = parse(body)?;
    let order = Order::RequestCertificate {
        authority_type: AuthorityType::User,
        usage: LeafUse::Client,
        issuer: None,
        form: KeyKind::Ssh,
        key: ssh_key(&request.ssh_key)?,
    };
    Ok(wanted(request.id, request.reason, order))
}

/// `POST /v1/certificates/revoke`: names are still to be looked up.
///
/// # Errors
/// `bad_request`.
pub fn revocation(body: &[u8]) -> Result<(CommandId, Option<String>, RevokeTarget), No> {
    let request: RevokeRequest = parse(body)?;
    Ok((request.id, request.reason, request.target))
}

/// An SSH key: whoever asks need not have its private half, as with `ssh-keygen -s`.
pub(super) fn ssh_key(line: &str) -> Result<KeyRequest, No> {
    let key = SshPublicKey::parse(line).map_err(|error| No::new(Code::CsrInvalid, error.to_string()))?;
    Ok(KeyRequest {
        spki: key.pin(),
        public_key: key.to_line(),
    })
}

fn asked_for(id: CommandId, reason: Option<String>, order: Sign) -> (Wanted, Principal) {
    let holder = holder(&order.holder);
    (wanted(id, reason, Order::Sign(Box::new(order))), holder)
}

fn holder(name: &UserName) -> Principal {
    Principal::External(name.to_string())
}
