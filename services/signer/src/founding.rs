//! The first keys and certificates of a cluster, made by `carousel init` before there is a log.

use std::{net::IpAddr, path::Path, sync::Arc};

use domain::{
    AuthorityId, AuthorityType, AuthorizationId, ClusterName, ClusterState, EventId, Header, Hostname,
    MemberId, Order, Position, Principal, Refusal, Serial, SpkiPin, Timestamp, UserName,
    authority::{AuthorityKey, KeyKind},
    command::{Genesis, Settings},
    decide::{certificates::NOT_BEFORE_BACK_MS, genesis},
    duty::bundle_content,
    event::{
        AuthorityActivated, AuthorityKeyGenerated, AuthorizationGranted, CertificateIssued, Event, LeafUse,
        Occasion,
    },
    evolve::apply,
    id::SystemActor,
    phase::Phase,
    trust::SignedBundle,
};
use pki::{
    AuthorityError, Blueprint, CaCert, CaSigner, IssueError, KeyPair, authority, bundle, credential::Made,
    issue, pem, random,
};
use zeroize::Zeroizing;

use crate::{
    kek::KekSource,
    keystore::{FileStore, KeyPlace, KeyPurpose, KeyStore, KeyStoreError, Stores, make_keys_in},
};

pub use file::{GenesisFileError, genesis_file, load_genesis, parse_genesis};

mod file;

/// What `init` was asked for.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// Its durations.
    pub settings: Settings,
    /// Where the key-encryption key is kept.
    pub kek: KekSource,
    /// Where the authorities' keys are made, these first ones and later ones; the bundle key is always a sealed file.
    pub keys: KeyPlace,
    /// The first administrator.
    pub admin: UserName,
    /// The first gateway, stable over its restarts.
    pub gateway: MemberId,
    /// The names of the gateway's first certificate.
    pub gateway_names: Vec<Hostname>,
    /// Its addresses.
    pub gateway_addresses: Vec<IpAddr>,
    /// The time.
    pub now: Timestamp,
}

/// A first certificate with its key, for a 0600 file. Only these two keys are ever made by the control plane
/// for somebody else: their holders do not exist yet.
pub struct Credentials {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: Zeroizing<String>,
    /// The end of the certificate's life.
    pub not_after: Timestamp,
}

/// What `init` has made.
pub struct Founded {
    /// The first facts, for the first `serve`; also in the key directory, see [`load_genesis`].
    pub genesis: Genesis,
    /// The host authority's bundle as the log will describe it, for the administrator's identity file.
    pub bundle: SignedBundle,
    /// The pin of the bundle key.
    pub bundle_pin: SpkiPin,
    /// The pin of the host authority: the CA pin.
    pub ca_pin: SpkiPin,
    /// The administrator's.
    pub admin: Credentials,
    /// The gateway's.
    pub gateway: Credentials,
    /// What the person who runs `init` should know.
    pub warnings: Vec<String>,
}

