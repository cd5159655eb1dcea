//! From one picture to the next: which bytes change what a terminal shows. Inline, in the scroll-back.

/// A picture: what was said and stays, what changes in its place, and the line that is typed on.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct View {
    /// Another number is another screen: it begins below the one before.
    pub(super) serial: u32,
    /// Written once.
    pub(super) fixed: String,
    /// Drawn again in its place whenever it changes.
    pub(super) live: Vec<String>,
    /// What is asked.
    pub(super) question: String,
    /// What was typed.
    pub(super) typed: String,
    /// Does the question go away with its screen? It asked nobody.
    pub(super) passing: bool,
}

/// What stands on the terminal.
#[derive(Default, Debug)]
pub(super) struct Canvas {
    /// May the cursor be moved? Otherwise what changes is written below.
    pub(super) redraws: bool,
    size: (usize, usize),
    serial: Option<u32>,
    live: Vec<String>,
    prompt: String,
    passing: bool,
}

impl Canvas {
    pub(super) fn new(redraws: bool) -> Self {
        Self {
            redraws,
            ..Self::default()
        }
    }

    /// The bytes that bring the terminal, so many columns wide and lines high, to this picture.
    pub(super) fn draw(&mut self, view: &View, size: (usize, usize)) -> String {
        let live = fit(&view.live, size);
        let prompt = prompt(view, size.0);
        let mut out = String::new();
        if self.serial != Some(view.serial) {
            match (self.serial, self.passing && self.redraws) {
                (None, _) => {}
                (Some(_), true) => out.push_str("\r\x1b[K"),
                (Some(_), false) => out.push('\n'),
            }
            out.push_str(&view.fixed);
            out.push_str(&below(&live, &prompt));
        } else if self.redraws && size != self.size {
            // Lines were folded anew: where they stand now nobody knows.
            out.push_str(&format!("\n{}", below(&live, &prompt)));
        } else if live != self.live {
            out.push_str(&self.back());
            out.push_str(&below(&live, &prompt));
        } else if let (false, Some(more)) = (self.redraws, prompt.strip_prefix(&self.prompt)) {
            out.push_str(more);
        } else if prompt != self.prompt {
            out.push_str(if self.redraws { "\r\x1b[K" } else { "\n" });
            out.push_str(&prompt);
        }
        (self.size, self.serial, self.live, self.prompt) = (size, Some(view.serial), live, prompt);
        self.passing = view.passing;
        out
    }

    /// To the begin of what is drawn again, with nothing below it.
    fn back(&self) -> String {
        match (self.redraws, self.live.len()) {
            (false, _) => "\n".into(),
            (true, 0) => "\r\x1b[J".into(),
            (true, lines) => format!("\r\x1b[{lines}A\x1b[J"),
        }
    }

    /// Ends the line of the prompt.
    pub(super) fn close(&mut self) -> &'static str {
        if self.serial.take().is_some() { "\n" } else { "" }
    }
}

fn below(live: &[String], prompt: &str) -> String {
    let mut out: String = live.iter().map(|line| format!("{line}\n")).collect();
    out.push_str(prompt);
    out
}

/// Cut to the terminal: a line that is folded, or one that has left at the top, would be drawn over in part only.
fn fit(live: &[String], (columns, lines): (usize, usize)) -> Vec<String> {
    let from = live.len().saturating_sub(lines.saturating_sub(2).max(1));
    let cut = |line: &String| line.chars().take(columns).collect::<String>();
    live[from..].iter().map(cut).collect()
}

