//! Copies a log that the daemon streams to stdout.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time;
use tonic::{Response, Status, Streaming};

use super::Done;
use crate::error::CliError;
use crate::feed::Feed;
use crate::progress::Notes;

/// What is there already comes in one go; a silence this long says that the rest is new.
const QUIET: Duration = Duration::from_millis(300);

/// Prints a log as it comes, its last `tail` lines when given. `open` opens it from its
/// beginning, which is how reading goes on where it stopped after the daemon was away. A log that
/// is not followed is read to its end before its last lines are known.
pub(super) async fn print_log<M>(
    open: impl AsyncFnMut() -> Result<Response<Streaming<M>>, Status>,
    chunk: impl Fn(M) -> Vec<u8>,
    tail: Option<usize>,
    follow: bool,
) -> Result<Done, CliError> {
    let mut feed = Feed::new(open, Notes::stderr());
    let mut position = Position::default();
    let mut ended = false;
    if let Some(lines) = tail {
        let mut history = Vec::new();
        loop {
            let next = match position.opened {
                0 => feed.next().await?,
                // To its end: a pause in between is not the end.
                _ if !follow => feed.next().await?,
                _ => match time::timeout(QUIET, feed.next()).await {
                    Ok(next) => next?,
                    Err(_) => break,
                },
            };
            let Some(message) = next else {
                ended = true;
                break;
            };
            history.extend(position.new_part(chunk(message), feed.opened()));
        }
        print(last_lines(&history, lines))?;
    }
    while !ended {
        match feed.next().await? {
            Some(message) => print(&position.new_part(chunk(message), feed.opened()))?,
            None => ended = true,
        }
    }
    Ok(Done::Yes)
}

/// How far a log was read, over all streams that were opened for it.
#[derive(Default)]
struct Position {
    opened: u32,
    /// Bytes printed.
    seen: usize,
    /// Bytes that the present stream has sent.
    sent: usize,
}

impl Position {
    /// Returns what of `chunk` was not seen on an earlier stream.
    fn new_part(&mut self, mut chunk: Vec<u8>, opened: u32) -> Vec<u8> {
        if self.opened != opened {
            self.opened = opened;
            self.sent = 0;
        }
        let known = self.seen.saturating_sub(self.sent).min(chunk.len());
        self.sent += chunk.len();
        self.seen = self.seen.max(self.sent);
        chunk.drain(..known);
        chunk
    }
}

/// Returns the last `count` lines of `text`.
fn last_lines(text: &[u8], count: usize) -> &[u8] {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    let mut ends = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    match count.checked_sub(1).map(|skip| ends.nth(skip)) {
        None => &[],
        Some(None) => text,
        Some(Some((newline, _))) => text.get(newline + 1..).unwrap_or_default(),
    }
}

/// Writes bytes as they are; a terminal does not get what would steer it, since the log is
/// written by the job.
fn print(bytes: &[u8]) -> Result<(), CliError> {
    let stdout = std::io::stdout();
    let written = if stdout.is_terminal() {
        let mut out = anstream::StripStream::new(stdout.lock());
        out.write_all(bytes).and_then(|()| out.flush())
    } else {
        let mut out = stdout.lock();
        out.write_all(bytes).and_then(|()| out.flush())
    };
    written.map_err(CliError::Output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_whole_lines() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 1), b"c");
        assert_eq!(last_lines(b"a\n", 5), b"a\n");
        assert_eq!(last_lines(b"a\nb\n", 0), b"");
        assert_eq!(last_lines(b"", 3), b"");
    }

    #[test]
    fn a_log_opened_again_goes_on_where_it_stopped() {
        let mut position = Position::default();
        assert_eq!(position.new_part(b"one ".to_vec(), 1), b"one ");
        assert_eq!(position.new_part(b"two".to_vec(), 1), b"two");
        assert_eq!(position.new_part(b"one t".to_vec(), 2), b"");
        assert_eq!(position.new_part(b"wo three".to_vec(), 2), b" three");
    }
}
