//! What can go wrong between us and Incus, and the few questions policy asks about it.

use std::fmt::{Display, Formatter};
use std::io;
use std::time::Duration;

use hyper::Method;
use thiserror::Error;
use tokio_tungstenite::tungstenite;

use super::files::FileKind;
use super::operations::OperationId;

/// Which call an error belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSite {
    /// What was asked, such as `instance_create`.
    pub kind: &'static str,
    /// The instance it was about.
    pub instance: Option<String>,
    /// The HTTP method.
    pub method: Method,
    /// The path below the server, with its query but without secrets.
    pub path: String,
}

impl Display for CallSite {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind)?;
        if let Some(instance) = &self.instance {
            write!(f, " of {instance}")?;
        }
        write!(f, " ({} {})", self.method, self.path)
    }
}

/// A failed call.
#[derive(Debug, Error)]
pub enum IncusError {
    /// The server does not take connections.
    #[error("{call}: cannot connect to {at}")]
    Connect {
        /// The call that wanted the connection.
        call: Box<CallSite>,
        /// The socket, or the URL.
        at: String,
        /// What connecting said.
        source: io::Error,
    },
    /// No answer in time. The request may still be carried out.
    #[error("{call}: no answer within {after:?}")]
    Unanswered {
        /// The call.
        call: Box<CallSite>,
        /// How long was waited.
        after: Duration,
    },
    /// The connection ended before the answer did. The request may have been carried out.
    #[error("{call}: the connection broke off")]
    Broken {
        /// The call.
        call: Box<CallSite>,
        /// What the connection said.
        source: hyper::Error,
    },
    /// The server said no.
    #[error("{call}: refused with status {status}: {message}")]
    Refused {
        /// The call.
        call: Box<CallSite>,
        /// The HTTP status, or the error code of the body.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// The answer is not what the API describes.
    #[error("{call}: the answer is not understood")]
    Malformed {
        /// The call.
        call: Box<CallSite>,
        /// Where reading it failed.
        source: serde_json::Error,
    },
    /// The answer is larger than the caller wants to read.
    #[error("{call}: the answer is larger than {cap} bytes")]
    TooLarge {
        /// The call.
        call: Box<CallSite>,
        /// The limit.
        cap: usize,
    },
    /// An operation ended in failure or was cancelled.
    #[error("{call}: the operation failed: {message}")]
    Operation {
        /// The operation.
        call: Box<CallSite>,
        /// The server's own words.
        message: String,
    },
    /// An operation has not ended in time. It goes on.
    #[error("{call}: operation {id} did not end within {after:?}")]
    Unfinished {
        /// The call that started it.
        call: Box<CallSite>,
        /// The operation.
        id: OperationId,
        /// How long was waited.
        after: Duration,
    },
    /// The server no longer knows an operation, so its result is lost.
    #[error("{call}: the server has forgotten operation {id}")]
    Forgotten {
        /// The call that started it.
        call: Box<CallSite>,
        /// The operation.
        id: OperationId,
    },
    /// The path in the guest names something that must not be read.
    #[error("{call}: a {kind}, not a regular file")]
    NotRegular {
        /// The call.
        call: Box<CallSite>,
        /// What it is.
        kind: FileKind,
    },
    /// A websocket could not be set up or used.
    #[error("{call}: the websocket failed")]
    Websocket {
        /// The call.
        call: Box<CallSite>,
        /// What the websocket said.
        source: Box<tungstenite::Error>,
    },
    /// The caller stopped it.
    #[error("{call}: cancelled")]
    Cancelled {
        /// The call.
        call: Box<CallSite>,
    },
}

impl IncusError {
    /// Returns whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } => !self.is_not_permitted(),
            Self::Unanswered { .. }
            | Self::Broken { .. }
            | Self::Unfinished { .. }
            | Self::Forgotten { .. }
            | Self::Websocket { .. } => true,
            Self::Refused {
                status, message, ..
            } => matches!(status, 408 | 429 | 502 | 503 | 504) || is_passing(message),
            Self::Operation { message, .. } => is_passing(message),
            Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::NotRegular { .. }
            | Self::Cancelled { .. } => false,
        }
    }

    /// Returns whether what the call is about does not exist.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status == 404,
            Self::Operation { message, .. } => {
                let message = message.to_lowercase();
                // The second is what creating an instance says when there is no such image.
                message.contains("not found") || message.contains("image not provided")
            }
            _ => false,
        }
    }

    /// Returns whether something of that name is there already: look again.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Refused {
                status, message, ..
            } => *status == 409 || is_taken(message),
            Self::Operation { message, .. } => is_taken(message),
            _ => false,
        }
    }

    /// Returns whether we lack the right to do it.
    pub fn is_not_permitted(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Refused { status, .. } => matches!(status, 401 | 403),
            _ => false,
        }
    }
}

/// Incus answers these with a plain 500.
fn is_passing(message: &str) -> bool {
    let message = message.to_lowercase();
    [
        "shutting down",
        "database is locked",
        "context deadline exceeded",
        "context canceled",
    ]
    .iter()
    .any(|known| message.contains(known))
}

/// A name that is taken surfaces in the operation as a database error, not as a 409.
fn is_taken(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("unique constraint") || message.contains("already exists")
}
