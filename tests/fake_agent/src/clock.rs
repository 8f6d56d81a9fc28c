//! Time as the agent sees it: waits scaled for tests, stamps for console and logs.

use std::time::Duration;

use jiff::Timestamp;

/// Deadlines on outside calls are not scaled below this: they guard against a stuck peer, and a loaded
/// test machine must not trip them.
const SHORTEST_DEADLINE: Duration = Duration::from_secs(10);

/// Scales every wait of the protocol; 1 is real time, 100 is a hundred times faster.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    scale: f64,
}

impl Clock {
    /// Reads a scale such as `60`; anything that is no positive number means real time.
    pub fn new(scale: Option<&str>) -> Self {
        let scale = scale.and_then(|text| text.parse().ok());
        Self {
            scale: scale
                .filter(|scale: &f64| scale.is_finite() && *scale > 0.0)
                .unwrap_or(1.0),
        }
    }

    /// Returns how long a wait of the real agent takes here.
    pub fn wait(self, real: Duration) -> Duration {
        real.div_f64(self.scale)
    }

    /// Returns a wait drawn evenly from a range of seconds.
    pub fn random_wait(self, from: u64, to: u64) -> Duration {
        self.wait(Duration::from_millis(fastrand::u64(
            from * 1000..=to * 1000,
        )))
    }

    /// Returns the deadline of an outside call.
    pub fn deadline(self, real: Duration) -> Duration {
        self.wait(real).max(SHORTEST_DEADLINE.min(real))
    }

    /// Sleeps as long as [`Clock::wait`] says.
    pub async fn sleep(self, real: Duration) {
        tokio::time::sleep(self.wait(real)).await;
    }
}

/// Returns the present time in .NET's `u` format, which starts most console lines.
pub fn stamp() -> String {
    Timestamp::now().strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Clock;

    #[test]
    fn waits_shrink_with_the_scale_and_call_deadlines_keep_a_floor() {
        let clock = Clock::new(Some("100"));
        assert_eq!(
            clock.wait(Duration::from_secs(60)),
            Duration::from_millis(600)
        );
        assert_eq!(
            clock.deadline(Duration::from_secs(100)),
            Duration::from_secs(10)
        );
        assert_eq!(
            clock.deadline(Duration::from_secs(3)),
            Duration::from_secs(3)
        );
    }

    #[test]
    fn a_senseless_scale_is_real_time() {
        for scale in [
            None,
            Some(""),
            Some("0"),
            Some("-3"),
            Some("NaN"),
            Some("fast"),
        ] {
            let wait = Clock::new(scale).wait(Duration::from_secs(30));
            assert_eq!(wait, Duration::from_secs(30), "{scale:?}");
        }
    }
}