/// Why nothing was founded.
#[derive(Debug, thiserror::Error)]
pub enum FoundingError {
    /// The keys could not be stored.
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    /// A CA certificate could not be made.
    #[error("a CA certificate could not be made")]
    Authority(#[from] AuthorityError),
    /// A first certificate could not be made.
    #[error("a first certificate could not be made")]
    Issue(#[from] IssueError),
    /// The first facts contradict themselves.
    #[error("the first facts of the cluster do not fit together: {0}")]
    Refused(Refusal),
    /// The genesis could not be written.
    #[error(transparent)]
    File(#[from] GenesisFileError),
}

/// Makes the key store of a new cluster in `key_dir`, every first authority, and the first certificates.
///
/// Blocking. A crash half way leaves a directory that `init` refuses or begins again; no log is touched. Whoever fails after
/// this, or in it, calls [`abandon`] before the directory is removed.
///
/// # Errors
/// [`FoundingError`]; `Exists` if the directory holds keys already.
pub fn found(key_dir: &Path, founding: &Founding) -> Result<Founded, FoundingError> {
    drop(FileStore::create(key_dir, &founding.cluster, &founding.kek)?);
    make_keys_in(key_dir, &founding.keys)?;
    let store = Stores::open(key_dir)?;
    let bundle_key = store.bundle_key()?;
    let kinds = |t: AuthorityType| t.row().keys.iter().map(move |kind| (t, *kind));
    let authorities = AuthorityType::all()
        .flat_map(kinds)
        .map(|(t, kind)| first_authority(&store, founding, t, kind))
        .collect::<Result<Vec<_>, FoundingError>>()?;
    let of = |wanted: AuthorityType| {
        let issues = |first: &&FirstAuthority| first.authority_type == wanted && first.certificate.is_some();
        let found = authorities.iter().find(issues);
        found.expect("host and user have X.509 keys in the table of authority types")
    };
    let (admin, admin_facts) = first_leaf(
        founding,
        Principal::User(founding.admin.clone()),
        of(AuthorityType::User),
    )?;
    let (gateway, gateway_facts) = first_leaf(
        founding,
        Principal::Gateway(founding.gateway),
        of(AuthorityType::Host),
    )?;
    let genesis = Genesis {
        cluster: founding.cluster.clone(),
        settings: founding.settings.clone(),
        bundle_key: bundle_key.spki_pin(),
        bundle_public_key: bundle_key.public().to_base64(),
        keys: authorities
            .iter()
            .map(|first| first_facts(first.authority_type, &first.key))
            .collect(),
        admin: founding.admin.clone(),
        gateway: founding.gateway,
        certificates: vec![admin_facts, gateway_facts],
    };
    let bundle = first_bundle(&genesis, &bundle_key, founding.now)?;
    // The last act: from here on there is a cluster, and the first `serve` can begin its log.
    file::save(key_dir, &genesis)?;
    let warnings = founding.kek.beside_keys(key_dir).map(|kek| {
        format!(
            "the key-encryption key {} lies beside what it protects; move it with --kek",
            kek.display()
        )
    });
    Ok(Founded {
        bundle,
        bundle_pin: genesis.bundle_key,
        ca_pin: of(AuthorityType::Host).key.id,
        genesis,
        admin,
        gateway,
        warnings: warnings.into_iter().collect(),
    })
}

/// Destroys what a failed founding has left in a token: its directory is removed, and nobody would ever ask for these keys.
pub fn abandon(key_dir: &Path) {
    let Ok(store) = Stores::open(key_dir) else { return };
    let made = store.keys().unwrap_or_default();
    for (id, _) in made {
        if let Err(error) = store.destroy(&id) {
            tracing::warn!(key = %id.short(), error = %crate::service::chain(&error), "a key of no cluster was left");
        }
    }
}

struct FirstAuthority {
    authority_type: AuthorityType,
    key: AuthorityKey,
    /// None for kinds that have none.
    certificate: Option<CaCert>,
    signer: Arc<dyn CaSigner>,
}

fn first_authority(
    store: &Stores,
    founding: &Founding,
    authority_type: AuthorityType,
    kind: KeyKind,
) -> Result<FirstAuthority, FoundingError> {
    let purpose = KeyPurpose {
        cluster: founding.cluster.clone(),
        authority_type,
        kind,
        generation: 1,
        rotation: None,
    };
    let (_, signer) = store.make(&purpose)?;
    let (key, certificate) = public_half(&purpose, &*signer, founding.now)?;
    Ok(FirstAuthority {
        authority_type,
        key,
        certificate,
        signer,
    })
}

/// What the log is told of a key in the store, with its self-signed certificate if its kind has one.
pub(crate) fn public_half(
    purpose: &KeyPurpose,
    signer: &dyn CaSigner,
    now: Timestamp,
) -> Result<(AuthorityKey, Option<CaCert>), AuthorityError> {
    let (generation, rotation) = (purpose.generation, purpose.rotation);
    if purpose.kind != KeyKind::Tls {
        let key = authority::bare_key(purpose.kind, signer, generation, rotation, now);
        return Ok((key, None));
    }
    let blueprint = Blueprint {
        cluster: &purpose.cluster,
        authority_type: purpose.authority_type,
        generation: purpose.generation,
        serial: Serial::of_random(random()),
        now,
    };
    let certificate = authority::make(&blueprint, signer)?;
    let key = certificate.authority_key(generation, signer.storage(), rotation, Position(0));
    Ok((key, Some(certificate)))
}

fn first_facts(
    authority_type: AuthorityType,
    key: &AuthorityKey,
) -> (AuthorityKeyGenerated, AuthorityActivated) {
    let authority: AuthorityId = key.id;
    (
        AuthorityKeyGenerated {
            authority_type,
            key: key.clone(),
        },
        AuthorityActivated {
            authority_type,
            kind: key.kind,
            authority,
        },
    )
}

/// One of the two certificates that are made before their log exists, with both of its facts.
fn first_leaf(
    founding: &Founding,
    holder: Principal,
    issuer: &FirstAuthority,
) -> Result<(Credentials, (AuthorizationGranted, CertificateIssued)), FoundingError> {
    let key = KeyPair::generate();
    let (is_gateway, now) = (matches!(holder, Principal::Gateway(_)), founding.now);
    let ttl_ms = if is_gateway {
        founding.settings.node_ttl_ms
    } else {
        founding.settings.user_ttl_ms
    };
    let granted = AuthorizationGranted {
        authorization: AuthorizationId(execution::fresh_id(now)),
        uri: holder.uri(&founding.cluster),
        common_name: if is_gateway {
            "gateway".into()
        } else {
            founding.admin.to_string()
        },
        holder,
        authority_type: issuer.authority_type,
        issuer: issuer.key.id,
        usage: if is_gateway {
            LeafUse::Both
        } else {
            LeafUse::Client
        },
        occasion: Occasion::Genesis,
        spki: key.spki_pin(),
        public_key: key.public().to_base64(),
        names: if is_gateway {
            founding.gateway_names.clone()
        } else {
            vec![]
        },
        addresses: if is_gateway {
            founding.gateway_addresses.clone()
        } else {
            vec![]
        },
        serial: Serial::of_random(random()),
        not_before: now.minus_ms(NOT_BEFORE_BACK_MS),
        not_after: now.plus_ms(ttl_ms).min(issuer.key.not_after),
        rotation: None,
        phase: Phase::Standby,
        form: domain::event::Form::Tls,
    };
    let certificate = issuer.certificate.as_ref();
    let certificate = certificate.expect("whoever issues has a certificate: `found` looks for it");
    let leaf = issue(&granted, &founding.cluster, certificate, &*issuer.signer)?;
    let (digest, text) = (leaf.digest, leaf.to_base64());
    let credentials = Credentials {
        certificate_pem: pem::encode_certificates([&leaf.der[..]]),
        key_pem: key.to_pem(),
        not_after: granted.not_after,
    };
    let issued = Made { digest, text }.fact(&granted);
    Ok((credentials, (granted, issued)))
}

/// The host bundle as the genesis will be folded: its revision is a position that the log does not have yet,
/// but that follows from the order of the genesis alone.
fn first_bundle(genesis: &Genesis, key: &KeyPair, now: Timestamp) -> Result<SignedBundle, FoundingError> {
    let mut state = ClusterState::default();
    let decision = genesis::begin(&state, genesis).map_err(FoundingError::Refused)?;
    for (n, fact) in (1..).zip(decision.facts) {
        let header = Header {
            position: Position(n),
            id: EventId(uuid::Uuid::nil()),
            time: now,
            actor: Principal::System(SystemActor::Host),
            credential: None,
            command: None,
            reason: None,
            decided_at: Some(Position(0)),
        };
        apply(&mut state, &Event { header, fact });
    }
    let content = bundle_content(&state, AuthorityType::Host, now);
    Ok(bundle::sign(
        &content.expect("the genesis makes a host authority"),
        key,
        vec![],
    ))
}

/// The command that begins the log with this genesis.
pub fn first_order(genesis: Genesis) -> Order {
    Order::Genesis(Box::new(genesis))
}
