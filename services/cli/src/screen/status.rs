//! `carousel status`: one line per authority, and below it what a person has to do, if anything.

use api::{
    problem::Laggard,
    shape::{AuthorityStatusDoc, RotationState, Status},
};
use domain::{Phase, Timestamp};

use crate::text::{Look, Table, count, go_duration_ms, moment, utc};

/// The column in which values begin; a longer label pushes its own value two spaces on.
const VALUE_COLUMN: usize = 9;
/// How many laggards are named before the rest is counted.
const NAMED: usize = 10;

/// The whole screen. `as_of` is said first when the status is not the newest.
pub fn render(status: &Status, wide: bool, as_of: bool, look: &Look) -> String {
    let mut out = String::new();
    if as_of {
        out.push_str(&super::audit::as_of(status, look));
    }
    line(&mut out, "Cluster", &status.cluster.name);
    line(&mut out, "Version", &status.cluster.version);
    for authority in &status.authorities {
        line(
            &mut out,
            authority.authority_type.row().title,
            &authority_line(authority),
        );
    }
    for pin in &status.cluster.ca_pins {
        line(&mut out, "CA pin", &pin.to_string());
    }
    if wide {
        out.push('\n');
        out.push_str(&keys(status, look));
    }
    let needs: Vec<String> = status
        .authorities
        .iter()
        .filter_map(|authority| needs(authority, status, !as_of, look))
        .chain(
            status
                .warnings
                .iter()
                .map(|warning| format!("{} {warning}\n", look.attention())),
        )
        .collect();
    for need in needs {
        out.push('\n');
        out.push_str(&need);
    }
    out
}

fn line(out: &mut String, label: &str, value: &str) {
    let gap = VALUE_COLUMN.saturating_sub(label.chars().count()).max(2);
    out.push_str(&format!("{label}{}{value}\n", " ".repeat(gap)));
}

/// What stands behind `Host CA`: the contract's words.
fn authority_line(authority: &AuthorityStatusDoc) -> String {
    let rotation = &authority.rotation;
    if rotation.state == RotationState::Standby {
        return idle_line(rotation.last_rotated, rotation.last_rolled_back);
    }
    let started = rotation.started.unwrap_or_default();
    let grace = rotation
        .grace_period
        .as_deref()
        .and_then(go_duration_ms)
        .unwrap_or(0);
    let nodes = &authority.nodes;
    // A schedule knows what was late or held; only without one is the grace period all there is to say.
    let scheduled = rotation.schedule.as_ref().and_then(|schedule| schedule.standby);
    let ending = scheduled.unwrap_or_else(|| started.plus_ms(grace));
    let mut text = format!(
        "{} (mode: {}, started: {}, ending: {}), nodes {}/{} reached",
        rotation.phase.status_word(),
        rotation.mode,
        utc(started),
        utc(ending),
        nodes.reached,
        nodes.required,
    );
    if nodes.excluded > 0 {
        text.push_str(&format!(", {} excluded", nodes.excluded));
    }
    if rotation.held {
        text.push_str(&format!(", held: {} lagging", nodes.lagging));
    }
    text
}

/// A rollback never changes what was last rotated: two facts, never one.
pub(crate) fn idle_line(rotated: Option<Timestamp>, rolled_back: Option<Timestamp>) -> String {
    match (rotated, rolled_back) {
        (None, None) => "never rotated".into(),
        (Some(rotated), None) => format!("rotated {}", utc(rotated)),
        (None, Some(back)) => format!("rolled back {}, never rotated", utc(back)),
        (Some(rotated), Some(back)) if back > rotated => {
            format!("rolled back {}, last rotated {}", utc(back), utc(rotated))
        }
        (Some(rotated), Some(_)) => format!("rotated {}", utc(rotated)),
    }
}