/// Question and what was typed, on one line; of a long text its end is seen.
fn prompt(view: &View, columns: usize) -> String {
    let question: String = view.question.chars().take(columns.saturating_sub(1)).collect();
    let room = columns.saturating_sub(question.chars().count() + 1);
    let typed = view.typed.chars().count();
    let seen: String = view.typed.chars().skip(typed.saturating_sub(room)).collect();
    question + &seen
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: (usize, usize) = (80, 24);

    fn view(live: &[&str], typed: &str) -> View {
        View {
            serial: 1,
            fixed: "Said once.\n".into(),
            live: live.iter().map(ToString::to_string).collect(),
            question: "Why: ".into(),
            typed: typed.into(),
            passing: false,
        }
    }

    #[test]
    fn only_what_changes_is_written_again() {
        let mut canvas = Canvas::new(true);
        assert_eq!(
            canvas.draw(&view(&["1/3", "2/3"], ""), SIZE),
            "Said once.\n1/3\n2/3\nWhy: "
        );
        assert_eq!(canvas.draw(&view(&["1/3", "2/3"], ""), SIZE), "");
        assert_eq!(canvas.draw(&view(&["1/3", "2/3"], "a"), SIZE), "\r\x1b[KWhy: a");
        assert_eq!(
            canvas.draw(&view(&["3/3"], "a"), SIZE),
            "\r\x1b[2A\x1b[J3/3\nWhy: a"
        );
        let next = View {
            serial: 2,
            ..view(&["new"], "")
        };
        assert_eq!(canvas.draw(&next, SIZE), "\nSaid once.\nnew\nWhy: ");
        assert_eq!(canvas.close(), "\n");
        assert_eq!(canvas.close(), "");
    }

    #[test]
    fn a_question_that_asked_nobody_goes_away_with_its_screen() {
        let asking = View {
            passing: true,
            ..view(&[], "")
        };
        let next = View {
            serial: 2,
            ..view(&[], "")
        };
        let mut canvas = Canvas::new(true);
        canvas.draw(&asking, SIZE);
        assert_eq!(canvas.draw(&next, SIZE), "\r\x1b[KSaid once.\nWhy: ");
        let mut canvas = Canvas::new(false);
        canvas.draw(&asking, SIZE);
        assert_eq!(canvas.draw(&next, SIZE), "\nSaid once.\nWhy: ");
    }

    #[test]
    fn without_a_cursor_that_moves_what_changes_is_written_below() {
        let mut canvas = Canvas::new(false);
        assert_eq!(canvas.draw(&view(&["1/3"], ""), SIZE), "Said once.\n1/3\nWhy: ");
        assert_eq!(canvas.draw(&view(&["1/3"], "a"), SIZE), "a");
        assert_eq!(canvas.draw(&view(&["1/3"], ""), SIZE), "\nWhy: ");
        assert_eq!(canvas.draw(&view(&["2/3"], ""), SIZE), "\n2/3\nWhy: ");
        assert_eq!(canvas.draw(&view(&["2/3"], ""), (20, 5)), "");
    }

    #[test]
    fn what_is_drawn_again_fits_into_the_terminal_whatever_its_size() {
        let lines: Vec<String> = (0..40).map(|n| format!("{n:03} {}", "x".repeat(100))).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let mut canvas = Canvas::new(true);
        for size in [(80, 24), (20, 4), (1, 1), (0, 0), (200, 90)] {
            canvas.draw(&view(&lines, "a long reason that does not fit"), size);
            assert!(canvas.live.len() <= size.1.saturating_sub(2).max(1), "{size:?}");
            let widest = canvas
                .live
                .iter()
                .chain([&canvas.prompt])
                .map(|l| l.chars().count());
            assert!(widest.max().unwrap() <= size.0, "{size:?}: {canvas:?}");
        }
        canvas.draw(&view(&lines, "a long reason that does not fit"), (20, 4));
        assert_eq!(canvas.prompt, "Why: t does not fit");
        assert!(
            canvas.live[1].starts_with("039 "),
            "the end is what is asked about"
        );
    }

    #[test]
    fn after_a_change_of_size_nothing_is_drawn_over() {
        let mut canvas = Canvas::new(true);
        canvas.draw(&view(&["1/3"], ""), SIZE);
        assert_eq!(canvas.draw(&view(&["2/3"], ""), (60, 24)), "\n2/3\nWhy: ");
    }
}
