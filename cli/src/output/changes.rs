//! A list that is watched: drawn again on a terminal; elsewhere the rows that changed, each as a
//! line, and with `-o json` as an object.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use jiff::Timestamp;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::{Look, data, layout};
use crate::args::{Format, ListOutputArgs};
use crate::error::CliError;
use crate::progress::{Notes, Screen};
use crate::rows::{API_VERSION, Row};
use crate::style;

/// What is shown of a watched list.
pub(crate) struct Changes<'a, R> {
    output: &'a ListOutputArgs,
    screen: Option<Screen>,
    pub(super) rows: Vec<R>,
    /// Widest cell of each column so far, so that the lines stay below each other.
    widths: Vec<usize>,
    begun: bool,
}

/// What happened to a row.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Event {
    Added,
    Changed,
    Removed,
}

impl<'a, R: Row> Changes<'a, R> {
    pub(crate) fn new(output: &'a ListOutputArgs) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let redraw = output.answer.is_text() && std::io::stdout().is_terminal() && !dumb;
        Self {
            output,
            screen: redraw.then(Screen::stdout),
            rows: Vec::new(),
            widths: Vec::new(),
            begun: false,
        }
    }

    /// Returns where remarks do not disturb the list.
    pub(crate) fn notes(&self) -> Notes {
        Notes::above(self.screen.as_ref())
    }

    /// Shows the list as it is now.
    pub(crate) fn update(&mut self, rows: Vec<R>, now: Timestamp) -> Result<(), CliError> {
        if self.screen.is_some() {
            self.rows = rows;
            self.redraw(now);
            return Ok(());
        }
        let text = self.difference(&rows, now).map_err(CliError::Output)?;
        self.rows = rows;
        data(|out| out.write_all(text.as_bytes()))
    }

    /// Draws the ages again, on a terminal.
    pub(crate) fn redraw(&mut self, now: Timestamp) {
        if let Some(screen) = &mut self.screen {
            let table = self.output.table(&self.rows, now, style::on_stdout());
            screen.draw(table.lines().map(|line| line.to_owned().into()).collect());
        }
    }

    /// Returns what to write for the change from the rows so far to `rows`.
    pub(super) fn difference(&mut self, rows: &[R], now: Timestamp) -> std::io::Result<String> {
        let old: BTreeMap<&str, &R> = self.rows.iter().map(|row| (row.name(), row)).collect();
        let new: BTreeMap<&str, &R> = rows.iter().map(|row| (row.name(), row)).collect();
        let present = rows.iter().filter_map(|row| match old.get(row.name()) {
            None => Some((Event::Added, row)),
            Some(before) => self
                .differs(before, row, now)
                .then_some((Event::Changed, row)),
        });
        let gone = self.rows.iter().filter(|row| !new.contains_key(row.name()));
        let changes: Vec<(Event, &R)> = present
            .chain(gone.map(|row| (Event::Removed, row)))
            .collect();
        match self.output.answer.format {
            Format::Table | Format::Wide => {
                let cells = changes
                    .iter()
                    .map(|(event, row)| self.cells(*event, row, now));
                let cells = cells.collect();
                let look = Look {
                    heads: !self.begun && !self.output.no_headers,
                    coloured: false,
                };
                self.begun = true;
                Ok(layout(
                    &R::columns(self.output.answer.wide()),
                    cells,
                    look,
                    &mut self.widths,
                ))
            }
            Format::Name => {
                let added = changes.iter().filter(|(event, _)| *event == Event::Added);
                Ok(added.map(|(_, row)| format!("{}\n", row.name())).collect())
            }
            Format::Json => changes
                .iter()
                .map(|(event, row)| json(*event, *row))
                .collect(),
            Format::Yaml => changes
                .iter()
                .map(|(event, row)| yaml(*event, *row))
                .collect(),
        }
    }

    /// Whether two states of a row look different. In a table a mere change of age does not.
    fn differs(&self, old: &R, new: &R, now: Timestamp) -> bool {
        if self.output.answer.is_text() {
            let wide = self.output.answer.wide();
            old.cells(wide, now) != new.cells(wide, now)
        } else {
            old != new
        }
    }

    fn cells(&self, event: Event, row: &R, now: Timestamp) -> Vec<String> {
        let wide = self.output.answer.wide();
        let mut cells = row.cells(wide, now);
        let state = R::columns(wide)
            .iter()
            .position(|column| column.head == "STATE");
        if let (Event::Removed, Some(cell)) = (event, state.and_then(|index| cells.get_mut(index)))
        {
            "gone".clone_into(cell);
        }
        cells
    }
}

/// One line, or one document, of a watch: `{"api_version": ..., "event": ..., "pool": {...}}`.
struct Change<'a, R>(Event, &'a R);

impl<R: Row> Serialize for Change<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("api_version", API_VERSION)?;
        map.serialize_entry("event", &self.0)?;
        map.serialize_entry(R::SINGULAR, self.1)?;
        map.end()
    }
}

fn json<R: Row>(event: Event, row: &R) -> std::io::Result<String> {
    Ok(serde_json::to_string(&Change(event, row))? + "\n")
}

fn yaml<R: Row>(event: Event, row: &R) -> std::io::Result<String> {
    let text = serde_yaml::to_string(&Change(event, row)).map_err(std::io::Error::other)?;
    Ok(format!("---\n{text}"))
}
