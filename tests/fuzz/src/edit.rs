//! Edits of good documents, chosen by the input: of bytes, of JSON and of DER.

use arbitrary::{Result, Unstructured};
use serde_json::{Map, Value};

use crate::made::SECRET;

/// The most edits of one document.
const MOST: usize = 6;
/// Texts that mean something somewhere, and some that should mean nothing anywhere.
const WORDS: &[&str] = &[
    "",
    "host",
    "user",
    "db",
    "init",
    "update_clients",
    "update_servers",
    "standby",
    "rollback",
    "automatic",
    "proceed",
    "n1",
    "*.example.com",
    "*.",
    "xn--",
    "127.0.0.1",
    "::1",
    "system/clock",
    "user/root",
    "external/x",
    "anonymous/-",
    "carousel://acme.cluster/user/root",
    "00000000-0000-7000-8000-000000000000",
    "9999-12-31T23:59:59.999-23:59",
    "0000-01-01T00:00:00+23:59",
    "sha256:",
    "AAAA",
    "a\nb",
    "\u{1b}[31m",
    "\u{0}",
    "é",
    SECRET,
];
/// Numbers at the edges.
const NUMBERS: &[u64] = &[0, 1, 255, 65_536, 4_294_967_296, i64::MAX as u64, u64::MAX];

/// Edits until the input is used up. What is asked of an input that has ended is answered with zeros, so the number of
/// edits comes first.
pub fn json(u: &mut Unstructured<'_>, document: &mut Value) -> Result<()> {
    for _ in 0..u.int_in_range(0..=MOST)? {
        let other = node(document, pick(u, document)?).map(|value| value.clone());
        let at = pick(u, document)?;
        if let Some(value) = node(document, at) {
            json_once(u, value, other.unwrap_or_default())?;
        }
    }
    Ok(())
}

fn json_once(u: &mut Unstructured<'_>, value: &mut Value, other: Value) -> Result<()> {
    let replace = u.ratio(1, 4)?;
    match value {
        _ if replace => *value = if u.arbitrary()? { other } else { generated(u)? },
        Value::Object(members) => member(u, members, other)?,
        Value::Array(items) => match u.int_in_range(0..=2)? {
            0 if !items.is_empty() => drop(items.remove(u.choose_index(items.len())?)),
            1 if !items.is_empty() => {
                let again = items[u.choose_index(items.len())?].clone();
                let times = u.int_in_range(1..=40)?;
                items.extend(std::iter::repeat_n(again, times));
            }
            _ => items.push(generated(u)?),
        },
        Value::String(text) => {
            let mut bytes = std::mem::take(text).into_bytes();
            once(u, &mut bytes)?;
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        _ => *value = generated(u)?,
    }
    Ok(())
}

fn member(u: &mut Unstructured<'_>, members: &mut Map<String, Value>, other: Value) -> Result<()> {
    let known = (!members.is_empty())
        .then(|| u.choose_index(members.len()))
        .transpose()?;
    let known = known.and_then(|at| members.keys().nth(at).cloned());
    match (known, u.int_in_range(0..=2)?) {
        (Some(name), 0) => drop(members.remove(&name)),
        (Some(name), 1) => drop(members.insert(name, generated(u)?)),
        _ => drop(members.insert(name(u)?, other)),
    }
    Ok(())
}

/// A member's name: never the secret, which is a value.
fn name(u: &mut Unstructured<'_>) -> Result<String> {
    let word = WORDS[u.choose_index(WORDS.len() - 1)?];
    Ok(if u.arbitrary()? {
        word.repeat(u.int_in_range(1..=300)?)
    } else {
        word.into()
    })
}

fn generated(u: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match u.int_in_range(0..=7)? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => u.choose(NUMBERS)?.to_owned().into(),
        3 => u.arbitrary::<i64>()?.into(),
        4 => Value::Array(vec![]),
        5 => Value::Object(Map::new()),
        6 => u.arbitrary::<&str>()?.into(),
        _ => u.choose(WORDS)?.to_owned().into(),
    })
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

fn pick(u: &mut Unstructured<'_>, document: &Value) -> Result<usize> {
    u.int_in_range(0..=count(document) - 1)
}

/// The value of this number, counted from the outside in.
fn node(value: &mut Value, mut at: usize) -> Option<&mut Value> {
    if at == 0 {
        return Some(value);
    }
    at -= 1;
    let inner: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(members) => members.values_mut().collect(),
        _ => return None,
    };
    for value in inner {
        match count(value) {
            within if at < within => return node(value, at),
            before => at -= before,
        }
    }
    None
}

