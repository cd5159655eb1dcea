//! What Windows looks for in a certificate before it lets its holder in: names of Microsoft's for an extended usage and for a
//! user of a directory.

use domain::event::{AuthorizationGranted, Form};

/// `szOID_KP_SMARTCARD_LOGON`, an extended usage.
pub(crate) const SMART_CARD: [u64; 10] = [1, 3, 6, 1, 4, 1, 311, 20, 2, 2];
/// `szOID_NT_PRINCIPAL_NAME`, a kind of alternative name.
pub(crate) const USER_PRINCIPAL_NAME: [u64; 10] = [1, 3, 6, 1, 4, 1, 311, 20, 2, 3];

/// The user that an authorisation names.
pub(crate) fn upn(granted: &AuthorizationGranted) -> Option<&str> {
    match &granted.form {
        Form::Logon { upn } => Some(upn),
        Form::Tls | Form::Ssh { .. } | Form::Jwt { .. } => None,
    }
}

/// As it is written: `1.3.6.1.4.1.311.20.2.2`.
pub(crate) fn dotted(oid: &[u64]) -> String {
    let parts: Vec<String> = oid.iter().map(ToString::to_string).collect();
    parts.join(".")
}

/// The value of a user's name as it stands in a certificate: explicitly tagged (RFC 5280, section 4.2.1.6), UTF8String. None
/// for one that is longer than any that is authorised.
pub(crate) fn encoded(upn: &str) -> Option<Vec<u8>> {
    let tagged = |tag: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80)?;
        Some([&[tag, length], content].concat())
    };
    tagged(0xa0, &tagged(0x0c, upn.as_bytes())?)
}
