//! How long Azure wants to be left alone.
//!
//! Azure slows a caller down before it refuses (429), and says so in headers that also come with
//! a success: <https://learn.microsoft.com/azure/devops/integrate/concepts/rate-limits>.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use tokio::time::Instant;

/// Azure counts over five minutes, so a longer pause is somebody's mistake: the next call is
/// welcome to be told again.
const LONGEST: Duration = Duration::from_secs(300);

/// How long a pause is remembered: the window that Azure counts over.
const LATELY: Duration = Duration::from_secs(300);

/// The pause all calls of one client keep.
#[derive(Debug, Default)]
pub(super) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// Returns what is left of the pause.
    pub(super) fn left(&self) -> Option<Duration> {
        let until = (*self.0.lock().unwrap_or_else(PoisonError::into_inner))?;
        let left = until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Returns whether a pause ran lately.
    pub(super) fn was_lately(&self) -> bool {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until + LATELY)
    }

    /// Keeps still for `pause` from now, unless a longer pause runs already.
    pub(super) fn keep(&self, pause: Duration) {
        let until = Instant::now() + pause;
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(current.map_or(until, |current| current.max(until)));
    }
}

/// Returns the pause that an answer asks for.
pub(super) fn asked_for(
    status: StatusCode,
    headers: &HeaderMap,
    now: SystemTime,
) -> Option<Duration> {
    let refused = status == StatusCode::TOO_MANY_REQUESTS;
    let spent = number(headers, "x-ratelimit-remaining").is_some_and(|left| left <= 0.0);
    let pause = retry_after(headers, now)
        .or_else(|| number(headers, "x-ratelimit-delay").and_then(seconds))
        .or_else(|| (refused || spent).then(|| reset(headers, now)).flatten())?;
    (!pause.is_zero()).then(|| pause.min(LONGEST))
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(count) = text.parse() {
        return seconds(count);
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    SystemTime::try_from(date.timestamp())
        .ok()?
        .duration_since(now)
        .ok()
}

/// Seconds since 1970.
fn reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let at = SystemTime::UNIX_EPOCH.checked_add(seconds(number(headers, "x-ratelimit-reset")?)?)?;
    at.duration_since(now).ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<f64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn seconds(count: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 10:00:00 UTC.
    const NOW: u64 = 1_795_428_000;

    fn pause(status: u16, headers: &[(&'static str, &str)]) -> Option<f64> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        let status = StatusCode::from_u16(status).unwrap();
        asked_for(status, &headers, now).map(|pause| pause.as_secs_f64())
    }

    #[test]
    fn retry_after_counts_on_any_status() {
        for status in [200, 401, 429, 503] {
            assert_eq!(pause(status, &[("retry-after", "7")]), Some(7.0));
        }
        assert_eq!(pause(429, &[]), None);
    }

    #[test]
    fn retry_after_may_be_a_date() {
        let date = "Mon, 23 Nov 2026 10:00:42 GMT";
        assert_eq!(pause(503, &[("retry-after", date)]), Some(42.0));
        let past = "Mon, 23 Nov 2026 09:00:00 GMT";
        assert_eq!(pause(503, &[("retry-after", past)]), None);
    }

    #[test]
    fn a_delay_on_a_success_is_kept_too() {
        assert_eq!(pause(200, &[("x-ratelimit-delay", "1.25")]), Some(1.25));
        assert_eq!(pause(200, &[("x-ratelimit-delay", "0")]), None);
    }

    #[test]
    fn the_reset_time_counts_once_nothing_remains() {
        let reset = (NOW + 30).to_string();
        let reset = ("x-ratelimit-reset", reset.as_str());
        assert_eq!(pause(200, &[("x-ratelimit-remaining", "12"), reset]), None);
        assert_eq!(
            pause(200, &[("x-ratelimit-remaining", "0"), reset]),
            Some(30.0)
        );
        assert_eq!(pause(429, &[reset]), Some(30.0));
    }

    #[test]
    fn nonsense_is_ignored_and_long_pauses_are_cut() {
        assert_eq!(pause(429, &[("retry-after", "soon")]), None);
        assert_eq!(pause(429, &[("retry-after", "-4")]), None);
        assert_eq!(pause(429, &[("retry-after", "NaN")]), None);
        assert_eq!(pause(429, &[("retry-after", "86400")]), Some(300.0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_and_a_shorter_one_does_not_cut_it() {
        let pause = Pause::default();
        assert_eq!(pause.left(), None);
        pause.keep(Duration::from_secs(7));
        pause.keep(Duration::from_secs(2));
        assert_eq!(pause.left(), Some(Duration::from_secs(7)));
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(pause.left(), None);
    }
}
