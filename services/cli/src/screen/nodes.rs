//! `carousel get nodes`: laggards first, columns of one authority.

use std::collections::BTreeMap;

use api::shape::{NodeAuthority, NodeDoc, RotationState, Status};
use domain::{AuthorityType, Phase, SpkiPin};

use crate::text::{Cell, Look, Paint, Table, count};

/// Which nodes to show.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only those that have not reached the phase: of this authority, or of any in rotation.
    pub lagging: Option<Option<AuthorityType>>,
    /// Only those that are offline.
    pub offline: bool,
    /// Only those that are excluded.
    pub excluded: bool,
    /// Only those with these labels.
    pub labels: Vec<(String, String)>,
}

impl Filter {
    /// Does the node pass?
    pub fn passes(&self, node: &NodeDoc) -> bool {
        let lags = |wanted: &Option<AuthorityType>| match wanted {
            Some(authority) => is_lagging(node, *authority),
            None => node
                .spec
                .authorities
                .keys()
                .any(|authority| is_lagging(node, *authority)),
        };
        self.lagging.as_ref().is_none_or(lags)
            && (!self.offline || !node.status.online)
            && (!self.excluded || node.spec.excluded.is_some())
            && self
                .labels
                .iter()
                .all(|(key, value)| node.metadata.labels.get(key) == Some(value))
    }
}

/// What the table shows beside the usual.
#[derive(Clone, Copy, Debug)]
pub struct Shows {
    /// More columns.
    pub wide: bool,
    /// Is the node there? Not known of an earlier moment.
    pub presence: bool,
}

/// How one node stands to one authority's phase.
fn is_lagging(node: &NodeDoc, authority: AuthorityType) -> bool {
    !is_excluded(node, authority)
        && node
            .spec
            .authorities
            .get(&authority)
            .is_some_and(|held| held.missing.is_some())
}

fn is_excluded(node: &NodeDoc, authority: AuthorityType) -> bool {
    node.spec
        .excluded
        .as_ref()
        .is_some_and(|from| from.contains_key(&authority))
}

/// The authority whose columns are shown when none was named: the first in rotation, else `host`.
pub fn subject(status: &Status) -> AuthorityType {
    status
        .authorities
        .iter()
        .find(|a| a.rotation.state == RotationState::InProgress)
        .map_or(AuthorityType::Host, |a| a.authority_type)
}

/// The table.
pub fn table(
    nodes: &[NodeDoc],
    authority: AuthorityType,
    status: &Status,
    shows: Shows,
    look: &Look,
) -> String {
    let generations = generations(status, authority);
    let title = authority.row().title.to_uppercase();
    let mut heads = vec![
        "NAME", &title, "CLIENT", "SERVER", "EXPIRES", "OLD SESS", "SEEN", "STATE",
    ];
    if shows.wide {
        heads.extend(["ADDR", "VERSION", "ID", "MISSING"]);
    }
    let mut table = Table::new(heads);
    for node in sorted(nodes, authority) {
        table.row(row(node, authority, &generations, shows, look));
    }
    table.render(look)
}

fn sorted(nodes: &[NodeDoc], authority: AuthorityType) -> Vec<&NodeDoc> {
    let mut sorted: Vec<_> = nodes.iter().collect();
    sorted.sort_by(|a, b| {
        let key = |node: &NodeDoc| (is_excluded(node, authority), !is_lagging(node, authority));
        key(a)
            .cmp(&key(b))
            .then_with(|| a.spec.hostname.cmp(&b.spec.hostname))
    });
    sorted
}

