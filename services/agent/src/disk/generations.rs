//! Generations: directories that hold one consistent set of certificates, keys and trust.
//!
//! A generation is made whole under another name, synced, renamed into place, and only then does the
//! symlink `current` move, in one rename. Whoever opens `current` sees one generation or the next, never
//! a key beside another key's certificate. A file whose content did not change is the same file (a hard
//! link), so that a generation that differs only in its revision costs no writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder},
    io::{ErrorKind, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use domain::{AuthorityType, Position, SpkiPin, authority::KeyKind, reconcile::Generation};
use pki::CaCert;
use runtime::harden;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    DataDir, DiskError, FORMAT_VERSION,
    beside::{self, Beside},
    credential::{Credential, LeafEntry, SSHD_CERTIFICATE, SshdCertificate, credential, sshd_certificate},
    io_error, off_the_loop, read_json,
};

/// How many generations stay beside those pointed at: programs that opened one may still read its second file.
const KEPT: u64 = 3;

/// A generation with everything that it holds: what the plan knows, the certificates and the keys.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// What the plan knows of it.
    pub generation: Generation,
    /// What it presents as a TLS client.
    pub client: Option<Credential>,
    /// What it serves.
    pub server: Option<Credential>,
    /// What sshd presents.
    pub ssh: Option<SshdCertificate>,
    /// The CA certificates of its trust, by their pins.
    pub anchors: BTreeMap<SpkiPin, CaCert>,
    /// What it holds beside certificates; made anew from the bundles for each generation.
    pub beside: BTreeMap<AuthorityType, Beside>,
}

impl Material {
    /// The CA certificates of one type, in the order of their pins.
    pub fn anchors_of(&self, authority_type: AuthorityType) -> Vec<CertificateDer<'static>> {
        let pins = self.generation.trusted.get(&authority_type).into_iter().flatten();
        pins.filter_map(|pin| self.anchors.get(pin))
            .map(|ca| ca.der().clone())
            .collect()
    }
}

/// A generation on disk.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its number; rises with each installation.
    pub number: u64,
    /// What it holds.
    pub material: Material,
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    revisions: BTreeMap<AuthorityType, Position>,
    trusted: BTreeMap<AuthorityType, BTreeSet<SpkiPin>>,
    client: Option<LeafEntry>,
    server: Option<LeafEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ssh: Option<LeafEntry>,
}

/// The links of the data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Link {
    /// What is live.
    Current,
    /// The last one that passed its proof.
    Passed,
    /// The one whose files the reload hooks have all seen.
    Hooked,
}

impl Link {
    fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Passed => "passed",
            Self::Hooked => "hooked",
        }
    }
}

impl DataDir {
    /// Writes a generation and returns its number. Nothing points at it yet.
    ///
    /// # Errors
    /// [`DiskError::Io`]; what is live stays.
    pub fn write_generation(&self, material: &Material) -> Result<u64, DiskError> {
        if let Some(mut bare) = self.bare() {
            bare.generation += 1;
            return Ok(bare.generation);
        }
        off_the_loop(|| self.write_files(material))
    }

    fn write_files(&self, material: &Material) -> Result<u64, DiskError> {
        let number = self.numbers()?.last().copied().unwrap_or(0) + 1;
        let parent = self.root.join("generations");
        let made = parent.join(format!(".{number}.tmp"));
        // A stray of a crash in this process's own past, at most.
        let _ = fs::remove_dir_all(&made);
        make_dir(&made)?;
        let before = self.root.join(Link::Current.name());
        for (name, content) in files(material) {
            let path = made.join(&name);
            if let Some(dir) = path.parent().filter(|dir| *dir != made) {
                make_dir(dir)?;
            }
            put(&path, &before.join(&name), &content)?;
        }
        sync_tree(&made)?;
        // Crash point: before the rename recovery finds a `.tmp` directory and removes it; after it, a
        // generation that nothing points at, whose number is passed over.
        let path = parent.join(number.to_string());
        fs::rename(&made, &path).map_err(|e| io_error("renamed", &made, e))?;
        harden::sync_dir(&parent).map_err(|e| io_error("synced", &parent, e))?;
        Ok(number)
    }

