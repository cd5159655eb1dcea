//! How values are read, and what is said when they cannot be.

use std::time::Duration;

use domain::{
    AuthorityType, Phase,
    access::{NamePattern, RoleName},
};

pub(super) fn parse_type(text: &str) -> Result<AuthorityType, String> {
    text.parse()
        .map_err(|_| format!("not an authority type; valid: {}", AuthorityType::names()))
}

pub(super) fn parse_phase(text: &str) -> Result<Phase, String> {
    text.parse()
        .map_err(|_| "not a phase; valid: init, update_clients, update_servers, standby, rollback".into())
}

/// What may stand before the key in a line of known_hosts (sshd(8)): patterns, with commas between them.
pub(super) fn parse_hosts(text: &str) -> Result<String, String> {
    let is_pattern = |b: u8| b.is_ascii_graphic() && b != b'#';
    if !text.is_empty() && text.len() <= 1_024 && text.bytes().all(is_pattern) {
        Ok(text.into())
    } else {
        Err("not a pattern of host names, as in known_hosts: `*.example.com,10.0.0.*`".into())
    }
}

/// `NAME=VALUE`, or `NAME` alone.
pub(super) fn parse_option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err("not an option such as force-command=/usr/bin/backup".into());
    }
    Ok((name.into(), value.into()))
}

pub(super) fn parse_name(text: &str) -> Result<NamePattern, String> {
    text.parse().map_err(|e: domain::InvalidId| e.to_string())
}

pub(super) fn parse_role(text: &str) -> Result<RoleName, String> {
    text.parse().map_err(|e: domain::InvalidId| e.to_string())
}

/// `48h`, `1h 30m`, `10s`; also Go's `48h0m0s`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; give a duration such as 48h, 90m or 30s"))
}
