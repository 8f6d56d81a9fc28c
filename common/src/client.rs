//! Connects to the daemon's socket and says what is wrong when that fails.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

use crate::socket::view_path;

/// How long connecting may take. The socket is local; only a wedged daemon needs longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the daemon could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no socket file: the daemon never started, or uses another path.
    #[error("no daemon socket at {0}")]
    NoSocket(PathBuf),
    /// The socket file is there and nothing listens.
    #[error("nothing listens on {0}")]
    NotListening(PathBuf),
    /// The socket's mode or group keeps this user out.
    #[error("no permission to use {0}")]
    NotPermitted(PathBuf),
    /// Anything else.
    #[error("cannot connect to {path}")]
    Other {
        /// The socket.
        path: PathBuf,
        /// What the transport said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Connects to the daemon at `path`, within ten seconds.
pub async fn connect(path: &Path) -> Result<Channel, ConnectError> {
    let error = match endpoint(path) {
        Ok(endpoint) => match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) => error,
        },
        Err(error) => error,
    };
    // A kind that says nothing stands for none.
    let kind = io_kind(&error).unwrap_or(io::ErrorKind::Other);
    Err(ConnectError::of(path, kind, error))
}

impl ConnectError {
    /// Returns what `kind` of error at the socket `path` means.
    pub fn of(
        path: &Path,
        kind: io::ErrorKind,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let path = path.to_owned();
        match kind {
            io::ErrorKind::NotFound => Self::NoSocket(path),
            io::ErrorKind::ConnectionRefused => Self::NotListening(path),
            io::ErrorKind::PermissionDenied => Self::NotPermitted(path),
            _ => Self::Other {
                path,
                source: source.into(),
            },
        }
    }
}

/// Connects to the daemon at `path`, or to its socket for looking when this user may not use that
/// one. The daemon refuses what is not looking, and says so.
pub async fn connect_to_do_or_look(path: &Path) -> Result<Channel, ConnectError> {
    let refused = match connect(path).await {
        Err(error @ ConnectError::NotPermitted(_)) => error,
        connected => return connected,
    };
    connect(&view_path(path)).await.map_err(|_| refused)
}

fn endpoint(path: &Path) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("unix://{}", path.display()))?
        .connect_timeout(CONNECT_TIMEOUT))
}

fn io_kind(error: &tonic::transport::Error) -> Option<io::ErrorKind> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}
