//! Gets access tokens: from Entra ID for an application, from the machine's metadata service for
//! the identity that Azure gave to the machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::Deserialize;
use tokio::time::{Duration, Instant, timeout};
use url::Url;
use url::form_urlencoded::Serializer;

use super::certificate::Certificate;
use super::file::WatchedFile;
use super::lease::{Fresh, Lease, Wish};
use super::token::{Token, checked, mask};
use super::{Application, CredentialClock, Proof};
use crate::azure::answer::line;
use crate::azure::error::{AzureError, Operation};
use crate::azure::pace;
use crate::azure::transport::{read_body, report, unreachable};
use crate::calls::CallObserver;

/// Azure DevOps, as Entra ID knows it.
const AZURE_DEVOPS: &str = "499b84ac-1321-427f-aa17-267ca6975798";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const MAX_ANSWER: usize = 256 * 1024;
/// What a token's life is if nobody says so.
const LIFE: Duration = Duration::from_secs(300);
/// No service's tokens last longer, and clocks can be reckoned with it.
const LONGEST_LIFE: i64 = 7 * 24 * 3600;

/// The connections that tokens are fetched over.
#[derive(Clone, Default)]
pub(in crate::azure) struct Wires {
    /// To Entra ID.
    pub(in crate::azure) http: Client,
    /// To the machine's metadata service, which is never behind a proxy.
    pub(in crate::azure) direct: Client,
}

/// See the module.
pub(in crate::azure) struct Entra {
    asks: Asks,
    lease: Lease,
    expires_at: Mutex<Option<Timestamp>>,
    wires: Wires,
    observer: CallObserver,
}

enum Asks {
    Application {
        endpoint: Url,
        client_id: String,
        proof: Proof,
        file: WatchedFile,
    },
    Machine {
        endpoint: Url,
        client_id: Option<String>,
    },
}

/// A request, and what in it must not be shown.
struct Asking {
    request: RequestBuilder,
    path: String,
    secrets: Vec<String>,
}

impl Entra {
    pub(super) fn application(
        application: Application,
        wires: Wires,
        observer: CallObserver,
    ) -> Result<Self, AzureError> {
        let Application {
            authority,
            tenant_id,
            client_id,
            proof,
        } = application;
        let endpoint = below(&authority, &[&tenant_id, "oauth2", "v2.0", "token"])?;
        let (Proof::Secret(path) | Proof::Certificate(path) | Proof::FederatedToken(path)) = &proof;
        let file = WatchedFile::new(path.clone());
        let asks = Asks::Application {
            endpoint,
            client_id,
            proof,
            file,
        };
        Ok(Self::new(asks, wires, observer))
    }

    pub(super) fn managed_identity(
        client_id: Option<String>,
        endpoint: &str,
        wires: Wires,
        observer: CallObserver,
    ) -> Result<Self, AzureError> {
        let endpoint = below(endpoint, &["metadata", "identity", "oauth2", "token"])?;
        let asks = Asks::Machine {
            endpoint,
            client_id,
        };
        Ok(Self::new(asks, wires, observer))
    }

    fn new(asks: Asks, wires: Wires, observer: CallObserver) -> Self {
        Self {
            asks,
            lease: Lease::default(),
            expires_at: Mutex::new(None),
            wires,
            observer,
        }
    }

    pub(super) async fn current(&self) -> Result<Arc<Token>, AzureError> {
        self.lease.current(|wish| self.fetch(wish)).await
    }

    pub(super) fn forget(&self) {
        self.lease.forget();
    }

    pub(super) async fn has_changed(&self) -> bool {
        match &self.asks {
            Asks::Application { file, .. } => file.has_changed().await,
            Asks::Machine { .. } => false,
        }
    }

    pub(super) fn clock(&self) -> CredentialClock {
        CredentialClock {
            expires_at: *self.expiry(),
            token_expires_at: self.lease.expires_at(),
            rejected_at: self.lease.rejected_at(),
        }
    }

    fn expiry(&self) -> std::sync::MutexGuard<'_, Option<Timestamp>> {
        self.expires_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn operation(&self) -> Operation {
        match &self.asks {
            Asks::Application { .. } => Operation::GetToken,
            Asks::Machine { .. } => Operation::GetMachineToken,
        }
    }

    async fn fetch(&self, wish: Wish) -> Result<Fresh, AzureError> {
        let operation = self.operation();
        let asking = match &self.asks {
            Asks::Application {
                endpoint,
                client_id,
                proof,
                file,
            } => self.ask_entra(endpoint, client_id, proof, file).await?,
            Asks::Machine {
                endpoint,
                client_id,
            } => self.ask_machine(endpoint.clone(), client_id.as_deref(), wish.anew),
        };
        let started = Instant::now();
        let result = match timeout(wish.within, exchange(operation, asking)).await {
            Ok(result) => result,
            Err(_) => Err(AzureError::TimedOut {
                operation,
                after: wish.within,
            }),
        };
        report(&self.observer, operation, started, &result);
        result
    }

