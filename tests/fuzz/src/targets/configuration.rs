//! Files that people edit, and texts that they type.

use std::path::Path;

use agent::{Server, Settings, Token};
use cli::identity::Identity;
use domain::{
    AuthorityType, ClusterName, Hostname, NodeId, Phase, Position, Principal, SpkiPin, Timestamp, UserName,
    access::NamePattern, trust::Bundle,
};
use serde_json::{Value, json};

use crate::{
    Form, edit, line,
    made::{Made, NOW, SECRET, made},
    speaks,
};

pub(crate) fn run(input: &[u8]) {
    match Form::of(input) {
        Form::Raw(raw) => {
            identity(raw);
            if let Ok(text) = std::str::from_utf8(raw) {
                settings(text, false);
                typed(text);
            }
        }
        Form::Edits(0, mut u) => {
            let mut document = json!({"uses": ["db"], "labels": {"rack": SECRET}, "drain_timeout_s": 5,
                "metrics_listen": "127.0.0.1:9464",
                "reload": [{"command": ["/bin/systemctl", "reload", "nginx"], "timeout_s": 5}]});
            let _ = edit::json(&mut u, &mut document);
            if let Ok(text) = toml::to_string(&document) {
                settings(&text, true);
            }
        }
        Form::Edits(_, mut u) => {
            let mut document = identity_file();
            let _ = edit::json(&mut u, &mut document);
            identity(&serde_json::to_vec(&document).expect("JSON is written"));
        }
    }
}

/// `as_value`: the secret stands in values alone, which no message may show.
fn settings(text: &str, as_value: bool) {
    match Settings::parse(text, Path::new("agent.toml")) {
        Err(error) => {
            speaks(&error);
            assert!(
                !as_value || !error.to_string().contains(SECRET),
                "a value is shown: {error}"
            );
        }
        Ok(settings) => {
            let labels = serde_json::to_vec(&settings.labels).expect("JSON is written");
            assert!(settings.labels.len() <= 32 && labels.len() <= 2_048);
            assert!(
                settings
                    .reload
                    .iter()
                    .all(|hook| hook.command[0].starts_with('/'))
            );
        }
    }
}

fn identity_file() -> Value {
    let Made {
        cluster,
        bundle_key,
        leaf,
        host,
        ..
    } = made();
    let content = Bundle {
        cluster: cluster.clone(),
        authority_type: AuthorityType::Host,
        rotation: None,
        phase: Phase::Standby,
        revision: Position(1),
        authorities: vec![],
        denied: vec![],
        expires: NOW,
    };
    json!({"version": 1, "server": "https://127.0.0.1:3025", "cluster": cluster, "user": "root",
        "bundle_pin": bundle_key.spki_pin(), "certificate": pki::pem::encode_certificates([&leaf[..], host.1.der()]),
        "key": SECRET, "bundle": pki::bundle::sign(&content, bundle_key, vec![])})
}

/// No message shows any of it: it holds a key.
fn identity(bytes: &[u8]) {
    let shown = |error: &dyn std::error::Error| {
        speaks(error);
        assert!(!error.to_string().contains(SECRET), "a key is shown: {error}");
    };
    match Identity::parse(bytes, Path::new("root.identity")) {
        Err(error) => shown(&error),
        Ok(identity) => {
            let _ = identity.leaf().map_err(|error| shown(&error));
            let _ = identity.key_pair().map_err(|error| shown(&error));
            let _ = identity.trust().map_err(|error| shown(&error));
        }
    }
}

/// What is read is written so that it reads again to the same.
pub(super) fn typed(text: &str) {
    fn again<T: std::str::FromStr<Err: std::fmt::Display> + ToString + PartialEq + std::fmt::Debug>(
        text: &str,
    ) {
        match text.parse::<T>() {
            Ok(read) => assert_eq!(read.to_string().parse::<T>().ok(), Some(read)),
            Err(error) => line(&error.to_string()),
        }
    }
    again::<AuthorityType>(text);
    again::<ClusterName>(text);
    again::<Hostname>(text);
    again::<NamePattern>(text);
    again::<NodeId>(text);
    again::<Phase>(text);
    again::<Principal>(text);
    again::<SpkiPin>(text);
    again::<UserName>(text);
    again::<Timestamp>(text);
    match Server::parse(text) {
        Ok(server) => assert_eq!(Server::parse(&server.to_string()), Ok(server)),
        Err(error) => line(&error),
    }
    if let Err(error) = Token::parse(text) {
        line(error);
    }
}
