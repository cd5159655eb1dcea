//! Tables without borders: two spaces between columns, heads in capitals, and columns that go when it gets narrow.

use super::{Look, Paint};

/// One cell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cell {
    text: String,
    paint: Paint,
}

impl Cell {
    /// A cell whose meaning has a colour.
    pub fn painted(paint: Paint, text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            paint,
        }
    }

    /// The text in its colour, filled up to a width. A longer one is not cut.
    pub fn padded(&self, width: usize, look: &Look) -> String {
        let fill = " ".repeat(width.saturating_sub(self.width()));
        format!("{}{fill}", look.paint(self.paint, &self.text))
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::painted(Paint::Plain, text)
    }
}

/// Rows under heads. The first column is what `awk '{print $1}'` wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these heads.
    pub fn new<'a>(heads: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            heads: heads.into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as text, a line feed after each row. Below the width of the terminal the right-most columns go.
    pub fn render(&self, look: &Look) -> String {
        let widths = self.widths();
        let mut columns = widths.len();
        if let Some(limit) = look.width {
            let total = |n: usize| widths[..n].iter().sum::<usize>() + 2 * n.saturating_sub(1);
            while columns > 2 && total(columns) > limit.max(40) {
                columns -= 1;
            }
        }
        let heads: Vec<Cell> = self.heads.iter().map(|h| Cell::from(h.as_str())).collect();
        std::iter::once(&heads)
            .chain(&self.rows)
            .map(|row| line(row, &widths[..columns], look))
            .collect()
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.heads.iter().map(|h| h.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        widths
    }
}

fn line(row: &[Cell], widths: &[usize], look: &Look) -> String {
    let mut out = String::new();
    let mut gap = 0;
    for (cell, width) in row.iter().zip(widths) {
        // Padding goes before the next cell, so that no line ends in blanks.
        if !cell.text.is_empty() {
            out.push_str(&" ".repeat(gap));
            out.push_str(&look.paint(cell.paint, &cell.text));
            gap = 0;
        }
        gap += width - cell.width().min(*width) + 2;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "STATE", "SEEN"]);
        table.row(["api-1".into(), "ok".into(), "4 s".into()]);
        table.row(["b".into(), "".into(), "38 s".into()]);
        table
    }

    #[test]
    fn columns_stand_under_their_heads_and_no_line_ends_in_blanks() {
        let text = table().render(&Look::plain(Timestamp(0)));
        assert_eq!(
            text,
            "NAME   STATE  SEEN\napi-1  ok     4 s\nb             38 s\n"
        );
    }

    #[test]
    fn on_a_narrow_terminal_the_right_most_column_goes_and_the_first_two_stay() {
        let mut wide = Table::new(["NAME", "STATE", "SEEN"]);
        wide.row(["a".repeat(30).into(), "b".repeat(8).into(), "c".into()]);
        let look = Look {
            width: Some(40),
            ..Look::plain(Timestamp(0))
        };
        assert!(!wide.render(&look).contains("SEEN"));
        assert!(wide.render(&look).contains("STATE"));
    }
}
