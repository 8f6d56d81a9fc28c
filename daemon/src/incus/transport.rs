//! How requests get to Incus and answers back: connections, their reuse, time limits, repeats,
//! and the frame every answer comes in. Knows no endpoint but the root it greets.
//!
//! A request only ever runs on a connection that has answered before: a fresh one is first greeted
//! with a `GET /`, within a limit of its own, and replaced when it stays silent. What is safe to
//! repeat is repeated when its connection breaks; everything else only when nothing of it was sent.

use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::time::Duration;

use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tracing::{debug, trace};

use super::Limits;
use super::error::{CallSite, IncusError};
use super::operations::Operation;
use crate::calls::{CallObserver, CallOutcome, CallReport};

use connection::{AUTHORITY, Connection, Content, NoConnection, Part, Trip};

pub(super) use connection::Body;
pub(super) use endpoint::{Endpoint, Stream};
pub use endpoint::{Remote, RemoteError};
pub(super) use request::{Ask, Payload, path};

mod connection;
mod endpoint;
mod request;

const ERROR_CAP: usize = 64 * 1024;
/// The server closes connections after 30 s without a request.
const IDLE: Duration = Duration::from_secs(25);
const IDLE_CONNECTIONS: usize = 16;
/// How many connections are tried before a call gives up.
const ATTEMPTS: u32 = 3;
/// The wait after the socket's queue was found full.
const QUEUE_FULL: Duration = Duration::from_millis(50);
/// Events and output come in small messages.
const MESSAGE_CAP: usize = 4 * 1024 * 1024;

/// An answer below 400.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Whether there was more of it than wanted.
    pub(super) cut: bool,
}

/// The frame that every JSON answer comes in.
#[derive(Deserialize)]
struct Frame<T> {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_code: u16,
    metadata: Option<T>,
}

/// The connections to one server.
pub(super) struct Transport {
    endpoint: Endpoint,
    observer: CallObserver,
    limits: Limits,
    idle: Mutex<VecDeque<Connection>>,
}

/// How one attempt at a request ended.
enum Attempt {
    Answered(Answer),
    Unsent(Box<Request<Body>>, hyper::Error),
    Broken(hyper::Error),
    Unanswered(Duration),
}

impl Transport {
    pub(super) fn new(endpoint: Endpoint, observer: CallObserver, limits: Limits) -> Self {
        Self {
            endpoint,
            observer,
            limits,
            idle: Mutex::new(VecDeque::new()),
        }
    }

