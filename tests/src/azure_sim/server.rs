//! The door: connections, the journal, credentials, faults and gates, and then the routes.
//!
//! ```text
//!   connection ─► journal ─► credential? ─► fault? ─► gates ─► route ─► gates ─► fault? ─► answer
//! ```
//!
//! Connections are served by hyper directly, because hanging up without an answer is one of the faults.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
    routing::get,
    serve::Listener,
};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinSet};
use tower::ServiceExt;

mod mischief;
mod routes;

use self::{
    mischief::{HungUp, after, before},
    routes::{inner_uri, service_routes},
};
use super::{
    admin,
    auth::Principal,
    call::{Admitted, BODY_LIMIT, read_json},
    entra::Right,
    errors::ApiError,
    faults::{FaultAction, GateShared, HoldAt, Subject},
    journal::{JournalEntry, body_digest, shown_headers},
    packages,
    state::{Hub, State},
    token,
};

/// What the simulator's own interface needs of an admission: none.
const OUTSIDER: Admitted = Admitted {
    org: 0,
    principal: Principal::Admin(Right::Manage),
};

const TOKEN_PATH: &str = "/_apis/oauth2/token";

/// What can be had at a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offer {
    Everything,
    AllButTokens,
    TokensOnly,
    /// Everything, each at the host it belongs to: a guest's socket leads here whatever host a
    /// URL in its files names, and a wrong one must not go unnoticed.
    ByHost,
}

/// What a connection needs to answer requests.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) hub: Arc<Hub>,
    service: Router,
    aside: Router,
    offer: Offer,
}

/// What is decided about a request before it is answered.
struct Opening {
    entry: u64,
    target: Target,
    fault: Option<FaultAction>,
    gates: Vec<Arc<GateShared>>,
}

enum Target {
    Admitted(Admitted, Uri),
    Tokens(usize),
    Aside,
    Answer(Response),
}

impl Door {
    pub(super) fn new(hub: &Arc<Hub>, offer: Offer) -> Self {
        let aside = Router::new()
            .nest("/_sim", admin::routes())
            .route("/_download/agent/{version}/{file}", get(packages::download))
            .with_state(Arc::clone(hub));
        let service = service_routes().with_state(Arc::clone(hub));
        Self {
            hub: Arc::clone(hub),
            service,
            aside,
            offer,
        }
    }
}

/// Serves a listener until it is aborted.
pub(super) async fn serve<L: Listener>(mut listener: L, door: Door) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, _) = listener.accept() => {
                connections.spawn(connection(TokioIo::new(stream), door.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection<I>(stream: TokioIo<I>, door: Door)
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| Box::pin(answer(door.clone(), request)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(stream, service);
    if let Err(error) = served.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
    }
}

/// Ends a journal entry, also when the client leaves and the answer is dropped half-made.
struct Entry {
    hub: Arc<Hub>,
    id: u64,
    status: Option<u16>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.hub
            .with(|state, _| state.journal.end(self.id, self.status));
    }
}

async fn answer(door: Door, request: Request<Incoming>) -> Result<Response, HungUp> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_LIMIT)
        .collect()
        .await
        .map_err(|_| HungUp)?
        .to_bytes();
    if parts.uri.path().starts_with("/_sim/") {
        return Ok(route(&door, parts, body, Target::Aside).await);
    }
    let opening = door
        .hub
        .with(|state, now| state.open(&parts, &body, door.offer, now));
    let mut entry = Entry {
        hub: Arc::clone(&door.hub),
        id: opening.entry,
        status: None,
    };
    let before = before(opening.fault.as_ref()).await?;
    let response = match before {
        Some(response) => response,
        None => proceed(&door, parts, body, opening.target, opening.gates).await?,
    };
    let response = after(opening.fault, response).await?;
    let mut response = stamped(&door.hub, response);
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(NO_CACHE);
    entry.status = Some(response.status().as_u16());
    Ok(response)
}

const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// Adds the headers by which the service's logs are searched.
fn stamped(hub: &Hub, mut response: Response) -> Response {
    let ids = hub.with(|state, _| {
        [
            ("activityid", state.guid()),
            ("x-tfs-session", state.guid()),
        ]
    });
    for (name, id) in ids {
        if let Ok(value) = HeaderValue::from_str(&id) {
            response
                .headers_mut()
                .insert(HeaderName::from_static(name), value);
        }
    }
    response
}

