//! `GET /v1/check`: preflight and health in one, from the control plane's point of view.
//!
//! Each finding has a stable name that `explain` knows, and the next command where a person is needed.

use api::shape::{CheckFinding, CheckLevel, CheckReport};
use domain::{
    AuthorityType, ClusterState, Phase, Timestamp,
    command::Settings,
    gate,
    state::TypeState,
    time::{DAY_MS, MINUTE_MS, SECOND_MS},
};

use super::Asked;
use crate::{
    app::App,
    reply::{self, Reply},
};

const CONTROL_PLANE: &str = "control plane";
const AUTHORITIES: &str = "certificate authorities";
const NODES: &str = "nodes";
/// An authority that has been in use for longer should be rotated.
const MAX_CA_AGE_MS: u64 = 365 * DAY_MS;
/// A CA certificate that ends within this time is an error, within three times of it a warning.
const CA_ENDS_SOON_MS: u64 = 30 * DAY_MS;

pub(super) async fn check(asked: &Asked) -> Reply {
    let app = &asked.app;
    app.catch_up().await?;
    let mut findings = log(app).await;
    let now = app.now();
    let presences = app.presences_everywhere().await;
    findings.extend(app.fold.read(|s| {
        let now = s.now(now);
        let mut findings = control_plane(s, now);
        findings.extend(s.types.iter().flat_map(|(t, of)| authority(*t, of, now)));
        findings.extend(nodes(&presences, s, now));
        findings.extend(excluded(s));
        findings
    }));
    let count =
        |level| u32::try_from(findings.iter().filter(|f| f.level == level).count()).unwrap_or(u32::MAX);
    let (errors, warnings) = (count(CheckLevel::Error), count(CheckLevel::Warn));
    reply::json(&CheckReport {
        position: app.fold.position(),
        checks: findings,
        errors,
        warnings,
    })
}

fn finding(section: &str, name: &str, level: CheckLevel, text: impl Into<String>) -> CheckFinding {
    CheckFinding {
        section: section.into(),
        name: name.into(),
        level,
        text: text.into(),
        next: None,
    }
}

fn next(mut finding: CheckFinding, command: impl Into<String>) -> CheckFinding {
    finding.next = Some(command.into());
    finding
}

/// The log: written by the last command and by the heartbeat, read to its end just now.
async fn log(app: &App) -> Vec<CheckFinding> {
    let log = app.fold.log();
    let taken = app.executor.trouble().map_or(Ok(()), |(at, why)| {
        let ago = app.now().since_ms(at) / SECOND_MS;
        Err(format!("nothing could be written to the log {ago} s ago: {why}"))
    });
    let mut findings = match app.serving.check().and(taken) {
        Ok(()) => {
            let text = format!(
                "log {} writable, state at position {}",
                log.name(),
                app.fold.position()
            );
            vec![finding(CONTROL_PLANE, "log", CheckLevel::Ok, text)]
        }
        Err(why) => vec![finding(CONTROL_PLANE, "log", CheckLevel::Error, why)],
    };
    findings.extend(
        log.warnings()
            .into_iter()
            .map(|w| finding(CONTROL_PLANE, "log_durability", CheckLevel::Warn, w)),
    );
    if let Some(text) = suspect_clock(app) {
        let found = finding(CONTROL_PLANE, "clock", CheckLevel::Error, text);
        findings.push(next(found, ACCEPT_CLOCK));
    }
    findings
}

/// What a person types who has looked at the clock.
pub(super) const ACCEPT_CLOCK: &str = "carousel clock accept --reason \"...\"";

/// Why the clock is not believed, if it is not.
pub(super) fn suspect_clock(app: &App) -> Option<String> {
    // A person may have accepted it, however far behind it is.
    if !app.executor.clock_suspect() {
        return None;
    }
    let behind = app.fold.read(|s| s.time.since_ms(app.now()));
    let why = if behind > 60 * SECOND_MS {
        format!("is {} s behind the log", behind / SECOND_MS)
    } else {
        "has jumped".into()
    };
    Some(format!("the clock {why}: no automatic step is taken"))
}