/// Who is waited for and the next command; none when nobody is needed.
fn needs(authority: &AuthorityStatusDoc, status: &Status, live: bool, look: &Look) -> Option<String> {
    let title = authority.authority_type.row().title;
    let mut lines = Vec::new();
    if !authority.may_accept_retired.is_empty() {
        let who = named(&authority.may_accept_retired, look);
        lines.push(format!(
            "{} {title}: the retired CA may still be accepted by {who}",
            look.attention()
        ));
    }
    if authority.rotation.state == RotationState::Standby {
        if lines.is_empty() {
            return None;
        }
        let name = authority.authority_type;
        lines.push(format!("Next: carousel get nodes --lagging={name}"));
        return Some(lines.join("\n") + "\n");
    }
    // Who an earlier rotation cut off is waited for by nobody: it does not hide the next step.
    let behind = lines.len();
    lines.extend(broken(authority, look));
    let rotation = &authority.rotation;
    if rotation.held {
        let since = rotation
            .held_since
            .map_or_else(String::new, |t| format!(" since {}", utc(t)));
        let policy = rotation
            .schedule
            .as_ref()
            .map_or("hold", |s| policy_name(s.on_lagging));
        let due = rotation.phase.next().map_or("-", Phase::name);
        lines.push(format!(
            "{} {title} is held{since} (due step: {due}, policy: {policy})",
            look.attention()
        ));
    }
    if !authority.lagging.is_empty() {
        lines.push(format!(
            "{} {title} waits for {}",
            look.attention(),
            count(authority.nodes.lagging.max(1), "node")
        ));
        if live {
            lines.extend(laggards(&authority.lagging, authority.nodes.lagging, look));
        } else {
            // Presence is of now and not in the log: of an earlier moment nothing is known about it.
            lines.extend(
                authority
                    .lagging
                    .iter()
                    .take(NAMED)
                    .map(|l| format!("  {}  {}", l.name, l.text)),
            );
        }
    }
    lines.extend(others(authority, status, look));
    let next = next_line(authority, lines.len() == behind);
    lines.extend(next);
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

/// Connections that are broken already, by what the nodes have reported.
fn broken(authority: &AuthorityStatusDoc, look: &Look) -> Option<String> {
    let now = authority.broken_now.filter(|now| now.broken > 0)?;
    let (title, name) = (authority.authority_type.row().title, authority.authority_type);
    Some(format!(
        "{} {title}: {} of {} connections between nodes are broken now      carousel auth rotate --type={name} --plan",
        look.attention(),
        now.broken,
        now.total
    ))
}

/// Members, consumers and the time condition.
fn others(authority: &AuthorityStatusDoc, status: &Status, look: &Look) -> Vec<String> {
    let title = authority.authority_type.row().title;
    let mut lines = Vec::new();
    let behind = status
        .members
        .iter()
        .filter(|m| m.running && m.reached.get(&authority.authority_type) == Some(&false));
    for member in behind {
        lines.push(format!(
            "{} {title} waits for the control plane's {} {}",
            look.attention(),
            member.service,
            member.id
        ));
    }
    if !authority.consumers_waiting.is_empty() {
        let who = named(&authority.consumers_waiting, look);
        lines.push(format!(
            "{} {title} waits for external consumers: {who}",
            look.attention()
        ));
    }
    if let Some(condition) = &authority.time_condition {
        lines.push(format!(
            "{} {title}: certificates of the retiring CA are held until {} by {}",
            look.attention(),
            utc(condition.until),
            named(&condition.holders, look)
        ));
        lines.push(
            "Next: each uses `carousel` once, or wait until then      carousel explain time_condition".into(),
        );
    }
    lines
}

/// In manual mode a person makes each step, so when everybody is there the next step is what is needed.
fn next_line(authority: &AuthorityStatusDoc, everybody_is_there: bool) -> Option<String> {
    let name = authority.authority_type;
    let rotation = &authority.rotation;
    if !authority.lagging.is_empty() {
        return Some(format!(
            "Next: carousel get nodes --lagging={name}      carousel explain nodes_lagging"
        ));
    }
    let next = rotation.phase.next()?;
    (everybody_is_there && rotation.mode == "manual")
        .then(|| format!("Next: carousel auth rotate --manual --type={name} --phase={next}"))
}

/// One line per laggard: name, what is missing, when it was seen, what its agent says.
pub(crate) fn laggards(lagging: &[Laggard], total: u32, look: &Look) -> Vec<String> {
    let shown = &lagging[..lagging.len().min(NAMED)];
    let name = shown.iter().map(|l| l.name.chars().count()).max().unwrap_or(0);
    let text = shown.iter().map(|l| l.text.chars().count()).max().unwrap_or(0);
    let mut lines: Vec<String> = shown
        .iter()
        .map(|l| {
            format!("  {:name$}  {:text$}  {}", l.name, l.text, seen(l, look))
                .trim_end()
                .to_owned()
        })
        .collect();
    let more = usize::try_from(total).unwrap_or(0).max(lagging.len()) - shown.len();
    if more > 0 {
        lines.push(format!("  ... {more} more"));
    }
    lines
}

/// `seen 38 s ago, reload hook fails (4 times)`, `OFFLINE since 05:58:00 UTC (15 min)`.
pub(crate) fn seen(laggard: &Laggard, look: &Look) -> String {
    let mut text = match (laggard.status.online, laggard.status.last_seen) {
        (true, Some(at)) => format!("online, seen {} ago", look.ago(at)),
        (true, None) => "online".into(),
        (false, Some(at)) => format!("offline since {} UTC ({})", &moment(at)[..16], look.ago(at)),
        (false, None) => "never seen".into(),
    };
    if let Some(failure) = &laggard.failure {
        text.push_str(&format!(
            ", {} fails ({})",
            failure.step,
            count(failure.count, "time")
        ));
    }
    text
}

fn named(names: &[String], look: &Look) -> String {
    let shown = &names[..names.len().min(NAMED)];
    let mut text = shown.join(", ");
    if names.len() > shown.len() {
        text.push_str(&format!(
            " {} {} more",
            look.ellipsis(),
            names.len() - shown.len()
        ));
    }
    text
}

fn policy_name(policy: domain::command::LaggingPolicy) -> &'static str {
    use domain::command::LaggingPolicy::{Hold, Proceed, Rollback};
    match policy {
        Hold => "hold",
        Proceed => "proceed",
        Rollback => "rollback",
    }
}

