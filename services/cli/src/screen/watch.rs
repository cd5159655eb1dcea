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
        "{} CA  {}  {} {}   {:02}:{:02}\n",
        line.authority_type,
        line.phase,
        look.bar(line.reached, line.required, 20),
        reached(line),
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
    fits(&out, look.width)
}

/// Each line cut to the terminal: a line that wraps would be drawn over in part only.
fn fits(block: &str, width: Option<usize>) -> String {
    let Some(width) = width else { return block.into() };
    block
        .lines()
        .map(|line| line.chars().take(width).collect::<String>() + "\n")
        .collect()
}

/// The line that is printed without a terminal, when the counts change.
pub fn row(line: &WatchLine) -> String {
    let time = line.time.to_string();
    let mut text = format!(
        "{}Z {} {} {}",
        &time[11..19],
        line.authority_type,
        line.phase,
        reached(line)
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
        "{}Z {} {} {}, {why}",
        &time[11..19],
        line.authority_type,
        line.phase,
        reached(line)
    )
}

/// `10/12 reached, 1 excluded`: whom nobody waits for is not hidden by a full count.
fn reached(line: &WatchLine) -> String {
    let excluded = match line.excluded {
        0 => String::new(),
        n => format!(", {n} excluded"),
    };
    format!("{}/{} reached{excluded}", line.reached, line.required)
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
            "{} {name} CA: all {} reached {phase} in {time}{}.\n",
            look.done(),
            count(n, "node"),
            match line.excluded {
                0 => String::new(),
                n => format!("; {} excluded", count(n, "node")),
            }
        ),
    };
    if line.mode == Some(Mode::Manual)
        && let Some(next) = line.phase.next()
    {
        match line.next_refused {
            None => out.push_str(&format!(
                "Next: carousel auth rotate --manual --type={name} --phase={next} --wait\n"
            )),
            // Everybody is there, and the gate waits for something that no node can bring.
            Some(code) => out.push_str(&format!(
                "{} the step into {next} would be refused now: {code}\nNext: carousel auth rotate --type={name} --plan\n",
                look.attention()
            )),
        }
        if line.phase != Phase::Rollback {
            out.push_str(&format!(
                "Undo: carousel auth rotate --manual --type={name} --phase=rollback\n"
            ));
        }
    }
    out
}

/// The end of a wait for a phase that lies behind: where the rotation is now, and no step to make, for nobody is known to
/// have reached that phase.
pub fn passed(line: &WatchLine, target: &str, look: &Look) -> String {
    format!(
        "{} {} CA: {target} lies behind, the rotation has gone on to {} ({}/{} reached).\n",
        look.done(),
        line.authority_type,
        line.phase,
        line.reached,
        line.required
    )
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
    // The counts are of the phase that the rotation is in, which need not be the one that is waited for.
    let (is_at, other, again) = match line {
        None => (format!("nothing heard of {target}"), String::new(), String::new()),
        Some(line) => {
            let is_at = format!("{}/{} reached {}", line.reached, line.required, line.phase);
            if line.phase.name() == target {
                (is_at, String::new(), String::new())
            } else {
                let phase: Option<Phase> = target.parse().ok();
                let again = phase.map_or_else(String::new, |phase| format!(" --phase={phase}"));
                (is_at, format!(" (waiting for {target})"), again)
            }
        }
    };
    format!(
        "{is_at}{waited}{other}{who}. Nothing was undone; the rotation goes on.\nAgain: carousel wait --type={authority}{again}\n"
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
            excluded: 0,
            lagging: samples::laggards(),
            done: false,
            mode: Some(Mode::Manual),
            held: false,
            next_refused: None,
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
    fn no_line_of_the_block_is_longer_than_the_terminal_is_wide() {
        let narrow = Look {
            width: Some(60),
            ..look()
        };
        let text = block(&line(), at("02:00:00"), &narrow);
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert_eq!(
            text.lines().count(),
            block(&line(), at("02:00:00"), &look()).lines().count()
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
    fn who_is_excluded_is_counted_beside_who_is_there() {
        let line = WatchLine {
            excluded: 1,
            ..line()
        };
        assert!(row(&line).starts_with("02:00:42Z host update_clients 10/12 reached, 1 excluded, waiting"));
        assert!(block(&line, at("02:00:00"), &look()).contains(" 10/12 reached, 1 excluded   00:42\n"));
        let text = done(&line, at("02:00:00"), &look());
        assert!(
            text.starts_with("✓ host CA: all 12 nodes reached update_clients in 42 s; 1 node excluded.\n"),
            "{text}"
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
        line.next_refused = Some(domain::Code::TimeCondition);
        let text = done(&line, at("02:00:00"), &look());
        assert!(
            text.contains("! the step into update_servers would be refused now: time_condition\n"),
            "{text}"
        );
        assert!(
            text.contains("Next: carousel auth rotate --type=host --plan\n"),
            "{text}"
        );
        assert!(!text.contains("--phase=update_servers"), "{text}");
    }

    #[test]
    fn of_a_phase_that_lies_behind_only_the_way_on_is_said() {
        let text = passed(&line(), "init", &look());
        let expected =
            "✓ host CA: init lies behind, the rotation has gone on to update_clients (10/12 reached).\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn counts_stand_beside_the_phase_that_they_are_of() {
        let text = not_yet(Some(&line()), "update_servers", " after 10s", "host");
        let expected = "\
10/12 reached update_clients after 10s (waiting for update_servers), waiting for db-07 edge-3. Nothing was undone; the rotation goes on.
Again: carousel wait --type=host --phase=update_servers
";
        assert_eq!(text, expected);
        let text = not_yet(Some(&line()), "the end of the rotation", "", "host");
        assert!(
            text.starts_with("10/12 reached update_clients (waiting for the end of the rotation), waiting"),
            "{text}"
        );
        assert!(text.ends_with("carousel wait --type=host\n"), "{text}");
        let text = not_yet(None, "init", " after 10s", "host");
        assert!(text.starts_with("nothing heard of init after 10s. "), "{text}");
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
