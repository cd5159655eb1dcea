//! `carousel auth export`: public material of all trusted generations, from the signed bundle.

use std::io::Write;

use api::route;
use domain::{AuthorityType, trust::SignedBundle};
use pki::bundle;
use serde_json::json;

use super::required_type;
use crate::{
    args::{ExportArgs, ExportForm, Format},
    failure::{Exit, Failure},
    run::Context,
};

pub(super) async fn export(context: &Context, args: &ExportArgs) -> Result<Exit, Failure> {
    let authority = required_type(args.authority_type)?;
    if !authority.in_service() {
        return Err(Failure::usage(format!(
            "this version makes no keys of type {authority} yet, so there is nothing to export"
        )));
    }
    if matches!(args.form, ExportForm::Ssh | ExportForm::Jwks) {
        return Err(Failure::usage(format!(
            "type {authority} has no {} keys in this version; valid forms: pem, der, pin",
            if args.form == ExportForm::Ssh {
                "SSH"
            } else {
                "JWT"
            }
        )));
    }
    let session = context.session().await?;
    let path = route::fill(route::TRUST, authority.name());
    let signed: SignedBundle = context.get(&session, &path).await?;
    let identity = session.identity().await;
    // Verified like an installation: what is exported ends up in somebody's trust store.
    let verified = bundle::verify(
        &signed,
        &identity.bundle_pin,
        session.now(),
        Some(&identity.cluster),
        authority,
    );
    let verified = verified.map_err(|error| Failure::failed(error.to_string()))?;
    let cas: Vec<_> = bundle::authorities(&verified).collect();
    let ders = || cas.iter().map(|ca| &ca.der()[..]);
    let pins: Vec<String> = cas.iter().map(|ca| ca.pin().to_string()).collect();
    if args.form == ExportForm::Der && context.terminal.format == Format::Text {
        let mut out = std::io::stdout().lock();
        let written = ders()
            .try_for_each(|der| out.write_all(der))
            .and_then(|()| out.flush());
        return match written {
            Ok(()) => Ok(Exit::Done),
            Err(error) => Err(Failure::failed(format!("stdout: {error}"))),
        };
    }
    let pem = pki::pem::encode_certificates(ders());
    let document = json!({
        "type": authority,
        "revision": verified.revision,
        "ca_pins": pins,
        "certificates": pem,
    });
    let text = match args.form {
        ExportForm::Pin => pins.iter().map(|pin| format!("{pin}\n")).collect(),
        ExportForm::Pem | ExportForm::Der | ExportForm::Ssh | ExportForm::Jwks => pem,
    };
    context.terminal.show(&document, |_| text, || pins.clone())?;
    note_two(context, authority, cas.len());
    Ok(Exit::Done)
}

/// While a rotation is on there are two: both have to be installed.
fn note_two(context: &Context, authority: AuthorityType, how_many: usize) {
    if how_many > 1 && !context.terminal.is_machine() {
        let title = authority.row().title;
        context.terminal.progress(&format!(
            "{title} is in rotation: {how_many} authorities, install all of them."
        ));
    }
}
