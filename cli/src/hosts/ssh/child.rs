//! The process that a connection runs over: its ends are the wire, its stderr and its exit code
//! the reason when the wire breaks.

use std::io;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::{oneshot, watch};
use tokio::time;

/// How long a process has to end when nobody needs it any more, and how long its last words are
/// waited for.
const GRACE: Duration = Duration::from_secs(2);
/// More of what it says is not kept.
const MOST_SAID: usize = 8192;

/// What is read is the process's standard output, what is written its standard input.
pub(super) struct Wire {
    stdin: ChildStdin,
    stdout: ChildStdout,
    /// Tells by its end that the wire is not needed any more.
    _in_use: oneshot::Sender<()>,
}

/// How the process ends, as far as that is known yet.
pub(super) struct Ending {
    status: watch::Receiver<Option<ExitStatus>>,
    said: Arc<Mutex<Vec<u8>>>,
}

/// Takes a process apart: its wire, its ending, and what has to run until then.
pub(super) fn tend(
    mut child: Child,
) -> io::Result<(Wire, Ending, impl Future<Output = ()> + use<>)> {
    let missing = || io::Error::from(io::ErrorKind::BrokenPipe);
    let (in_use, unused) = oneshot::channel();
    let wire = Wire {
        stdin: child.stdin.take().ok_or_else(missing)?,
        stdout: child.stdout.take().ok_or_else(missing)?,
        _in_use: in_use,
    };
    let stderr = child.stderr.take().ok_or_else(missing)?;
    let said = Arc::new(Mutex::default());
    let (ended, status) = watch::channel(None);
    let tending = until_end(child, stderr, said.clone(), unused, ended);
    Ok((wire, Ending { status, said }, tending))
}

async fn until_end(
    mut child: Child,
    stderr: ChildStderr,
    said: Arc<Mutex<Vec<u8>>>,
    mut unused: oneshot::Receiver<()>,
    ended: watch::Sender<Option<ExitStatus>>,
) {
    let ending = async {
        let status = tokio::select! {
            status = child.wait() => status,
            _ = &mut unused => match time::timeout(GRACE, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    // Its end is waited for below; that it is gone already is no trouble.
                    let _ = child.start_kill();
                    child.wait().await
                }
            },
        };
        status.ok()
    };
    let (mut ending, mut listening) = (pin!(ending), pin!(listen(stderr, &said)));
    let mut heard = false;
    let status = loop {
        tokio::select! {
            status = &mut ending => break status,
            () = &mut listening, if !heard => heard = true,
        }
    };
    if !heard {
        // What it said last is in the pipe. A process that it left behind (ssh's ControlPersist)
        // may hold the pipe open for ever.
        let _ = time::timeout(GRACE / 10, listening).await;
    }
    ended.send_replace(status);
}

/// Keeps the first of what a process says, and reads the rest lest it stops.
async fn listen(mut stderr: ChildStderr, said: &Mutex<Vec<u8>>) {
    let mut piece = [0; 1024];
    loop {
        let size = match stderr.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(size) => size,
        };
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MOST_SAID.saturating_sub(said.len()).min(size);
        said.extend(piece.iter().take(room));
    }
}

impl Ending {
    /// Returns how the process ended and what it said; does not wait for one that is `late`.
    pub(super) async fn known(mut self, late: bool) -> (Option<ExitStatus>, String) {
        if !late {
            let _ = time::timeout(2 * GRACE, self.status.wait_for(Option::is_some)).await;
        }
        let status = *self.status.borrow();
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        (status, String::from_utf8_lossy(&said).into_owned())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stdin).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdin).poll_shutdown(cx)
    }
}
