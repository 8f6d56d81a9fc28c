//! Waiting for the daemon with an eye on the clock and on Ctrl-C.

use std::pin::pin;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{self, Instant, Interval, MissedTickBehavior};

use crate::error::CliError;

/// How often what is drawn is drawn again.
const TICK: Duration = Duration::from_secs(1);

/// The end of one wait.
pub(crate) enum Waited<T> {
    For(T),
    Interrupted,
    TimedOut,
}

/// What ends a wait early, and the beat in between.
pub(crate) struct Wait {
    interrupt: Signal,
    beat: Interval,
    deadline: Option<Instant>,
}

impl Wait {
    /// Returns a wait that takes Ctrl-C from now on and ends after `timeout`.
    pub(crate) fn new(timeout: Option<Duration>) -> Result<Self, CliError> {
        let interrupt = signal(SignalKind::interrupt()).map_err(CliError::Runtime)?;
        let mut beat = time::interval(TICK);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(Self {
            interrupt,
            beat,
            deadline,
        })
    }

    /// Waits for `future`, which is never dropped half-way but for the end of the whole wait.
    pub(crate) async fn on<T>(
        &mut self,
        future: impl Future<Output = T>,
        mut every_second: impl FnMut(),
    ) -> Waited<T> {
        let mut future = pin!(future);
        let never = Instant::now() + Duration::from_secs(86_400 * 365);
        let deadline = self.deadline.unwrap_or(never);
        loop {
            tokio::select! {
                biased;
                _ = self.interrupt.recv() => return Waited::Interrupted,
                value = &mut future => return Waited::For(value),
                () = time::sleep_until(deadline) => return Waited::TimedOut,
                _ = self.beat.tick() => every_second(),
            }
        }
    }
}