/// The key table of `--format=wide`.
fn keys(status: &Status, look: &Look) -> String {
    let heads = [
        "AUTHORITY",
        "GENERATION",
        "PROTOCOL",
        "STATUS",
        "ALGORITHM",
        "STORAGE",
        "EXPIRES",
        "PIN",
    ];
    let mut table = Table::new(heads);
    for authority in &status.authorities {
        for key in &authority.keys {
            table.row([
                authority.authority_type.name().into(),
                key.generation.to_string().into(),
                key.protocol.as_str().into(),
                key.status.as_str().into(),
                key.algorithm.as_str().into(),
                key.storage.as_str().into(),
                key.expires
                    .map_or("-".into(), |t| t.to_string()[..10].to_owned())
                    .into(),
                key.pin.to_string().into(),
            ]);
        }
    }
    table.render(look)
}

#[cfg(test)]
mod tests {
    use domain::AuthorityType;

    use super::*;
    use crate::screen::samples::{self, at, look};

    #[test]
    fn a_rotation_in_progress_reads_as_the_contract_shows_it() {
        let mut status = samples::status();
        status.authorities[0].nodes.reached = 11;
        status.authorities[0].nodes.lagging = 1;
        status.authorities[0].lagging.clear();
        let text = render(&status, false, false, &look());
        let expected = "\
Cluster  acme.cluster
Version  0.1.0
Host CA  initialized (mode: manual, started: Sep 20 2026 01:44:36 UTC, ending: Sep 22 2026 01:44:36 UTC), nodes 11/12 reached
User CA  rotated Sep 20 2026 01:42:54 UTC
JWT CA   never rotated
CA pin   sha256:0101010101010101010101010101010101010101010101010101010101010101
";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn laggards_are_named_with_what_is_missing_and_the_next_command() {
        let text = render(&samples::status(), false, false, &look());
        let need = "\
! Host CA waits for 2 nodes
  db-07   does not trust the new CA  online, seen 38 s ago, reload fails (4 times)
  edge-3  does not trust the new CA  offline since 2026-09-20 01:45 UTC (15 min)
Next: carousel get nodes --lagging=host      carousel explain nodes_lagging
";
        assert!(text.ends_with(need), "{text}");
    }

