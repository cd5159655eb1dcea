//! What a wait shows while it waits, and how it ends.

use api::shape::WatchLine;
use domain::{Phase, Timestamp, command::Mode};

use super::status::laggards;
use crate::text::{Look, count, took};

/// How many laggards a block shows: what is redrawn must fit on the screen.
const SHOWN: usize = 8;

/// The block that is redrawn on a terminal.
pub fn block(line: &WatchLine, since: Timestamp, look: &Look) -> String {
    let elapsed = line.time.since_ms(since) / 1_000;
    let mut out = format!(
        "{} CA  {}  {} {}/{} reached   {:02}:{:02}\n",
        line.authority_type,
        line.phase,
        look.bar(line.reached, line.required, 20),
        line.reached,
        line.required,
        elapsed / 60,
        elapsed % 60
    );
    let shown = &line.lagging[..line.lagging.len().min(SHOWN)];
    for laggard in laggards(shown, u32::try_from(line.lagging.len()).unwrap_or(u32::MAX), look) {
        out.push_str(&laggard);
        out.push('\n');
    }
    if line.lagging.is_empty() && !line.done {
        out.push_str("  the control plane's own services are not there yet\n");
    }
    out
}

/// The line that is printed without a terminal, when the counts change.
pub fn row(line: &WatchLine) -> String {
    let time = line.time.to_string();
    let mut text = format!(
        "{}Z {} {} {}/{} reached",
        &time[11..19],
        line.authority_type,
        line.phase,
        line.reached,
        line.required
    );
    let names: Vec<_> = line.lagging.iter().take(3).map(|l| l.name.as_str()).collect();
    if !names.is_empty() && line.lagging.len() * 4 <= usize::try_from(line.required).unwrap_or(0).max(12) {
        text.push_str(&format!(", waiting for {}", names.join(" ")));
        if line.lagging.len() > names.len() {
            text.push_str(&format!(" (+{})", line.lagging.len() - names.len()));
        }
    }
    if line.held {
        text.push_str(", held");
    }
    text
}

/// The line that is printed at most once a minute while nothing changes.
pub fn stalled(line: &WatchLine) -> String {
    let failing = line
        .lagging
        .iter()
        .find_map(|l| l.failure.as_ref().map(|f| (l, f)));
    let why = match (failing, line.lagging.first()) {
        (Some((laggard, failure)), _) => format!("{} stalled: {}", laggard.name, failure.detail),
        (None, Some(laggard)) => format!("{} stalled: {}", laggard.name, laggard.text),
        (None, None) => "the control plane's own services are not there yet".into(),
    };
    let time = line.time.to_string();
    format!(
        "{}Z {} {} {}/{} reached, {why}",
        &time[11..19],
        line.authority_type,
        line.phase,
        line.reached,
        line.required
    )
}

/// The end of a wait that was successful.
pub fn done(line: &WatchLine, since: Timestamp, look: &Look) -> String {
    let name = line.authority_type;
    let (phase, time) = (line.phase, took(line.time.since_ms(since)));
    let mut out = match line.required {
        0 => format!(
            "{} {name} CA: reached {phase} in {time}; no node uses it.\n",
            look.done()
        ),
        n => format!(
            "{} {name} CA: all {} reached {phase} in {time}.\n",
            look.done(),
            count(n, "node")
        ),
    };
    if line.mode == Some(Mode::Manual)
        && let Some(next) = line.phase.next()
    {
        out.push_str(&format!(
            "Next: carousel auth rotate --manual --type={name} --phase={next} --wait\n"
        ));
        if line.phase != Phase::Rollback {
            out.push_str(&format!(
                "Undo: carousel auth rotate --manual --type={name} --phase=rollback\n"
            ));
        }
    }
    out
}

/// The end of a wait that was not: the time is over, or somebody pressed Ctrl-C.
pub fn not_yet(line: Option<&WatchLine>, target: &str, waited: &str, authority: &str) -> String {
    let who = match line {
        Some(line) if !line.lagging.is_empty() => {
            let names: Vec<_> = line.lagging.iter().take(3).map(|l| l.name.as_str()).collect();
            let more = line.lagging.len() - names.len();
            let more = if more > 0 {
                format!(" (+{more})")
            } else {
                String::new()
            };
            format!(", waiting for {}{more}", names.join(" "))
        }
        _ => String::new(),
    };
    let counts = line.map_or_else(String::new, |l| format!("{}/{} reached ", l.reached, l.required));
    format!(
        "{counts}{target}{waited}{who}. Nothing was undone; the rotation goes on.\nAgain: carousel wait --type={authority}\n"
    )
}

#[cfg(test)]
mod tests {
    use domain::{AuthorityType, Position};

    use super::*;
    use crate::screen::samples::{self, at, look};

    fn line() -> WatchLine {
        WatchLine {
            time: at("02:00:42"),
            authority_type: AuthorityType::Host,
            phase: Phase::UpdateClients,
            reached: 10,
            required: 12,
            lagging: samples::laggards(),
            done: false,
            mode: Some(Mode::Manual),
            held: false,
            outcome: None,
            position: Position(9),
        }
    }

    #[test]
    fn the_block_names_who_is_missing() {
        let text = block(&line(), at("02:00:00"), &look());
        assert!(
            text.starts_with("host CA  update_clients  ████████████████░░░░ 10/12 reached   00:42\n"),
            "{text}"
        );
        assert!(
            text.contains("\n  db-07   does not trust the new CA  online"),
            "{text}"
        );
    }

    #[test]
    fn without_a_terminal_a_line_says_the_counts_and_a_stall_says_why() {
        assert_eq!(
            row(&line()),
            "02:00:42Z host update_clients 10/12 reached, waiting for db-07 edge-3"
        );
        assert_eq!(
            stalled(&line()),
            "02:00:42Z host update_clients 10/12 reached, db-07 stalled: `systemctl reload postgresql` exited 1"
        );
    }

    #[test]
    fn the_end_names_the_next_step_and_the_way_back() {
        let mut line = line();
        (line.done, line.reached) = (true, 12);
        line.lagging.clear();
        let expected = "\
✓ host CA: all 12 nodes reached update_clients in 42 s.
Next: carousel auth rotate --manual --type=host --phase=update_servers --wait
Undo: carousel auth rotate --manual --type=host --phase=rollback
";
        assert_eq!(done(&line, at("02:00:00"), &look()), expected);
    }

    #[test]
    fn giving_up_says_that_nothing_was_undone() {
        let text = not_yet(Some(&line()), "update_clients", " after 10m0s", "host");
        let expected = "\
10/12 reached update_clients after 10m0s, waiting for db-07 edge-3. Nothing was undone; the rotation goes on.
Again: carousel wait --type=host
";
        assert_eq!(text, expected);
    }
}
