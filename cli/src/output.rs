//! Writes answers to stdout: tables without boxes, JSON, YAML, names. Nothing else goes there.
//!
//! A table is never cut to the terminal's width, so that it can be searched and copied.

use std::fmt::Display;
use std::io::Write;

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use tabled::builder::Builder;
use tabled::grid::util::string::get_line_width;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Padding, Style};

use crate::args::{Format, ListOutputArgs, OutputArgs};
use crate::error::CliError;
use crate::rows::{API_VERSION, Column, Kind, Row, Show};
use crate::{fleet, style};

mod changes;

pub(crate) use changes::Changes;

/// Writes one line to stdout.
pub(crate) fn line(text: &str) -> Result<(), CliError> {
    write(|out| writeln!(out, "{text}"))
}

/// Writes names, a line each; of one host of several with that before them.
pub(crate) fn names(names: impl IntoIterator<Item = impl Display>) -> Result<(), CliError> {
    let here = fleet::here().map_or_else(String::new, |host| format!("{host}/"));
    let mut names = names.into_iter();
    data(|out| names.try_for_each(|name| writeln!(out, "{here}{name}")))
}

/// Writes to stdout through `f` and flushes. What is about one host of several says which.
pub(crate) fn write(f: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), CliError> {
    if fleet::here().is_none() {
        return data(f);
    }
    let mut text = Vec::new();
    f(&mut text).map_err(CliError::Output)?;
    let text = fleet::prefixed(&String::from_utf8_lossy(&text));
    data(|out| writeln!(out, "{text}"))
}

/// Writes what is not for people to stdout.
pub(crate) fn data(f: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<(), CliError> {
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

    /// Whether the answer is a document.
    pub(crate) fn is_data(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// Writes one thing.
    pub(crate) fn show(&self, item: &impl Show) -> Result<(), CliError> {
        match self.format {
            Format::Table | Format::Wide => {
                let lines = item.lines(Timestamp::now());
                let text = labelled(&lines, style::on_stdout());
                write(|out| out.write_all(text.as_bytes()))
            }
            Format::Name => names([item.name()]),
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
            Format::Name => names(name.split('\n')),
            Format::Json | Format::Yaml => self.value(value),
        }
    }

    pub(crate) fn value(&self, value: &impl Serialize) -> Result<(), CliError> {
        self.document(&Document {
            api_version: API_VERSION,
            host: fleet::here(),
            value,
        })
    }

    fn document(&self, document: &impl Serialize) -> Result<(), CliError> {
        let text = if self.format == Format::Yaml {
            serde_yaml::to_string(document)
                .map(|text| match fleet::here() {
                    Some(_) => format!("---\n{text}"),
                    None => text,
                })
                .map_err(std::io::Error::other)
        } else {
            serde_json::to_string_pretty(document)
                .map(|text| text + "\n")
                .map_err(Into::into)
        };
        let text = text.map_err(CliError::Output)?;
        data(|out| out.write_all(text.as_bytes()))
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
            Format::Name => names(rows.iter().map(Row::name)),
            Format::Json | Format::Yaml => self.document(rows, None::<&()>),
        }
    }

    /// Writes a list of several hosts and what failed, for programs.
    pub(crate) fn document<R: Row>(
        &self,
        rows: &[R],
        errors: Option<&impl Serialize>,
    ) -> Result<(), CliError> {
        self.answer.document(&ListDocument {
            host: fleet::here(),
            rows,
            errors,
        })
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
    /// The one of several that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(flatten)]
    value: &'a T,
}

/// A document of a list: `{"api_version": ..., "pools": [...]}`, of several hosts with `errors`
/// behind it.
struct ListDocument<'a, R, E> {
    host: Option<String>,
    rows: &'a [R],
    errors: Option<&'a E>,
}

impl<R: Row, E: Serialize> Serialize for ListDocument<'_, R, E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("api_version", API_VERSION)?;
        if let Some(host) = &self.host {
            map.serialize_entry("host", host)?;
        }
        map.serialize_entry(R::PLURAL, self.rows)?;
        if let Some(errors) = self.errors {
            map.serialize_entry("errors", errors)?;
        }
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
    let heads: Option<Vec<String>> = look.heads.then(|| {
        columns
            .iter()
            .map(|column| column.head.to_owned())
            .collect()
    });
    let rows = rows.into_iter().map(|row| {
        let cells = columns.iter().zip(row);
        let cells = cells.map(|(column, cell)| match column.kind {
            Kind::State if look.coloured => style::state(&cell),
            _ => cell,
        });
        cells.collect::<Vec<String>>()
    });
    let mut builder = Builder::default();
    for row in heads.into_iter().chain(rows) {
        for (width, cell) in widths.iter_mut().zip(&row) {
            *width = (*width).max(get_line_width(cell));
        }
        builder.push_record(row);
    }
    let lines = builder.count_records();
    // The table is as wide as its widest cells: a row of blanks holds the columns open.
    builder.push_record(widths.iter().map(|width| " ".repeat(*width)));
    let mut table = builder.build();
    table
        .with(Style::empty())
        .with(Padding::new(0, 2, 0, 0))
        .with(Alignment::left());
    for (index, column) in columns.iter().enumerate() {
        if matches!(column.kind, Kind::Number) {
            table.modify(Columns::one(index), Alignment::right());
        }
    }
    trimmed(&table.to_string(), lines)
}

/// Labels whose values begin with a state.
const STATES: [&str; 4] = ["state", "config", "incus", "azure"];

/// Lays labels and values out; the lines of a value stand below each other.
pub(crate) fn labelled(lines: &[(&'static str, String)], coloured: bool) -> String {
    let mut builder = Builder::default();
    for (label, value) in lines {
        let value = if coloured && STATES.contains(label) {
            let lines: Vec<String> = value.split('\n').map(style::state).collect();
            lines.join("\n")
        } else {
            value.clone()
        };
        builder.push_record([*label, value.as_str()]);
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    trimmed(&table.to_string(), usize::MAX)
}

/// Returns the first `lines` of `text` without blanks at their ends.
fn trimmed(text: &str, lines: usize) -> String {
    let lines = text.lines().take(lines);
    lines.map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests;
