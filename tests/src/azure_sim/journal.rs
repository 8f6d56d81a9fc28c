//! Which requests came in, from what sort of credential, and how they were answered. Never a secret.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{HeaderMap, header};
use jiff::Timestamp;
use serde::Serialize;

use super::{auth::CredentialKind, clock::as_text};

/// How many requests are remembered.
const CAPACITY: usize = 50_000;

/// The headers whose values are kept; of the others it is only known that they came.
const SHOWN_HEADERS: [&str; 14] = [
    "accept",
    "accept-language",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "metadata",
    "transfer-encoding",
    "user-agent",
    "x-tfs-fedauthredirect",
    "x-tfs-session",
    "x-vss-e2eid",
    "x-ms-client-request-id",
];
const MASK: &str = "***";

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
    /// Its headers by their names in lower case; of what may be secret only that it came.
    pub headers: BTreeMap<String, String>,
    /// The size of the request's body.
    pub body_length: usize,
    /// The lower-case hexadecimal SHA-256 of the body; the body itself may hold secrets.
    pub body_sha256: String,
    /// What it was answered; absent while it is under way and when its client left or was hung up on.
    pub status: Option<u16>,
    /// Whether the client left, or was hung up on, before it had the whole answer.
    pub broken_off: bool,
}

/// Copies headers with everything masked that is not known to be harmless.
pub(super) fn shown_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    for name in headers.keys() {
        let text = |value: &axum::http::HeaderValue| {
            let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
            if SHOWN_HEADERS.contains(&name.as_str()) {
                return text;
            }
            // The scheme tells how a client proves itself, and is no secret.
            match text.split_once(' ') {
                Some((scheme, _)) if name == header::AUTHORIZATION => format!("{scheme} {MASK}"),
                _ => MASK.to_owned(),
            }
        };
        let values: Vec<String> = headers.get_all(name).iter().map(text).collect();
        shown.insert(name.as_str().to_owned(), values.join(", "));
    }
    shown
}

/// Returns what is kept of a body.
pub(super) fn body_digest(body: &[u8]) -> String {
    let digest = digest(&SHA256, body);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
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

    /// Forgets everything but the numbers given so far.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &JournalEntry> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue, header};

    use super::{body_digest, shown_headers};

    #[test]
    fn headers_that_may_hold_a_secret_are_masked() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::AUTHORIZATION, "Basic c2VjcmV0"),
            (header::COOKIE, "secret"),
            (header::ACCEPT, "application/json"),
            (header::ACCEPT, "text/html"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let shown = shown_headers(&headers);
        assert_eq!(shown["authorization"], "Basic ***");
        assert_eq!(shown["cookie"], "***");
        assert_eq!(shown["accept"], "application/json, text/html");
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("secret"));
        assert_eq!(shown_headers(&headers)["authorization"], "***");
    }

    #[test]
    fn a_body_is_known_by_its_digest() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(body_digest(b"abc"), expected);
    }
}
