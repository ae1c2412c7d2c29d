//! Lists as text: aligned columns that fit the terminal, JSON lines, or templates.

use serde_json::{Map, Value};

use super::super::console::Console;
use super::super::error::CliError;
use super::super::limits::COLUMN_CHARS_MIN;
use super::human;
use super::template::Template;

/// Blanks between columns.
const GAP: usize = 3;
/// Narrowest column with its gap.
const CELL_MIN: usize = 10;

/// A column that templates can name.
pub(crate) struct Column {
    /// Name in templates and JSON.
    pub(crate) key: &'static str,
    /// Heading.
    pub(crate) heading: &'static str,
    /// Whether the plain table shows it.
    pub(crate) shown: bool,
}

/// A column of the plain table.
pub(crate) const fn column(key: &'static str, heading: &'static str) -> Column {
    Column { key, heading, shown: true }
}

/// A column only for templates and JSON.
pub(crate) const fn hidden(key: &'static str, heading: &'static str) -> Column {
    Column { key, heading, shown: false }
}

/// What a listing command found.
pub(crate) struct Table {
    /// Columns in order.
    pub(crate) columns: &'static [Column],
    /// One object per row, keyed by `Column::key`.
    pub(crate) rows: Vec<Value>,
    /// How a plain cell differs from the row's field, where it does.
    pub(crate) cell: fn(row: &Value, key: &str) -> Option<String>,
}

/// What `--format` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Aligned columns with headings.
    Table,
    /// Aligned columns of a template's tab-separated fields, with headings.
    TableOf(String),
    /// One JSON object per line.
    Json,
    /// A template per row.
    Template(String),
}

impl Format {
    /// Reads the flag; absent or empty means a table.
    pub(crate) fn parse(flag: Option<&str>) -> Format {
        match flag.map(str::trim) {
            None | Some("" | "table") => Format::Table,
            Some("json") => Format::Json,
            Some(text) => match text.strip_prefix("table ") {
                Some(template) => Format::TableOf(template.trim().to_owned()),
                None => Format::Template(text.to_owned()),
            },
        }
    }
}

impl Table {
    /// Writes the table. `fit` cuts the columns to the terminal's width.
    pub(crate) fn print(&self, format: &Format, fit: bool, console: &mut Console) -> Result<(), CliError> {
        let width = console.columns.filter(|_| fit);
        for line in self.lines(format, width)? {
            console.say(line)?;
        }
        Ok(())
    }

    fn lines(&self, format: &Format, width: Option<usize>) -> Result<Vec<String>, CliError> {
        match format {
            Format::Table => {
                let whole = self.plain(false);
                Ok(match width {
                    Some(width) if total(&widths(&whole)) > width => align(&self.plain(true), Some(width)),
                    Some(_) | None => align(&whole, None),
                })
            }
            Format::TableOf(text) => {
                let heading: Map<String, Value> =
                    self.columns.iter().map(|c| (c.key.to_owned(), c.heading.into())).collect();
                let heading = Template::parse_heading(text)?.row(&Value::Object(heading))?;
                let mut lines = vec![heading];
                lines.extend(self.fill(text)?);
                let cells = |line: &String| line.split('\t').map(str::to_owned).collect();
                Ok(align(&lines.iter().map(cells).collect::<Vec<_>>(), None))
            }
            Format::Json => self.fill("{{json .}}"),
            Format::Template(text) => self.fill(text),
        }
    }

    /// One template's text per row; it sees the columns only.
    fn fill(&self, template: &str) -> Result<Vec<String>, CliError> {
        let template = Template::parse(template)?;
        let visible = |row: &Value| -> Value {
            self.columns.iter().map(|column| (column.key.to_owned(), row[column.key].clone())).collect()
        };
        self.rows.iter().map(|row| template.row(&visible(row))).collect()
    }

