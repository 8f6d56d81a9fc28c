//! Which requests came in, from what sort of credential, and how they were answered. Never a secret.

use std::{collections::VecDeque, time::Instant};

use jiff::Timestamp;
use serde::Serialize;

use super::{auth::CredentialKind, clock::as_text};

/// How many requests are remembered.
const CAPACITY: usize = 100_000;

/// One request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JournalEntry {
    /// Its number, from 1.
    pub id: u64,
    /// When it came, by the virtual clock.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// When it came, to measure with.
    #[serde(skip)]
    pub instant: Instant,
    /// The HTTP method.
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// The query, undecoded.
    pub query: String,
    /// The sort of credential it carried.
    pub credential: CredentialKind,
    /// The agent it is from or about.
    pub agent: Option<String>,
    /// Who says to be calling.
    pub user_agent: String,
    /// The size of the request's body.
    pub body_length: usize,
    /// What it was answered; absent while it is under way and when its client left or was hung up on.
    pub status: Option<u16>,
    /// Whether the client left, or was hung up on, before it had the whole answer.
    pub broken_off: bool,
}

/// The latest requests.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: VecDeque<JournalEntry>,
    last: u64,
}

impl Journal {
    /// Notes a request and returns its number.
    pub(super) fn begin(&mut self, mut entry: JournalEntry) -> u64 {
        self.last += 1;
        entry.id = self.last;
        if self.entries.len() == CAPACITY {
            self.entries.pop_front();
        }
        self.entries.push_back(entry);
        self.last
    }

    /// Notes how a request ended; no status means that its client never saw one.
    pub(super) fn end(&mut self, id: u64, status: Option<u16>) {
        let first = self.entries.front().map_or(0, |entry| entry.id);
        let place = id
            .checked_sub(first)
            .and_then(|place| usize::try_from(place).ok());
        if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
            entry.status = status;
            entry.broken_off = status.is_none();
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &JournalEntry> {
        self.entries.iter()
    }
}