    async fn ask_entra(
        &self,
        endpoint: &Url,
        client_id: &str,
        proof: &Proof,
        file: &WatchedFile,
    ) -> Result<Asking, AzureError> {
        let text = file.read().await?;
        let (name, secret) = match proof {
            Proof::Secret(_) => {
                let secret = checked(&text).map_err(|reason| file.unfit(reason))?;
                ("client_secret", secret.to_owned())
            }
            Proof::FederatedToken(_) => {
                let token = checked(&text).map_err(|reason| file.unfit(reason))?;
                ("client_assertion", token.to_owned())
            }
            Proof::Certificate(_) => {
                let certificate = Certificate::parse(&text).map_err(|reason| file.unfit(reason))?;
                *self.expiry() = certificate.expires_at;
                let assertion =
                    certificate.assertion(client_id, endpoint.as_str(), Timestamp::now());
                let assertion = assertion.map_err(|_| file.unfit("its key cannot sign"))?;
                ("client_assertion", assertion)
            }
        };
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials")
            .append_pair("client_id", client_id)
            .append_pair("scope", &format!("{AZURE_DEVOPS}/.default"))
            .append_pair(name, &secret);
        if name == "client_assertion" {
            form.append_pair("client_assertion_type", ASSERTION);
        }
        let encoded = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let request = self
            .wires
            .http
            .post(endpoint.clone())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form.finish());
        Ok(Asking {
            request,
            path: endpoint.path().to_owned(),
            secrets: vec![secret, encoded],
        })
    }

    fn ask_machine(&self, mut endpoint: Url, client_id: Option<&str>, anew: bool) -> Asking {
        endpoint
            .query_pairs_mut()
            .append_pair("api-version", "2018-02-01")
            .append_pair("resource", AZURE_DEVOPS)
            .extend_pairs(client_id.map(|id| ("client_id", id)))
            // The service hands the same token out until shortly before its end.
            .extend_pairs(anew.then_some(("bypass_cache", "true")));
        Asking {
            path: endpoint.path().to_owned(),
            request: self.wires.direct.get(endpoint).header("metadata", "true"),
            secrets: Vec::new(),
        }
    }
}

fn below(base: &str, path: &[&str]) -> Result<Url, AzureError> {
    let unfit = |reason| AzureError::Url {
        url: base.to_owned(),
        reason,
    };
    let mut url = Url::parse(base).map_err(|_| unfit("not a URL"))?;
    url.path_segments_mut()
        .map_err(|()| unfit("not a URL with a host"))?
        .pop_if_empty()
        .extend(path);
    Ok(url)
}

/// A token as both services hand it out. Numbers come as texts from one of them.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<Number>,
    expires_on: Option<Number>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(i64),
    Text(String),
}

impl Number {
    fn seconds(&self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
        }
    }
}

impl Granted {
    /// The machine's service counts `expires_in` from when the token was made, which may be long
    /// ago; so the earlier end holds.
    fn life(&self, now: Timestamp) -> Duration {
        let lasts = self.expires_in.as_ref().and_then(Number::seconds);
        let until = self.expires_on.as_ref().and_then(Number::seconds);
        // A host whose clock is wrong goes by the other number.
        let left = until.map(|until| until.saturating_sub(now.as_second()));
        let left = left.filter(|left| *left > 0 || lasts.is_none());
        let life = lasts.into_iter().chain(left).min();
        life.map_or(LIFE, |life| {
            Duration::from_secs(u64::try_from(life.min(LONGEST_LIFE)).unwrap_or(0))
        })
    }
}

#[derive(Default, Deserialize)]
struct Denied {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
}

async fn exchange(operation: Operation, asking: Asking) -> Result<Fresh, AzureError> {
    let Asking {
        request,
        path,
        secrets,
    } = asking;
    let mut response = request.send().await.map_err(unreachable(operation))?;
    let status = response.status();
    let body = read_body(operation, &mut response, MAX_ANSWER).await?;
    if status.is_success() {
        return grant(operation, &body);
    }
    let denied: Denied = serde_json::from_slice(&body).unwrap_or_default();
    let words = line(&mask(&words(&denied), &secrets));
    if is_final(status, &denied.error) {
        return Err(AzureError::Rejected {
            operation,
            status,
            reason: words,
        });
    }
    Err(AzureError::Status {
        operation,
        status,
        type_key: line(&mask(&denied.error, &secrets)),
        message: words,
        path,
        retry_after: pace::asked_for(status, response.headers(), SystemTime::now()),
    })
}

fn grant(operation: Operation, body: &[u8]) -> Result<Fresh, AzureError> {
    // Serde's own words may quote the answer.
    let granted: Granted = serde_json::from_slice(body).map_err(|_| AzureError::Unusable {
        operation,
        reason: "holds no token".to_owned(),
    })?;
    let token = Token::of_bearer(&granted.access_token).map_err(|_| AzureError::Unusable {
        operation,
        reason: "holds no token that could be sent".to_owned(),
    })?;
    let life = granted.life(Timestamp::now());
    Ok(Fresh { token, life })
}

/// Reads an answer as a token is read, for [`crate::fuzz`].
pub(in crate::azure) fn read_grant(body: &[u8]) {
    if let Ok(fresh) = grant(Operation::FindPool, body) {
        // As long as it is, an end can be reckoned.
        let _ = Instant::now() + fresh.life;
    }
    let denied: Denied = serde_json::from_slice(body).unwrap_or_default();
    line(&words(&denied));
}

/// Returns whether somebody has to act. The errors' names are those of RFC 6749, section 5.2;
/// numbers and words change.
fn is_final(status: StatusCode, error: &str) -> bool {
    let is_passing = matches!(
        error,
        "temporarily_unavailable" | "server_error" | "timeout"
    );
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    ) && !error.is_empty()
        && !is_passing
}

/// Returns the service's words without the ids that differ from call to call.
fn words(denied: &Denied) -> String {
    let words = denied.error_description.as_str();
    let words = words.split("Trace ID:").next().unwrap_or(words).trim();
    if words.is_empty() {
        denied.error.clone()
    } else {
        words.to_owned()
    }
}

#[cfg(test)]
mod tests;