fn control_plane(state: &ClusterState, now: Timestamp) -> Vec<CheckFinding> {
    let mut findings = vec![];
    let lost: Vec<_> = state.members.values().filter(|m| !m.running).collect();
    let running = state.members.len() - lost.len();
    findings.push(finding(
        CONTROL_PLANE,
        "members",
        CheckLevel::Ok,
        format!(
            "{running} {} running",
            if running == 1 { "member" } else { "members" }
        ),
    ));
    for (t, of) in &state.types {
        for member in gate::lagging_members(state, *t, of) {
            let text = format!(
                "{} {} has not reached {} of {t}: it {}",
                member.service,
                member.member,
                of.phase,
                member.missing.in_words(of.phase)
            );
            findings.push(finding(CONTROL_PLANE, "members_lagging", CheckLevel::Error, text));
        }
    }
    let (settings, usual) = (state.settings(), Settings::default());
    if settings.jwks_max_age_ms < usual.jwks_max_age_ms || settings.jwt_ttl_ms < usual.jwt_ttl_ms {
        let text = "durations are shorter than a production cluster's (demo or test settings)";
        findings.push(finding(CONTROL_PLANE, "settings", CheckLevel::Warn, text));
    }
    let waits = state
        .pending
        .values()
        .filter(|p| now.since_ms(p.at) > MINUTE_MS)
        .count();
    if waits > 0 {
        let text =
            format!("{waits} authorised certificates have waited for the signer for more than a minute");
        findings.push(finding(
            CONTROL_PLANE,
            "signer_unavailable",
            CheckLevel::Error,
            text,
        ));
    }
    findings
}

fn authority(authority_type: AuthorityType, of: &TypeState, now: Timestamp) -> Vec<CheckFinding> {
    let mut findings = vec![];
    // One line for a type: its keys are made together.
    let Some(key) = of.active.values().next() else {
        return findings;
    };
    let (title, left) = (authority_type.name(), key.not_after.since_ms(now));
    let text = format!(
        "{title}: generation {}, expires in {}, key sealed",
        key.generation,
        days(left)
    );
    let level = match left {
        left if left < CA_ENDS_SOON_MS => CheckLevel::Error,
        left if left < 3 * CA_ENDS_SOON_MS => CheckLevel::Warn,
        _ => CheckLevel::Ok,
    };
    let rotate = format!("carousel auth rotate --type={title} --plan");
    let found = finding(AUTHORITIES, "ca_expiry", level, text);
    findings.push(if level == CheckLevel::Ok {
        found
    } else {
        next(found, rotate.clone())
    });
    // Ten years of life from its making: what is left tells its age.
    let age = (10 * MAX_CA_AGE_MS).saturating_sub(left);
    if age > MAX_CA_AGE_MS + 3 * DAY_MS && of.rotation.is_none() {
        let text = format!(
            "{title}: in use for {} (limit {})",
            days(age),
            days(MAX_CA_AGE_MS)
        );
        findings.push(next(
            finding(AUTHORITIES, "ca_age", CheckLevel::Warn, text),
            rotate,
        ));
    }
    if of.rotation.as_ref().is_some_and(|r| r.held.is_some()) {
        let text = format!("{title}: the rotation is held: a due step waits for the gate");
        let found = finding(AUTHORITIES, "rotation_held", CheckLevel::Warn, text);
        findings.push(next(found, format!("carousel get nodes --lagging={title}")));
    }
    if of.ended.as_ref().is_some_and(|e| !e.settled) && of.rotation.is_none() {
        let text =
            format!("{title}: the last rotation has not settled: somebody may still accept the retired CA");
        let found = finding(AUTHORITIES, "not_settled", CheckLevel::Warn, text);
        findings.push(next(found, format!("carousel get nodes --lagging={title}")));
    }
    if of.bundle.as_ref().is_none_or(|b| b.expires <= now) {
        let text = format!("{title}: there is no valid signed trust bundle; the signer makes it");
        findings.push(finding(AUTHORITIES, "bundle_expired", CheckLevel::Error, text));
    }
    let undestroyed = of
        .retired
        .iter()
        .filter(|k| !k.destroyed && now.since_ms(k.at) > 5 * MINUTE_MS)
        .count();
    if undestroyed > 0 {
        let text = format!("{title}: {undestroyed} retired keys are not destroyed yet");
        findings.push(finding(AUTHORITIES, "key_not_destroyed", CheckLevel::Warn, text));
    }
    findings
}

