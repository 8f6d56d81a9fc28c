//! The service as the listener uses it: the calls of the agent pool API.

mod token;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Method;
use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::clock::Clock;
use crate::diag::Diag;
use crate::error::CallError;
use crate::files::{Credentials, Settings};
use crate::http::{Answer, Body, Call, Http, PLATFORM};
use crate::key::{KeyError, SessionKey};

/// Default timeout of the client; the long poll, held for about 50 s, has to fit in.
const CALL_TIMEOUT: Duration = Duration::from_secs(100);
/// Nobody shall start later for telemetry.
const TELEMETRY_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of lock renewals.
const RENEW_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout of deleting a session or a message.
pub(crate) const DELETE_TIMEOUT: Duration = Duration::from_secs(30);
/// First pause of the client's own retries, doubling.
const RETRY_BASE: Duration = Duration::from_secs(10);
const CALL_RETRIES: u32 = 3;
/// What every client object asks for first.
const CONNECT: &str = "_apis/connectionData?connectOptions=1&lastChangeId=-1&lastChangeId64=-1";
const LOCK_TOKEN: &str = "00000000-0000-0000-0000-000000000000";

/// The agent pool API with the agent's own credential.
pub struct Server {
    http: Http,
    clock: Clock,
    diag: Diag,
    settings: Settings,
    credentials: Credentials,
    token: Mutex<Option<String>>,
}

/// A session with its key, if messages are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub id: String,
    pub key: Option<SessionKey>,
}

/// A message as it comes from the service.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    pub message_id: i64,
    pub message_type: String,
    iv: Option<String>,
    #[serde(default)]
    body: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionAnswer {
    session_id: String,
    encryption_key: Option<EncryptionKey>,
}

#[derive(Deserialize)]
struct EncryptionKey {
    #[serde(default)]
    encrypted: bool,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobRequest {
    #[serde(deserialize_with = "timestamp")]
    locked_until: Timestamp,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorAnswer {
    #[serde(default)]
    message: String,
    type_key: String,
}

impl Message {
    /// Returns the plain text of the body.
    ///
    /// # Errors
    /// Fails when it was not encrypted with this session's key.
    pub fn open(&self, session: &Session) -> Result<String, KeyError> {
        match (&session.key, self.iv.as_deref()) {
            (Some(key), Some(iv)) if !iv.is_empty() => {
                let bytes = |text| BASE64_STANDARD.decode(text).map_err(|_| KeyError::Message);
                key.decrypt(&bytes(iv)?, &bytes(&self.body)?)
            }
            _ => Ok(self.body.clone()),
        }
    }
}

impl Server {
    /// Prepares calls; nothing is sent yet.
    pub fn new(
        http: Http,
        clock: Clock,
        diag: Diag,
        settings: Settings,
        credentials: Credentials,
    ) -> Self {
        Self {
            http,
            clock,
            diag,
            settings,
            credentials,
            token: Mutex::new(None),
        }
    }

    /// Connects as every client object of the real agent does before its first call.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn connect(&self) -> Result<(), CallError> {
        self.call(Method::GET, CONNECT, Body::None, CALL_TIMEOUT)
            .await
            .map(drop)
    }

    /// Reports the start, once and on a connection of its own.
    ///
    /// # Errors
    /// See [`CallError`]; the real listener ignores all of them.
    pub async fn telemetry(&self, version: &str) -> Result<(), CallError> {
        let event = json!([{
            "area": "PipelinesTasks", "feature": "AgentStart", "properties": {"agentVersion": version},
        }]);
        let body = Body::Json(event.to_string());
        for (method, path, body) in [
            (Method::GET, CONNECT, Body::None),
            (Method::POST, "_apis/customerintelligence/events", body),
        ] {
            let call = self.prepare(method, path, body, TELEMETRY_TIMEOUT);
            self.authenticated(&call).await?;
        }
        Ok(())
    }

    /// Finds the package of a version.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn package(&self, version: &str) -> Result<Value, CallError> {
        let path = format!("_apis/distributedtask/packages/agent/{PLATFORM}/{version}");
        self.get(&path).await
    }

