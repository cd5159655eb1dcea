//! `carousel init`: a new cluster's keys, genesis and first identity. It touches no log.

use std::path::{Path, PathBuf};

use cli::{
    args::{Format, Global, InitArgs},
    identity::Identity,
};
use domain::{
    ClusterName, MemberId, SpkiPin, UserName,
    command::{Settings, UnusableSetting},
    plain,
};
use runtime::{
    clock::SystemClock,
    config::{self, ConfigError},
    harden,
};
use signer::{Founding, FoundingError, KekSource, KeyPlace, found};

use crate::{
    home::{Description, Home, HomeError},
    now_of,
};

/// Why no cluster was made. Whatever it says, no log was touched.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The directory cannot be used.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The keys could not be made or stored.
    #[error(transparent)]
    Founding(#[from] FoundingError),
    /// The key-encryption key was named in a form that nobody understands.
    #[error(transparent)]
    Kek(#[from] signer::KekError),
    /// So was the place of the authorities' keys.
    #[error("--keys is `files` or a token: {0}")]
    Keys(#[source] signer::TokenUriError),
    /// The file with the cluster's durations cannot be used.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// It names a duration that does not exist: ignored, it would be the cluster's for its life.
    #[error("{} has no setting named {name}; the settings are: {known}", .path.display())]
    UnknownSetting {
        /// Which file.
        path: PathBuf,
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// A duration cannot be a cluster's.
    #[error("{}: {unusable}", .path.display())]
    UnusableSetting {
        /// Which file.
        path: PathBuf,
        /// Which, and what it may be.
        unusable: UnusableSetting,
    },
    /// The identity could not be written.
    #[error(transparent)]
    Identity(#[from] cli::identity::IdentityError),
    /// A file could not be written.
    #[error("{} cannot be written", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

/// What was made.
pub struct Made {
    /// The pin of the first host authority.
    pub ca_pin: SpkiPin,
    /// The pin of the bundle key.
    pub bundle_pin: SpkiPin,
    /// What the person should know.
    pub warnings: Vec<String>,
}

/// The command.
pub async fn run(global: &Global, args: &InitArgs) -> u8 {
    let args_ = args.clone();
    let made = tokio::task::spawn_blocking(move || {
        let kek = match &args_.kek {
            Some(text) => KekSource::given(text)?,
            None => KekSource::default(),
        };
        let settings = match &args_.settings {
            Some(path) => settings(&config::read(path)?, path)?,
            None => Settings::default(),
        };
        let keys = match &args_.keys {
            Some(text) => text.parse().map_err(InitError::Keys)?,
            None => KeyPlace::Files,
        };
        make(&args_.data_dir, &args_.cluster, kek, keys, settings)
    })
    .await
    .expect("making a cluster does not panic");
    match made {
        Ok(made) => {
            report(global, args, &made);
            0
        }
        Err(
            error @ (InitError::Kek(_)
            | InitError::Keys(_)
            | InitError::Settings(_)
            | InitError::UnknownSetting { .. }),
        ) => {
            anstream::eprintln!("usage: {error}");
            2
        }
        Err(error) => crate::failed(&error),
    }
}

/// The durations in the file; what it does not name is as usual. A stored event may have settings that this version does
/// not know, so the type itself ignores them; here, before anything is made, a misspelt one must be said.
///
/// # Errors
/// [`InitError::Settings`], [`InitError::UnknownSetting`], [`InitError::UnusableSetting`].
pub fn settings(text: &str, path: &Path) -> Result<Settings, InitError> {
    let usual = serde_json::to_value(Settings::default()).expect("settings are plain numbers");
    let known = usual.as_object().expect("settings are a structure");
    let given: toml::Table = config::parse(text, path)?;
    if let Some(name) = given.keys().find(|name| !known.contains_key(*name)) {
        return Err(InitError::UnknownSetting {
            path: path.to_owned(),
            name: plain(name),
            known: known.keys().cloned().collect::<Vec<_>>().join(", "),
        });
    }
    let settings: Settings = config::parse(text, path)?;
    let path = path.to_owned();
    settings
        .check()
        .map_err(|unusable| InitError::UnusableSetting { path, unusable })?;
    Ok(settings)
}

/// Makes the cluster in `dir`. The description is written last: an interrupted run leaves no cluster, and one that
/// failed leaves the directory as empty as it was, so that the corrected command can be given at once.
///
/// # Errors
/// [`InitError`].
pub fn make(
    dir: &Path,
    cluster: &ClusterName,
    kek: KekSource,
    keys: KeyPlace,
    settings: Settings,
) -> Result<Made, InitError> {
    Home::prepare(dir)?;
    fill(dir, cluster, kek, keys, settings).inspect_err(|_| empty(dir))
}

/// Makes one for a measurement or a demonstration: its keys are files beside it, sealed by a key that lies there too.
///
/// # Errors
/// [`InitError`].
pub fn make_in_files(dir: &Path, cluster: &ClusterName, settings: Settings) -> Result<Made, InitError> {
    make(dir, cluster, KekSource::default(), KeyPlace::Files, settings)
}

/// Removes what a failed `init` made; the directory was empty before it. What cannot be removed is refused next time.
fn empty(dir: &Path) {
    signer::abandon(&dir.join("keys"));
    for made in ["keys", "gateway"] {
        let _ = std::fs::remove_dir_all(dir.join(made));
    }
    let _ = std::fs::remove_file(dir.join("admin.identity"));
}

fn fill(
    dir: &Path,
    cluster: &ClusterName,
    kek: KekSource,
    keys: KeyPlace,
    settings: Settings,
) -> Result<Made, InitError> {
    let now = now_of(SystemClock::shared())();
    let admin: UserName = "admin".parse().expect("a valid name");
    let member = MemberId(execution::fresh_id(now));
    let founding = Founding {
        cluster: cluster.clone(),
        settings,
        kek,
        keys,
        admin: admin.clone(),
        gateway: member,
        // Its names are known when it first serves; until then it serves what agents check: its URI.
        gateway_names: vec![],
        gateway_addresses: vec![],
        now,
    };
    let founded = found(&dir.join("keys"), &founding)?;
    let gateway = dir.join("gateway");
    let write = |path: &Path, bytes: &[u8]| {
        harden::atomic_write(path, bytes, harden::OWNER_ONLY).map_err(|source| InitError::Write {
            path: path.to_owned(),
            source,
        })
    };
    harden::create_private_dir(&gateway).map_err(|source| InitError::Write {
        path: gateway.clone(),
        source,
    })?;
    write(&gateway.join("genesis.key"), founded.gateway.key_pem.as_bytes())?;
    write(
        &gateway.join("genesis.crt"),
        founded.gateway.certificate_pem.as_bytes(),
    )?;
    let identity = Identity {
        version: cli::identity::FORMAT,
        server: String::new(),
        cluster: cluster.clone(),
        user: admin.clone(),
        bundle_pin: founded.bundle_pin,
        certificate: founded.admin.certificate_pem.clone(),
        key: founded.admin.key_pem.clone(),
        bundle: founded.bundle.clone(),
    };
    identity.save(&dir.join("admin.identity"))?;
    let description = Description {
        format: 1,
        cluster: cluster.clone(),
        member,
        admin,
        log: None,
        begun: false,
    };
    Home::create(dir, description)?;
    Ok(Made {
        ca_pin: founded.ca_pin,
        bundle_pin: founded.bundle_pin,
        warnings: founded.warnings,
    })
}

fn report(global: &Global, args: &InitArgs, made: &Made) {
    for warning in &made.warnings {
        anstream::eprintln!("warning: {warning}");
    }
    let dir = args.data_dir.display();
    match global.format {
        Format::Json | Format::Yaml => {
            let document = serde_json::json!({
                "cluster": args.cluster, "ca_pin": made.ca_pin, "bundle_pin": made.bundle_pin,
                "identity": args.data_dir.join("admin.identity"),
            });
            anstream::println!("{document}");
        }
        Format::Name => anstream::println!("{}", args.cluster),
        Format::Text | Format::Wide => {
            anstream::println!("Made the cluster {}.", args.cluster);
            anstream::println!();
            anstream::println!("  keys        {dir}/keys (sealed)");
            anstream::println!(
                "  identity    {dir}/admin.identity (works once the first `serve` has begun the log)"
            );
            anstream::println!("  CA pin      {}", made.ca_pin);
            anstream::println!("  bundle pin  {}", made.bundle_pin);
            anstream::println!();
            anstream::println!("Next: carousel serve --data-dir {dir}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, InitError> {
        settings(text, Path::new("settings.toml"))
    }

    #[test]
    fn durations_that_are_not_named_are_as_usual() {
        let short = read("node_ttl_ms = 8000\n").unwrap();
        assert_eq!(
            short,
            Settings {
                node_ttl_ms: 8000,
                ..Settings::default()
            }
        );
        assert_eq!(read("").unwrap(), Settings::default());
    }

    #[test]
    fn a_duration_that_no_cluster_can_live_with_is_named_with_its_bounds() {
        for (text, bounds) in [
            ("node_ttl_ms = 0\n", "1000 to 31622400000 ms"),
            ("max_offline_ms = 9223372036854775807\n", "0 to 315360000000 ms"),
        ] {
            let refused = read(text).unwrap_err().to_string();
            assert!(
                refused.contains(&text[..8]) && refused.contains(bounds),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_failed_init_leaves_the_directory_to_the_corrected_command() {
        let dir = tempfile::tempdir().unwrap();
        let (place, cluster) = (dir.path().join("cp"), "acme.cluster".parse().unwrap());
        let missing = format!("file:{}", dir.path().join("no/such/kek").display());
        let failed = make(
            &place,
            &cluster,
            missing.parse().unwrap(),
            KeyPlace::Files,
            Settings::default(),
        );
        assert!(failed.is_err());
        assert!(!place.join("keys").exists(), "keys of nobody are left");
        make(
            &place,
            &cluster,
            KekSource::default(),
            KeyPlace::Files,
            Settings::default(),
        )
        .unwrap();
    }

    #[test]
    fn a_misspelt_duration_is_named_before_anything_is_made() {
        let refused = read("node_tll_ms = 8000\n").unwrap_err().to_string();
        assert!(
            refused.contains("node_tll_ms") && refused.contains("node_ttl_ms"),
            "{refused}"
        );
    }
}
