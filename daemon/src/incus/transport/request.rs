//! What is asked of the server, and how the asking is to be handled.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use hyper::{Method, Request};
use serde_json::Value;
use url::Url;

use super::connection::{AUTHORITY, Body, Part};
use crate::incus::error::CallSite;

/// Lists of some thousand instances take a few MiB.
const ANSWER_CAP: usize = 64 * 1024 * 1024;

/// What travels in a request.
pub(in crate::incus) enum Payload {
    Empty,
    Json(Value),
    Bytes(Bytes),
    /// Can be sent once.
    Stream(Body),
}

/// A request, with everything that decides how it is handled.
pub(in crate::incus) struct Ask {
    pub(super) kind: &'static str,
    pub(super) instance: Option<String>,
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) payload: Payload,
    pub(super) repeat: bool,
    pub(super) private: bool,
    pub(super) reported: bool,
    pub(super) within: Option<Duration>,
    pub(super) answer: Option<Duration>,
    pub(super) part: Part,
}

/// Returns a path with its parts and its query encoded.
pub(in crate::incus) fn path(parts: &[&str], query: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://incus/1.0").expect("a constant URL is well formed");
    url.path_segments_mut()
        .expect("an http URL has a path")
        .extend(parts);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url[url::Position::BeforePath..].to_owned()
}

impl Ask {
    /// Returns a request. Repeats are safe for every method but POST.
    pub(in crate::incus) fn new(kind: &'static str, method: Method, path: String) -> Self {
        Self {
            kind,
            instance: None,
            repeat: method != Method::POST,
            method,
            path,
            headers: Vec::new(),
            payload: Payload::Empty,
            private: false,
            reported: true,
            within: None,
            answer: None,
            part: Part {
                skip: 0,
                cap: ANSWER_CAP,
            },
        }
    }

    pub(in crate::incus) fn get(kind: &'static str, path: String) -> Self {
        Self::new(kind, Method::GET, path)
    }

    pub(in crate::incus) fn instance(mut self, name: &str) -> Self {
        self.instance = Some(name.to_owned());
        self
    }

    pub(in crate::incus) fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }

    pub(in crate::incus) fn json(self, body: Value) -> Self {
        self.payload(Payload::Json(body))
    }

    pub(in crate::incus) fn header(mut self, name: HeaderName, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Says that a repeat does no harm.
    pub(in crate::incus) fn repeatable(mut self) -> Self {
        self.repeat = true;
        self
    }

    /// Keeps its bodies out of the log.
    pub(in crate::incus) fn private(mut self) -> Self {
        self.private = true;
        self
    }

    /// Leaves it to the caller to report it, as a part of something larger.
    pub(in crate::incus) fn unreported(mut self) -> Self {
        self.reported = false;
        self
    }

    /// Bounds the whole call.
    pub(in crate::incus) fn within(mut self, limit: Duration) -> Self {
        self.within = Some(limit);
        self
    }

    /// Bounds the wait for the head of the answer.
    pub(in crate::incus) fn answered_within(mut self, limit: Duration) -> Self {
        self.answer = Some(limit);
        self
    }

    /// Reads only a part of the answer's body.
    pub(in crate::incus) fn part(mut self, skip: u64, cap: usize) -> Self {
        self.part = Part { skip, cap };
        self
    }

    /// Returns what errors of this call are named after.
    pub(in crate::incus) fn site(&self) -> Box<CallSite> {
        Box::new(CallSite {
            kind: self.kind,
            instance: self.instance.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
        })
    }

    /// Returns the request once more, if it can be had.
    pub(super) fn request(&mut self) -> Request<Body> {
        let mut json = false;
        let body = match &mut self.payload {
            Payload::Empty => full(Bytes::new()),
            Payload::Json(value) => {
                json = true;
                full(Bytes::from(value.to_string()))
            }
            Payload::Bytes(bytes) => full(bytes.clone()),
            Payload::Stream(body) => std::mem::replace(body, full(Bytes::new())),
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.parse().expect("an encoded path is a valid URI");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static(AUTHORITY));
        if json {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in &self.headers {
            let value = HeaderValue::from_str(value).expect("our header values are plain ASCII");
            headers.insert(name.clone(), value);
        }
        request
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
