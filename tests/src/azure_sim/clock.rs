//! The simulator's time: the real clock plus an offset that tests push forward, and one table of durations.
//!
//! Locks, session lapses, token lives and timestamps in answers follow this clock. Only the times inside a signed
//! assertion are compared with the real clock (`token.rs`), because its writer cannot be moved.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serializer;

/// Real time plus what tests added.
#[derive(Debug, Default)]
pub(super) struct Clock {
    ahead: Duration,
}

impl Clock {
    /// Returns the present, to the microsecond: .NET prints seven fractional digits at most.
    pub(super) fn now(&self) -> Timestamp {
        wall() + self.ahead
    }

    pub(super) fn advance(&mut self, by: Duration) {
        self.ahead += by;
    }
}

/// Returns the real time.
pub(super) fn wall() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

/// How long things take, in real-service time; `time_scale` divides all of them.
#[derive(Debug, Clone)]
pub struct Timings {
    /// 1 is real time, 100 is a hundred times faster, as in the fake agent.
    pub time_scale: f64,
    /// How long a poll without a message is held.
    pub poll_hold: Duration,
    /// How long an assignment or a renewal locks a job request.
    pub lock_length: Duration,
    /// How long a session lives without a poll.
    pub session_lapse: Duration,
    /// How long an agent's access token is good for.
    pub agent_token_life: Duration,
    /// How long the token in a job message is good for.
    pub job_token_life: Duration,
    /// How long an Entra token is good for.
    pub entra_token_life: Duration,
    /// What a cancellation grants the worker.
    pub cancel_timeout: Duration,
    /// What an update order grants the agent.
    pub refresh_timeout: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            time_scale: 1.0,
            poll_hold: Duration::from_secs(50),
            lock_length: Duration::from_secs(600),
            session_lapse: Duration::from_secs(300),
            agent_token_life: Duration::from_secs(3000),
            job_token_life: Duration::from_secs(24 * 3600),
            entra_token_life: Duration::from_secs(3600),
            cancel_timeout: Duration::from_secs(60),
            refresh_timeout: Duration::from_secs(1800),
        }
    }
}

impl Timings {
    /// Returns the default table, everything this many times faster.
    pub fn scaled(time_scale: f64) -> Self {
        Self {
            time_scale,
            ..Self::default()
        }
    }

    pub(super) fn scale(&self, real: Duration) -> Duration {
        if self.time_scale.is_finite() && self.time_scale > 0.0 {
            real.div_f64(self.time_scale)
        } else {
            real
        }
    }
}

/// Formats a duration as .NET's `TimeSpan` does, to whole seconds.
pub(super) fn time_span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Serialises a time as ISO 8601 in UTC.
pub(super) fn as_text<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(time)
}

/// Serialises a time that may be missing.
#[expect(clippy::ref_option, reason = "serde hands the field over like this")]
pub(super) fn as_text_opt<S: Serializer>(
    time: &Option<Timestamp>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => to.collect_str(time),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Clock, Timings, time_span, wall};

    #[test]
    fn advancing_moves_the_present() {
        let mut clock = Clock::default();
        clock.advance(Duration::from_secs(3600));
        assert!(clock.now() >= wall() + Duration::from_secs(3599));
    }

    #[test]
    fn a_larger_scale_is_faster() {
        let timings = Timings::scaled(100.0);
        assert_eq!(timings.scale(timings.poll_hold), Duration::from_millis(500));
        assert_eq!(
            Timings::scaled(0.0).scale(Duration::from_secs(1)),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn spans_are_written_as_dotnet_does() {
        assert_eq!(time_span(Duration::from_secs(3661)), "01:01:01");
    }
}
