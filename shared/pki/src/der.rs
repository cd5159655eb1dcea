//! The little DER (ITU-T X.690) that hostile input meets first: a strict reader and one encoder.
//!
//! A certificate request is attacker's input of which one field is wanted. Reading just the frame
//! around that field leaves nothing else to be confused by; a general parser would look at names,
//! attributes and extensions that are ignored anyway.

/// INTEGER.
pub(crate) const INTEGER: u8 = 0x02;
/// BIT STRING.
pub(crate) const BIT_STRING: u8 = 0x03;
/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed: the attributes of a certificate request.
pub(crate) const CONTEXT_0: u8 = 0xa0;

/// Reads elements one after another from a slice; every step may fail, none may panic.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// One element: all its bytes, and the bytes inside.
pub(crate) struct Element<'a> {
    /// Tag, length and content.
    pub(crate) whole: &'a [u8],
    /// The content alone.
    pub(crate) content: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next element, if it has this tag and a definite, minimal length that the input has.
    pub(crate) fn element(&mut self, tag: u8) -> Option<Element<'a>> {
        let (head, content_len) = header(self.rest, tag)?;
        let end = head.checked_add(content_len)?;
        let whole = self.rest.get(..end)?;
        self.rest = &self.rest[end..];
        Some(Element {
            whole,
            content: &whole[head..],
        })
    }

    /// Is nothing left?
    pub(crate) fn at_end(&self) -> bool {
        self.rest.is_empty()
    }
}

/// The length of the header and of the content. Lengths of more than two bytes are refused: nothing
/// that is read here is longer than 64 KiB.
fn header(bytes: &[u8], tag: u8) -> Option<(usize, usize)> {
    match *bytes {
        [t, len @ 0..=0x7f, ..] if t == tag => Some((2, usize::from(len))),
        [t, 0x81, len @ 0x80..=0xff, ..] if t == tag => Some((3, usize::from(len))),
        [t, 0x82, high @ 1..=0xff, low, ..] if t == tag => {
            Some((4, usize::from(u16::from_be_bytes([high, low]))))
        }
        _ => None,
    }
}

/// `Ecdsa-Sig-Value ::= SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279, section 2.2.3) from r||s.
///
/// Hardware and JWT speak r||s, X.509 speaks this; converting here keeps one kind of signer.
pub(crate) fn ecdsa_signature(raw: &[u8; 64]) -> Vec<u8> {
    let mut content = Vec::with_capacity(72);
    for half in raw.chunks_exact(32) {
        let first = half.iter().position(|b| *b != 0).unwrap_or(31);
        let number = &half[first..];
        // A leading one bit would read as a negative number.
        let pad = number[0] & 0x80 != 0;
        content.push(INTEGER);
        content.push(number.len() as u8 + u8::from(pad));
        if pad {
            content.push(0);
        }
        content.extend_from_slice(number);
    }
    let mut out = vec![SEQUENCE, content.len() as u8];
    out.append(&mut content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_that_are_not_minimal_or_not_there_are_refused() {
        for bad in [
            &[0x30][..],
            &[0x30, 0x80],
            &[0x30, 0x81, 0x05, 0, 0, 0, 0, 0],
            &[0x30, 0x82, 0x00, 0x80],
            &[0x30, 0x05, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(Reader::new(bad).element(SEQUENCE).is_none(), "{bad:02x?}");
        }
    }

    #[test]
    fn small_and_large_halves_of_a_signature_become_minimal_positive_integers() {
        let mut raw = [0; 64];
        raw[31] = 1;
        raw[32] = 0xff;
        let der = ecdsa_signature(&raw);
        assert_eq!(der[..7], [0x30, 38, 0x02, 1, 1, 0x02, 33]);
        assert_eq!(der[7..9], [0, 0xff]);
    }
}
