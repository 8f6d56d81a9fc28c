//! Durations as Go writes them: `300ms`, `5m`, `1h30m`, `1.5h`. The configuration format comes
//! from a Go program, so its units and its rules hold here.

use std::time::Duration;

/// The units of Go's `time.ParseDuration`, in nanoseconds. Both signs for micro are in use.
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    #[error("must not be negative")]
    Negative,
    #[error("needs a unit after `{0}` (ms, s, m or h), such as `30s` or `1h30m`")]
    NoUnit(String),
    #[error("has an unknown unit `{0}`; use ms, s, m or h, such as `30s` or `1h30m`")]
    UnknownUnit(String),
    #[error("is too long")]
    TooLong,
    #[error("must be a duration such as `30s`, `5m` or `1h30m`")]
    NotADuration,
}

/// Parses a duration in Go's notation.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::NotADuration);
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let number = leading(rest, |c| c.is_ascii_digit() || c == '.');
        rest = &rest[number.len()..];
        let unit = leading(rest, |c| !c.is_ascii_digit() && c != '.');
        rest = &rest[unit.len()..];
        let nanos = part(number, unit)?;
        total = total.checked_add(nanos).ok_or(DurationError::TooLong)?;
    }
    // Go's durations are signed.
    if total > i64::MAX.unsigned_abs() {
        return Err(DurationError::TooLong);
    }
    Ok(Duration::from_nanos(total))
}

fn leading(text: &str, accept: impl Fn(char) -> bool) -> &str {
    let end = text.find(|c| !accept(c)).unwrap_or(text.len());
    &text[..end]
}

fn part(number: &str, unit: &str) -> Result<u64, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return Err(DurationError::NotADuration);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit(number.to_owned()));
    }
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(DurationError::UnknownUnit(unit.to_owned()));
    };
    let whole = if whole.is_empty() {
        Ok(0)
    } else {
        whole.parse::<u64>()
    };
    let nanos = whole.ok().and_then(|whole| whole.checked_mul(*scale));
    let mut nanos = nanos.ok_or(DurationError::TooLong)?;
    let mut scale = *scale;
    for digit in fraction.bytes() {
        scale /= 10;
        nanos = nanos.saturating_add(scale * u64::from(digit - b'0'));
    }
    Ok(nanos)
}

/// Writes a duration so that [`parse`] reads it back: `90 s` is `1m30s`.
pub(super) fn format(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    let seconds = duration.as_secs();
    if seconds == 0 && nanos != 0 {
        return match nanos {
            n if n % 1_000_000 == 0 => format!("{}ms", n / 1_000_000),
            n if n % 1_000 == 0 => format!("{}us", n / 1_000),
            n => format!("{n}ns"),
        };
    }
    let mut text = String::new();
    for (count, unit) in [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm')] {
        if count > 0 {
            text.push_str(&count.to_string());
            text.push(unit);
        }
    }
    if !seconds.is_multiple_of(60) || nanos != 0 || text.is_empty() {
        let fraction = format!("{}.{nanos:09}", seconds % 60);
        text.push_str(fraction.trim_end_matches('0').trim_end_matches('.'));
        text.push('s');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("5m", 300_000),
            ("+30s", 30_000),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("1.s", 1000),
            ("300ms", 300),
            ("2m0.25s", 120_250),
            ("1500us", 1),
        ] {
            assert_eq!(parse(text).map(|d| d.as_millis()), Ok(millis), "{text}");
        }
        assert_eq!(parse("3ns"), Ok(Duration::from_nanos(3)));
        assert_eq!(parse("3µs"), Ok(Duration::from_micros(3)));
    }

    #[test]
    fn what_is_not_a_duration_is_refused_with_its_reason() {
        for (text, error) in [
            ("", DurationError::NotADuration),
            ("soon", DurationError::NotADuration),
            (".s", DurationError::NotADuration),
            ("1.2.3s", DurationError::NotADuration),
            ("-5m", DurationError::Negative),
            ("90", DurationError::NoUnit("90".into())),
            ("1h30", DurationError::NoUnit("30".into())),
            ("5 m", DurationError::UnknownUnit(" m".into())),
            ("2d", DurationError::UnknownUnit("d".into())),
            ("9999999999h", DurationError::TooLong),
            ("99999999999999999999999s", DurationError::TooLong),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in [
            "0s", "1ns", "20us", "300ms", "1.5s", "59s", "1m", "1m30s", "1h30m", "26h1s",
        ] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }
}