    /// Returns whether the server is on another host.
    pub(super) fn is_remote(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tls(_))
    }

    /// Returns where the server is, for people.
    pub(super) fn place(&self) -> String {
        let all = (0..self.endpoint.count()).map(|address| self.endpoint.name(address));
        all.collect::<Vec<_>>().join(", ")
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Carries out a call whose answer holds its result.
    pub(super) async fn sync<T: DeserializeOwned>(&self, ask: Ask) -> Result<T, IncusError> {
        let site = ask.site();
        self.call(ask).await?.result(site)
    }

    /// Carries out a call whose answer holds nothing of interest.
    pub(super) async fn done(&self, ask: Ask) -> Result<(), IncusError> {
        self.call(ask).await.map(drop)
    }

    /// Carries out a call that starts an operation.
    pub(super) async fn begin(&self, ask: Ask) -> Result<Operation, IncusError> {
        self.sync(ask).await
    }

    /// Tells the observer of a finished call.
    pub(super) fn report(&self, kind: &'static str, outcome: CallOutcome, elapsed: Duration) {
        (self.observer)(CallReport {
            kind,
            outcome,
            elapsed,
        });
    }

    /// Carries out a call, reports and logs it.
    pub(super) async fn call(&self, mut ask: Ask) -> Result<Answer, IncusError> {
        let begun = Instant::now();
        if let (Payload::Json(body), false) = (&ask.payload, ask.private) {
            trace!(kind = ask.kind, path = ask.path, %body, "incus request");
        }
        let result = Box::pin(self.attempt(&mut ask, begun)).await;
        let elapsed = begun.elapsed();
        if ask.reported {
            self.report(ask.kind, outcome(&ask.method, &result), elapsed);
        }
        let status = match &result {
            Ok(answer) => Some(answer.status.as_u16()),
            Err(IncusError::Refused { status, .. }) => Some(*status),
            Err(_) => None,
        };
        debug!(
            kind = ask.kind,
            instance = ask.instance,
            method = %ask.method,
            path = ask.path,
            status,
            ?elapsed,
            "incus call",
        );
        if let (Ok(answer), false) = (&result, ask.private) {
            let body = String::from_utf8_lossy(&answer.body);
            trace!(kind = ask.kind, path = ask.path, %body, "incus answer");
        }
        result
    }

    async fn attempt(&self, ask: &mut Ask, begun: Instant) -> Result<Answer, IncusError> {
        let within = ask.within.unwrap_or(self.limits.call);
        let deadline = begun + within;
        let mut request = None;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut connection = self.connection(ask, deadline).await?;
            let ready = request.take().unwrap_or_else(|| ask.request());
            let last = attempts == ATTEMPTS || Instant::now() >= deadline;
            match self.run(&mut connection, ask, ready, deadline).await {
                Attempt::Answered(answer) => {
                    if !answer.cut {
                        self.keep(connection);
                    }
                    return checked(answer, ask);
                }
                Attempt::Unsent(unsent, source) => {
                    if last {
                        return Err(IncusError::Broken {
                            call: ask.site(),
                            source,
                        });
                    }
                    request = Some(*unsent);
                }
                Attempt::Broken(source) => {
                    if last || !ask.repeat {
                        return Err(IncusError::Broken {
                            call: ask.site(),
                            source,
                        });
                    }
                }
                Attempt::Unanswered(after) => {
                    self.leave(connection.address);
                    // Once more at most: two silences mean that the server is stuck.
                    if attempts > 1 || !ask.repeat || Instant::now() >= deadline {
                        return Err(IncusError::Unanswered {
                            call: ask.site(),
                            after,
                        });
                    }
                }
            }
        }
    }

    /// Sends a request on a connection and reads the answer.
    async fn run(
        &self,
        connection: &mut Connection,
        ask: &Ask,
        request: Request<Body>,
        deadline: Instant,
    ) -> Attempt {
        let sent = Instant::now();
        let limit = deadline.min(sent + ask.answer.unwrap_or(self.limits.answer));
        let response = match timeout_at(limit, connection.send(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(Trip::Unsent(request, source))) => return Attempt::Unsent(request, source),
            Ok(Err(Trip::Broken(source))) => return Attempt::Broken(source),
            Err(_) => return Attempt::Unanswered(sent.elapsed()),
        };
        let (head, body) = response.into_parts();
        let part = if head.status.as_u16() >= 400 {
            Part {
                skip: 0,
                cap: ERROR_CAP,
            }
        } else if head.status == StatusCode::PARTIAL_CONTENT {
            Part {
                skip: 0,
                cap: ask.part.cap,
            }
        } else {
            ask.part
        };
        match timeout_at(deadline, connection.read(body, part)).await {
            Ok(Ok(Content { bytes, cut })) => {
                let answer = Answer {
                    status: head.status,
                    headers: head.headers,
                    body: bytes,
                    cut,
                };
                Attempt::Answered(answer)
            }
            Ok(Err(source)) => Attempt::Broken(source),
            Err(_) => Attempt::Unanswered(sent.elapsed()),
        }
    }

    /// Returns a connection that has answered before.
    async fn connection(&self, ask: &Ask, deadline: Instant) -> Result<Connection, IncusError> {
        // The oldest first, so that a few stay warm instead of one.
        while let Some(mut connection) = self.pop() {
            if connection.used.elapsed() < IDLE && connection.is_alive().await {
                return Ok(connection);
            }
        }
        self.open(ask.site(), deadline).await
    }

    fn pop(&self) -> Option<Connection> {
        self.idle
            .lock()
            .expect("nothing panics while it is held")
            .pop_front()
    }

    fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().expect("nothing panics while it is held");
        if idle.len() < IDLE_CONNECTIONS {
            idle.push_back(connection);
        }
    }

    /// Lets another address serve, where there is one.
    fn leave(&self, address: usize) {
        if self.endpoint.count() < 2 {
            return;
        }
        self.endpoint.pass_on(address);
        self.idle
            .lock()
            .expect("nothing panics while it is held")
            .retain(|connection| connection.address != address);
        debug!(
            address = self.endpoint.name(address),
            "incus does not answer here, trying another address"
        );
    }

    /// Opens a connection; one that is not accepted is left for another. Each address gets its
    /// chance.
    async fn open(&self, call: Box<CallSite>, deadline: Instant) -> Result<Connection, IncusError> {
        let begun = Instant::now();
        let mut silent = 0;
        let mut failed = 0;
        loop {
            let address = self.endpoint.serving();
            // Longer each time: the silence may be that of a busy machine.
            let limit = deadline.min(Instant::now() + self.limits.greeting * (1 << silent));
            let error = match timeout_at(limit, Connection::open(&self.endpoint, address)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(NoConnection::Http(source))) => IncusError::Broken {
                    call: call.clone(),
                    source,
                },
                Ok(Err(NoConnection::Io(source))) if source.kind() == io::ErrorKind::WouldBlock => {
                    // The socket's queue is full.
                    if Instant::now() < deadline {
                        sleep(QUEUE_FULL).await;
                        continue;
                    }
                    let at = self.endpoint.name(address);
                    return Err(IncusError::Connect { call, at, source });
                }
                Ok(Err(NoConnection::Io(source))) => {
                    let (call, at) = (call.clone(), self.endpoint.name(address));
                    IncusError::Connect { call, at, source }
                }
                Err(_) => {
                    silent += 1;
                    let after = begun.elapsed();
                    if silent >= ATTEMPTS.max(self.addresses()) || Instant::now() >= deadline {
                        return Err(IncusError::Unanswered { call, after });
                    }
                    self.leave(address);
                    debug!(
                        kind = call.kind,
                        "incus left a connection unanswered, trying another"
                    );
                    continue;
                }
            };
            self.leave(address);
            failed += 1;
            if failed >= self.addresses() || Instant::now() >= deadline {
                return Err(error);
            }
        }
    }

    fn addresses(&self) -> u32 {
        u32::try_from(self.endpoint.count()).unwrap_or(u32::MAX)
    }

    /// Opens a connection for a websocket. It has answered before, like any other.
    pub(super) async fn stream(&self, call: &CallSite) -> Result<Stream, IncusError> {
        let deadline = Instant::now() + self.limits.answer;
        let connection = self.open(Box::new(call.clone()), deadline).await?;
        Ok(connection.into_stream())
    }

    /// Turns a connection into a websocket.
    pub(super) async fn websocket(
        &self,
        call: &CallSite,
        stream: Stream,
        path: &str,
    ) -> Result<WebSocketStream<Stream>, IncusError> {
        let begun = Instant::now();
        let config = WebSocketConfig::default()
            .max_message_size(Some(MESSAGE_CAP))
            .max_frame_size(Some(MESSAGE_CAP));
        let url = format!("ws://{AUTHORITY}{path}");
        let handshake = tokio_tungstenite::client_async_with_config(url, stream, Some(config));
        let result = match timeout_at(begun + self.limits.answer, Box::pin(handshake)).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(source)) => Err(IncusError::Websocket {
                call: Box::new(call.clone()),
                source: Box::new(source),
            }),
            Err(_) => Err(IncusError::Unanswered {
                call: Box::new(call.clone()),
                after: begun.elapsed(),
            }),
        };
        let elapsed = begun.elapsed();
        let outcome = if result.is_ok() {
            CallOutcome::Ok
        } else {
            CallOutcome::Unreachable
        };
        self.report(call.kind, outcome, elapsed);
        debug!(
            kind = call.kind,
            path = call.path,
            ?elapsed,
            "incus websocket"
        );
        result
    }
}

