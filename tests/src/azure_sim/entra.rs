//! Entra ID's token endpoint, and the metadata service of a machine in Azure.
//!
//! An application proves itself with a secret, with an assertion that is signed with the key of its certificate, or with
//! a token of another identity provider, which is compared byte by byte: what that provider does is not simulated.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    auth::{Bearer, Issued},
    call::Call,
    clock::wall,
    crypto::Certificate,
    state::{Hub, State},
    token::{ASSERTION_TYPE, LONGEST_ASSERTION, TOLERANCE, decode, field, read_form},
};

const AZURE_DEVOPS: &str = "499b84ac-1321-427f-aa17-267ca6975798";

/// What a principal may do in every organisation here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Right {
    /// Nothing: it was not added to the organisation.
    Nothing,
    /// Look.
    Read,
    /// Everything about pools.
    #[default]
    Manage,
}

/// An Entra application that may ask for tokens.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EntraClient {
    /// Its directory.
    pub tenant: String,
    /// Its application id.
    pub client_id: String,
    /// Its secret; none if empty.
    pub secret: String,
    /// Its certificate, PEM; what else is in the text is passed over.
    pub certificate: Option<String>,
    /// Tokens of another identity provider that it takes.
    pub federated_tokens: Vec<String>,
    /// What it may do.
    pub right: Right,
}

/// An identity of the machine.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineIdentity {
    /// Its client id.
    pub client_id: String,
    /// The machine's own, which is meant when none is named.
    pub own: bool,
    /// What it may do.
    pub right: Right,
}

/// What requests for tokens meet with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EntraMode {
    /// They are looked at as usual.
    #[default]
    Valid,
    /// The service is out of order: 503.
    Unavailable,
    /// Too many requests: 429.
    Throttled,
    /// The application's secret has expired.
    SecretExpired,
}

/// A request for a token, without what must stay secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EntraRequest {
    /// Who asked; may be empty for a machine.
    pub client_id: String,
    /// `client_secret`, `client_assertion` or `machine`.
    pub proof: &'static str,
    /// Whether there was a token.
    pub granted: bool,
    /// Whether a machine wanted none that was handed out before.
    pub bypass_cache: bool,
}

/// All that Entra ID and the machine know.
#[derive(Default)]
pub(super) struct Entra {
    pub(super) clients: Vec<EntraClient>,
    pub(super) machine: Vec<MachineIdentity>,
    pub(super) mode: EntraMode,
    pub(super) requests: Vec<EntraRequest>,
    /// What the machine's service hands out again.
    handed_out: BTreeMap<String, (String, Timestamp)>,
}

