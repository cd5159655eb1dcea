//! The demo's screen: a picture in, lines out. Nothing here knows how the picture came to be.

use std::time::Duration;

use ratatui::{
    style::{Color, Style},
    text::{Line, Span},
};

use super::traffic::{Counts, Tally};

/// How many lines the live screen has.
pub(super) const HEIGHT: u16 = 17;
/// With more nodes the last line names only those that are waited for.
const NAMED_NODES: usize = 24;

/// Where a phase stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    Done,
    Current,
    ToCome,
}

/// One row of the phase table.
#[derive(Clone, Debug)]
pub(super) struct PhaseRow {
    pub name: &'static str,
    pub progress: Progress,
    pub reached: u32,
    pub required: u32,
    pub took: Option<Duration>,
    pub now_true: &'static str,
}

/// Everything that the screen shows.
#[derive(Clone)]
pub(super) struct Picture {
    pub title: String,
    pub elapsed: Duration,
    pub phases: Vec<PhaseRow>,
    pub counts: Counts,
    pub events: u64,
    pub last_event: String,
    /// Name, and whether the node has reached the current phase.
    pub nodes: Vec<(String, bool)>,
    /// Symbols beyond ASCII may be used.
    pub unicode: bool,
}

const GREEN: Style = Style::new().fg(Color::Green);
const YELLOW: Style = Style::new().fg(Color::Yellow);
const RED: Style = Style::new().fg(Color::Red);
const DIM: Style = Style::new().fg(Color::DarkGray);

/// The live screen, at most [`HEIGHT`] lines.
pub(super) fn live(p: &Picture) -> Vec<Line<'static>> {
    let mut lines = vec![title(p), Line::default(), header()];
    lines.extend(p.phases.iter().map(|row| phase(p, row)));
    lines.push(Line::default());
    lines.push(handshakes(p));
    lines.extend(credentials(p));
    lines.push(load(p));
    lines.push(on_the_wire(p));
    lines.push(log(p));
    lines.push(Line::default());
    lines.extend(nodes(p));
    lines
}

fn title(p: &Picture) -> Line<'static> {
    let s = p.elapsed.as_secs_f64();
    let clock = format!("{:02}:{:04.1}", (s / 60.0) as u64, s % 60.0);
    let pad = 80usize.saturating_sub(p.title.chars().count() + clock.len());
    Line::from(format!("{}{}{clock}", p.title, " ".repeat(pad)))
}

fn header() -> Line<'static> {
    Line::styled("  phase           nodes reached            took   now true", DIM)
}

fn phase(p: &Picture, row: &PhaseRow) -> Line<'static> {
    let (symbol, ascii, style) = match row.progress {
        Progress::Done => ("✓", "ok", GREEN),
        Progress::Current => ("▸", ">", YELLOW),
        Progress::ToCome => ("·", "-", DIM),
    };
    let symbol = if p.unicode { symbol } else { ascii };
    let (bar, count) = match row.progress {
        Progress::ToCome => (" ".repeat(12), "     ".to_owned()),
        _ => (
            bar(row.reached, row.required, 12, p.unicode),
            format!("{:>2}/{}", row.reached, row.required),
        ),
    };
    let took = row
        .took
        .map_or(String::new(), |t| format!("{:.1} s", t.as_secs_f64()));
    Line::from(vec![
        Span::styled(format!("  {symbol:<2}"), style),
        Span::raw(format!("{:<16}", row.name)),
        Span::styled(bar, style),
        Span::raw(format!(" {count:<7}{took:>7}   ")),
        Span::styled(
            row.now_true,
            if row.progress == Progress::ToCome {
                DIM
            } else {
                Style::new()
            },
        ),
    ])
}

fn handshakes(p: &Picture) -> Line<'static> {
    let c = &p.counts;
    Line::from(vec![
        Span::raw(format!(
            "  handshakes  {} total    {}/s    ",
            grouped(c.handshakes.total),
            grouped(u64::from(c.rate()))
        )),
        failed(c.handshakes),
        Span::raw(format!(
            "    p50 {:.1} ms  p99 {:.1} ms",
            c.percentile_ms(50),
            c.percentile_ms(99)
        )),
    ])
}

/// Where credentials are signed by hand as well.
fn credentials(p: &Picture) -> Option<Line<'static>> {
    let tally = p.counts.credentials;
    let total = Span::raw(format!("  credentials {} total    ", grouped(tally.total)));
    (tally.total > 0).then(|| Line::from(vec![total, failed(tally)]))
}

fn failed(tally: Tally) -> Span<'static> {
    let style = if tally.failed == 0 { GREEN } else { RED };
    Span::styled(format!("{} failed", grouped(tally.failed)), style)
}

fn load(p: &Picture) -> Line<'static> {
    let seconds: Vec<u32> = p.counts.load.iter().copied().collect();
    let highest = seconds.iter().copied().max().unwrap_or(0).max(1);
    let bars: String = seconds.iter().map(|n| spark(*n, highest, p.unicode)).collect();
    Line::from(format!("  load        {bars:<20}  last 20 s"))
}

