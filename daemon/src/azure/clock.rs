//! How far this host's clock is from Azure's, by the `Date` of its answers.

use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{DATE, HeaderMap};

/// The distance as of the last answer.
#[derive(Debug, Default)]
pub(super) struct Clock(Mutex<Option<SignedDuration>>);

impl Clock {
    /// Takes note of an answer's date.
    pub(super) fn note(&self, headers: &HeaderMap, now: Timestamp) {
        if let Some(offset) = offset(headers, now) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(offset);
        }
    }

    /// Returns how far ahead of Azure's clock ours is; negative when it is behind.
    pub(super) fn offset(&self) -> Option<SignedDuration> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Exact to the second, and to the time that the answer took.
fn offset(headers: &HeaderMap, now: Timestamp) -> Option<SignedDuration> {
    let text = headers.get(DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(now.duration_since(date.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_is_what_our_clock_is_ahead_of_the_answers_date() {
        let now: Timestamp = "2026-11-25T09:00:30Z".parse().unwrap();
        let cases = [
            ("Wed, 25 Nov 2026 09:00:00 GMT", Some(30)),
            ("Wed, 25 Nov 2026 09:10:30 GMT", Some(-600)),
            ("yesterday", None),
        ];
        for (date, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, date.parse().unwrap());
            let clock = Clock::default();
            clock.note(&headers, now);
            assert_eq!(
                clock.offset().map(|offset| offset.as_secs()),
                expected,
                "{date}"
            );
        }
    }
}
