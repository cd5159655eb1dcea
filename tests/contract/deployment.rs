//! The files in `deploy/`: they say what they have to, and name only flags and settings that exist.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use carousel_tests::{NatsServer, TestDir, source};

use crate::kept;

/// What keeps a process that holds keys to itself.
const HARDENING: [(&str, &str); 18] = [
    ("LimitCORE", "0"),
    ("NoNewPrivileges", "yes"),
    ("CapabilityBoundingSet", ""),
    ("ProtectSystem", "strict"),
    ("ProtectHome", "yes"),
    ("PrivateTmp", "yes"),
    ("PrivateDevices", "yes"),
    ("ProtectProc", "invisible"),
    ("ProtectClock", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectControlGroups", "yes"),
    ("RestrictNamespaces", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("UMask", "0077"),
];

const UNITS: [&str; 2] = [
    "deploy/systemd/carousel.service",
    "deploy/systemd/carousel-agent.service",
];

#[test]
fn both_units_run_as_their_own_user_hardened() {
    for path in UNITS {
        let unit = settings(path);
        let value = |name: &str| unit.get(name).map(|values| values.join(" "));
        for (name, wanted) in HARDENING {
            assert_eq!(value(name).as_deref(), Some(wanted), "{path}: {name}");
        }
        let name = path
            .trim_start_matches("deploy/systemd/")
            .trim_end_matches(".service");
        assert_eq!(value("User").as_deref(), Some(name), "{path}");
        assert_eq!(value("StateDirectory").as_deref(), Some(name), "{path}");
        assert_eq!(value("StateDirectoryMode").as_deref(), Some("0700"), "{path}");
        assert_eq!(
            value("SystemCallFilter").as_deref(),
            Some("@system-service ~@privileged"),
            "{path}"
        );
    }
}

#[test]
fn every_flag_in_the_units_exists() {
    let known = [
        (UNITS[0], "services/cli/src/args"),
        (UNITS[1], "services/agent/src/args"),
    ];
    for (path, arguments) in known {
        let unit = settings(path);
        let mut line = unit["ExecStart"].join(" ");
        line += &kept::text("deploy/systemd/agent.env")
            .lines()
            .filter(|_| path == UNITS[1])
            .collect::<String>();
        let flags: BTreeSet<&str> = line
            .split(|c: char| c.is_whitespace() || c == '"')
            .filter_map(|word| word.strip_prefix("--"))
            .collect();
        assert!(flags.contains("data-dir"), "{path}: {line}");
        let declared = source::files_with("rs")
            .into_iter()
            .filter(|file| file.path.starts_with(arguments));
        let source: String = declared.map(|file| file.text).collect();
        for flag in flags {
            let field = format!("{}:", flag.replace('-', "_"));
            assert!(
                source
                    .lines()
                    .any(|line| line.trim().trim_start_matches("pub ").starts_with(&field)),
                "{path}: --{flag} is not in {arguments}"
            );
        }
    }
}

#[test]
fn the_example_settings_name_only_what_is_read() {
    let known = [
        ("deploy/systemd/serve.toml", "services/carousel/src/serve.rs"),
        ("deploy/systemd/agent.toml", "services/agent/src/config.rs"),
    ];
    for (path, source) in known {
        let file: toml::Table =
            toml::from_str(&kept::text(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(!file.is_empty(), "{path}");
        let source_text = kept::text(source);
        for key in file.keys() {
            assert!(
                source_text.contains(&format!("    pub {key}: ")),
                "{path}: {key} is not in {source}"
            );
        }
    }
}

#[test]
fn the_nats_server_keeps_what_it_acknowledged() {
    let text = kept::text("deploy/nats/nats-server.conf");
    let lines: BTreeSet<&str> = text.lines().map(str::trim).collect();
    for wanted in [
        "sync_interval: always",
        "store_dir: \"/var/lib/nats/jetstream\"",
        "include permissions.conf",
        "listen: \"127.0.0.1:4222\"",
    ] {
        assert!(lines.contains(wanted), "{wanted}");
    }
}

#[test]
fn the_nats_server_itself_accepts_the_configuration_and_the_page_names_every_password() {
    let permissions = kept::text("deploy/nats/permissions.conf");
    let variables: BTreeSet<&str> = permissions
        .split('$')
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !(c.is_ascii_uppercase() || c == '_')).next())
        .filter(|name| name.starts_with("CAROUSEL_NATS_"))
        .collect();
    assert_eq!(variables.len(), 8, "one for each user: {variables:?}");
    let page = kept::text("deploy/nats/README.md");
    for name in &variables {
        let short = name.trim_start_matches("CAROUSEL_NATS");
        assert!(
            page.contains(name) || page.contains(&format!("`…{short}`")),
            "{name}"
        );
    }
    let Some(binary) = NatsServer::binary() else {
        carousel_tests::skip(
            "deployment::the_nats_server_itself_accepts_the_configuration",
            "no nats-server 2.12.3 or newer",
        );
        return;
    };
    let directory = TestDir::new("nats");
    for file in ["nats-server.conf", "permissions.conf"] {
        std::fs::write(
            directory.path().join(file),
            kept::text(&format!("deploy/nats/{file}")),
        )
        .expect("the test's directory is writable");
    }
    let mut command = Command::new(binary);
    command
        .args(["-t", "-c", "nats-server.conf"])
        .current_dir(directory.path());
    for name in variables {
        command.env(name, "password");
    }
    let output = command.output().expect("nats-server runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A unit's settings with all values of each, in order.
fn settings(path: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in kept::text(path).lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, value)) = line.split_once('=') {
            found.entry(name.into()).or_default().push(value.into());
        }
    }
    assert!(!found.is_empty(), "{path} is missing or empty");
    found
}
