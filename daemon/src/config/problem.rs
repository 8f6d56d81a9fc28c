//! What is wrong with a configuration file, and where.

use std::fmt::{Display, Formatter};
use std::path::{Path, PathBuf};

use super::places::{Places, Position};

/// One thing that is wrong, or that deserves a warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
    /// The key, such as `pools[1].incus.maxCores`; empty when it is the file as a whole.
    pub key: String,
    /// What is wrong, as a sentence that begins with the key.
    pub message: String,
}

impl Problem {
    pub(super) fn new(file: &Path, at: Position, key: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            key: key.to_owned(),
            message: message.into(),
        }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}: ", self.file.display(), self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Collects problems by key and finds their places.
pub(super) struct Report<'a> {
    file: &'a Path,
    pub(super) places: Places,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(super) fn new(file: &'a Path, places: Places) -> Self {
        Self {
            file,
            places,
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Notes an error in the value of `key`.
    pub(super) fn error(&mut self, key: &str, message: impl Into<String>) {
        self.errors.push(Problem::new(
            self.file,
            self.places.value(key),
            key,
            message,
        ));
    }

    /// Notes an error in the key itself.
    pub(super) fn error_in_key(&mut self, key: &str, message: impl Into<String>) {
        self.error_at(self.places.key(key), key, message);
    }

    /// Notes an error at a place.
    pub(super) fn error_at(&mut self, at: Position, key: &str, message: impl Into<String>) {
        self.errors.push(Problem::new(self.file, at, key, message));
    }

    /// Notes something that is allowed and probably not meant.
    pub(super) fn warning(&mut self, key: &str, message: impl Into<String>) {
        self.warnings.push(Problem::new(
            self.file,
            self.places.value(key),
            key,
            message,
        ));
    }

    /// Returns whether an error in the value of `key`, or in an item of it, was noted: its value was
    /// dropped, and what follows from that needs no words.
    pub(super) fn has_error(&self, key: &str) -> bool {
        let is_in = |rest: &str| rest.is_empty() || rest.starts_with('[');
        let mut keys = self.errors.iter().map(|problem| &problem.key);
        keys.any(|wrong| wrong.strip_prefix(key).is_some_and(is_in))
    }

    /// Ends the collection: the warnings, or every error in the file's order.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, Vec<Problem>> {
        let order = |problem: &Problem| (problem.line, problem.column);
        self.errors.sort_by_key(order);
        self.warnings.sort_by_key(order);
        if self.errors.is_empty() {
            Ok(self.warnings)
        } else {
            Err(self.errors)
        }
    }
}