/// Edits bytes wherever they stand.
pub fn bytes(u: &mut Unstructured<'_>, document: &mut Vec<u8>) -> Result<()> {
    for _ in 0..u.int_in_range(0..=MOST)? {
        once(u, document)?;
    }
    Ok(())
}

fn once(u: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    let at = u.int_in_range(0..=bytes.len())?;
    let end = (at + u.int_in_range(1..=8)?).min(bytes.len());
    match u.int_in_range(0..=5)? {
        0 => drop(bytes.drain(at..end)),
        1 => bytes.truncate(at),
        2 => {
            let again = bytes[at..end].repeat(u.int_in_range(1..=200)?);
            drop(bytes.splice(at..at, again));
        }
        3 => drop(bytes.splice(at..end, u.choose(WORDS)?.bytes())),
        4 => {
            let new: [u8; 2] = u.arbitrary()?;
            drop(bytes.splice(at..at, new));
        }
        _ => {
            let mask = u.int_in_range(1..=255)?;
            bytes[at..end]
                .first_mut()
                .into_iter()
                .for_each(|byte| *byte ^= mask);
        }
    }
    Ok(())
}

/// One element of DER: its tag, and its content or the elements in it.
#[derive(Clone)]
enum Element {
    Plain(u8, Vec<u8>),
    Built(u8, Vec<Element>),
}

/// Edits the elements of a good DER document and writes them with right lengths, so that the reader comes further than
/// the first byte that was touched.
pub fn der(u: &mut Unstructured<'_>, document: &[u8]) -> Result<Vec<u8>> {
    let mut elements = elements(document).expect("a document that was made here is DER");
    for _ in 0..u.int_in_range(0..=MOST)? {
        der_once(u, &mut elements)?;
    }
    Ok(elements.iter().flat_map(written).collect())
}

fn der_once(u: &mut Unstructured<'_>, elements: &mut Vec<Element>) -> Result<()> {
    let Some(last) = elements.len().checked_sub(1) else {
        return Ok(());
    };
    let at = u.int_in_range(0..=last)?;
    match (&mut elements[at], u.int_in_range(0..=5)?) {
        (Element::Built(_, inner), 0..=2) => der_once(u, inner)?,
        (Element::Plain(_, content), 0..=2) => once(u, content)?,
        (Element::Built(tag, _) | Element::Plain(tag, _), 3) => *tag = u.arbitrary()?,
        (_, 4) => drop(elements.remove(at)),
        (_, _) => {
            let other = elements[u.int_in_range(0..=last)?].clone();
            elements.insert(at, other);
        }
    }
    Ok(())
}

fn elements(mut der: &[u8]) -> Option<Vec<Element>> {
    let mut found = Vec::new();
    while let [tag, length, rest @ ..] = der {
        let (length, rest) = match (length, rest) {
            (0x81, [one, rest @ ..]) => (usize::from(*one), rest),
            (0x82, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (length @ 0..=0x7f, rest) => (usize::from(*length), rest),
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        // Constructed ones, and the octet strings in which extensions are wrapped.
        let inner = (tag & 0x20 != 0 || *tag == 4)
            .then(|| elements(content))
            .flatten();
        found.push(match inner {
            Some(inner) if !inner.is_empty() => Element::Built(*tag, inner),
            _ => Element::Plain(*tag, content.to_vec()),
        });
        der = after;
    }
    der.is_empty().then_some(found)
}

fn written(element: &Element) -> Vec<u8> {
    match element {
        Element::Plain(tag, content) => tlv(*tag, content),
        Element::Built(tag, inner) => tlv(*tag, &inner.iter().flat_map(written).collect::<Vec<_>>()),
    }
}

/// Tag, length, content.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xff => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(content);
    out
}

/// What a document of three parts says, signed anew: `SEQUENCE { signed, algorithm, BIT STRING }`, as certificates and
/// requests are.
pub fn resigned(signed: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    let signature = tlv(3, &[&[0], signature].concat());
    tlv(0x30, &[signed, algorithm, &signature].concat())
}

/// The first two parts of such a document.
pub fn parts(document: &[u8]) -> (Vec<u8>, Vec<u8>) {
    match elements(document).as_deref() {
        Some([Element::Built(_, parts)]) => (written(&parts[0]), written(&parts[1])),
        _ => panic!("a document that was made here has three parts"),
    }
}