fn row(
    node: &NodeDoc,
    authority: AuthorityType,
    generations: &BTreeMap<SpkiPin, String>,
    shows: Shows,
    look: &Look,
) -> Vec<Cell> {
    let dash = || Cell::from("-");
    let held = node.spec.authorities.get(&authority);
    let issuer = |pin: Option<SpkiPin>| {
        pin.map_or_else(dash, |pin| {
            generations.get(&pin).map_or_else(
                || Cell::painted(Paint::Warn, "unknown"),
                |g| Cell::from(g.as_str()),
            )
        })
    };
    let ends = |h: &NodeAuthority| {
        [h.client_not_after, h.server_not_after, h.ssh_not_after]
            .into_iter()
            .flatten()
            .min()
    };
    let expires = held.and_then(ends);
    let sessions = match held {
        Some(h) if h.sessions_on_retiring => Cell::painted(Paint::Warn, "yes"),
        Some(_) if node.spec.last_reported.is_some() => "no".into(),
        _ => dash(),
    };
    let (paint, state) = state(node, authority, shows.presence);
    let mut cells = vec![
        Cell::from(node.spec.hostname.as_str()),
        held.map_or_else(dash, |h| reached(h.reached).into()),
        held.map_or_else(dash, |h| issuer(h.client_issuer)),
        held.map_or_else(dash, |h| issuer(h.server_issuer)),
        expires.map_or_else(dash, |t| look.until(t).into()),
        sessions,
        node.status.last_seen.map_or_else(dash, |t| look.ago(t).into()),
        Cell::painted(paint, state),
    ];
    if shows.wide {
        let or_dash = |text: &str| if text.is_empty() { dash() } else { text.into() };
        let missing = held.and_then(|h| h.missing.as_deref()).unwrap_or_default();
        cells.extend([
            or_dash(&node.spec.addr),
            or_dash(&node.spec.version),
            node.metadata.name.to_string().into(),
            or_dash(missing),
        ]);
    }
    cells
}

fn reached(phase: Phase) -> &'static str {
    phase.name()
}

fn state(node: &NodeDoc, authority: AuthorityType, presence: bool) -> (Paint, &'static str) {
    match (
        is_excluded(node, authority),
        is_lagging(node, authority),
        node.status.online || !presence,
    ) {
        (true, _, _) => (Paint::Dim, "excluded"),
        (_, _, false) => (Paint::Bad, "offline"),
        (_, true, true) => (Paint::Warn, "lagging"),
        (_, false, true) if !node.spec.authorities.contains_key(&authority) => (Paint::Dim, "-"),
        (_, false, true) if node.spec.unsynced => (Paint::Warn, "unsynced"),
        (_, false, true) => (Paint::Good, "ok"),
    }
}

/// What to call each key: `old` and `new` while two are trusted, else by generation.
fn generations(status: &Status, authority: AuthorityType) -> BTreeMap<SpkiPin, String> {
    let found = status.authorities.iter().find(|a| a.authority_type == authority);
    let keys = found.map(|a| &a.keys[..]).unwrap_or_default();
    let rotating = found.is_some_and(|a| a.rotation.state == RotationState::InProgress);
    keys.iter()
        .filter(|key| key.protocol == "tls")
        .map(|key| {
            let name = match (rotating, key.status.as_str()) {
                (true, "active") => "old".to_owned(),
                (true, "prepared") => "new".to_owned(),
                (_, "retired") => "retired".to_owned(),
                _ => format!("gen {}", key.generation),
            };
            (key.pin, name)
        })
        .collect()
}

/// The line on stderr: counts before any truncation.
pub fn footer(nodes: &[NodeDoc], authority: AuthorityType, status: &Status) -> String {
    let users = nodes
        .iter()
        .filter(|n| n.spec.authorities.contains_key(&authority))
        .count();
    if users == 0 {
        let all = count(nodes.len() as u64, "node");
        return format!("{all}: none uses the {authority} CA");
    }
    let excluded = nodes.iter().filter(|n| is_excluded(n, authority)).count();
    let lagging: Vec<_> = nodes.iter().filter(|n| is_lagging(n, authority)).collect();
    let offline = lagging.iter().filter(|n| !n.status.online).count();
    let phase = status
        .authorities
        .iter()
        .find(|a| a.authority_type == authority)
        .map_or(Phase::Standby, |a| a.rotation.phase);
    let mut text = format!(
        "{}: {} reached {phase}",
        count(users as u64, "node"),
        users - excluded - lagging.len()
    );
    if !lagging.is_empty() {
        text.push_str(&format!(", {} lagging", lagging.len()));
        if offline > 0 {
            text.push_str(&format!(" ({offline} offline)"));
        }
    }
    if excluded > 0 {
        text.push_str(&format!("; {excluded} excluded"));
    }
    text
}

