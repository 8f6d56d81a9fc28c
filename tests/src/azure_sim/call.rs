//! A request once it is through the door: who asks, for which organisation, with what; and how answers are written.

use std::{collections::BTreeMap, convert::Infallible, future::Ready, sync::Arc};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request, State as Shared},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{auth::Principal, errors::ApiError, state::Hub};

/// The largest body that is read.
pub(super) const BODY_LIMIT: usize = 16 << 20;

/// The first version pools and agents are spoken to with that had left preview.
const OLDEST_VERSION: f64 = 5.1;
/// The last version of everything, which is what the locations say too.
const NEWEST_VERSION: f64 = 7.1;

const JSON: &str = "application/json; charset=utf-8; api-version=7.1";

/// What the door found out about a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted {
    pub(super) org: usize,
    pub(super) principal: Principal,
}

/// A request to an organisation.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) org: usize,
    pub(super) principal: Principal,
    params: BTreeMap<String, String>,
    /// The query, names in lower case.
    query: BTreeMap<String, String>,
    pub(super) body: Bytes,
    api_version: Option<String>,
    /// The header that proves to a metadata service that nobody was tricked into the request.
    pub(super) metadata: bool,
}

/// What a handler returns.
pub(super) type Answer = Result<Response, ApiError>;

impl FromRequest<Arc<Hub>> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Arc<Hub>) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let admitted = parts.extensions.get::<Admitted>().copied();
        let Admitted { org, principal } = admitted.ok_or_else(ApiError::not_a_route)?;
        let params = RawPathParams::from_request_parts(&mut parts, &()).await;
        let params = params.map(|params| owned(&params)).unwrap_or_default();
        let body = axum::body::to_bytes(body, BODY_LIMIT).await;
        let body = body.map_err(|_| ApiError::bad_argument("The request body is too large."))?;
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let query = url::form_urlencoded::parse(query)
            .map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned()))
            .collect();
        let api_version = api_version(&query, &parts);
        let metadata = parts
            .headers
            .get("metadata")
            .is_some_and(|value| value == "true");
        Ok(Self {
            metadata,
            org,
            principal,
            params,
            query,
            body,
            api_version,
        })
    }
}

fn owned(params: &RawPathParams) -> BTreeMap<String, String> {
    params
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Finds the API version in the query, the `Accept` or the `Content-Type` parameter.
fn api_version(query: &BTreeMap<String, String>, parts: &Parts) -> Option<String> {
    if let Some(version) = query.get("api-version") {
        return Some(version.clone());
    }
    [header::ACCEPT, header::CONTENT_TYPE]
        .iter()
        .find_map(|name| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            let parameters = value.split(';').map(str::trim);
            parameters
                .filter_map(|part| part.strip_prefix("api-version="))
                .next()
                .map(str::to_owned)
        })
}

impl Call {
    /// Returns a number in the path.
    pub(super) fn id(&self, name: &str) -> Result<u64, ApiError> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| ApiError::bad_argument(format!("{name} is not a number: {text}")))
    }

    /// Returns a segment of the path.
    pub(super) fn text(&self, name: &str) -> &str {
        self.params.get(name).map_or("", String::as_str)
    }

    /// Returns a value of the query; empty counts as absent.
    pub(super) fn query(&self, name: &str) -> Option<&str> {
        let value = self.query.get(&name.to_ascii_lowercase());
        value.map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns a number of the query.
    pub(super) fn query_id(&self, name: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.query(name) else {
            return Ok(None);
        };
        let parsed = text.parse().map(Some);
        parsed.map_err(|_| ApiError::bad_argument(format!("{name} is not a number: {text}")))
    }

    /// Tells whether the query says `true`, in any case.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.query(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Reads the body, byte order mark or not.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        read_json(&self.body)
    }

    /// Refuses API versions the resource does not have.
    pub(super) fn require_version(&self, preview: bool) -> Result<(), ApiError> {
        let bad_request = StatusCode::BAD_REQUEST;
        let Some(version) = self.api_version.as_deref() else {
            let message = "No api-version was supplied for the request.";
            return Err(ApiError::new(
                bad_request,
                "VssVersionNotSpecifiedException",
                message,
            ));
        };
        let number = version
            .split('-')
            .next()
            .and_then(|number| number.parse::<f64>().ok());
        if preview && !version.contains("-preview") {
            let message = format!(
                "The requested version \"{version}\" of the resource is under preview. The \
                 -preview flag must be supplied in the api-version for such requests."
            );
            return Err(ApiError::new(
                bad_request,
                "VssInvalidPreviewVersionException",
                message,
            ));
        }
        let too_old = |number: f64| !preview && number < OLDEST_VERSION;
        if number.is_none_or(|number| number > NEWEST_VERSION || too_old(number)) {
            let message = format!(
                "The requested REST API version of {version} is out of range for this server. \
                 The latest REST API version this server supports is {NEWEST_VERSION}."
            );
            return Err(ApiError::new(
                bad_request,
                "VssVersionOutOfRangeException",
                message,
            ));
        }
        Ok(())
    }
}

/// Reads JSON, byte order mark or not.
pub(super) fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad_argument(format!("The request body is not valid: {error}")))
}

/// Makes a handler of a function that need not wait.
pub(super) fn at_once(
    handler: fn(&Hub, &Call) -> Answer,
) -> impl Fn(Shared<Arc<Hub>>, Call) -> Ready<Answer> + Clone + Send + Sync + 'static {
    move |Shared(hub), call| std::future::ready(handler(&hub, &call))
}

/// Answers 200 with JSON.
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers build the value in place"
)]
pub(super) fn ok(value: Value) -> Response {
    ([(header::CONTENT_TYPE, JSON)], value.to_string()).into_response()
}

/// Answers 200 with a wrapped list.
pub(super) fn list(values: Vec<Value>) -> Response {
    ok(json!({ "count": values.len(), "value": values }))
}

/// Answers a status and nothing else.
pub(super) fn empty(status: StatusCode) -> Response {
    let length = [(header::CONTENT_LENGTH, "0")];
    if status == StatusCode::NO_CONTENT {
        status.into_response()
    } else {
        (status, length).into_response()
    }
}

/// Answers requests nothing is routed to.
pub(super) fn no_route() -> Ready<Result<Infallible, ApiError>> {
    std::future::ready(Err(ApiError::not_a_route()))
}

/// Collects the members of a JSON object; absent ones are left out or written as null.
#[derive(Debug)]
pub(super) struct Members {
    map: Map<String, Value>,
    nulls: bool,
}

impl Members {
    pub(super) fn new(nulls: bool) -> Self {
        Self {
            map: Map::new(),
            nulls,
        }
    }

    pub(super) fn put(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.map.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn put_opt(&mut self, name: &str, value: Option<impl Into<Value>>) -> &mut Self {
        match value {
            Some(value) => self.put(name, value),
            None if self.nulls => self.put(name, Value::Null),
            None => self,
        }
    }

    pub(super) fn extend(&mut self, members: Map<String, Value>) -> &mut Self {
        self.map.extend(members);
        self
    }

    pub(super) fn build(self) -> Value {
        Value::Object(self.map)
    }
}
