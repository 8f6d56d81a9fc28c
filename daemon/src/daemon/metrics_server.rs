//! `/metrics` over plain HTTP, on loopback unless configured otherwise.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::members::Members;
use crate::metrics::Metrics;
use crate::pool::PoolHandle;
use crate::supervisor::Pools;

/// Scrapers at a time; more wait.
const CONNECTIONS: usize = 16;
/// A scraper that does not finish its request or read its answer is cut off.
const DEADLINE: Duration = Duration::from_secs(30);
const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Binds the listener, so that a taken port is found out at start.
pub(super) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} for metrics: set metricsPort, or 0 for none")
    })
}

/// Serves until `stop`.
pub(super) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    pools: watch::Receiver<Pools>,
    members: watch::Receiver<Arc<Members>>,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => {
                if let Ok((stream, _)) = accepted {
                    let seen = (pools.clone(), members.clone());
                    connections.spawn(connection(stream, Arc::clone(&metrics), seen));
                }
            }
        }
    }
}

/// What gauges are made from.
type Seen = (watch::Receiver<Pools>, watch::Receiver<Arc<Members>>);

async fn connection(stream: TcpStream, metrics: Arc<Metrics>, seen: Seen) {
    let answer = service_fn(move |request| {
        let answer = answer(&request, &metrics, &seen);
        async move { Ok::<_, Infallible>(answer) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(DEADLINE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    // A scraper that goes away is its own business.
    let _ = tokio::time::timeout(DEADLINE, served).await;
}

fn answer(
    request: &Request<Incoming>,
    metrics: &Metrics,
    (pools, members): &Seen,
) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            let pools = Arc::clone(&pools.borrow());
            let statuses: Vec<_> = pools.iter().map(PoolHandle::status).collect();
            metrics.tell_members(&members.borrow(), &statuses);
            match metrics.encode(&statuses) {
                Ok(text) => (StatusCode::OK, text),
                Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
            }
        }
        _ => (StatusCode::NOT_FOUND, "see /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let content_type = hyper::header::HeaderValue::from_static(TYPE);
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, content_type);
    response
}