fn nodes(presences: &crate::Presences, state: &ClusterState, now: Timestamp) -> Vec<CheckFinding> {
    let mut findings = vec![];
    for (t, of) in &state.types {
        let lags = |n: &&domain::state::Node| {
            n.uses(*t).is_some() && !gate::is_excluded(n, *t, of) && gate::missing(state, *t, n).is_err()
        };
        let (all, lagging) = (
            state.nodes.values().filter(|n| n.uses(*t).is_some()).count(),
            state.nodes.values().filter(lags).count(),
        );
        if lagging > 0 {
            let level = if of.phase == Phase::Standby {
                CheckLevel::Warn
            } else {
                CheckLevel::Error
            };
            let text = format!("{lagging} of {all} have not reached {} of {t}", of.phase);
            let found = finding(NODES, "nodes_lagging", level, text);
            findings.push(next(found, format!("carousel get nodes --lagging={t}")));
        }
    }
    let presence = |n: &domain::state::Node| presences.of(n.id, n.report.as_ref().map(|r| r.at), now);
    let offline = state.nodes.values().filter(|n| !presence(n).online).count();
    let level = if offline == 0 {
        CheckLevel::Ok
    } else {
        CheckLevel::Warn
    };
    let text = format!(
        "{} of {} are online",
        state.nodes.len() - offline,
        state.nodes.len()
    );
    findings.push(finding(NODES, "nodes_offline", level, text));
    for node in state.nodes.values() {
        let name = &node.hostname;
        if node.clone_suspect.is_some() {
            let text = format!("{name}: two running instances share its identity");
            findings.push(finding(NODES, "clone", CheckLevel::Error, text));
        }
        let Some(report) = node.report.as_ref().map(|r| &r.report) else {
            continue;
        };
        if let Some(failure) = &report.failure {
            let text = format!(
                "{name}: {} failed {} times: {}",
                failure.step, failure.count, failure.detail
            );
            let found = finding(NODES, "node_failure", CheckLevel::Error, text);
            findings.push(next(found, format!("carousel probe {name}")));
        }
        let ends = report
            .authorities
            .values()
            .flat_map(|f| [f.client_not_after, f.server_not_after, f.ssh_not_after])
            .flatten()
            .min();
        let soon = state.settings().node_ttl_ms / 4;
        if let Some(ends) = ends.filter(|ends| ends.since_ms(now) < soon) {
            let text =
                format!("{name}: a certificate expires at {ends} and was not renewed at half its life");
            findings.push(finding(NODES, "certificate_expiry", CheckLevel::Warn, text));
        }
        if report.unsynced {
            let text = format!("{name}: serves what it has on disk, no gateway answered after its start");
            findings.push(finding(NODES, "unsynced", CheckLevel::Warn, text));
        }
    }
    findings
}

/// Whom a rotation in progress leaves behind: cut off from its end on, whatever the counts say.
fn excluded(state: &ClusterState) -> Vec<CheckFinding> {
    let of_type = |(t, of): (&AuthorityType, &TypeState)| {
        let is_excluded = |n: &&domain::state::Node| n.uses(*t).is_some() && gate::is_excluded(n, *t, of);
        let mut names: Vec<_> = state.nodes.values().filter(is_excluded).collect();
        names.sort_by(|a, b| a.hostname.cmp(&b.hostname));
        let first = names.first()?;
        let mut text = format!("excluded from the rotation of {t}: {}", first.hostname);
        if names.len() > 1 {
            text.push_str(&format!(" and {} more", names.len() - 1));
        }
        let found = finding(NODES, "nodes_excluded", CheckLevel::Warn, text);
        Some(next(found, "carousel get nodes --excluded"))
    };
    state.types.iter().filter_map(of_type).collect()
}

/// `9.9 y`, `402 d`.
fn days(ms: u64) -> String {
    let days = ms / DAY_MS;
    if days > 730 {
        format!("{}.{} y", days / 365, days % 365 * 10 / 365)
    } else {
        format!("{days} d")
    }
}
