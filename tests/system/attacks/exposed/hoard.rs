//! The secrets of a cluster, in every form in which they could be written somewhere, and the search for them.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use domain::{ClusterName, SpkiPin};
use pki::{
    Kek, KeyPair,
    sealed::{self, Label},
};
use serde_json::Value;
use signer::keystore::KeyPurpose;

use super::{USER, files_below, hex};
use crate::world::{World, text};

/// How much of a needle finds it.
const HEAD: usize = 8;

/// What must not be found.
#[derive(Default)]
pub(super) struct Hoard {
    secrets: Vec<Secret>,
    /// Forms by their first bytes, so that one pass over a text looks for all of them.
    needles: HashMap<[u8; HEAD], Vec<(Vec<u8>, usize)>>,
}

struct Secret {
    what: String,
    bytes: Vec<u8>,
    /// The file or directory that it may be in.
    home: PathBuf,
}

impl Hoard {
    /// A join token, which is 32 bytes in hexadecimal.
    pub(super) fn token(&mut self, token: &str, home: &Path) {
        let byte = |at: usize| u8::from_str_radix(&token[at..at + 2], 16).expect("a token is hexadecimal");
        let bytes = (0..token.len()).step_by(2).map(byte).collect();
        self.add("a join token", bytes, home);
    }

    /// The secret number of a private key.
    pub(super) fn key(&mut self, what: &str, key: &KeyPair, home: &Path) {
        let der = key.to_pkcs8_der();
        // ECPrivateKey (RFC 5915): version 1, then 32 bytes.
        let head = [2, 1, 1, 4, 32];
        let at = der
            .windows(head.len())
            .position(|part| part == head)
            .expect("a P-256 key")
            + head.len();
        self.add(what, der[at..at + 32].to_vec(), home);
    }

    /// Every key that there is now: of authorities, nodes, the gateway and people, and what opens the first.
    pub(super) fn keys_of(&mut self, world: &World) {
        let data = world.data();
        let keys = data.join("keys");
        let kek = fs::read_to_string(keys.join("kek")).expect("the key-encryption key");
        let bytes = STANDARD.decode(kek.trim()).expect("base64");
        self.add("the key-encryption key", bytes, &keys.join("kek"));
        let kek = Kek::parse(kek.as_bytes()).expect("a key-encryption key");
        for path in files_below(&keys)
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "sealed"))
        {
            self.key(
                &format!("{}", path.display()),
                &unsealed(path, &kek),
                Path::new("nowhere"),
            );
        }
        for home in [data.join("admin.identity"), world.dir.join(USER)] {
            let key = text(&read_json(&home)["key"]);
            self.pem(&format!("{}", home.display()), &key, &home);
        }
        for home in [
            data.join("gateway"),
            world.dir.join("node-n1"),
            world.dir.join("node-n2"),
        ] {
            for path in files_below(&home)
                .iter()
                .filter(|path| path.extension().is_some_and(|e| e == "key"))
            {
                let pem = fs::read_to_string(path).expect("readable");
                self.pem(&format!("{}", path.display()), &pem, &home);
            }
        }
    }

    fn pem(&mut self, what: &str, pem: &str, home: &Path) {
        self.key(what, &KeyPair::from_pkcs8_pem(pem).expect("a key"), home);
    }

    fn add(&mut self, what: &str, bytes: Vec<u8>, home: &Path) {
        if self.secrets.iter().any(|known| known.bytes == bytes) {
            return;
        }
        for form in forms(&bytes) {
            let head = form[..HEAD].try_into().expect("no form is shorter");
            self.needles
                .entry(head)
                .or_default()
                .push((form, self.secrets.len()));
        }
        self.secrets.push(Secret {
            what: what.to_owned(),
            bytes,
            home: home.to_owned(),
        });
    }

    /// Fails where one of them is there.
    pub(super) fn is_not_in(&self, place: &str, haystack: &[u8]) {
        let found: Vec<_> = self.search(haystack).map(|secret| &secret.what).collect();
        assert!(found.is_empty(), "{place} shows {found:?}");
    }

    /// Looks through every file below a directory. Where a secret is at home it must be found, or the search is blind.
    pub(super) fn is_in_no_file_but_its_own(&self, root: &Path) {
        let mut homes = 0;
        for path in files_below(root).iter().filter(|path| path.is_file()) {
            for secret in self.search(&fs::read(path).expect("readable")) {
                let is_home = path.starts_with(&secret.home);
                assert!(is_home, "{} shows {}", path.display(), secret.what);
                homes += 1;
            }
        }
        assert!(homes >= 8, "only {homes} were found where they belong");
        assert!(self.secrets.len() > 20, "{} secrets", self.secrets.len());
    }

    fn search<'a>(&'a self, haystack: &'a [u8]) -> impl Iterator<Item = &'a Secret> {
        let heads = haystack.windows(HEAD).enumerate();
        let found = heads.flat_map(move |(at, head)| {
            let known = self.needles.get(head).into_iter().flatten();
            known.filter(move |(form, _)| haystack[at..].starts_with(form))
        });
        found.map(|(_, secret)| &self.secrets[*secret])
    }
}

/// Either half of a secret as bytes, as text in hexadecimal and base64, and as Rust's `Debug` writes bytes. Halves,
/// because a line may end in the middle.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let halves = secret.chunks(secret.len().div_ceil(2));
    halves
        .flat_map(|half| {
            let hexadecimal = hex(half);
            let decimal = half.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            let mut texts = vec![hexadecimal.to_uppercase(), hexadecimal, decimal];
            // Within something longer it may begin at any of three places of a group; what its neighbours decide is
            // left out at both ends.
            for before in 0..3 {
                let longer = [&[0; 2][..before], half].concat();
                let from = (before * 8).div_ceil(6);
                let until = longer.len() * 8 / 6;
                texts.extend([&STANDARD, &URL_SAFE].map(|form| form.encode(&longer)[from..until].to_owned()));
            }
            texts.sort();
            texts.dedup();
            let texts = texts.into_iter().map(String::into_bytes);
            texts.chain([half.to_vec()]).collect::<Vec<_>>()
        })
        .collect()
}

/// The private key in a sealed file.
fn unsealed(path: &Path, kek: &Kek) -> KeyPair {
    let file = read_json(path);
    let parsed = |name: &str| text(&file[name]);
    let spki: SpkiPin = parsed("spki").parse().expect("a pin");
    let cluster: ClusterName = crate::forged::cluster();
    let label = match serde_json::from_value::<KeyPurpose>(file["purpose"].clone()) {
        Ok(purpose) => Label::Authority {
            cluster,
            authority_type: purpose.authority_type,
            kind: purpose.kind,
            generation: purpose.generation,
            spki,
        },
        Err(_) => Label::BundleKey { cluster, spki },
    };
    let blob = STANDARD.decode(parsed("sealed")).expect("base64");
    let opened = sealed::unseal(kek, &label, &blob).expect("it opens");
    KeyPair::from_pkcs8_der(&opened).expect("a key")
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON")
}