    /// Returns whether a feature flag is on.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn feature_flag(&self, name: &str) -> Result<bool, CallError> {
        let path =
            format!("_apis/FeatureAvailability/FeatureFlags/{name}?checkFeatureExists=false");
        let flag: Value = self.get(&path).await?;
        Ok(flag["effectiveState"]
            .as_str()
            .is_some_and(|state| state.eq_ignore_ascii_case("on")))
    }

    /// Creates a session and opens its key.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn create_session(
        &self,
        owner: &str,
        version: &str,
        os: &str,
        capabilities: &BTreeMap<String, String>,
    ) -> Result<Session, CallError> {
        let body = json!({
            "sessionId": LOCK_TOKEN,
            "ownerName": owner,
            "agent": {
                "id": self.settings.agent_id,
                "name": self.settings.agent_name,
                "version": version,
                "osDescription": os,
                "status": 0,
            },
            "systemCapabilities": capabilities,
        });
        let path = self.pool("sessions");
        let answer = self.json(Method::POST, &path, &body, CALL_TIMEOUT).await?;
        let session: SessionAnswer = parse(&path, &answer)?;
        let wrapped = session
            .encryption_key
            .and_then(|key| Some((key.encrypted, key.value?)));
        let key = match wrapped {
            Some((encrypted, value)) if !value.is_empty() => {
                let bytes = BASE64_STANDARD
                    .decode(value)
                    .map_err(|_| CallError::Key(KeyError::SessionKey))?;
                Some(if encrypted {
                    self.credentials
                        .key
                        .open_session_key(&bytes)
                        .map_err(CallError::Key)?
                } else {
                    SessionKey(bytes)
                })
            }
            _ => None,
        };
        Ok(Session {
            id: session.session_id,
            key,
        })
    }

    /// Deletes a session.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn delete_session(&self, id: &str) -> Result<(), CallError> {
        let path = self.pool(&format!("sessions/{id}"));
        self.call(Method::DELETE, &path, Body::None, DELETE_TIMEOUT)
            .await
            .map(drop)
    }

    /// Waits for a message as long as the service holds the call.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn message(
        &self,
        session: &str,
        last: Option<i64>,
    ) -> Result<Option<Message>, CallError> {
        let mut path = self.pool(&format!("messages?sessionId={session}"));
        if let Some(last) = last {
            path.push_str("&lastMessageId=");
            path.push_str(&last.to_string());
        }
        let answer = self
            .call(Method::GET, &path, Body::None, CALL_TIMEOUT)
            .await?;
        if answer.status != 200 || answer.body.is_empty() {
            return Ok(None);
        }
        parse(&path, &answer)
    }

    /// Acknowledges a message.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn delete_message(&self, session: &str, id: i64) -> Result<(), CallError> {
        let path = self.pool(&format!("messages/{id}?sessionId={session}"));
        self.call(Method::DELETE, &path, Body::None, DELETE_TIMEOUT)
            .await
            .map(drop)
    }

    /// Renews the lock on a job request and returns until when it holds.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn renew(&self, request_id: i64) -> Result<Timestamp, CallError> {
        let path = self.pool(&format!("jobrequests/{request_id}?lockToken={LOCK_TOKEN}"));
        let body = json!({ "requestId": request_id });
        let answer = self
            .json(Method::PATCH, &path, &body, RENEW_TIMEOUT)
            .await?;
        parse(&path, &answer).map(|request: JobRequest| request.locked_until)
    }

    /// Tells how far an update of the agent got.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn update_state(&self, state: &str) -> Result<(), CallError> {
        let state: String = form_urlencoded::byte_serialize(state.as_bytes()).collect();
        let id = self.settings.agent_id;
        let path = self.pool(&format!("agents/{id}/updates?currentState={state}"));
        self.json(Method::PUT, &path, &json!({}), CALL_TIMEOUT)
            .await
            .map(drop)
    }

    fn pool(&self, rest: &str) -> String {
        format!(
            "_apis/distributedtask/pools/{}/{rest}",
            self.settings.pool_id
        )
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        parse(
            path,
            &self
                .call(Method::GET, path, Body::None, CALL_TIMEOUT)
                .await?,
        )
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        self.call(method, path, Body::Json(body.to_string()), timeout)
            .await
    }

    fn prepare(&self, method: Method, path: &str, body: Body, timeout: Duration) -> Call {
        Call {
            method,
            url: format!("{}/{path}", self.settings.server_url.trim_end_matches('/')),
            body,
            deadline: self.clock.deadline(timeout),
        }
    }

    /// Makes a call with the client's own retries of gateway and network errors.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Body,
        timeout: Duration,
    ) -> Result<Answer, CallError> {
        let call = self.prepare(method, path, body, timeout);
        let mut retry = 0;
        loop {
            let result = self.authenticated(&call).await;
            let outcome = match &result {
                Ok(answer) => answer.status.to_string(),
                Err(error) => crate::error::chain(error),
            };
            self.diag
                .trace(&format!("{} {path}: {outcome}", call.method));
            match result {
                Err(error) if error.is_retried_by_client() && retry < CALL_RETRIES => {
                    self.clock.sleep(RETRY_BASE * 2_u32.pow(retry)).await;
                    retry += 1;
                }
                result => return result,
            }
        }
    }
}

/// Turns an answer that is no success into the error the real client would throw.
pub(crate) fn check(answer: Answer) -> Result<Answer, CallError> {
    if (200..300).contains(&answer.status) {
        return Ok(answer);
    }
    if answer.status == 401 {
        let text = answer.header("X-TFS-ServiceError");
        let text = form_urlencoded::parse(text.as_bytes()).map(|(text, _)| text.into_owned());
        let text = text.collect::<String>();
        return Err(CallError::Unauthorized(if text.is_empty() {
            "VS30063: You are not authorized to access this server.".to_owned()
        } else {
            text
        }));
    }
    Err(match serde_json::from_str::<ErrorAnswer>(&answer.text()) {
        Ok(error) => CallError::Refused {
            class: error.type_key,
            message: error.message,
        },
        Err(_) => CallError::Status(answer.status),
    })
}

fn parse<T: DeserializeOwned>(path: &str, answer: &Answer) -> Result<T, CallError> {
    let path = path.split('?').next().unwrap_or(path);
    serde_json::from_str(&answer.text()).map_err(|source| CallError::Answer {
        path: path.to_owned(),
        source,
    })
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(D::Error::custom)
}
