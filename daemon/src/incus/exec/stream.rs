//! A command whose output is followed over websockets: one each for its input (closed at once),
//! its output, its error output, and for signals. Closing the last one ends the command.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::Method;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::CancellationToken;

use super::lines::{OutputStream, Splitter, StreamLine};
use crate::incus::error::{CallSite, IncusError};
use crate::incus::operations::{Operation, OperationId, Waited};
use crate::incus::transport::{Ask, Stream, path};
use crate::incus::{Incus, Project};

/// How long output may still come after the command has ended; something it has left behind may
/// hold it open for ever.
const DRAIN: Duration = Duration::from_secs(2);
/// How long a killed command may take to end.
const KILL: Duration = Duration::from_secs(5);
const SIGKILL: i32 = 9;
/// For how long Incus may be away before the command is given up.
const ABSENCE: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<Stream>;

/// A command that has been started.
pub(super) struct Running {
    id: OperationId,
    call: Box<CallSite>,
    control: Socket,
    stdout: Socket,
    stderr: Socket,
}

/// What happens next to a running command.
enum Next {
    Stdout(Option<Bytes>),
    Stderr(Option<Bytes>),
    Ended(Result<Operation, IncusError>),
    Stop,
    Overdue,
}

impl Running {
    /// Starts the command: it runs as soon as all its websockets are connected.
    pub(super) async fn start(
        project: &Project,
        ask: Ask,
        stop: &CancellationToken,
    ) -> Result<Self, IncusError> {
        let call = ask.site();
        let started = stop.run_until_cancelled(Self::connect(project, ask)).await;
        started.unwrap_or(Err(IncusError::Cancelled { call }))
    }

    async fn connect(project: &Project, ask: Ask) -> Result<Self, IncusError> {
        let call = ask.site();
        let transport = project.transport();
        // The server waits 5 s for the websockets, so the connections come first.
        let mut streams = Vec::with_capacity(4);
        for _ in 0..4 {
            streams.push(transport.stream(&call).await?);
        }
        let operation = transport.begin(ask).await?;
        let mut sockets = Vec::with_capacity(4);
        for (fd, stream) in ["control", "0", "1", "2"].into_iter().zip(streams) {
            let secret = operation.metadata["fds"][fd].as_str().unwrap_or_default();
            let parts = ["operations", operation.id.as_str(), "websocket"];
            let site = CallSite {
                kind: "exec_websocket",
                instance: call.instance.clone(),
                method: Method::GET,
                path: path(&parts, &[]),
            };
            let path = path(&parts, &[("secret", secret)]);
            sockets.push(transport.websocket(&site, stream, &path).await?);
        }
        let [control, mut stdin, stdout, stderr] =
            <[Socket; 4]>::try_from(sockets).expect("one websocket was pushed for each of four");
        // An empty text message ends a stream; so does the loss of its websocket, which is what a
        // command that has ended already leads to.
        drop(stdin.send(Message::text("")).await);
        Ok(Self {
            id: operation.id,
            call,
            control,
            stdout,
            stderr,
        })
    }

    /// Follows the command to its end.
    pub(super) async fn follow(
        mut self,
        project: &Project,
        stop: &CancellationToken,
        mut on_line: impl FnMut(StreamLine) + Send,
    ) -> Result<Operation, IncusError> {
        let mut stdout = Some(Splitter::new(OutputStream::Stdout));
        let mut stderr = Some(Splitter::new(OutputStream::Stderr));
        let mut result = None;
        let mut overdue = None;
        let mut stopped = false;
        let call = self.call.clone();
        let mut end = Box::pin(ended(&project.incus, &self.id, &call));
        let mut control_open = true;
        loop {
            let limit = overdue.unwrap_or_else(Instant::now);
            let next = tokio::select! {
                data = data(&mut self.stdout), if stdout.is_some() => Next::Stdout(data),
                data = data(&mut self.stderr), if stderr.is_some() => Next::Stderr(data),
                ended = &mut end, if result.is_none() => Next::Ended(ended),
                // Nothing comes from it but pings, which want to be answered.
                _ = data(&mut self.control), if control_open => {
                    control_open = false;
                    continue;
                }
                () = stop.cancelled(), if !stopped && result.is_none() => Next::Stop,
                () = sleep_until(limit), if overdue.is_some() => Next::Overdue,
            };
            match next {
                Next::Stdout(data) => take(&mut stdout, data, &mut on_line),
                Next::Stderr(data) => take(&mut stderr, data, &mut on_line),
                Next::Ended(ended) => {
                    result = Some(ended);
                    overdue = Some(Instant::now() + DRAIN);
                }
                Next::Stop => {
                    stopped = true;
                    overdue = Some(Instant::now() + KILL);
                    kill(&mut self.control).await;
                }
                Next::Overdue => break,
            }
            if result.is_some() && (stopped || (stdout.is_none() && stderr.is_none())) {
                break;
            }
        }
        take(&mut stdout, None, &mut on_line);
        take(&mut stderr, None, &mut on_line);
        match result {
            Some(result) if !stopped => result,
            _ => Err(IncusError::Cancelled { call: call.clone() }),
        }
    }
}

/// Waits for the next output. `None` at its end.
async fn data(socket: &mut Socket) -> Option<Bytes> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(data))) => return Some(data),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Text(_) | Message::Close(_)) | Err(_)) | None => return None,
        }
    }
}

/// Hands over the lines of a message, or the last one at the end.
fn take(
    splitter: &mut Option<Splitter>,
    data: Option<Bytes>,
    on_line: &mut impl FnMut(StreamLine),
) {
    match (splitter.as_mut(), data) {
        (Some(splitter), Some(data)) => splitter.feed(&data, on_line),
        (Some(open), None) => {
            open.finish(on_line);
            *splitter = None;
        }
        (None, _) => {}
    }
}

/// Ends the command. If the signal cannot be sent, the loss of the websocket does the same.
async fn kill(control: &mut Socket) {
    let signal = json!({"command": "signal", "signal": SIGKILL}).to_string();
    let sent = timeout(Duration::from_secs(1), control.send(Message::text(signal))).await;
    if !matches!(sent, Ok(Ok(()))) {
        tracing::debug!("a command was not signalled, closing its control websocket instead");
    }
}

/// Waits for the operation of the command as long as it takes.
async fn ended(incus: &Incus, id: &OperationId, call: &CallSite) -> Result<Operation, IncusError> {
    loop {
        match incus.wait(id, ABSENCE).await? {
            Waited::Ended(operation) => return operation.result(),
            Waited::Forgotten => {
                return Err(IncusError::Forgotten {
                    call: Box::new(call.clone()),
                    id: id.clone(),
                });
            }
            Waited::StillRunning => {}
        }
    }
}
