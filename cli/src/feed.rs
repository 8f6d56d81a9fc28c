//! A watch that outlives the daemon's restarts: the stream is opened again, with a bounded
//! back-off and a note on stderr, until the daemon is gone for too long.

use std::time::Duration;

use tokio::time::{self, Instant};
use tonic::{Response, Status, Streaming};

use crate::commands::open;
use crate::error::{CliError, daemon_is_gone};
use crate::progress::Notes;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A package upgrade takes seconds; what is gone for longer needs an operator.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// The messages of a watch.
pub(crate) struct Feed<F, M> {
    open: F,
    stream: Option<Streaming<M>>,
    outage: Outage,
    opened: u32,
}

impl<F, M> Feed<F, M>
where
    F: AsyncFnMut() -> Result<Response<Streaming<M>>, Status>,
{
    /// Returns a feed of the stream that `open` opens; the first `next` does.
    pub(crate) fn new(open: F, notes: Notes) -> Self {
        Self {
            open,
            stream: None,
            outage: Outage::new(notes),
            opened: 0,
        }
    }

    /// Returns how many times the stream was opened.
    pub(crate) fn opened(&self) -> u32 {
        self.opened
    }

    /// Waits for the next message of a watch that only the daemon's end can end.
    pub(crate) async fn next_endless(&mut self) -> Result<M, CliError> {
        loop {
            match self.next().await? {
                Some(message) => return Ok(message),
                None => {
                    self.outage
                        .ride_out(Status::unavailable("the watch ended").into())
                        .await?;
                }
            }
        }
    }

    /// Waits for the next message. `None` = the daemon ended the stream in good order. Calling
    /// it again opens the stream again.
    pub(crate) async fn next(&mut self) -> Result<Option<M>, CliError> {
        loop {
            let result = match &mut self.stream {
                Some(stream) => stream.message().await.map_err(CliError::from),
                None => match open((self.open)()).await {
                    Ok(stream) => {
                        self.stream = Some(stream);
                        self.opened += 1;
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match result {
                Ok(message) => {
                    match message {
                        Some(_) => self.outage.is_over(),
                        None => self.stream = None,
                    }
                    return Ok(message);
                }
                // A daemon that was never there is an error at once.
                Err(error) if self.opened == 0 => return Err(error),
                Err(error) => {
                    self.stream = None;
                    self.outage.ride_out(error).await?;
                }
            }
        }
    }
}

/// A time without the daemon.
pub(crate) struct Outage {
    notes: Notes,
    since: Option<Instant>,
    delay: Duration,
}

impl Outage {
    pub(crate) fn new(notes: Notes) -> Self {
        Self {
            notes,
            since: None,
            delay: FIRST_DELAY,
        }
    }

    /// Waits a while when `error` says that the daemon is gone, and not for too long already.
    pub(crate) async fn ride_out(&mut self, error: CliError) -> Result<(), CliError> {
        if !matches!(&error, CliError::Rpc(status) if daemon_is_gone(status)) {
            return Err(error);
        }
        let since = *self.since.get_or_insert_with(|| {
            self.notes.say("the daemon went away, trying again");
            self.delay = FIRST_DELAY;
            Instant::now()
        });
        if since.elapsed() >= GIVE_UP_AFTER {
            return Err(error);
        }
        time::sleep(self.delay).await;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
        Ok(())
    }

    /// Notes that the daemon answers.
    pub(crate) fn is_over(&mut self) {
        if self.since.take().is_some() {
            self.notes.say("the daemon is back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_ridden_out_for_a_minute_and_no_longer() {
        let gone = || CliError::from(Status::unavailable("shutting down"));
        let mut outage = Outage::new(Notes::stderr());
        let begun = Instant::now();
        while outage.ride_out(gone()).await.is_ok() {}
        assert!((60..66).contains(&begun.elapsed().as_secs()));
    }

    #[tokio::test]
    async fn other_errors_are_no_outage() {
        let error = CliError::from(Status::internal("broken"));
        assert!(Outage::new(Notes::stderr()).ride_out(error).await.is_err());
    }
}
