//! One HTTP/1.1 exchange with the service, over its unix socket or TCP.
//!
//! Inside a guest the simulator is reached through a socket put there for the tests, whatever host the
//! URL names; elsewhere plain TCP to that host is used.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, HOST, HeaderMap, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use url::Url;

use crate::environment::Environment;
use crate::error::CallError;

/// Where the simulator's socket is put into guests.
const DEFAULT_SOCKET: &str = "/srv/azure-sim/azure.sock";

/// The service's name of what this agent runs on.
pub const PLATFORM: &str = if cfg!(target_arch = "aarch64") {
    "linux-arm64"
} else {
    "linux-x64"
};

/// Version asked for everywhere: what the service has only as a preview included.
const API_VERSION: &str = "7.1-preview.1";

/// Makes calls look like the real client's.
#[derive(Debug, Clone)]
pub struct Http {
    socket: PathBuf,
    socket_is_given: bool,
    user_agent: String,
    /// One per process, as the real client sends it.
    session: String,
}

/// A request before it is sent.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: Method,
    pub url: String,
    pub body: Body,
    pub deadline: Duration,
}

/// What a request carries.
#[derive(Debug, Clone)]
pub enum Body {
    None,
    Json(String),
    Form(String),
    Bytes(Vec<u8>),
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Http {
    /// Takes the socket from `FAKE_AGENT_SOCKET`, else the usual place if there is one.
    pub fn new(env: &Environment, version: &str) -> Self {
        let given = env.get("FAKE_AGENT_SOCKET");
        Self {
            socket: given.unwrap_or(DEFAULT_SOCKET).into(),
            socket_is_given: given.is_some(),
            user_agent: format!("VstsAgentCore-{PLATFORM}/{version} (stand-in) (Linux)"),
            session: guid(),
        }
    }

    /// Sends a request, with a bearer token if there is one, and reads the answer whatever its status.
    ///
    /// # Errors
    /// Fails on the network, on the deadline, and on URLs this agent cannot call.
    pub async fn send(&self, call: &Call, token: Option<&str>) -> Result<Answer, CallError> {
        let address = || CallError::Address(call.url.clone());
        let url = Url::parse(&call.url).map_err(|_| address())?;
        let host = url.host_str().ok_or_else(address)?;
        let authority = url
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];

        let mut request = Request::builder()
            .method(&call.method)
            .uri(target)
            .header(HOST, authority)
            .header(USER_AGENT, &self.user_agent)
            .header(ACCEPT_LANGUAGE, "en-US")
            .header("X-TFS-FedAuthRedirect", "Suppress")
            .header("X-TFS-Session", &self.session)
            .header("X-VSS-E2EID", guid());
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let versioned = format!("application/json; api-version={API_VERSION}");
        let (content_type, body) = match &call.body {
            Body::None => (None, Vec::new()),
            Body::Json(text) => (
                Some(format!(
                    "application/json; charset=utf-8; api-version={API_VERSION}"
                )),
                text.clone().into_bytes(),
            ),
            Body::Form(text) => (
                Some("application/x-www-form-urlencoded".to_owned()),
                text.clone().into_bytes(),
            ),
            Body::Bytes(bytes) => (Some("application/octet-stream".to_owned()), bytes.clone()),
        };
        let accept = match call.body {
            Body::Form(_) => "application/json",
            _ => versioned.as_str(),
        };
        request = request.header(ACCEPT, accept);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| address())?;

        let exchange = async {
            if self.socket_is_given || Path::new(&self.socket).exists() {
                let stream = UnixStream::connect(&self.socket)
                    .await
                    .map_err(network(host))?;
                exchange(stream, request).await.map_err(network(host))
            } else if url.scheme() == "http" {
                let port = url.port_or_known_default().unwrap_or(80);
                let stream = TcpStream::connect((host, port))
                    .await
                    .map_err(network(host))?;
                exchange(stream, request).await.map_err(network(host))
            } else {
                Err(address())
            }
        };
        tokio::time::timeout(call.deadline, exchange)
            .await
            .map_err(|_| CallError::Timeout(call.deadline))?
    }
}

fn network<E: Into<Box<dyn Error + Send + Sync>>>(host: &str) -> impl Fn(E) -> CallError {
    move |source| CallError::Network {
        what: format!("cannot talk to {host}"),
        source: source.into(),
    }
}

/// Carries out one exchange on a connection of its own, driving that connection meanwhile.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Answer, hyper::Error> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut connection = pin!(connection);
    let mut answer = pin!(async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    });
    let mut connected = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            // Its error, if any, is also the answer's.
            _ = &mut connection, if connected => connected = false,
        }
    }
}

impl Answer {
    /// Returns the body as text without a byte order mark.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body)
            .trim_start_matches('\u{feff}')
            .to_owned()
    }

    /// Returns all values of a header, joined.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Returns a fresh random GUID.
pub fn guid() -> String {
    let bits = fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn guids_are_random_ones_of_version_4() {
        let guid = super::guid();
        assert_eq!(guid.len(), 36);
        assert_eq!(guid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&guid.as_bytes()[19]), "{guid}");
        assert_ne!(guid, super::guid());
    }
}
