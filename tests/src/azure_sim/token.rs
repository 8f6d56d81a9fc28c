//! The token endpoint: an agent's signed assertion for a bearer token.
//!
//! The times in an assertion are compared with the real clock plus the configured skew: the virtual clock belongs to the
//! service, and whoever wrote the assertion has not moved with it.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::json;

use super::{
    auth::{Bearer, Issued},
    clock::wall,
    state::{Hub, State},
};

pub(super) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// How far the two clocks may be apart, in seconds.
pub(super) const TOLERANCE: i64 = 300;
/// The longest an assertion may last, in seconds.
pub(super) const LONGEST_ASSERTION: i64 = 600;

/// Why no token is issued, in the service's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    error: &'static str,
    description: String,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
}

#[derive(Debug, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    jti: String,
    nbf: i64,
    exp: i64,
}

impl Refused {
    fn client() -> Self {
        Self {
            error: "invalid_client",
            description: "The client is not valid.".to_owned(),
        }
    }

    fn request(description: &str) -> Self {
        Self {
            error: "invalid_request",
            description: description.to_owned(),
        }
    }

    fn clock(what: &str, at: i64, server: Timestamp) -> Self {
        let at = dotnet_time(Timestamp::from_second(at).unwrap_or(server));
        let server = dotnet_time(server);
        Self {
            error: "invalid_client",
            description: format!("The bearer token {what} {at}. Current server time is {server}."),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        // Clients of different years read different spellings.
        let body = json!({
            "error": self.error,
            "error_description": self.description,
            "errordescription": self.description,
        });
        let headers = [(header::CONTENT_TYPE, "application/json")];
        (
            StatusCode::BAD_REQUEST,
            headers,
            Body::from(body.to_string()),
        )
            .into_response()
    }
}

fn dotnet_time(time: Timestamp) -> String {
    time.strftime("%-m/%-d/%Y %-I:%M:%S %p").to_string()
}

impl State {
    /// Returns the URL agents are told to fetch tokens from.
    pub(super) fn authorization_url(&self, org: usize) -> String {
        let name = self.orgs.get(org).map_or("", |org| org.name.as_str());
        format!("{}/{name}/_apis/oauth2/token", self.token_url)
    }

    /// Judges a token request and returns the agent it is good for.
    pub(super) fn judge_assertion(
        &mut self,
        org: usize,
        form: &BTreeMap<String, String>,
        wall: Timestamp,
    ) -> Result<u64, Refused> {
        if field(form, "grant_type") != "client_credentials" {
            return Err(Refused::request(
                "The grant_type must be client_credentials.",
            ));
        }
        if field(form, "client_assertion_type") != ASSERTION_TYPE {
            return Err(Refused::request(
                "The client_assertion_type is not supported.",
            ));
        }
        let assertion = field(form, "client_assertion");
        let (signed, signature) = assertion.rsplit_once('.').ok_or_else(Refused::client)?;
        let (header, claims) = signed.split_once('.').ok_or_else(Refused::client)?;
        let header: Header = decode(header).ok_or_else(Refused::client)?;
        let claims: Claims = decode(claims).ok_or_else(Refused::client)?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| Refused::client())?;
        if header.alg != "RS256" || claims.iss != claims.sub {
            return Err(Refused::client());
        }
        let agent = self
            .agents
            .values()
            .find(|agent| agent.client_id == claims.iss);
        let agent = agent.ok_or_else(Refused::client)?;
        let in_org = self
            .pools
            .get(&agent.pool)
            .is_some_and(|pool| pool.org == org);
        let key = agent
            .public_key
            .as_ref()
            .filter(|_| in_org)
            .ok_or_else(Refused::client)?;
        let audience_fits = self.switches.any_audience || claims.aud == self.authorization_url(org);
        if !key.verifies(signed.as_bytes(), &signature) || !audience_fits {
            return Err(Refused::client());
        }
        let server = wall + SignedDuration::from_secs(self.credentials.skew);
        let seconds = server.as_second();
        if claims.exp <= seconds.saturating_sub(TOLERANCE) {
            return Err(Refused::clock("expired on", claims.exp, server));
        }
        if claims.nbf >= seconds.saturating_add(TOLERANCE) {
            return Err(Refused::clock("is not valid until", claims.nbf, server));
        }
        if claims.exp.saturating_sub(claims.nbf) > LONGEST_ASSERTION {
            return Err(Refused::client());
        }
        let agent = agent.id;
        let used = &mut self.credentials.used_assertions;
        used.retain(|_, at| *at + Duration::from_secs(3600) > wall);
        if used.insert(claims.jti, wall).is_some() && !self.switches.assertion_reuse {
            return Err(Refused::client());
        }
        Ok(agent)
    }