    #[test]
    fn when_everybody_is_there_a_manual_rotation_names_the_next_step() {
        let mut status = samples::status();
        status.authorities[0].lagging.clear();
        status.authorities[0].nodes.lagging = 0;
        let text = render(&status, false, false, &look());
        assert!(
            text.ends_with("Next: carousel auth rotate --manual --type=host --phase=update_clients\n"),
            "{text}"
        );
    }

    #[test]
    fn excluded_nodes_and_broken_connections_are_not_passed_over_in_silence() {
        let mut status = samples::status();
        status.authorities[0].nodes.excluded = 1;
        status.authorities[0].broken_now = Some(api::problem::Connections {
            broken: 4,
            total: 132,
        });
        let text = render(&status, false, false, &look());
        assert!(text.contains("), nodes 10/12 reached, 1 excluded\n"), "{text}");
        assert!(
            text.contains("! Host CA: 4 of 132 connections between nodes are broken now"),
            "{text}"
        );
    }

    #[test]
    fn held_is_said_in_the_line_and_below_it() {
        let mut status = samples::status();
        let rotation = &mut status.authorities[0].rotation;
        (rotation.held, rotation.mode) = (true, "automatic".into());
        rotation.held_since = Some(at("01:50:00"));
        rotation.schedule = Some(api::shape::ScheduleDoc {
            standby: Some(at("23:00:00")),
            ..Default::default()
        });
        let text = render(&status, false, false, &look());
        assert!(text.contains("(mode: automatic, "), "{text}");
        assert!(text.contains(" reached, held: 2 lagging\n"), "{text}");
        assert!(text.contains("ending: Sep 20 2026 23:00:00 UTC"), "{text}");
        let due = "is held since Sep 20 2026 01:50:00 UTC (due step: update_clients, policy: hold)";
        assert!(text.contains(due), "{text}");
    }

    #[test]
    fn a_rollback_and_the_last_rotation_are_two_facts() {
        let (early, late) = (at("01:00:00"), at("02:00:00"));
        assert_eq!(
            idle_line(Some(early), Some(late)),
            "rolled back Sep 20 2026 02:00:00 UTC, last rotated Sep 20 2026 01:00:00 UTC"
        );
        assert_eq!(
            idle_line(Some(late), Some(early)),
            "rotated Sep 20 2026 02:00:00 UTC"
        );
        assert_eq!(
            idle_line(None, Some(early)),
            "rolled back Sep 20 2026 01:00:00 UTC, never rotated"
        );
    }

    #[test]
    fn an_earlier_moment_says_so_first_and_a_retired_authority_names_who_may_accept_it() {
        let mut status = samples::status();
        status.authorities[1].may_accept_retired = vec!["db-07".into()];
        let text = render(&status, true, true, &look());
        assert!(
            text.starts_with("As of position 1042, Sep 20 2026 01:59:00 UTC (1 min ago)\n"),
            "{text}"
        );
        assert!(
            text.contains("! User CA: the retired CA may still be accepted by db-07\n"),
            "{text}"
        );
        assert!(text.contains("host       4           tls"), "{text}");
        assert_eq!(status.authorities[0].authority_type, AuthorityType::Host);
    }
}
