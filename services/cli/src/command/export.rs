//! `carousel auth export`: public material of all trusted generations, from the signed bundle.

use std::io::Write;

use api::route;
use domain::{
    AuthorityType,
    authority::KeyKind,
    trust::{Bundle, SignedBundle},
};
use pki::{
    CaCert, bundle,
    jwt::{Jwks, keys_of},
    ssh,
};
use serde_json::{Map, Value, json};

use super::required_type;
use crate::{
    args::{ExportArgs, ExportForm, Format},
    connect::Session,
    failure::{Exit, Failure},
    run::Context,
};

/// Every form of the material, as far as the type has keys of its kind.
struct Material {
    certificates: Vec<CaCert>,
    /// Lines for `TrustedUserCAKeys`, or for `known_hosts` where the type certifies hosts.
    ssh: Vec<String>,
    jwks: Jwks,
    pins: Vec<String>,
}

pub(super) async fn export(context: &Context, args: &ExportArgs) -> Result<Exit, Failure> {
    let authority = required_type(args.authority_type)?;
    let form = form(authority, args.form)?;
    if args.hosts.is_some() && (form, authority) != (ExportForm::Ssh, AuthorityType::Host) {
        return Err(Failure::usage(
            "--hosts says which hosts are meant by `--type=host --as=ssh`; it goes with nothing else",
        ));
    }
    let session = context.session().await?;
    let verified = verified(context, &session, authority).await?;
    match form {
        ExportForm::Crl => return revocation_lists(context, &session, &verified).await,
        ExportForm::Krl => return binary(&ssh::revoked_of(&verified, Some(session.now()))),
        _ => {}
    }
    let material = material(&verified, args.hosts.as_deref().unwrap_or("*"));
    if form == ExportForm::Der && context.terminal.format == Format::Text {
        let ders = material.certificates.iter().map(|ca| &ca.der()[..]);
        return binary(&ders.collect::<Vec<_>>().concat());
    }
    let text = material.text(form);
    let document = material.document(&verified);
    let names = material.pins.clone();
    context.terminal.show(&document, |_| text, || names)?;
    note_two(context, authority, &verified);
    Ok(Exit::Done)
}

fn binary(bytes: &[u8]) -> Result<Exit, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(Exit::Done),
        Err(error) => Err(Failure::failed(format!("stdout: {error}"))),
    }
}

/// The list of each authority, as the public route gives it.
async fn revocation_lists(context: &Context, session: &Session, bundle: &Bundle) -> Result<Exit, Failure> {
    let mut pems = vec![];
    for authority in bundle::authorities(bundle) {
        let path = route::fill(route::CRL, &authority.pin().to_string());
        let der = context.sort(session.get_bytes(&path).await)?;
        pems.push(pki::pem::encode("X509 CRL", &der));
    }
    context
        .terminal
        .show(&json!({ "crl": pems }), |_| pems.concat(), Vec::new)?;
    Ok(Exit::Done)
}

/// The newest bundle of a type, verified like an installation: what is exported ends up in somebody's trust store.
pub(super) async fn verified(
    context: &Context,
    session: &Session,
    authority: AuthorityType,
) -> Result<Bundle, Failure> {
    let path = route::fill(route::TRUST, authority.name());
    let signed: SignedBundle = context.get(session, &path).await?;
    let identity = session.identity().await;
    let verified = bundle::verify(
        &signed,
        &identity.bundle_pin,
        session.now(),
        Some(&identity.cluster),
        authority,
    );
    verified.map_err(|error| Failure::failed(error.to_string()))
}

