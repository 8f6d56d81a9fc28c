//! Makes calls: builds the request, keeps the pause, bounds time and size, reports the outcome.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, RequestBuilder, Response, redirect};
use serde::de::DeserializeOwned;
use tokio::time::{Duration, Instant, timeout};
use url::Url;

mod request;

pub(super) use self::request::Request;
use super::Deadlines;
use super::answer::{self, Answer};
use super::auth::{Credential, CredentialClock, Token, TokenSource, Wires};
use super::clock::Clock;
use super::error::{AzureError, Operation};
use super::pace::{self, Pause};
use crate::calls::{CallObserver, CallOutcome, CallReport};

/// A thousand agents with an environment each as capabilities.
const MAX_LIST: usize = 64 * 1024 * 1024;

/// Anything else.
const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// How a call's answer is taken.
struct Way<T> {
    deadline: Duration,
    max_size: usize,
    read: fn(Operation, Answer) -> Result<T, AzureError>,
}

pub(super) struct Transport {
    http: Client,
    base: Url,
    url: String,
    tokens: TokenSource,
    rejected_at: Mutex<Option<Timestamp>>,
    pause: Pause,
    clock: Clock,
    observer: CallObserver,
    pub(super) deadlines: Deadlines,
}

impl Transport {
    pub(super) fn new(
        url: &str,
        credential: Credential,
        ca_file: Option<&Path>,
        observer: CallObserver,
        deadlines: Deadlines,
    ) -> Result<Self, AzureError> {
        let base = base_url(url)?;
        let builder = || {
            Client::builder()
                .user_agent(concat!("iapd/", env!("CARGO_PKG_VERSION")))
                // A redirect is a sign-in page, and a token is not carried to where it points.
                .redirect(redirect::Policy::none())
                .connect_timeout(deadlines.connect)
        };
        let mut http = builder();
        if let Some(path) = ca_file {
            let pem = std::fs::read(path).map_err(|source| AzureError::CaFile {
                path: path.to_owned(),
                source,
            })?;
            let certificates =
                Certificate::from_pem_bundle(&pem).map_err(|source| AzureError::Tls { source })?;
            if certificates.is_empty() {
                return Err(AzureError::NoCertificate {
                    path: path.to_owned(),
                });
            }
            http = http.tls_certs_merge(certificates);
        }
        let tls = |source| AzureError::Tls { source };
        let http = http.build().map_err(tls)?;
        let wires = Wires {
            http: http.clone(),
            direct: builder().no_proxy().build().map_err(tls)?,
        };
        Ok(Self {
            http,
            url: base.as_str().trim_end_matches('/').to_owned(),
            base,
            tokens: TokenSource::new(credential, wires, Arc::clone(&observer))?,
            rejected_at: Mutex::new(None),
            pause: Pause::default(),
            clock: Clock::default(),
            observer,
            deadlines,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// Returns whether the token may be shown to where `url` points.
    pub(super) fn owns(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    /// Makes a call whose answer is one object.
    pub(super) async fn json<T: DeserializeOwned>(
        &self,
        request: Request,
    ) -> Result<T, AzureError> {
        let way = Way {
            deadline: self.deadlines.call,
            max_size: MAX_ANSWER,
            read: answer::object,
        };
        self.call(request, way).await
    }

    /// Makes a call whose answer is a list. It is complete, or an error.
    pub(super) async fn list<T: DeserializeOwned>(
        &self,
        request: Request,
    ) -> Result<Vec<T>, AzureError> {
        let way = Way {
            deadline: self.deadlines.list,
            max_size: MAX_LIST,
            read: answer::list,
        };
        self.call(request, way).await
    }

    /// Makes a call of whose answer only the success matters.
    pub(super) async fn done(&self, request: Request) -> Result<(), AzureError> {
        let way = Way {
            deadline: self.deadlines.call,
            max_size: MAX_ANSWER,
            read: |_, _| Ok(()),
        };
        self.call(request, way).await
    }

    async fn call<T>(&self, request: Request, way: Way<T>) -> Result<T, AzureError> {
        self.keep_pause(request.operation).await?;
        let token = self.token().await?;
        match self.attempt(&request, &way, &token).await {
            // It may have been revoked, or replaced in its file; Azure did nothing with it.
            Err(error) if error.is_about_the_token() => {
                let next = self.token().await?;
                if next.is_same(&token) {
                    return Err(error);
                }
                self.attempt(&request, &way, &next).await
            }
            result => result,
        }
    }

    async fn attempt<T>(
        &self,
        request: &Request,
        way: &Way<T>,
        token: &Token,
    ) -> Result<T, AzureError> {
        let operation = request.operation;
        let started = Instant::now();
        let exchange = self.exchange(request, way.max_size, token);
        let result = match timeout(way.deadline, exchange).await {
            Ok(result) => result.and_then(|answer| (way.read)(operation, answer)),
            Err(_) => Err(AzureError::TimedOut {
                operation,
                after: way.deadline,
            }),
        };
        self.ended(operation, started, &result);
        result
    }

    /// Returns the token to use now.
    pub(super) async fn token(&self) -> Result<Arc<Token>, AzureError> {
        let result = self.tokens.current().await;
        self.note_rejection(&result);
        result
    }

    async fn exchange(
        &self,
        request: &Request,
        max_size: usize,
        token: &Token,
    ) -> Result<Answer, AzureError> {
        let operation = request.operation;
        let url = self.address(request);
        let path = url.path().to_owned();
        let mut builder = self
            .authorized(self.http.request(request.method.clone(), url), token)
            .header(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(body) = request.body.clone() {
            builder = builder
                .header(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/json; charset=utf-8"),
                )
                .body(body);
        }
        let response = builder.send().await.map_err(unreachable(operation))?;
        let answer = self.read(operation, response, max_size).await?;
        if answer::is_success(&answer) {
            Ok(answer)
        } else {
            Err(answer::refusal(operation, path, &answer, token))
        }
    }

    /// Reads the whole answer, and keeps the pause that it asks for.
    pub(super) async fn read(
        &self,
        operation: Operation,
        mut response: Response,
        max_size: usize,
    ) -> Result<Answer, AzureError> {
        let pause = self.note_pause(&response);
        let body = read_body(operation, &mut response, max_size).await?;
        let headers = std::mem::take(response.headers_mut());
        Ok(Answer {
            status: response.status(),
            headers,
            body,
            pause,
        })
    }

    /// Opens a download. Azure's own host is shown the token, any other is shown nothing.
    pub(super) async fn open(
        &self,
        operation: Operation,
        url: Url,
    ) -> Result<(Response, Option<Arc<Token>>), AzureError> {
        let mut builder = self.http.get(url.clone());
        let mut token = None;
        if self.owns(&url) {
            self.keep_pause(operation).await?;
            let current = self.token().await?;
            builder = self.authorized(builder, &current);
            token = Some(current);
        }
        let response = builder.send().await.map_err(unreachable(operation))?;
        Ok((response, token))
    }

    fn authorized(&self, builder: RequestBuilder, token: &Token) -> RequestBuilder {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, token.header());
        // Asks for a 401 in place of a sign-in page.
        headers.insert(
            "x-tfs-fedauthredirect",
            HeaderValue::from_static("Suppress"),
        );
        builder.headers(headers)
    }

    fn address(&self, request: &Request) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments
                .pop_if_empty()
                .push("_apis")
                .extend(request.path.split('/'));
        }
        url.query_pairs_mut()
            .append_pair("api-version", request.version)
            .extend_pairs(
                request
                    .query
                    .iter()
                    .map(|(name, value)| (*name, value.as_str())),
            );
        url
    }

    /// Waits out the pause that Azure asked for, since what takes several calls would otherwise
    /// stop half way. A pause that is too long to wait for is an error.
    async fn keep_pause(&self, operation: Operation) -> Result<(), AzureError> {
        let patience = Instant::now() + self.deadlines.pause;
        while let Some(retry_after) = self.pause.left() {
            if Instant::now() + retry_after > patience {
                return Err(AzureError::Paused {
                    operation,
                    retry_after,
                });
            }
            tokio::time::sleep(retry_after).await;
        }
        Ok(())
    }

    /// Returns what is known of how long the credential lasts.
    pub(super) fn clock(&self) -> CredentialClock {
        let clock = self.tokens.clock();
        let rejected_at = *self
            .rejected_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        CredentialClock {
            rejected_at: clock.rejected_at.max(rejected_at),
            ..clock
        }
    }

    fn note_rejection<T>(&self, result: &Result<T, AzureError>) {
        if matches!(result, Err(error) if error.is_rejected()) {
            *self
                .rejected_at
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(Timestamp::now());
        }
    }

    pub(super) async fn has_new_token(&self) -> bool {
        self.tokens.has_changed().await
    }

    pub(super) fn clock_offset(&self) -> Option<SignedDuration> {
        self.clock.offset()
    }

    /// Returns whether Azure asked for a pause lately.
    pub(super) fn is_throttled(&self) -> bool {
        self.pause.was_lately()
    }

    fn note_pause(&self, response: &Response) -> Option<Duration> {
        if !self.owns(response.url()) {
            return None;
        }
        self.clock.note(response.headers(), Timestamp::now());
        let pause = pace::asked_for(response.status(), response.headers(), SystemTime::now())?;
        self.pause.keep(pause);
        Some(pause)
    }

    /// Reports a call that was made.
    pub(super) fn ended<T>(
        &self,
        operation: Operation,
        started: Instant,
        result: &Result<T, AzureError>,
    ) {
        self.note_rejection(result);
        if matches!(result, Err(error) if error.is_about_the_token()) {
            self.tokens.forget();
        }
        report(&self.observer, operation, started, result);
    }
}

/// Tells the observer of a call that was made.
pub(super) fn report<T>(
    observer: &CallObserver,
    operation: Operation,
    started: Instant,
    result: &Result<T, AzureError>,
) {
    let outcome = match result {
        Ok(_) => Some(CallOutcome::Ok),
        Err(error) => outcome_of(error),
    };
    if let Some(outcome) = outcome {
        observer(CallReport {
            kind: operation.kind(),
            outcome,
            elapsed: started.elapsed(),
        });
    }
}

/// Reads the whole body, if it is not too large.
pub(super) async fn read_body(
    operation: Operation,
    response: &mut Response,
    max_size: usize,
) -> Result<Vec<u8>, AzureError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable(operation))? {
        if body.len() + chunk.len() > max_size {
            let reason = format!("is larger than {max_size} bytes");
            return Err(AzureError::Unusable { operation, reason });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// `None` when the call was not made, or did not fail on Azure's side.
fn outcome_of(error: &AzureError) -> Option<CallOutcome> {
    Some(match error {
        _ if error.is_not_found() => CallOutcome::Ok,
        AzureError::Rejected { .. } => CallOutcome::Refused,
        AzureError::Status { status, .. } if status.is_client_error() => CallOutcome::Refused,
        AzureError::Status { .. }
        | AzureError::Malformed { .. }
        | AzureError::Unusable { .. }
        | AzureError::NoAuthorization { .. } => CallOutcome::Failed,
        AzureError::Unreachable { .. } | AzureError::TimedOut { .. } => CallOutcome::Unreachable,
        _ => return None,
    })
}

/// The URL is in our own errors where it helps; reqwest's would repeat it.
pub(super) fn unreachable(operation: Operation) -> impl Fn(reqwest::Error) -> AzureError {
    move |error| AzureError::Unreachable {
        operation,
        source: error.without_url(),
    }
}

fn base_url(text: &str) -> Result<Url, AzureError> {
    let text = text.trim();
    let unfit = |reason| {
        let url = if text.contains('@') {
            "***".to_owned()
        } else {
            text.to_owned()
        };
        AzureError::Url { url, reason }
    };
    let url = Url::parse(text).map_err(|_| unfit("not a URL"))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(unfit("neither https nor http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(unfit("the credential does not belong into the URL"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(unfit("a query or fragment does not belong into it"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests;