impl std::fmt::Debug for Entra {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entra")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl Entra {
    /// Forgets who asked for tokens and what was handed out.
    pub(super) fn forget_requests(&mut self) {
        self.requests.clear();
        self.handed_out.clear();
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Denied {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Denied {
    fn new(status: u16, error: &'static str, description: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let description = description.into();
        Self {
            status,
            error,
            description,
        }
    }

    fn client(description: &str) -> Self {
        Self::new(401, "invalid_client", description)
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    typ: String,
    #[serde(rename = "x5t#S256")]
    thumbprint: String,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    jti: String,
    nbf: i64,
    exp: i64,
}

impl State {
    pub(super) fn expire_entra_tokens(&mut self) {
        self.credentials
            .issued
            .retain(|_, issued| !matches!(issued.to, Bearer::Entra(_)));
    }

    fn entra_mode(&self) -> Result<(), Denied> {
        Err(match self.entra.mode {
            EntraMode::Valid => return Ok(()),
            EntraMode::Unavailable => Denied::new(503, "temporarily_unavailable", ""),
            EntraMode::Throttled => Denied::new(429, "", ""),
            EntraMode::SecretExpired => {
                let words = "AADSTS7000222: The provided client secret keys for app are expired.";
                Denied::client(words)
            }
        })
    }

    /// Judges the request of an application, and says what it may do.
    fn judge_application(
        &self,
        tenant: &str,
        form: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<Right, Denied> {
        self.entra_mode()?;
        let id = field(form, "client_id");
        if field(form, "grant_type") != "client_credentials"
            || field(form, "scope") != format!("{AZURE_DEVOPS}/.default")
        {
            let words = "AADSTS900144: The request body must contain 'grant_type' and 'scope'.";
            return Err(Denied::new(400, "invalid_request", words));
        }
        let mut of_tenant = self.entra.clients.iter().filter(|c| c.tenant == tenant);
        if of_tenant.clone().next().is_none() {
            let words = format!("AADSTS90002: Tenant '{tenant}' not found.");
            return Err(Denied::new(400, "invalid_request", words));
        }
        let Some(client) = of_tenant.find(|client| client.client_id == id) else {
            let words = format!("AADSTS700016: Application '{id}' was not found in the directory.");
            return Err(Denied::new(400, "unauthorized_client", words));
        };
        let assertion = field(form, "client_assertion");
        if assertion.is_empty() {
            let secret = field(form, "client_secret");
            return if !secret.is_empty() && secret == client.secret {
                Ok(client.right)
            } else {
                let words = "AADSTS7000215: Invalid client secret provided.";
                Err(Denied::client(words))
            };
        }
        if field(form, "client_assertion_type") != ASSERTION_TYPE {
            let words = "AADSTS50161: Unsupported client assertion type.";
            return Err(Denied::new(400, "invalid_request", words));
        }
        if client.federated_tokens.iter().any(|t| t == assertion) {
            return Ok(client.right);
        }
        let Some(pem) = &client.certificate else {
            let words = "AADSTS700213: No matching federated identity record found for presented \
                         assertion.";
            return Err(Denied::client(words));
        };
        let audience = format!("{}/_sim/entra/{tenant}/oauth2/v2.0/token", self.public_url);
        judge_assertion(assertion, pem, id, &audience, now)?;
        Ok(client.right)
    }

    fn issue_entra_token(&mut self, right: Right, now: Timestamp) -> (String, Timestamp) {
        let until = now + self.scaled(|timings| timings.entra_token_life);
        let token = self.secret("sim-entra");
        let to = Bearer::Entra(right);
        let issued = Issued {
            to,
            until,
            org: None,
        };
        self.credentials.issued.insert(token.clone(), issued);
        (token, until)
    }

    /// Finds the machine's identity that is meant.
    fn judge_machine(&self, call: &Call) -> Result<MachineIdentity, Denied> {
        self.entra_mode()?;
        let wrong = |error, words: &str| Err(Denied::new(400, error, words));
        if !call.metadata {
            return wrong("bad_request_102", "Required metadata header not specified");
        }
        if call.query("api-version").is_none_or(|v| v < "2018-02-01") {
            return wrong("bad_request", "The api-version is missing or too old");
        }
        if call.query("resource") != Some(AZURE_DEVOPS) {
            return wrong(
                "invalid_resource",
                "AADSTS500011: The resource principal was not found",
            );
        }
        let named = call.query("client_id");
        let all = &self.entra.machine;
        let found = match (named, all.as_slice()) {
            (Some(id), all) => all.iter().find(|identity| identity.client_id == id),
            (None, [only]) => Some(only),
            (None, all) => all.iter().find(|identity| identity.own),
        };
        match found {
            Some(identity) => Ok(identity.clone()),
            None if named.is_none() && !all.is_empty() => wrong(
                "invalid_request",
                "Multiple user assigned identities exist, please specify the clientId / \
                 resourceId of the identity in the token request",
            ),
            None => wrong("invalid_request", "Identity not found"),
        }
    }

    fn note_request(&mut self, client_id: &str, proof: &'static str, granted: bool, anew: bool) {
        self.entra.requests.push(EntraRequest {
            client_id: client_id.to_owned(),
            proof,
            granted,
            bypass_cache: anew,
        });
    }
}

fn judge_assertion(
    assertion: &str,
    pem: &str,
    client_id: &str,
    audience: &str,
    now: Timestamp,
) -> Result<(), Denied> {
    let malformed = || {
        let words = "AADSTS50027: JWT token is invalid or malformed.";
        Denied::new(400, "invalid_request", words)
    };
    let (signed, signature) = assertion.rsplit_once('.').ok_or_else(malformed)?;
    let (head, claims) = signed.split_once('.').ok_or_else(malformed)?;
    let head: Header = decode(head).ok_or_else(malformed)?;
    let claims: Claims = decode(claims).ok_or_else(malformed)?;
    let certificate = Certificate::parse(pem).ok_or_else(malformed)?;
    if head.typ != "JWT" || claims.jti.is_empty() || claims.aud != audience {
        return Err(malformed());
    }
    if claims.iss != client_id || claims.sub != client_id {
        let words = "AADSTS700021: Client assertion application identifier doesn't match \
                     'client_id' parameter.";
        return Err(Denied::client(words));
    }
    if head.thumbprint != certificate.thumbprint()
        || !certificate.verifies(&head.alg, signed, signature)
    {
        let words = "AADSTS700027: The certificate with identifier used to sign the client \
                     assertion is not registered on application.";
        return Err(Denied::client(words));
    }
    let (early, late) = (claims.nbf - TOLERANCE, claims.exp + TOLERANCE);
    let seconds = now.as_second();
    if !(early..late).contains(&seconds) || claims.exp - claims.nbf > LONGEST_ASSERTION {
        let words = "AADSTS700024: Client assertion is not within its valid time range.";
        return Err(Denied::client(words));
    }
    Ok(())
}

fn answer(status: StatusCode, body: &Value) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
    (status, headers, Body::from(body.to_string())).into_response()
}

/// Words a refusal with ids that differ from one to the next, as the service does.
fn denied(hub: &Hub, denied: &Denied) -> Response {
    let (trace, correlation) = hub.with(|state, _| (state.guid(), state.guid()));
    let mut description = denied.description.clone();
    if description.starts_with("AADSTS") {
        let time = wall().strftime("%Y-%m-%d %H:%M:%SZ");
        let ids = format!(" Trace ID: {trace} Correlation ID: {correlation} Timestamp: {time}");
        description += &ids;
    }
    let body = json!({
        "error": denied.error, "error_description": description, "trace_id": trace,
        "correlation_id": correlation,
    });
    answer(denied.status, &body)
}

/// Answers the token endpoint of a tenant.
pub(super) fn exchange(hub: &Hub, tenant: &str, body: &[u8]) -> Response {
    let form = read_form(body);
    let proof = if form.contains_key("client_assertion") {
        "client_assertion"
    } else {
        "client_secret"
    };
    let issued = hub.with(|state, now| {
        let skew = SignedDuration::from_secs(state.credentials.skew);
        let judged = state.judge_application(tenant, &form, wall() + skew);
        state.note_request(field(&form, "client_id"), proof, judged.is_ok(), false);
        Ok(state.issue_entra_token(judged?, now))
    });
    match issued {
        Ok((token, _)) => {
            let life = hub.with(|state, _| state.scaled(|timings| timings.entra_token_life));
            let body = json!({
                "token_type": "Bearer", "expires_in": life.as_secs(),
                "ext_expires_in": life.as_secs(), "access_token": token,
            });
            answer(StatusCode::OK, &body)
        }
        Err(why) => denied(hub, &why),
    }
}

/// Answers the metadata service: it hands a token out again until shortly before its end, and its numbers are texts.
pub(super) fn machine_token(hub: &Hub, call: &Call) -> Response {
    const SHORTLY: Duration = Duration::from_secs(300);
    let anew = call.query("bypass_cache") == Some("true");
    let issued = hub.with(|state, now| {
        let judged = state.judge_machine(call);
        let named = call.query("client_id").unwrap_or_default();
        state.note_request(named, "machine", judged.is_ok(), anew);
        let identity = judged?;
        let kept = state.entra.handed_out.get(&identity.client_id).cloned();
        let kept = kept.filter(|(_, until)| !anew && *until - SHORTLY > now);
        let (token, until) = kept.unwrap_or_else(|| state.issue_entra_token(identity.right, now));
        let entry = (token.clone(), until);
        state.entra.handed_out.insert(identity.client_id, entry);
        Ok((token, until))
    });
    match issued {
        Ok((token, until)) => {
            let life = hub.with(|state, _| state.scaled(|timings| timings.entra_token_life));
            let body = json!({
                "access_token": token, "client_id": "", "token_type": "Bearer",
                "resource": AZURE_DEVOPS, "expires_in": life.as_secs().to_string(),
                "expires_on": until.as_second().to_string(), "refresh_token": "",
            });
            answer(StatusCode::OK, &body)
        }
        Err(why) => denied(hub, &why),
    }
}
