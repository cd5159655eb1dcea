//! `carousel check`: findings by section, the next command beside each that needs a person.

use api::shape::{CheckFinding, CheckLevel, CheckReport};

use crate::text::{Look, count};

/// The column in which the next command stands.
const NEXT_COLUMN: usize = 58;

/// The screen.
pub fn render(report: &CheckReport, look: &Look) -> String {
    let mut out = String::new();
    let mut section = "";
    for finding in &report.checks {
        if finding.section != section {
            section = &finding.section;
            out.push_str(&format!("{section}\n"));
        }
        out.push_str(&line(finding, look));
    }
    out.push_str(&verdict(report));
    out
}

fn line(finding: &CheckFinding, look: &Look) -> String {
    let (symbol, width) = match finding.level {
        CheckLevel::Ok => (look.done(), if look.unicode { 1 } else { 2 }),
        CheckLevel::Warn => (look.attention(), 1),
        CheckLevel::Error => (look.failed(), 1),
    };
    let explain = format!("carousel explain {}", finding.name);
    let next = match (&finding.next, finding.level) {
        (Some(next), _) => next.as_str(),
        (None, CheckLevel::Ok) => return format!("{symbol} {}\n", finding.text),
        (None, _) => &explain,
    };
    let used = finding.text.chars().count() + width + 1;
    let gap = NEXT_COLUMN.saturating_sub(used).max(2);
    format!("{symbol} {}{}{next}\n", finding.text, " ".repeat(gap))
}

fn verdict(report: &CheckReport) -> String {
    match (report.errors, report.warnings) {
        (0, 0) => "Check: all is well.\n".into(),
        (0, warnings) => format!("Check: {}.\n", count(warnings, "warning")),
        (errors, 0) => format!("Check: {}.\n", count(errors, "error")),
        (errors, warnings) => format!(
            "Check: {}, {}.\n",
            count(errors, "error"),
            count(warnings, "warning")
        ),
    }
}

#[cfg(test)]
mod tests {
    use domain::Position;

    use super::*;
    use crate::screen::samples::look;

    #[test]
    fn what_needs_a_person_has_a_command_beside_it() {
        let finding = |section: &str, level, text: &str, next: Option<&str>| CheckFinding {
            section: section.into(),
            name: "lagging".into(),
            level,
            text: text.into(),
            next: next.map(Into::into),
        };
        let report = CheckReport {
            position: Position(1),
            checks: vec![
                finding("control plane", CheckLevel::Ok, "reachable", None),
                finding(
                    "nodes",
                    CheckLevel::Error,
                    "2 of 12 lag",
                    Some("carousel get nodes --lagging=host"),
                ),
                finding("nodes", CheckLevel::Warn, "1 is offline", None),
            ],
            errors: 1,
            warnings: 1,
        };
        let expected = "\
control plane
✓ reachable
nodes
✗ 2 of 12 lag                                             carousel get nodes --lagging=host
! 1 is offline                                            carousel explain lagging
Check: 1 error, 1 warning.
";
        assert_eq!(render(&report, &look()), expected);
    }
}
