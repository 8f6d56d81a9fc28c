//! The brake on what keeps failing: after a failure nothing is tried for a while, then one try,
//! then, if that failed too, a longer while. Shown to people as it is.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::host_limit::HostLimit;

/// The wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);

/// Counts failures in a row and says when to try again.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    failures: u32,
    next_try: Option<Instant>,
    /// When the try began that failed last.
    last_began: Option<Instant>,
    last_error: Option<LastError>,
}

#[derive(Debug, Clone)]
struct LastError {
    text: String,
    at: Timestamp,
    next_try_at: Timestamp,
}

/// What is told of a breaker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BreakerStatus {
    /// Nothing is tried before `next_try_at`.
    pub open: bool,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure with its causes.
    pub last_error: String,
    /// When that was.
    pub last_error_at: Option<Timestamp>,
    /// When the next try is due, while open.
    pub next_try_at: Option<Timestamp>,
}

impl BreakerStatus {
    /// Returns the limit of the host that it was opened by, if that is what the error says.
    pub fn limit(&self) -> Option<HostLimit> {
        self.open.then(|| HostLimit::of(&self.last_error)).flatten()
    }
}

/// How much may be tried now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// As much as is wanted.
    All,
    /// One, to see whether it works again.
    One,
    /// Nothing yet.
    Nothing,
}

impl Breaker {
    /// Records a failure. Failures of tries that began before the last one was counted do not
    /// lengthen the wait: twenty creates that fail together are one failure. `wait` is what the
    /// other side asked for, if it did.
    pub fn failed(&mut self, error: String, began: Instant, now: Instant, wait: Option<Duration>) {
        self.last_began = self.last_began.max(Some(began));
        let pending = self.next_try.is_some_and(|next| began < next);
        if !pending || self.failures == 0 {
            self.failures = self.failures.saturating_add(1);
            let delay = self.delay().max(wait.unwrap_or_default());
            self.next_try = Some(now + delay);
        } else if let Some(wait) = wait {
            self.next_try = self.next_try.max(Some(now + wait));
        }
        let at = Timestamp::now();
        let left = self
            .next_try
            .map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        self.last_error = Some(LastError {
            text: error,
            at,
            next_try_at: at + left,
        });
    }

    /// Records a success: everything may be tried again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.next_try = None;
    }

    /// Records the success of a try. One that began before the last failure says nothing of what
    /// has failed since.
    pub fn try_succeeded(&mut self, began: Instant) {
        if self.last_began.is_none_or(|failed| began >= failed) {
            self.succeeded();
        }
    }

    /// Allows a try at once, as an operator asked for.
    pub fn retry_now(&mut self, now: Instant) {
        if self.failures > 0 {
            self.next_try = Some(now);
        }
    }

    /// Returns how much may be tried at `now`.
    pub fn allowance(&self, now: Instant) -> Allowance {
        match self.next_try {
            _ if self.failures == 0 => Allowance::All,
            Some(next) if now < next => Allowance::Nothing,
            _ => Allowance::One,
        }
    }

    /// Returns when something may be tried again, if that is not now.
    pub fn next_try(&self) -> Option<Instant> {
        self.next_try.filter(|_| self.failures > 0)
    }

    /// Returns what to tell of it.
    pub fn status(&self, now: Instant) -> BreakerStatus {
        let open = self.allowance(now) != Allowance::All;
        BreakerStatus {
            open,
            failures: self.failures,
            last_error: self
                .last_error
                .as_ref()
                .map(|e| e.text.clone())
                .unwrap_or_default(),
            last_error_at: self.last_error.as_ref().map(|e| e.at),
            next_try_at: self
                .last_error
                .as_ref()
                .filter(|_| open)
                .map(|e| e.next_try_at),
        }
    }

    /// Doubles from a second to five minutes, a fifth more or less at random.
    fn delay(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(16);
        let plain = (FIRST * 2u32.pow(doublings)).min(LONGEST);
        plain.mul_f64(0.8 + 0.4 * fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_wait_longer_each_time_and_a_success_ends_it() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        assert_eq!(breaker.allowance(now), Allowance::All);
        let mut last = Duration::ZERO;
        for _ in 0..6 {
            breaker.failed("no".into(), now, now, None);
            assert_eq!(breaker.allowance(now), Allowance::Nothing);
            let next = breaker.next_try().unwrap();
            assert!(next - now > last, "{:?} after {last:?}", next - now);
            last = (next - now).mul_f64(0.6);
            now = next;
            assert_eq!(breaker.allowance(now), Allowance::One);
        }
        breaker.succeeded();
        assert_eq!(breaker.allowance(now), Allowance::All);
        assert_eq!(breaker.status(now).failures, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_success_of_an_older_try_changes_nothing() {
        let mut breaker = Breaker::default();
        let old = Instant::now();
        let began = old + Duration::from_secs(5);
        let now = began + Duration::from_secs(1);
        breaker.failed("no".into(), began, now, None);
        breaker.try_succeeded(old);
        assert_eq!(breaker.allowance(now), Allowance::Nothing);
        breaker.try_succeeded(now);
        assert_eq!(breaker.allowance(now), Allowance::All);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_that_began_together_count_once() {
        let mut breaker = Breaker::default();
        let began = Instant::now();
        for _ in 0..20 {
            breaker.failed("no".into(), began, began + Duration::from_millis(5), None);
        }
        assert_eq!(breaker.status(began).failures, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_sides_wish_to_be_left_alone_is_honoured() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        breaker.failed("slow down".into(), now, now, Some(Duration::from_secs(90)));
        assert_eq!(
            breaker.allowance(now + Duration::from_secs(89)),
            Allowance::Nothing
        );
    }
}
