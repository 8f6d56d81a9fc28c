//! One HTTP/1.1 connection to the server. Nobody else polls it: whoever uses it drives it, so no
//! task runs unowned and dropping a call closes what it was using.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::endpoint::{Endpoint, Stream};

/// The body of a request.
pub(in crate::incus) type Body = BoxBody<Bytes, io::Error>;

/// Names the server in requests; Incus ignores it.
pub(super) const AUTHORITY: &str = "incus";

/// A connection without a request on it.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    driver: Driver,
    /// Where it leads, of the endpoint's addresses.
    pub(super) address: usize,
    /// When its last answer was read.
    pub(super) used: Instant,
}

/// Moves bytes between hyper and the socket.
struct Driver {
    connection: Box<http1::Connection<TokioIo<Stream>, Body>>,
    ended: bool,
}

/// How a request failed on its connection.
pub(super) enum Trip {
    /// Nothing of it was sent, here it is again.
    Unsent(Box<Request<Body>>, hyper::Error),
    /// It may have been carried out.
    Broken(hyper::Error),
}

/// Why there is no connection.
pub(super) enum NoConnection {
    Io(io::Error),
    Http(hyper::Error),
}

/// Which part of a body is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// How much of its beginning is left out.
    pub(super) skip: u64,
    /// How much is read after that.
    pub(super) cap: usize,
}

/// A body, as far as it was wanted.
pub(super) struct Content {
    pub(super) bytes: Vec<u8>,
    /// Whether the body went on.
    pub(super) cut: bool,
}

impl Driver {
    async fn drive<F: Future>(&mut self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if !self.ended {
                self.ended = pin!(&mut *self.connection).poll(cx).is_ready();
            }
            work.as_mut().poll(cx)
        })
        .await
    }
}

impl Connection {
    /// Connects and proves the connection with a small request: connections were seen that nobody
    /// accepts for minutes, and nothing that must not run twice may be sent on one of those.
    pub(super) async fn open(endpoint: &Endpoint, address: usize) -> Result<Self, NoConnection> {
        let stream = endpoint.connect(address).await.map_err(NoConnection::Io)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(NoConnection::Http)?;
        let driver = Driver {
            connection: Box::new(connection),
            ended: false,
        };
        let mut connection = Self {
            sender,
            driver,
            address,
            used: Instant::now(),
        };
        let body = Empty::new().map_err(|never| match never {}).boxed();
        let mut greeting = Request::new(body);
        greeting
            .headers_mut()
            .insert(HOST, hyper::header::HeaderValue::from_static(AUTHORITY));
        let response = connection.send(greeting).await.map_err(|trip| match trip {
            Trip::Unsent(_, source) | Trip::Broken(source) => NoConnection::Http(source),
        })?;
        let whole = Part {
            skip: 0,
            cap: 64 * 1024,
        };
        connection
            .read(response.into_body(), whole)
            .await
            .map_err(NoConnection::Http)?;
        Ok(connection)
    }

    /// Returns whether a request can be sent on it: the server may have closed it meanwhile.
    pub(super) async fn is_alive(&mut self) -> bool {
        poll_fn(|cx| {
            if !self.driver.ended {
                self.driver.ended = pin!(&mut *self.driver.connection).poll(cx).is_ready();
            }
            Poll::Ready(())
        })
        .await;
        !self.driver.ended && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, Trip> {
        let response = self.sender.try_send_request(request);
        self.driver
            .drive(response)
            .await
            .map_err(|mut failed| match failed.take_message() {
                Some(request) => Trip::Unsent(Box::new(request), failed.into_error()),
                None => Trip::Broken(failed.into_error()),
            })
    }

    /// Reads the wanted part of an answer's body.
    pub(super) async fn read(
        &mut self,
        mut body: Incoming,
        part: Part,
    ) -> Result<Content, hyper::Error> {
        let mut skip = part.skip;
        let mut content = Content {
            bytes: Vec::new(),
            cut: false,
        };
        while let Some(frame) = self.driver.drive(body.frame()).await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            let passed = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
            skip -= passed as u64;
            let data = &data[passed..];
            let room = part.cap - content.bytes.len();
            content
                .bytes
                .extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                content.cut = true;
                return Ok(content);
            }
        }
        self.used = Instant::now();
        Ok(content)
    }

    /// Gives up HTTP on it, so that a websocket can be set up.
    pub(super) fn into_stream(self) -> Stream {
        self.driver.connection.into_parts().io.into_inner()
    }
}
