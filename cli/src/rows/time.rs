//! Times and amounts as people read them, and as JSON has them.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};

/// A point in time: RFC 3339 in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Time(pub(crate) Timestamp);

impl Time {
    /// Returns the time of a message's field; a time that cannot be is like one that is not set.
    pub(crate) fn of(field: Option<prost_types::Timestamp>) -> Option<Self> {
        let field = field?;
        Timestamp::new(field.seconds, field.nanos).ok().map(Self)
    }

    /// Returns how long ago it was; a time ahead of `now` is no time ago.
    pub(crate) fn age(self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.0)).unwrap_or_default()
    }

    /// Returns how much later `end` is; an earlier one is not at all.
    pub(crate) fn until(self, end: Self) -> Duration {
        self.age(end.0)
    }

    /// Returns how far ahead it is.
    pub(crate) fn ahead(self, now: Timestamp) -> Duration {
        Duration::try_from(self.0.duration_since(now)).unwrap_or_default()
    }
}

impl Time {
    /// Returns it by this host's clock: `18:00`, with its date where it is not today.
    pub(crate) fn local(self, now: Timestamp) -> String {
        let at = self.0.to_zoned_datetime(TimeZone::system());
        let today = now.to_zoned_datetime(TimeZone::system()).date() == at.date();
        let format = if today { "%H:%M" } else { "%Y-%m-%d %H:%M" };
        at.strftime(format).to_string()
    }
}

impl std::fmt::Display for Time {
    /// Writes whole seconds in UTC: `2026-11-24T11:32:55Z`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0}", self.0)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Returns the time that long ago, as messages have it.
pub(crate) fn ago(duration: Duration) -> prost_types::Timestamp {
    let at = Timestamp::now()
        .checked_sub(duration)
        .unwrap_or(Timestamp::MIN);
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

/// Returns the seconds of a message's duration.
pub(crate) fn seconds(field: Option<prost_types::Duration>) -> Option<f64> {
    let field = field?;
    Duration::try_from(field)
        .ok()
        .map(|duration| duration.as_secs_f64())
}

/// Returns an age in its largest units: `45s`, `3m`, `2h05m`, `4d`.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (minutes, hours, days) {
        (0, ..) => format!("{seconds}s"),
        (_, 0, _) => format!("{minutes}m"),
        (_, _, 0) => format!("{hours}h{:02}m", minutes % 60),
        _ => format!("{days}d"),
    }
}

/// Returns how long something took: `0.4s`, `58.3s`, `1m42s`, `1h03m`.
pub(crate) fn took(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// Returns how long something waited: `4s`, `6m10s`, `2h05m`.
pub(crate) fn waited(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        _ => took(duration),
    }
}

/// Returns the local time of day, as progress lines begin.
pub(crate) fn clock(now: Timestamp) -> String {
    now.to_zoned_datetime(TimeZone::system())
        .strftime("%H:%M:%S")
        .to_string()
}

/// Returns an amount of bytes in decimal megabytes, as downloads are counted.
pub(crate) fn megabytes(bytes: u64) -> String {
    // Rounding to a tenth of a megabyte: a double has digits enough.
    format!("{:.1}", bytes as f64 / 1e6)
}

/// Returns an amount of bytes in gibibytes, as memory is counted.
pub(crate) fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Returns an amount of bytes in its largest decimal unit.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1000 => format!("{bytes} B"),
        1000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{} MB", megabytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_their_largest_units() {
        let ages = [0, 59, 60, 3599, 3600, 7500, 86_399, 86_400, 1_000_000];
        let texts = ages.map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(
            texts,
            [
                "0s", "59s", "1m", "59m", "1h00m", "2h05m", "23h59m", "1d", "11d"
            ]
        );
    }

    #[test]
    fn times_taken_are_exact_where_it_matters() {
        let times = [400, 58_300, 102_000, 3_780_000];
        let texts = times.map(|ms| took(Duration::from_millis(ms)));
        assert_eq!(texts, ["0.4s", "58.3s", "1m42s", "1h03m"]);
    }

    #[test]
    fn a_time_ahead_of_the_clock_is_no_time_ago() {
        let now = Timestamp::from_second(1_000).unwrap();
        let later = Time(Timestamp::from_second(1_060).unwrap());
        assert_eq!(later.age(now), Duration::ZERO);
        assert_eq!(later.ahead(now), Duration::from_secs(60));
    }
}
