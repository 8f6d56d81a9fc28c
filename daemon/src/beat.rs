//! Signs of life: a loop says each time round by when it will say so again. What is made of a
//! loop that does not keep its word is up to who feels its pulse.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The loop's side.
pub struct Beat(watch::Sender<Option<Instant>>);

impl Default for Beat {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Beat {
    /// Tells that the loop turns, and that it will tell so again within this time.
    pub fn again_within(&self, time: Duration) {
        self.0.send_replace(Some(Instant::now() + time));
    }

    /// Returns the watcher's side.
    pub fn pulse(&self) -> Pulse {
        Pulse(self.0.subscribe())
    }
}

/// The watcher's side.
#[derive(Clone)]
pub struct Pulse(watch::Receiver<Option<Instant>>);

impl Pulse {
    /// Returns since when the loop is stuck. One that has not begun, or has ended, is not.
    pub fn stuck_for(&self, now: Instant) -> Option<Duration> {
        let has_ended = self.0.has_changed().is_err();
        let due = (*self.0.borrow())?;
        (!has_ended && now > due).then(|| now.duration_since(due))
    }
}
