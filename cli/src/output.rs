//! Writes answers to stdout: tables without boxes, JSON, YAML, names. Nothing else goes there.
//!
//! A table is never cut to the terminal's width, so that it can be searched and copied.

use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use unicode_width::UnicodeWidthStr;

use crate::args::{Format, ListOutputArgs, OutputArgs};
use crate::error::CliError;
use crate::rows::{API_VERSION, Column, Kind, Row, Show};
use crate::style;

mod changes;

pub(crate) use changes::Changes;

/// Writes one line to stdout.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    write(|out| writeln!(out, "{text}"))
}

/// Writes to stdout through `f` and flushes.
pub(crate) fn write(f: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), CliError> {
    let mut out = anstream::stdout().lock();
    f(&mut out)
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

impl OutputArgs {
    pub(crate) fn wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Whether the answer is for people.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    pub(crate) fn is_names(&self) -> bool {
        self.format == Format::Name
    }

    /// Writes one thing.
    pub(crate) fn show(&self, item: &impl Show) -> Result<(), CliError> {
        match self.format {
            Format::Table | Format::Wide => {
                let lines = item.lines(Timestamp::now());
                let text = labelled(&lines, style::on_stdout());
                write(|out| out.write_all(text.as_bytes()))
            }
            Format::Name => line(item.name()),
            Format::Json | Format::Yaml => self.value(item),
        }
    }

    /// Writes `text` for people, or `value` for programs.
    pub(crate) fn answer(
        &self,
        name: &str,
        text: &str,
        value: &impl Serialize,
    ) -> Result<(), CliError> {
        match self.format {
            Format::Table | Format::Wide => write(|out| out.write_all(text.as_bytes())),
            Format::Name => line(name),
            Format::Json | Format::Yaml => self.value(value),
        }
    }

    fn value(&self, value: &impl Serialize) -> Result<(), CliError> {
        self.document(&Document {
            api_version: API_VERSION,
            value,
        })
    }

    fn document(&self, document: &impl Serialize) -> Result<(), CliError> {
        let text = if self.format == Format::Yaml {
            serde_yaml::to_string(document).map_err(std::io::Error::other)
        } else {
            serde_json::to_string_pretty(document)
                .map(|text| text + "\n")
                .map_err(Into::into)
        };
        let text = text.map_err(CliError::Output)?;
        write(|out| out.write_all(text.as_bytes()))
    }
}

impl ListOutputArgs {
    /// Writes a list. An empty one is its heads alone, and a word on stderr.
    pub(crate) fn list<R: Row>(&self, rows: &[R]) -> Result<(), CliError> {
        match self.answer.format {
            Format::Table | Format::Wide => {
                let table = self.table(rows, Timestamp::now(), style::on_stdout());
                if rows.is_empty() {
                    let _ = writeln!(anstream::stderr(), "No {}.", R::PLURAL);
                }
                write(|out| out.write_all(table.as_bytes()))
            }
            Format::Name => write(|out| {
                rows.iter()
                    .try_for_each(|row| writeln!(out, "{}", row.name()))
            }),
            Format::Json | Format::Yaml => self.answer.document(&ListDocument(rows)),
        }
    }

    /// Returns the rows as a table.
    pub(crate) fn table<R: Row>(&self, rows: &[R], now: Timestamp, coloured: bool) -> String {
        let wide = self.answer.wide();
        let columns = R::columns(wide);
        let cells = rows.iter().map(|row| row.cells(wide, now)).collect();
        let look = Look {
            heads: !self.no_headers,
            coloured,
        };
        layout(&columns, cells, look, &mut Vec::new())
    }
}

/// A document of one thing: its fields beside the version.
#[derive(Serialize)]
struct Document<'a, T> {
    api_version: &'static str,
    #[serde(flatten)]
    value: &'a T,
}

/// A document of a list: `{"api_version": ..., "pools": [...]}`.
struct ListDocument<'a, R>(&'a [R]);

impl<R: Row> Serialize for ListDocument<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("api_version", API_VERSION)?;
        map.serialize_entry(R::PLURAL, self.0)?;
        map.end()
    }
}

/// How a table looks besides its columns.
#[derive(Clone, Copy)]
struct Look {
    /// With the line of column heads.
    heads: bool,
    /// With colours.
    coloured: bool,
}

/// Lays cells out: upper-case heads, two spaces between columns, numbers to the right. No column
/// is narrower than in `widths`, which learns the new widths.
fn layout(
    columns: &[Column],
    rows: Vec<Vec<String>>,
    look: Look,
    widths: &mut Vec<usize>,
) -> String {
    widths.resize(columns.len(), 0);
    let heads: Vec<String> = columns
        .iter()
        .map(|column| column.head.to_owned())
        .collect();
    for row in rows.iter().chain(look.heads.then_some(&heads)) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let line = |cells: &[String], coloured: bool| {
        let cells = columns.iter().zip(widths.iter()).zip(cells);
        let cells = cells.map(|((column, width), cell)| {
            let pad = " ".repeat(width.saturating_sub(cell.width()));
            match column.kind {
                Kind::Number => pad + cell,
                Kind::State if coloured => style::state(cell) + &pad,
                Kind::State | Kind::Text => cell.clone() + &pad,
            }
        });
        let cells: Vec<String> = cells.collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    let heads = look.heads.then(|| line(&heads, false));
    let rows = rows.iter().map(|row| line(row, look.coloured));
    heads.into_iter().chain(rows).collect()
}

/// Labels whose values begin with a state.
const STATES: [&str; 4] = ["state", "config", "incus", "azure"];

/// Lays labels and values out; the lines of a value stand below each other.
pub(crate) fn labelled(lines: &[(&'static str, String)], coloured: bool) -> String {
    let width = lines.iter().map(|(label, _)| label.width()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for (label, value) in lines {
        let mut label = *label;
        let coloured = coloured && STATES.contains(&label);
        for line in value.split('\n') {
            let line = if coloured {
                style::state(line)
            } else {
                line.to_owned()
            };
            text.push_str(format!("{label:<width$}  {line}").trim_end());
            text.push('\n');
            label = "";
        }
    }
    text
}

#[cfg(test)]
mod tests;