    /// Headings and cells. Narrow terminals get the beginning of each id, which names an object
    /// as well as the whole does.
    fn plain(&self, short: bool) -> Vec<Vec<String>> {
        let shown = || self.columns.iter().filter(|column| column.shown);
        let mut lines = vec![shown().map(|column| column.heading.to_owned()).collect()];
        for row in &self.rows {
            let mut row = row.clone();
            if short {
                row["ID"] = human::short_id(row["ID"].as_str().unwrap_or("")).into();
            }
            lines.push(
                shown()
                    .map(|column| {
                        (self.cell)(&row, column.key)
                            .unwrap_or_else(|| row[column.key].as_str().unwrap_or("").to_owned())
                    })
                    .collect(),
            );
        }
        lines
    }
}

/// Pads all cells but the last of each line to the width of their column.
fn align(lines: &[Vec<String>], limit: Option<usize>) -> Vec<String> {
    let mut widths = widths(lines);
    if let Some(limit) = limit {
        squeeze(&mut widths, limit);
    }
    let pad = |(i, cell): (usize, &String), last: usize| {
        let cell = human::ellipsis(cell, widths[i]);
        if i == last {
            return cell;
        }
        let room = (widths[i] + GAP).max(CELL_MIN);
        format!("{cell}{}", " ".repeat(room - cell.chars().count()))
    };
    lines.iter().map(|line| line.iter().enumerate().map(|cell| pad(cell, line.len() - 1)).collect()).collect()
}

/// The widest cell of each column, in characters.
fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i| lines.iter().filter_map(|line| line.get(i)).map(|cell: &String| cell.chars().count()).max();
    (0..count).map(|i| width(i).unwrap_or(0)).collect()
}

/// The length of a line with these columns.
fn total(widths: &[usize]) -> usize {
    let Some((last, rest)) = widths.split_last() else { return 0 };
    rest.iter().map(|w| (w + GAP).max(CELL_MIN)).sum::<usize>() + last
}

/// Takes from the widest column until a line fits `limit`, or no column can give more. The first
/// column, the id, stays whole.
fn squeeze(widths: &mut [usize], limit: usize) {
    while total(widths) > limit {
        match widths.iter_mut().skip(1).max_by_key(|w| **w) {
            Some(widest) if *widest > COLUMN_CHARS_MIN => *widest -= 1,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: &[Column] = &[column("ID", "ID"), column("Name", "NAME"), hidden("Extra", "EXTRA")];

    fn table() -> Table {
        Table {
            columns: COLUMNS,
            rows: vec![
                json!({"ID": "abc", "Name": "web", "Extra": "1"}),
                json!({"ID": "abcdefghijklmnop", "Name": "a long name indeed", "Extra": "2"}),
            ],
            cell: |_, _| None,
        }
    }

    #[track_caller]
    fn check(flag: Option<&str>, width: Option<usize>, want: &[&str]) {
        assert_eq!(table().lines(&Format::parse(flag), width).expect("a good format"), want);
    }

    #[test]
    fn formats() {
        check(
            None,
            None,
            &["ID                 NAME", "abc                web", "abcdefghijklmnop   a long name indeed"],
        );
        check(Some("table"), Some(25), &["ID             NAME", "abc            web", "abcdefghijkl   a long na…"]);
        check(
            Some("table {{.Name}}\\t{{.Extra}}"),
            None,
            &["NAME                 EXTRA", "web                  1", "a long name indeed   2"],
        );
        check(Some("{{.Name}}:{{.Extra}}"), None, &["web:1", "a long name indeed:2"]);
        check(
            Some("json"),
            None,
            &[
                "{\"Extra\":\"1\",\"ID\":\"abc\",\"Name\":\"web\"}",
                "{\"Extra\":\"2\",\"ID\":\"abcdefghijklmnop\",\"Name\":\"a long name indeed\"}",
            ],
        );
    }

    #[test]
    fn a_line_never_grows_beyond_a_usable_terminal() {
        for width in 25..60 {
            for line in table().lines(&Format::Table, Some(width)).expect("a table") {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn an_unknown_column_is_an_error() {
        let error = table().lines(&Format::parse(Some("{{.Nope}}")), None).expect_err("no such column");
        assert_eq!(error.to_string(), "template: there is no field .Nope");
    }
}
