//! PEM (RFC 7468): certificates to and from text files.

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// One block with lines of 64 characters.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        out.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

/// One `CERTIFICATE` block for each certificate, in order.
pub fn encode_certificates<'a>(ders: impl IntoIterator<Item = &'a [u8]>) -> String {
    ders.into_iter().map(|der| encode("CERTIFICATE", der)).collect()
}

/// All `CERTIFICATE` blocks of a text, in order; `None` if a block is broken. Other text is skipped.
pub fn certificates(text: &str) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .ok()
}

/// The content of the first block with this label; `None` if there is none or it is not base64.
///
/// Strict and small, because it meets hostile input: one label, base64 with line breaks, nothing else.
pub(crate) fn decode(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, after) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = after.split_once(&format!("-----END {label}-----"))?;
    let compact: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(compact).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_read_back_in_order_and_broken_ones_are_found() {
        let two = encode_certificates([&[1_u8; 100][..], &[2; 3]]);
        let read = certificates(&format!("a comment\n{two}")).unwrap();
        assert_eq!(
            read,
            [
                CertificateDer::from(vec![1; 100]),
                CertificateDer::from(vec![2; 3])
            ]
        );
        assert_eq!(certificates("").unwrap(), []);
        assert!(certificates(&two.replace("AQEB", "!!!!")).is_none());
    }
}
