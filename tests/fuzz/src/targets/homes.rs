//! The control plane's own files: its configuration, the settings of a new cluster, and what `init` left.

use std::path::Path;

use carousel::{home::Description, init, serve};
use cli::args::ServeArgs;
use domain::Order;
use eventlog::bus::redacted;
use serde_json::json;

use super::commands::decided;
use crate::{
    Form, edit,
    made::{self, SECRET, made},
    speaks,
};

pub(crate) fn run(input: &[u8]) {
    match Form::of(input) {
        Form::Raw(raw) => {
            description(raw);
            genesis(raw);
            if let Ok(text) = std::str::from_utf8(raw) {
                configuration(text);
                settings(text);
            }
        }
        Form::Edits(which, mut u) => {
            let mut document = match which {
                0 => json!({"listen": "127.0.0.1:1", "admin_listen": "127.0.0.1:2", "advertise":
                    ["cp.acme", "[2001:db8::1]:3"], "log": "embedded",
                    "keys": "pkcs11:token=a?module-path=/m&pin-source=file:/p", "log_format": "json", "log_filter": "info,gateway=debug"}),
                1 => {
                    json!({"node_ttl_ms": 8_000, "user_ttl_ms": 60_000, "max_offline_ms": 5, "drain_timeout_ms": 0,
                    "jwks_max_age_ms": 1, "jwt_ttl_ms": 1, "allow_loopback": true})
                }
                2 => {
                    json!({"format": 1, "cluster": made().cluster, "member": made::gateway(), "admin": made::ADMIN,
                    "log": "nats://a:4222,tls://b", "begun": true})
                }
                _ => serde_json::from_slice(&signer::founding::genesis_file(&made().genesis)).expect("JSON"),
            };
            let _ = edit::json(&mut u, &mut document);
            let bytes = serde_json::to_vec(&document).expect("JSON is written");
            // TOML cannot say all that JSON can.
            let text = toml::to_string(&document);
            match which {
                0 => text.map_or((), |text| configuration(&text)),
                1 => text.map_or((), |text| settings(&text)),
                2 => description(&bytes),
                _ => genesis(&bytes),
            }
        }
    }
}

/// Where it listens is given, because a name there is looked up in the network.
fn arguments() -> ServeArgs {
    ServeArgs {
        data_dir: "d".into(),
        config: Some("f.toml".into()),
        listen: Some("127.0.0.1:1".into()),
        advertise: vec![],
        public_url: None,
        admin_listen: Some("127.0.0.1:2".into()),
        log: None,
        keys: None,
        services: "all".into(),
        cluster: None,
        print_config: true,
    }
}

/// It is printed as it will be used, one line a key, or refused as the start would.
fn configuration(text: &str) {
    match serve::printed(&arguments(), text) {
        Err(error) => speaks(&error),
        Ok(shown) => {
            let keys = shown
                .lines()
                .filter_map(|line| Some(line.split_once("  ")?.1.trim_start().split_once(" = ")?.0));
            let keys: Vec<_> = keys.collect();
            assert_eq!(
                keys,
                [
                    "listen",
                    "advertise",
                    "public_url",
                    "admin_listen",
                    "log",
                    "keys",
                    "log_format",
                    "log_filter"
                ],
                "{shown}"
            );
        }
    }
}

fn settings(text: &str) {
    match init::settings(text, Path::new("settings.toml")) {
        Err(error) => speaks(&error),
        Ok(settings) => {
            let mut genesis = made().genesis.clone();
            genesis.settings = settings;
            decided(Order::Genesis(Box::new(genesis)));
        }
    }
}

/// What is read is written so that it reads the same; whichever log is asked for, no password is shown or kept.
fn description(bytes: &[u8]) {
    let description = match Description::parse(bytes, Path::new("d")) {
        Err(error) => return speaks(&error),
        Ok(description) => description,
    };
    let written = serde_json::to_vec(&description).expect("JSON is written");
    assert_eq!(
        Description::parse(&written, Path::new("d")).ok().as_ref(),
        Some(&description)
    );
    log(&description);
}

fn log(description: &Description) {
    let remembered = description.log.clone().unwrap_or_default();
    // As the name of a host it is no password.
    let is_shown = redacted(&remembered).contains(SECRET);
    for asked in [
        None,
        Some(format!("nats://u:{SECRET}@{remembered}")),
        Some(remembered.replace("://", &format!("://u:{SECRET}@"))),
    ] {
        match description.choose_log(asked.as_deref()) {
            Err(error) => {
                speaks(&error);
                assert!(is_shown || !error.to_string().contains(SECRET), "{error}");
            }
            Ok(chosen) => assert_eq!(redacted(&chosen).contains(SECRET), is_shown),
        }
    }
}

/// The cluster begins with it, or is refused, and nothing in it panics whoever reads the log later.
fn genesis(bytes: &[u8]) {
    match signer::founding::parse_genesis(bytes, Path::new("genesis.json")) {
        Err(error) => speaks(&error),
        Ok(genesis) => {
            let written = signer::founding::genesis_file(&genesis);
            let again = signer::founding::parse_genesis(&written, Path::new("genesis.json"));
            assert_eq!(again.ok().as_ref(), Some(&genesis));
            decided(Order::Genesis(Box::new(genesis)));
        }
    }
}