    /// Issues an agent's token; returns it with its life in seconds.
    pub(super) fn issue_agent_token(&mut self, agent: u64, now: Timestamp) -> (String, u64) {
        let life = self.scaled(|timings| timings.agent_token_life);
        let token = self.secret("sim-agent");
        let pool = self.agents.get(&agent).map(|agent| agent.pool);
        let issued = Issued {
            to: Bearer::Agent(agent),
            org: pool.and_then(|pool| Some(self.pools.get(&pool)?.org)),
            until: now + life,
        };
        self.credentials.issued.insert(token.clone(), issued);
        (token, life.as_secs())
    }
}

pub(super) fn field<'f>(form: &'f BTreeMap<String, String>, name: &str) -> &'f str {
    form.get(name).map_or("", String::as_str)
}

pub(super) fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// Reads a form-encoded body.
pub(super) fn read_form(body: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(body).into_owned().collect()
}

/// Answers `POST {authorizationUrl}`.
pub(super) fn exchange(hub: &Hub, org: usize, headers: &HeaderMap, body: &[u8]) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    if !content_type.is_some_and(|text| text.starts_with("application/x-www-form-urlencoded")) {
        return Refused::request("The request must be form-encoded.").into_response();
    }
    let form = read_form(body);
    let issued = hub.with(|state, now| {
        let agent = state.judge_assertion(org, &form, wall())?;
        Ok(state.issue_agent_token(agent, now))
    });
    match issued {
        Ok((token, life)) => Json(json!({
            "access_token": token,
            "token_type": "jwt-bearer",
            "expires_in": life,
            "scope": "sim",
        }))
        .into_response(),
        Err(refused) => Refused::into_response(refused),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::{ASSERTION_TYPE, Refused};
    use crate::azure_sim::{
        crypto::PublicKey, options::Deployment, state::State, testing, vectors,
    };

    fn form(assertion: &str) -> BTreeMap<String, String> {
        let pairs = [
            ("grant_type", "client_credentials"),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
        ];
        pairs
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    fn state_with_the_vector_agent() -> (State, u64) {
        let (mut state, pool) = testing::state();
        let id = testing::add_agent(&mut state, pool, "stove-01");
        let agent = state.agents.get_mut(&id).unwrap();
        agent.client_id = vectors::CLIENT_ID.to_owned();
        agent.public_key = Some(PublicKey::parse(vectors::MODULUS, "AQAB").unwrap());
        (state, id)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_good_assertion_is_accepted_once() {
        let (mut state, id) = state_with_the_vector_agent();
        let form = form(vectors::JWT);
        assert_eq!(state.authorization_url(0), vectors::AUDIENCE);
        assert_eq!(
            state.judge_assertion(0, &form, at(vectors::NOT_BEFORE)),
            Ok(id)
        );
        let again = state.judge_assertion(0, &form, at(vectors::NOT_BEFORE));
        assert_eq!(again, Err(Refused::client()));
    }

    #[test]
    fn a_late_assertion_names_both_times() {
        let (mut state, _) = state_with_the_vector_agent();
        let refused = state.judge_assertion(0, &form(vectors::JWT), at(vectors::NOT_BEFORE + 900));
        let description = refused.unwrap_err().description;
        assert!(
            description.starts_with("The bearer token expired on 9/21/2026"),
            "{description}"
        );
        assert!(
            description.contains("Current server time is 9/21/2026"),
            "{description}"
        );
    }

    #[test]
    fn skew_makes_a_fresh_assertion_early() {
        let (mut state, _) = state_with_the_vector_agent();
        state.credentials.skew = -900;
        let refused = state.judge_assertion(0, &form(vectors::JWT), at(vectors::NOT_BEFORE));
        assert!(
            refused
                .unwrap_err()
                .description
                .contains("is not valid until")
        );
    }

    #[test]
    fn an_assertion_for_another_audience_or_key_is_refused() {
        let (mut state, id) = state_with_the_vector_agent();
        state.token_url = "http://elsewhere:1".to_owned();
        let now = at(vectors::NOT_BEFORE);
        assert_eq!(
            state.judge_assertion(0, &form(vectors::JWT), now),
            Err(Refused::client())
        );
        state.switches.any_audience = true;
        state.deployment = Deployment::OnPremises;
        state.agents.get_mut(&id).unwrap().public_key = None;
        assert_eq!(
            state.judge_assertion(0, &form(vectors::JWT), now),
            Err(Refused::client())
        );
    }

    #[test]
    fn unsigned_and_broken_assertions_are_refused() {
        let (mut state, _) = state_with_the_vector_agent();
        for assertion in ["", "a.b", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
            let refused = state.judge_assertion(0, &form(assertion), at(vectors::NOT_BEFORE));
            assert_eq!(refused, Err(Refused::client()), "{assertion}");
        }
    }
}