fn spark(n: u32, highest: u32, unicode: bool) -> char {
    let steps: &[char] = if unicode {
        &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        &['.', ':', '|', '#']
    };
    let last = steps.len() - 1;
    steps[((n as usize * last) / highest as usize).min(last)]
}

/// Counted from the handshakes themselves: the issuers that both sides presented.
fn on_the_wire(p: &Picture) -> Line<'static> {
    let (old, new) = (p.counts.old_ca, p.counts.new_ca);
    let all = (old + new).max(1);
    let old_percent = if old + new == 0 { 100 } else { old * 100 / all };
    let new_percent = 100 - old_percent;
    let part = |percent: u64| bar(u32::try_from(percent).unwrap_or(0), 100, 20, p.unicode);
    Line::from(vec![
        Span::raw("  on the wire old CA "),
        Span::styled(part(old_percent), YELLOW),
        Span::raw(format!(" {old_percent:>3} %    new CA ")),
        Span::styled(part(new_percent), GREEN),
        Span::raw(format!(" {new_percent:>3} %")),
    ])
}

fn log(p: &Picture) -> Line<'static> {
    let text = format!(
        "  log         {} events    last: {}",
        grouped(p.events),
        p.last_event
    );
    Line::from(text.chars().take(100).collect::<String>())
}

fn nodes(p: &Picture) -> Vec<Line<'static>> {
    if p.nodes.len() > NAMED_NODES {
        let waiting: Vec<&str> = p
            .nodes
            .iter()
            .filter(|(_, ok)| !ok)
            .map(|(name, _)| name.as_str())
            .collect();
        let text = match waiting.len() {
            0 => "  waiting for nobody".to_owned(),
            n if n <= 4 => format!("  waiting for {}", waiting.join(" ")),
            n => format!("  waiting for {} (+{})", waiting[..4].join(" "), n - 4),
        };
        return vec![Line::from(text)];
    }
    p.nodes
        .chunks(12)
        .map(|chunk| {
            let mut spans = vec![Span::raw(" ")];
            for (name, ok) in chunk {
                let (mark, style) = match (ok, p.unicode) {
                    (true, true) => ("✓", GREEN),
                    (true, false) => ("ok", GREEN),
                    (false, true) => ("…", DIM),
                    (false, false) => ("..", DIM),
                };
                spans.push(Span::raw(format!(" {name} ")));
                spans.push(Span::styled(mark, style));
            }
            Line::from(spans)
        })
        .collect()
}

/// A bar of `width` cells.
fn bar(part: u32, whole: u32, width: u32, unicode: bool) -> String {
    let full = (part * width).checked_div(whole).unwrap_or(0).min(width) as usize;
    let (on, off) = if unicode { ("█", "░") } else { ("#", ".") };
    format!("{}{}", on.repeat(full), off.repeat(width as usize - full))
}

/// `61,204`.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(lines: &[Line<'_>]) -> String {
        lines
            .iter()
            .map(|l| l.spans.iter().map(|s| s.content.as_ref()).collect::<String>())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn picture(nodes: usize) -> Picture {
        let row = |name, progress, reached| PhaseRow {
            name,
            progress,
            reached,
            required: 12,
            took: (progress != Progress::ToCome).then(|| Duration::from_millis(1_100)),
            now_true: "every node trusts old and new CA",
        };
        Picture {
            title: "Carousel demo   12 nodes, host CA, real TLS 1.3 on loopback".into(),
            elapsed: Duration::from_millis(7_400),
            phases: vec![
                row("init", Progress::Done, 12),
                row("update_clients", Progress::Current, 8),
                row("update_servers", Progress::ToCome, 0),
                row("standby", Progress::ToCome, 0),
            ],
            counts: Counts {
                handshakes: Tally {
                    total: 41_873,
                    failed: 0,
                },
                credentials: Tally {
                    total: 230,
                    failed: 1,
                },
                old_ca: 1,
                new_ca: 2,
                ..Counts::default()
            },
            events: 1_204,
            last_event: "node.reported n08".into(),
            nodes: (1..=nodes).map(|i| (format!("n{i:02}"), i <= 8)).collect(),
            unicode: true,
        }
    }

    #[test]
    fn the_screen_fits_and_says_who_is_waited_for() {
        let lines = live(&picture(12));
        assert!(lines.len() <= usize::from(HEIGHT));
        let shown = text(&lines);
        assert!(
            shown.contains("✓ init            ████████████ 12/12    1.1 s   every node"),
            "{shown}"
        );
        assert!(shown.contains("▸ update_clients  ████████░░░░  8/12"), "{shown}");
        assert!(shown.contains("handshakes  41,873 total"), "{shown}");
        assert!(shown.contains("credentials 230 total    1 failed"), "{shown}");
        assert!(shown.contains("n08 ✓ n09 …"), "{shown}");
        assert!(text(&live(&picture(60))).contains("waiting for n09 n10 n11 n12 (+48)"));
    }

    #[test]
    fn without_unicode_nothing_beyond_ascii_is_drawn() {
        let plain = Picture {
            unicode: false,
            ..picture(12)
        };
        assert!(text(&live(&plain)).is_ascii());
    }
}
