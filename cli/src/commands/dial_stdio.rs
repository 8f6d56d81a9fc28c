//! `dial-stdio`: what `--host ssh://HOST` runs on the other side. Hidden: ssh calls it.
//!
//! Two threads copy, without a runtime: one that reads standard input cannot be stopped.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Args;
use iap_common::client::ConnectError;
use iap_common::socket::view_path;

use super::Done;
use crate::error::CliError;

/// How long the daemon may be silent when standard input has ended. It notices that itself; this
/// is for one that does not.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Copy between standard input and output and the daemon's socket
///
/// Ends when the daemon ends the connection, or soon after the end of standard input.
#[derive(Args)]
#[command(
    hide = true,
    after_long_help = "\
Examples:
  iapctl dial-stdio"
)]
pub(crate) struct DialStdioArgs {}

/// The side that has ended.
enum Ended {
    Here,
    Daemon(io::Result<()>),
}

/// Copies until one side ends.
pub(crate) fn run(path: &Path) -> Result<Done, CliError> {
    let socket = dial(path).map_err(CliError::Connect)?;
    let mouth = socket.try_clone().map_err(CliError::Runtime)?;
    let (here, ended) = mpsc::sync_channel(2);
    let there = here.clone();
    // A thread may read for ever: the program's end is its end.
    spawn(move || {
        // What cannot be read or written any more has ended, too.
        let _ = copy(&mut io::stdin().lock(), &mut &mouth);
        let _ = mouth.shutdown(Shutdown::Write);
        let _ = here.send(Ended::Here);
    })?;
    spawn(move || {
        let copied = copy(&mut &socket, &mut io::stdout().lock());
        let _ = there.send(Ended::Daemon(copied));
    })?;
    let mut first = ended.recv();
    if matches!(first, Ok(Ended::Here)) {
        first = ended.recv_timeout(LAST_WORDS).map_err(|_| mpsc::RecvError);
    }
    match first {
        Ok(Ended::Daemon(Err(error))) => Err(CliError::Output(error)),
        _ => Ok(Done::Yes),
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<(), CliError> {
    let thread = thread::Builder::new().spawn(work);
    thread.map(drop).map_err(CliError::Runtime)
}

/// Connects to the socket, or to that for looking when this user may not use the other.
fn dial(path: &Path) -> Result<UnixStream, ConnectError> {
    let connect = |path: &Path| {
        UnixStream::connect(path).map_err(|source| ConnectError::of(path, source.kind(), source))
    };
    let refused = match connect(path) {
        Err(error @ ConnectError::NotPermitted(_)) => error,
        connected => return connected,
    };
    connect(&view_path(path)).map_err(|_| refused)
}

/// Copies until the end of `from`, each piece at once. A side that broke has ended, too.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut piece = [0; 16 * 1024];
    loop {
        let size = match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(size) => size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Ok(()),
        };
        to.write_all(piece.get(..size).unwrap_or_default())?;
        to.flush()?;
    }
}