/// Routes a request; one that is held goes on by itself, whether or not its client stays.
async fn proceed(
    door: &Door,
    parts: Parts,
    body: Bytes,
    target: Target,
    gates: Vec<Arc<GateShared>>,
) -> Result<Response, HungUp> {
    if gates.is_empty() {
        return Ok(route(door, parts, body, target).await);
    }
    let (sender, receiver) = oneshot::channel();
    let own = door.clone();
    let held = async move {
        for gate in gates.iter().filter(|gate| gate.at == HoldAt::Before) {
            gate.pass().await;
        }
        let response = route(&own, parts, body, target).await;
        for gate in gates.iter().filter(|gate| gate.at == HoldAt::After) {
            gate.pass().await;
        }
        // The client may have left.
        let _ = sender.send(response);
    };
    {
        let mut detached = door
            .hub
            .detached
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while detached.try_join_next().is_some() {}
        detached.spawn(held);
    }
    receiver.await.map_err(|_| HungUp)
}

async fn route(door: &Door, mut parts: Parts, body: Bytes, target: Target) -> Response {
    match target {
        Target::Answer(response) => response,
        Target::Tokens(org) => token::exchange(&door.hub, org, &parts.headers, &body),
        Target::Aside => {
            parts.extensions.insert(OUTSIDER);
            let request = Request::from_parts(parts, Body::from(body));
            door.aside.clone().oneshot(request).await.into_response()
        }
        Target::Admitted(admitted, uri) => {
            parts.uri = uri;
            parts.extensions.insert(admitted);
            let request = Request::from_parts(parts, Body::from(body));
            door.service.clone().oneshot(request).await.into_response()
        }
    }
}

impl State {
    /// Lets a request in or not, notes it, and picks what is done to it.
    fn open(&mut self, parts: &Parts, body: &[u8], offer: Offer, now: Timestamp) -> Opening {
        let path = parts.uri.path();
        let text = |name: HeaderName| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let place = self
            .split_path(path)
            .map(|(org, rest)| (org, rest.to_owned()));
        let org = place.as_ref().map_or(0, |(org, _)| *org);
        let (credential, identity) = self.authenticate(text(header::AUTHORIZATION), org, now);
        let agent = self.agent_concerned(&parts.method, path, body, identity.ok());
        let entry = self.journal.begin(JournalEntry {
            id: 0,
            at: now,
            instant: Instant::now(),
            method: parts.method.to_string(),
            path: path.to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            credential,
            agent: agent.clone(),
            user_agent: text(header::USER_AGENT).unwrap_or_default().to_owned(),
            headers: shown_headers(&parts.headers),
            body_length: body.len(),
            body_sha256: body_digest(body),
            status: None,
            broken_off: false,
        });
        let target = match place {
            _ if offer == Offer::ByHost && !self.is_at(text(header::HOST), path) => {
                Target::Answer(StatusCode::MISDIRECTED_REQUEST.into_response())
            }
            Some((org, rest)) if rest.eq_ignore_ascii_case(TOKEN_PATH) => {
                let here = offer != Offer::AllButTokens && parts.method == Method::POST;
                if here {
                    Target::Tokens(org)
                } else {
                    not_here()
                }
            }
            _ if offer == Offer::TokensOnly => not_here(),
            None if path.starts_with("/_download/") => Target::Aside,
            None => not_here(),
            Some((org, rest)) => match (identity, inner_uri(&rest, parts.uri.query())) {
                (Ok(principal), Some(uri)) => Target::Admitted(Admitted { org, principal }, uri),
                (Ok(_), None) => not_here(),
                (Err(rejection), _) => Target::Answer(self.reject(rejection)),
            },
        };
        let method = parts.method.as_str();
        let subject = Subject {
            method,
            path,
            agent: agent.as_deref(),
            credential,
        };
        let fault = self.strike(&subject, now);
        Opening {
            entry,
            target,
            fault,
            gates: self.gates_for(&subject),
        }
    }

    /// Returns whether `host` is where `path` is to be found.
    fn is_at(&self, host: Option<&str>, path: &str) -> bool {
        let is_token = path.to_ascii_lowercase().ends_with(TOKEN_PATH);
        let url = if is_token {
            &self.token_url
        } else {
            &self.public_url
        };
        let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let authority = authority.split('/').next();
        host.is_some_and(|host| Some(host) == authority)
    }

    /// Finds the name of the agent a request is from or about.
    fn agent_concerned(
        &self,
        method: &Method,
        path: &str,
        body: &[u8],
        principal: Option<Principal>,
    ) -> Option<String> {
        let by_id = |id: u64| self.agents.get(&id).map(|agent| agent.name.clone());
        match principal {
            Some(Principal::Agent(agent)) => return by_id(agent),
            Some(Principal::Job(request)) => {
                return self
                    .jobs
                    .get(&request)?
                    .agent
                    .as_ref()
                    .map(|(_, name)| name.clone());
            }
            _ => {}
        }
        if method == Method::POST && path.ends_with("/agents") {
            let body: Value = read_json(body).ok()?;
            return body.get("name")?.as_str().map(str::to_owned);
        }
        let (_, rest) = path.split_once("/agents/")?;
        by_id(rest.split('/').next()?.parse().ok()?)
    }
}

fn not_here() -> Target {
    Target::Answer(ApiError::not_a_route().into_response())
}
