//! Requests for certificates: one file each, from before the request is sent until the generation with its
//! answer has passed.
//!
//! The key is durable before the request leaves: a certificate that the control plane issued for a key that
//! nobody has any more would be lost, and in the case of a join the token with it. The same file, with the
//! same signed request and the same id, is sent again after a crash and gets the same certificate.

use std::{collections::BTreeSet, fs};

use domain::{
    AuthorityType, CommandId, NodeId, Position, SpkiPin, Timestamp, TokenHash, event::LeafUse,
    reconcile::InFlight,
};
use pki::KeyPair;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{DataDir, DiskError, FORMAT_VERSION, credential::Credential, io_error, read_json, write_json};

/// What a request is made for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Purpose {
    /// The first certificate, for this token; another token needs another key.
    Join {
        /// SHA-256 of the token's bytes, to know the token again.
        token: TokenHash,
    },
    /// Coming back with the key of an old certificate.
    Recover,
    /// A certificate of the row.
    Row {
        /// What it is to be used for.
        usage: LeafUse,
        /// The authority that is to sign it.
        issuer: SpkiPin,
    },
}

/// What a rejoin has made of the node. It is kept with the answer, in one write, so that a start which finds it can
/// do the rest: everything that follows from it is a file of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Admission {
    /// Who the node is now.
    pub node: NodeId,
    /// The types that the new grant names, all of them.
    pub granted: BTreeSet<AuthorityType>,
}

/// One request, with its key.
#[derive(Clone)]
pub struct Request {
    /// What it is made for.
    pub purpose: Purpose,
    /// Names the command: repeating it under this id gives the first answer.
    pub id: CommandId,
    /// The pin of its key.
    pub spki: SpkiPin,
    /// When it was made; an id is good for less than a day.
    pub made: Timestamp,
    /// The signed request, PEM: signed once, so that the repeated body is the same to the byte.
    pub csr: String,
    /// Its key, PEM.
    pub key: Zeroizing<String>,
    /// The answer, once it came.
    pub received: Option<Credential>,
    /// What else the answer to a rejoin said.
    pub admission: Option<Admission>,
}

#[derive(Serialize, Deserialize)]
struct RequestFile {
    version: u32,
    purpose: Purpose,
    id: CommandId,
    made: Timestamp,
    csr: String,
    key: String,
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default)]
    position: Option<Position>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admission: Option<Admission>,
}

impl Request {
    /// A request with a fresh key. Not durable yet.
    pub fn new(purpose: Purpose, id: CommandId, made: Timestamp) -> Self {
        let pair = KeyPair::generate();
        Self {
            purpose,
            id,
            spki: pair.spki_pin(),
            made,
            csr: pki::csr::make_pem(&pair),
            key: pair.to_pem(),
            received: None,
            admission: None,
        }
    }

    /// The request that a certificate of the row may have come from, where its own file is gone.
    pub fn answered(credential: &Credential, id: CommandId, made: Timestamp) -> Self {
        Self {
            purpose: Purpose::Row {
                usage: credential.leaf.usage,
                issuer: credential.leaf.issuer,
            },
            id,
            spki: credential.leaf.spki,
            made,
            csr: pki::csr::make_pem(&credential.pair()),
            key: credential.key.clone(),
            received: Some(credential.clone()),
            admission: None,
        }
    }

    /// What the plan knows of it while it is not answered; joins and recoveries are no steps of the plan.
    pub fn in_flight(&self) -> Option<InFlight> {
        match (&self.purpose, &self.received) {
            (Purpose::Row { usage, issuer }, None) => Some(InFlight {
                usage: *usage,
                issuer: *issuer,
                spki: self.spki,
            }),
            (Purpose::Row { .. } | Purpose::Join { .. } | Purpose::Recover, _) => None,
        }
    }