/// What is not there needs no deleting and is an answer to a question.
pub(super) fn outcome<T>(method: &Method, result: &Result<T, IncusError>) -> CallOutcome {
    match result {
        Ok(_) => CallOutcome::Ok,
        Err(IncusError::Refused { status: 404, .. })
            if [Method::GET, Method::HEAD, Method::DELETE].contains(method) =>
        {
            CallOutcome::Ok
        }
        Err(
            IncusError::Refused {
                status: 400..=499, ..
            }
            | IncusError::TooLarge { .. },
        ) => CallOutcome::Refused,
        Err(IncusError::Refused { .. } | IncusError::Malformed { .. }) => CallOutcome::Failed,
        Err(_) => CallOutcome::Unreachable,
    }
}

/// Sorts out refusals.
fn checked(answer: Answer, ask: &Ask) -> Result<Answer, IncusError> {
    if answer.status.as_u16() < 400 {
        return Ok(answer);
    }
    let message = match serde_json::from_slice::<Frame<Value>>(&answer.body) {
        Ok(frame) if !frame.error.is_empty() => frame.error,
        _ => String::from_utf8_lossy(&answer.body)
            .trim()
            .chars()
            .take(500)
            .collect(),
    };
    Err(IncusError::Refused {
        call: ask.site(),
        status: answer.status.as_u16(),
        message,
    })
}

impl Answer {
    /// Takes the result out of its frame. A refusal can come with status 200, as after a wait.
    pub(super) fn result<T: DeserializeOwned>(self, call: Box<CallSite>) -> Result<T, IncusError> {
        if self.cut {
            return Err(IncusError::TooLarge {
                call,
                cap: self.body.len(),
            });
        }
        let frame: Frame<T> = match serde_json::from_slice(&self.body) {
            Ok(frame) => frame,
            Err(source) => return Err(IncusError::Malformed { call, source }),
        };
        if frame.kind == "error" {
            let (status, message) = (frame.error_code, frame.error);
            return Err(IncusError::Refused {
                call,
                status,
                message,
            });
        }
        frame.metadata.ok_or_else(|| {
            let source = serde::de::Error::custom("the answer has no metadata");
            IncusError::Malformed { call, source }
        })
    }
}

#[cfg(test)]
mod tests;