    /// Lets a link point at a generation, in one rename.
    ///
    /// # Errors
    /// [`DiskError::Io`]; the link stays where it was.
    pub fn point(&self, link: Link, number: u64) -> Result<(), DiskError> {
        if self.is_nowhere() {
            return Ok(());
        }
        let temporary = self.root.join(format!(".{}.tmp", link.name()));
        let path = self.root.join(link.name());
        let _ = fs::remove_file(&temporary);
        symlink(format!("generations/{number}"), &temporary)
            .map_err(|e| io_error("linked", &temporary, e))?;
        // Crash point: the link shows the generation before or this one; both are whole.
        fs::rename(&temporary, &path).map_err(|e| io_error("renamed", &path, e))?;
        off_the_loop(|| harden::sync_dir(&self.root)).map_err(|e| io_error("synced", &self.root, e))
    }

    /// Takes a link away, durably: nothing has passed, or was seen by hooks, any more.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn unlink(&self, link: Link) -> Result<(), DiskError> {
        if self.is_nowhere() {
            return Ok(());
        }
        match fs::remove_file(self.root.join(link.name())) {
            Ok(()) => {
                off_the_loop(|| harden::sync_dir(&self.root)).map_err(|e| io_error("synced", &self.root, e))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io_error("removed", &self.root.join(link.name()), e)),
        }
    }

    /// The generation that a link points at; none where there is no link.
    ///
    /// # Errors
    /// [`DiskError`]: damaged, exposed or unreadable.
    pub fn generation(&self, link: Link) -> Result<Option<Stored>, DiskError> {
        let Some(number) = self.number_of(link) else {
            return Ok(None);
        };
        let path = self.root.join("generations").join(number.to_string());
        let Some(manifest) = read_json::<Manifest>(&path.join("manifest.json"))? else {
            let why = format!("`{}` points at it, and its manifest is missing", link.name());
            return Err(DiskError::Damaged { path, why });
        };
        let client = credential(&path, "client", manifest.client.as_ref())?;
        let server = credential(&path, "server", manifest.server.as_ref())?;
        let ssh = sshd_certificate(&path, manifest.ssh.as_ref());
        let anchors = anchors(&path, &manifest)?;
        let types = manifest.trusted.keys();
        let beside = types.map(|t| (*t, beside::of_generation(&path, *t))).collect();
        let generation = Generation {
            revisions: manifest.revisions,
            trusted: manifest.trusted,
            client: client.as_ref().map(|c| c.leaf.clone()),
            server: server.as_ref().map(|c| c.leaf.clone()),
            ssh: ssh.as_ref().map(|c| c.leaf.clone()),
        };
        Ok(Some(Stored {
            number,
            material: Material {
                generation,
                client,
                server,
                ssh,
                anchors,
                beside,
            },
        }))
    }

    /// Every certificate with its key that can still be read, of whatever generation, the newest first: where none is
    /// whole they still prove who the node is.
    pub fn salvage(&self) -> Vec<Credential> {
        let mut found = Vec::new();
        for number in self.numbers().unwrap_or_default() {
            let path = self.root.join("generations").join(number.to_string());
            let Ok(Some(manifest)) = read_json::<Manifest>(&path.join("manifest.json")) else {
                continue;
            };
            for (role, entry) in [("client", manifest.client), ("server", manifest.server)] {
                found.extend(credential(&path, role, entry.as_ref()).ok().flatten());
            }
        }
        found.sort_by_key(|c: &Credential| std::cmp::Reverse(c.leaf.position));
        found.dedup_by_key(|c| c.leaf.spki);
        found
    }

    /// Removes generations that nothing points at, except the newest few.
    pub fn prune_generations(&self) {
        let Ok(numbers) = self.numbers() else { return };
        let newest = numbers.last().copied().unwrap_or(0);
        let linked = [Link::Current, Link::Passed, Link::Hooked].map(|link| self.number_of(link));
        for number in numbers
            .into_iter()
            .filter(|n| n + KEPT <= newest && !linked.contains(&Some(*n)))
        {
            // One that cannot be removed now is removed after the next installation.
            let _ = fs::remove_dir_all(self.root.join("generations").join(number.to_string()));
        }
    }

    fn number_of(&self, link: Link) -> Option<u64> {
        if self.is_nowhere() {
            return None;
        }
        fs::read_link(self.root.join(link.name()))
            .ok()?
            .file_name()?
            .to_str()?
            .parse()
            .ok()
    }

    /// The numbers of all generations, lowest first.
    fn numbers(&self) -> Result<Vec<u64>, DiskError> {
        if self.is_nowhere() {
            return Ok(vec![]);
        }
        let path = self.root.join("generations");
        let entries = fs::read_dir(&path).map_err(|e| io_error("listed", &path, e))?;
        let mut numbers: Vec<u64> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// The files of a generation: `trust.pem` at the top is the host authorities, every other type has a
/// directory of its own.
fn files(material: &Material) -> Vec<(PathBuf, Zeroizing<Vec<u8>>)> {
    let mut files: Vec<(PathBuf, Zeroizing<Vec<u8>>)> = Vec::new();
    let mut add = |name: &str, content: &[u8]| files.push((name.into(), Zeroizing::new(content.to_vec())));
    for (name, credential) in [("client", &material.client), ("server", &material.server)] {
        if let Some(credential) = credential {
            add(&format!("{name}.crt"), credential.certificate_pem().as_bytes());
            add(&format!("{name}.key"), credential.key.as_bytes());
        }
    }
    if let Some(of_sshd) = &material.ssh {
        add(SSHD_CERTIFICATE, format!("{}\n", of_sshd.line).as_bytes());
    }
    for authority_type in material.generation.trusted.keys().filter(|t| t.has(KeyKind::Tls)) {
        let ders = material.anchors_of(*authority_type);
        let pem = pki::pem::encode_certificates(ders.iter().map(AsRef::as_ref));
        add(&trust_file(*authority_type), pem.as_bytes());
    }
    for (name, content) in material.beside.values().flatten() {
        add(name, content);
    }
    let manifest = Manifest {
        version: FORMAT_VERSION,
        revisions: material.generation.revisions.clone(),
        trusted: material.generation.trusted.clone(),
        client: material.client.as_ref().map(|c| LeafEntry::of(&c.leaf)),
        server: material.server.as_ref().map(|c| LeafEntry::of(&c.leaf)),
        ssh: material.ssh.as_ref().map(|c| LeafEntry::of(&c.leaf)),
    };
    let json = serde_json::to_vec_pretty(&manifest).expect("a manifest has string keys and no failing parts");
    add("manifest.json", &json);
    files
}

fn trust_file(authority_type: AuthorityType) -> String {
    if authority_type == AuthorityType::Host {
        "trust.pem".into()
    } else {
        format!("{authority_type}/trust.pem")
    }
}

/// Writes a file, or links the one of the generation before where nothing in it changed.
fn put(path: &Path, before: &Path, content: &[u8]) -> Result<(), DiskError> {
    let is_same = harden::read_owner_only(before, content.len() as u64).is_ok_and(|old| old == content);
    // A file system without hard links gets a copy.
    if is_same
        && fs::canonicalize(before)
            .and_then(|before| fs::hard_link(before, path))
            .is_ok()
    {
        return Ok(());
    }
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(harden::OWNER_ONLY)
        .open(path)
        .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    written.map_err(|e| io_error("written", path, e))
}

fn make_dir(path: &Path) -> Result<(), DiskError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(io_error("made", path, e)),
    }
}

