//! Medians, spreads, ratios and aligned tables.

pub mod compared;
pub mod goal;
pub mod html;
mod plot;
pub mod snapshot_plot;

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde::Serialize;

/// The median of some measurements and how far they reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The middle one; of an even number the mean of the middle two.
    pub median: f64,
    /// The smallest.
    pub lowest: f64,
    /// The largest.
    pub highest: f64,
}

impl Spread {
    /// Of at least one measurement.
    pub fn of(measurements: impl IntoIterator<Item = f64>) -> Spread {
        let mut sorted: Vec<f64> = measurements.into_iter().collect();
        assert!(!sorted.is_empty(), "a spread of nothing");
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        } else {
            sorted[middle]
        };
        Spread { median, lowest: sorted[0], highest: sorted[sorted.len() - 1] }
    }

    /// The ratio of two measurements that were not taken in the same rounds: as far apart as they
    /// can be.
    pub fn over(&self, other: &Spread) -> Spread {
        Spread {
            median: self.median / other.median,
            lowest: self.lowest / other.highest,
            highest: self.highest / other.lowest,
        }
    }
}

/// `median (lowest..highest)` with the precision asked for.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = f.precision().unwrap_or(2);
        write!(f, "{:.digits$} ({:.digits$}..{:.digits$})", self.median, self.lowest, self.highest)
    }
}

/// Rows of cells, printed in aligned columns, the first two to the left.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with this head.
    pub fn new(head: &[&str]) -> Table {
        Table { rows: vec![head.iter().map(ToString::to_string).collect()] }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// As HTML; the first row is the head.
    pub fn html(&self) -> String {
        let mut text = String::from("<table>");
        for (index, row) in self.rows.iter().enumerate() {
            let tag = if index == 0 { "th" } else { "td" };
            text.push_str("<tr>");
            for cell in row {
                text.push_str(&format!("<{tag}>{}</{tag}>", html::escape(cell)));
            }
            text.push_str("</tr>\n");
        }
        text.push_str("</table>");
        text
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LEFT_COLUMNS: usize = 2;
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.rows {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                if column < LEFT_COLUMNS {
                    write!(f, "{gap}{cell:<width$}")?;
                } else {
                    write!(f, "{gap}{cell:>width$}")?;
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// Appends one JSON object per measurement to a file, so that a run that was cut short keeps what
/// it had.
pub struct JsonLines(Option<File>);

impl JsonLines {
    /// Appends to `path`; without a path nothing is written.
    pub fn open(path: Option<&Path>) -> Result<JsonLines, String> {
        let Some(path) = path else { return Ok(JsonLines(None)) };
        File::options()
            .create(true)
            .append(true)
            .open(path)
            .map(|file| JsonLines(Some(file)))
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Writes one line.
    pub fn write(&mut self, measurement: &impl Serialize) -> Result<(), String> {
        let Some(file) = &mut self.0 else { return Ok(()) };
        let line = serde_json::to_string(measurement).map_err(|error| error.to_string())?;
        writeln!(file, "{line}").map_err(|error| format!("the JSON file: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let odd = Spread::of([3.0, 1.0, 2.0]);
        assert_eq!(format!("{odd:.1}"), "2.0 (1.0..3.0)");
        assert_eq!(Spread::of([1.0, 2.0]).median, 1.5);
    }

    #[test]
    fn tables_align() {
        let mut table = Table::new(&["a", "b", "c"]);
        table.row(vec!["long".into(), "x".into(), "10".into()]);
        assert_eq!(table.to_string(), "a     b   c\nlong  x  10\n");
    }
}