#[cfg(test)]
mod tests {
    use domain::RotationId;

    use super::*;
    use crate::screen::samples::{self, look, node};

    fn nodes() -> Vec<NodeDoc> {
        let fine = node("api-1", 1, Phase::Init, (1, 1));
        let mut lagging = node("db-07", 2, Phase::Standby, (1, 1));
        let held = lagging.spec.authorities.get_mut(&AuthorityType::Host).unwrap();
        (held.missing, held.sessions_on_retiring) = (Some("does not trust the new CA".into()), true);
        let mut away = lagging.clone();
        away.spec.hostname = "edge-3".into();
        (away.status.online, away.status.last_seen) = (false, Some(samples::at("01:45:00")));
        let mut out = node("old-9", 4, Phase::Standby, (9, 1));
        let rotation = RotationId(uuid::Uuid::nil());
        out.spec.excluded = Some(BTreeMap::from([(AuthorityType::Host, rotation)]));
        vec![fine, out, away, lagging]
    }

    #[test]
    fn of_an_authority_that_no_node_uses_nothing_is_called_well() {
        let (status, nodes) = (samples::status(), nodes());
        let shows = Shows {
            wide: false,
            presence: true,
        };
        let text = table(&nodes[..1], AuthorityType::Db, &status, shows, &look());
        assert!(text.trim_end().ends_with(" -") && !text.contains("ok"), "{text}");
        assert_eq!(
            footer(&nodes, AuthorityType::Db, &status),
            "4 nodes: none uses the db CA"
        );
    }

    #[test]
    fn laggards_come_first_and_issuers_are_old_and_new() {
        let shows = Shows {
            wide: false,
            presence: true,
        };
        let text = table(&nodes(), AuthorityType::Host, &samples::status(), shows, &look());
        let expected = "\
NAME    HOST CA  CLIENT   SERVER  EXPIRES  OLD SESS  SEEN    STATE
db-07   standby  old      old     11 h     yes       4 s     lagging
edge-3  standby  old      old     11 h     yes       15 min  offline
api-1   init     old      old     11 h     no        4 s     ok
old-9   standby  unknown  old     11 h     no        4 s     excluded
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_footer_counts_everybody() {
        let text = footer(&nodes(), AuthorityType::Host, &samples::status());
        assert_eq!(text, "4 nodes: 1 reached init, 2 lagging (1 offline); 1 excluded");
    }

    #[test]
    fn filters_combine() {
        let names = |filter: Filter| -> Vec<String> {
            nodes()
                .iter()
                .filter(|n| filter.passes(n))
                .map(|n| n.spec.hostname.clone())
                .collect()
        };
        let lagging = Some(Some(AuthorityType::Host));
        assert_eq!(
            names(Filter {
                lagging,
                ..Filter::default()
            }),
            ["edge-3", "db-07"]
        );
        assert_eq!(
            names(Filter {
                lagging: Some(None),
                offline: true,
                ..Filter::default()
            }),
            ["edge-3"]
        );
        assert_eq!(
            names(Filter {
                excluded: true,
                ..Filter::default()
            }),
            ["old-9"]
        );
        let labels = vec![("a".into(), "b".into())];
        assert!(
            names(Filter {
                labels,
                ..Filter::default()
            })
            .is_empty()
        );
    }
}