/// The form that was asked for, or the first that the type has.
fn form(authority: AuthorityType, asked: Option<ExportForm>) -> Result<ExportForm, Failure> {
    let needed = |form| match form {
        ExportForm::Pem | ExportForm::Der | ExportForm::Crl => Some(KeyKind::Tls),
        ExportForm::Ssh | ExportForm::Krl => Some(KeyKind::Ssh),
        ExportForm::Jwks => Some(KeyKind::Jwt),
        ExportForm::Pin => None,
    };
    let is_valid = |form: &ExportForm| needed(*form).is_none_or(|kind| authority.has(kind));
    let all = [
        (ExportForm::Pem, "pem"),
        (ExportForm::Der, "der"),
        (ExportForm::Ssh, "ssh"),
        (ExportForm::Jwks, "jwks"),
        (ExportForm::Crl, "crl"),
        (ExportForm::Krl, "krl"),
        (ExportForm::Pin, "pin"),
    ];
    let mut valid = all.into_iter().filter(|(form, _)| is_valid(form));
    match asked {
        Some(form) if is_valid(&form) => Ok(form),
        Some(_) => {
            let names: Vec<_> = valid.map(|(_, name)| name).collect();
            Err(Failure::usage(format!(
                "type {authority} has no keys of that form; valid forms: {}",
                names.join(", ")
            )))
        }
        None => Ok(valid.next().map_or(ExportForm::Pin, |(form, _)| form)),
    }
}

fn material(bundle: &Bundle, hosts: &str) -> Material {
    let certificates: Vec<_> = bundle::authorities(bundle).collect();
    let has_certificates = !certificates.is_empty();
    // The CA pins, which people compare; of a type without certificates those of its keys.
    let pinned = bundle.authorities.iter();
    let pinned = pinned.filter(|listed| !has_certificates || listed.kind == KeyKind::Tls);
    Material {
        ssh: ssh::trust_lines(bundle, hosts),
        jwks: keys_of(bundle),
        pins: pinned.map(|listed| listed.id.to_string()).collect(),
        certificates,
    }
}

impl Material {
    fn pem(&self) -> String {
        pki::pem::encode_certificates(self.certificates.iter().map(|ca| &ca.der()[..]))
    }

    fn text(&self, form: ExportForm) -> String {
        let lines = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect();
        match form {
            ExportForm::Pem | ExportForm::Der | ExportForm::Crl | ExportForm::Krl => self.pem(),
            ExportForm::Ssh => lines(&self.ssh),
            ExportForm::Pin => lines(&self.pins),
            ExportForm::Jwks => {
                let json = serde_json::to_string_pretty(&self.jwks).expect("a key set is plain data");
                format!("{json}\n")
            }
        }
    }

    /// All forms at once: a program takes what it needs.
    fn document(&self, bundle: &Bundle) -> Value {
        let mut document = Map::from_iter([
            ("type".to_owned(), json!(bundle.authority_type)),
            ("revision".to_owned(), json!(bundle.revision)),
            ("ca_pins".to_owned(), json!(self.pins)),
            ("certificates".to_owned(), json!(self.pem())),
        ]);
        if !self.ssh.is_empty() {
            document.insert("ssh".into(), json!(self.ssh));
        }
        if !self.jwks.keys.is_empty() {
            document.insert("jwks".into(), json!(self.jwks));
        }
        Value::Object(document)
    }
}

/// While a rotation is on there are two: both have to be installed.
fn note_two(context: &Context, authority: AuthorityType, bundle: &Bundle) {
    let generations: std::collections::BTreeSet<_> =
        bundle.authorities.iter().map(|a| a.generation).collect();
    if generations.len() > 1 && !context.terminal.is_machine() {
        let title = authority.row().title;
        context.terminal.progress(&format!(
            "{title} is in rotation: {} authorities, install all of them.",
            generations.len()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_follows_the_kinds_of_the_type_s_keys() {
        let chosen = |t, asked| form(t, asked).ok();
        assert_eq!(chosen(AuthorityType::Host, None), Some(ExportForm::Pem));
        assert_eq!(chosen(AuthorityType::Openssh, None), Some(ExportForm::Ssh));
        assert_eq!(chosen(AuthorityType::Jwt, None), Some(ExportForm::Jwks));
        assert_eq!(
            chosen(AuthorityType::Spiffe, Some(ExportForm::Jwks)),
            Some(ExportForm::Jwks)
        );
        assert_eq!(
            chosen(AuthorityType::Jwt, Some(ExportForm::Pin)),
            Some(ExportForm::Pin)
        );
        let refused = form(AuthorityType::Db, Some(ExportForm::Ssh)).unwrap_err();
        assert!(refused.page.contains("pem, der, crl, pin"), "{refused:?}");
    }
}