/// Makes the names in a new generation durable: of its directories first, then its own.
fn sync_tree(path: &Path) -> Result<(), DiskError> {
    let entries = fs::read_dir(path).map_err(|e| io_error("listed", path, e))?;
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
    {
        harden::sync_dir(&entry.path()).map_err(|e| io_error("synced", &entry.path(), e))?;
    }
    harden::sync_dir(path).map_err(|e| io_error("synced", path, e))
}

/// A file of a generation as text. One that is missing, or is no text, is damage like any other.
pub(super) fn text_of(path: &Path) -> Result<String, DiskError> {
    fs::read_to_string(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => DiskError::Damaged {
            path: path.to_owned(),
            why: "it is missing".into(),
        },
        ErrorKind::InvalidData => DiskError::Damaged {
            path: path.to_owned(),
            why: "not text".into(),
        },
        _ => io_error("read", path, e),
    })
}

fn anchors(path: &Path, manifest: &Manifest) -> Result<BTreeMap<SpkiPin, CaCert>, DiskError> {
    let mut anchors = BTreeMap::new();
    for (authority_type, pins) in manifest.trusted.iter().filter(|(t, _)| t.has(KeyKind::Tls)) {
        let file = path.join(trust_file(*authority_type));
        let damaged = |why: String| DiskError::Damaged {
            path: file.clone(),
            why,
        };
        let pem = text_of(&file)?;
        let ders = pki::pem::certificates(&pem).ok_or_else(|| damaged("not PEM".into()))?;
        for der in &ders {
            let ca = CaCert::from_der(der).map_err(|e| damaged(e.to_string()))?;
            anchors.insert(ca.pin(), ca);
        }
        if let Some(missing) = pins.iter().find(|pin| !anchors.contains_key(pin)) {
            return Err(damaged(format!(
                "the authority {} of its manifest is missing",
                missing.short()
            )));
        }
    }
    Ok(anchors)
}