    /// Takes the answer, if it is one.
    ///
    /// # Errors
    /// In words: a certificate for another key, or one that cannot be read.
    pub fn answer(&mut self, certificate_pem: &str, position: Position) -> Result<(), String> {
        let ders = pki::pem::certificates(certificate_pem).ok_or("not PEM")?;
        let der = ders.first().ok_or("no certificate in it")?;
        self.received = Some(Credential::new(der, &self.key, position)?);
        Ok(())
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Request({:?} for key {:?}, key not shown)",
            self.purpose, self.spki
        )
    }
}

impl DataDir {
    /// Keeps a request durably: before it is sent, and again when its answer came.
    ///
    /// # Errors
    /// [`DiskError::Io`]; then it must not be sent.
    pub fn keep_request(&self, request: &Request) -> Result<(), DiskError> {
        if let Some(mut bare) = self.bare() {
            bare.keep(request);
            return Ok(());
        }
        let received = request.received.as_ref();
        let mut file = RequestFile {
            version: FORMAT_VERSION,
            purpose: request.purpose.clone(),
            id: request.id,
            made: request.made,
            csr: request.csr.clone(),
            key: request.key.to_string(),
            certificate: received.map(|c| pki::pem::encode("CERTIFICATE", &c.certificate)),
            position: received.map(|c| c.leaf.position),
            admission: request.admission.clone(),
        };
        let written = write_json(&self.request_path(&request.spki), &file);
        zeroize::Zeroize::zeroize(&mut file.key);
        written
    }

    /// All requests that are kept. One that is damaged is left out, and said: it is asked for again.
    ///
    /// # Errors
    /// [`DiskError`]: the directory cannot be listed, or a key in it can be read by others.
    pub fn requests(&self) -> Result<Vec<Request>, DiskError> {
        if let Some(bare) = self.bare() {
            return Ok(bare.requests.clone());
        }
        let dir = self.root.join("keys");
        let entries = fs::read_dir(&dir).map_err(|e| io_error("listed", &dir, e))?;
        let mut requests = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            match read_json::<RequestFile>(&path).and_then(|file| of_file(file, &path)) {
                Ok(request) => requests.extend(request),
                Err(DiskError::Damaged { path, why }) => {
                    tracing::warn!(file = %path.display(), why, "a kept request is damaged and is made again");
                }
                Err(error) => return Err(error),
            }
        }
        requests.sort_by_key(|r: &Request| r.made);
        Ok(requests)
    }

    /// Forgets a request: its generation has passed, it was refused, or its certificate is not wanted.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn forget_request(&self, spki: &SpkiPin) -> Result<(), DiskError> {
        if let Some(mut bare) = self.bare() {
            bare.forget(spki);
            return Ok(());
        }
        let path = self.request_path(spki);
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(io_error("removed", &path, e)),
        }
    }

    fn request_path(&self, spki: &SpkiPin) -> std::path::PathBuf {
        let hex: String = spki.0.iter().map(|b| format!("{b:02x}")).collect();
        self.root.join("keys").join(format!("{hex}.json"))
    }
}

fn of_file(file: Option<RequestFile>, path: &std::path::Path) -> Result<Option<Request>, DiskError> {
    let Some(file) = file else { return Ok(None) };
    let damaged = |why: String| DiskError::Damaged {
        path: path.to_owned(),
        why,
    };
    let key = Zeroizing::new(file.key);
    let pair = KeyPair::from_pkcs8_pem(&key).map_err(|e| damaged(e.to_string()))?;
    let mut request = Request {
        purpose: file.purpose,
        id: file.id,
        spki: pair.spki_pin(),
        made: file.made,
        csr: file.csr,
        key,
        received: None,
        admission: file.admission,
    };
    if let Some((certificate, position)) = file.certificate.as_deref().zip(file.position) {
        request.answer(certificate, position).map_err(damaged)?;
    }
    Ok(Some(request))
}

/// The type whose certificates a node asks for.
pub const LEAF_TYPE: AuthorityType = AuthorityType::Host;
