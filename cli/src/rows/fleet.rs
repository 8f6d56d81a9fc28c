//! What is shown of several hosts: anything with its host, and a line about each daemon.

use jiff::Timestamp;
use serde::Serialize;

use super::status::Status;
use super::{Column, Row, column, number, state};

/// Something, and the host that it is on.
#[derive(Serialize, PartialEq, Clone)]
pub(crate) struct OnHost<T> {
    host: String,
    #[serde(flatten)]
    pub(crate) what: T,
    /// `HOST/NAME`: names are each host's own.
    #[serde(skip)]
    name: String,
}

impl<T> OnHost<T> {
    /// Returns something that has no name of its own.
    pub(crate) fn bare(host: &str, what: T) -> Self {
        Self {
            host: host.to_owned(),
            what,
            name: host.to_owned(),
        }
    }
}

impl<R: Row> OnHost<R> {
    pub(crate) fn new(host: &str, what: R) -> Self {
        Self {
            name: format!("{host}/{}", what.name()),
            host: host.to_owned(),
            what,
        }
    }
}

impl<R: Row> Row for OnHost<R> {
    const PLURAL: &'static str = R::PLURAL;
    const SINGULAR: &'static str = R::SINGULAR;

    fn columns(wide: bool) -> Vec<Column> {
        let mut columns = vec![column("HOST")];
        columns.extend(R::columns(wide));
        columns
    }

    fn cells(&self, wide: bool, now: Timestamp) -> Vec<String> {
        let mut cells = vec![self.host.clone()];
        cells.extend(self.what.cells(wide, now));
        cells
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// A daemon in one line.
#[derive(Serialize, PartialEq)]
pub(crate) struct Summary(Vec<String>);

impl Summary {
    pub(crate) fn of(status: &Status, now: Timestamp) -> Self {
        Self(status.summary(now))
    }
}

impl Row for Summary {
    const PLURAL: &'static str = "hosts";
    const SINGULAR: &'static str = "host";

    fn columns(_: bool) -> Vec<Column> {
        vec![
            state("STATE"),
            column("IAPD"),
            number("UP"),
            state("INCUS"),
            state("AZURE"),
            number("POOLS"),
            number("WARNINGS"),
        ]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<String> {
        self.0.clone()
    }

    fn name(&self) -> &str {
        ""
    }
}
