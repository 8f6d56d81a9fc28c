//! Who is asking: personal access tokens, Entra tokens, agents' and jobs' tokens, and what a rejected one meets with.

use std::{collections::BTreeMap, fmt, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{entra::Right, errors::ApiError, options::PatMode, state::State};

/// The scope that reads pools and agents.
pub const SCOPE_READ: &str = "vso.agentpools";
/// The scope that also writes them.
pub const SCOPE_MANAGE: &str = "vso.agentpools_manage";

/// The sort of credential a request came with; the journal keeps this and never the credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CredentialKind {
    /// None at all.
    None,
    /// A personal access token.
    Pat,
    /// A token of a Microsoft Entra principal.
    Entra,
    /// A token an agent got for its key.
    AgentToken,
    /// The token in a job message.
    JobToken,
    /// Something this service did not issue.
    Unknown,
}

/// A personal access token to accept.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pat {
    /// The token itself.
    pub secret: String,
    /// The organisation it is good for; any if absent.
    pub org: Option<String>,
    /// What it may do; everything about pools if empty.
    pub scopes: Vec<String>,
    /// How long it is good for; for ever if absent.
    pub valid_for_ms: Option<u64>,
}

impl Pat {
    /// Returns a token that may do everything, everywhere, for ever.
    pub fn manage(secret: impl Into<String>) -> Self {
        Self {
            secret: secret.into(),
            ..Self::default()
        }
    }

    /// Returns a token that may only read.
    pub fn read_only(secret: impl Into<String>) -> Self {
        Self {
            scopes: vec![SCOPE_READ.to_owned()],
            ..Self::manage(secret)
        }
    }
}

impl fmt::Debug for Pat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pat")
            .field("org", &self.org)
            .field("scopes", &self.scopes)
            .finish()
    }
}

#[derive(Debug)]
pub(super) struct KnownPat {
    org: Option<usize>,
    scopes: Vec<String>,
    until: Option<Timestamp>,
}

impl KnownPat {
    /// Returns what its scopes let it do; none at all stands for full access.
    fn right(&self) -> Right {
        let has = |scope: &str| self.scopes.iter().any(|held| held == scope);
        if self.scopes.is_empty() || has(SCOPE_MANAGE) {
            Right::Manage
        } else if has(SCOPE_READ) {
            Right::Read
        } else {
            Right::Nothing
        }
    }
}

/// A bearer token the simulator handed out.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) to: Bearer,
    /// The organisation it is good for; any if absent.
    pub(super) org: Option<usize>,
    pub(super) until: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearer {
    Agent(u64),
    Job(u64),
    Entra(Right),
}

/// All credentials, good and used.
#[derive(Default)]
pub(super) struct Credentials {
    pub(super) pats: BTreeMap<String, KnownPat>,
    pub(super) issued: BTreeMap<String, Issued>,
    pub(super) used_assertions: BTreeMap<String, Timestamp>,
    pub(super) pat_mode: PatMode,
    /// Added to the real time when assertions are judged, in seconds.
    pub(super) skew: i64,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("pat_mode", &self.pat_mode)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Forgets the bearer tokens that were handed out and the assertions they were got for.
    pub(super) fn forget_issued(&mut self) {
        self.issued.clear();
        self.used_assertions.clear();
    }
}

/// Who is asking, once accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Principal {
    Admin(Right),
    Agent(u64),
    Job(u64),
}

/// Why a request is turned away before it is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rejection {
    Unauthorized,
    SignInPage,
    SignInRedirect,
}

impl From<PatMode> for Rejection {
    fn from(mode: PatMode) -> Self {
        match mode {
            PatMode::Valid | PatMode::Unauthorized => Self::Unauthorized,
            PatMode::SignInPage => Self::SignInPage,
            PatMode::SignInRedirect => Self::SignInRedirect,
        }
    }
}

impl Principal {
    /// Lets administrators with the right scope read.
    pub(super) fn require_read(self) -> Result<(), ApiError> {
        match self {
            Self::Admin(Right::Read | Right::Manage) => Ok(()),
            _ => Err(denied("View")),
        }
    }

    /// Lets administrators with the right scope write.
    pub(super) fn require_manage(self) -> Result<(), ApiError> {
        match self {
            Self::Admin(Right::Manage) => Ok(()),
            _ => Err(denied("Manage")),
        }
    }
}

fn denied(right: &str) -> ApiError {
    ApiError::access_denied(format!(
        "Access denied. The identity needs {right} permissions."
    ))
}

impl State {
    pub(super) fn add_pat(&mut self, pat: Pat, now: Timestamp) {
        let known = KnownPat {
            org: pat.org.map(|name| self.add_org(&name)),
            scopes: pat.scopes,
            until: pat.valid_for_ms.map(|ms| now + Duration::from_millis(ms)),
        };
        self.credentials.pats.insert(pat.secret, known);
    }

    /// Judges an `Authorization` header; the kind is known even when the answer is no.
    pub(super) fn authenticate(
        &self,
        authorization: Option<&str>,
        org: usize,
        now: Timestamp,
    ) -> (CredentialKind, Result<Principal, Rejection>) {
        let Some((scheme, credential)) = authorization.and_then(|text| text.split_once(' ')) else {
            return (CredentialKind::None, Err(Rejection::Unauthorized));
        };
        if scheme.eq_ignore_ascii_case("basic") {
            self.authenticate_pat(credential, org, now)
        } else if scheme.eq_ignore_ascii_case("bearer") {
            self.authenticate_bearer(credential, org, now)
        } else {
            (CredentialKind::Unknown, Err(Rejection::Unauthorized))
        }
    }

    fn authenticate_pat(
        &self,
        credential: &str,
        org: usize,
        now: Timestamp,
    ) -> (CredentialKind, Result<Principal, Rejection>) {
        let decoded = STANDARD.decode(credential.trim()).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let secret = decoded
            .as_deref()
            .and_then(|text| text.split_once(':'))
            .map(|(_, pat)| pat);
        let Some(pat) = secret.and_then(|secret| self.credentials.pats.get(secret)) else {
            return (CredentialKind::Unknown, Err(self.switches.bad_pat.into()));
        };
        let lapsed = pat.until.is_some_and(|until| until <= now);
        let elsewhere = pat.org.is_some_and(|only| only != org);
        let result = if self.credentials.pat_mode != PatMode::Valid {
            Err(self.credentials.pat_mode.into())
        } else if lapsed || elsewhere {
            Err(self.switches.bad_pat.into())
        } else {
            Ok(Principal::Admin(pat.right()))
        };
        (CredentialKind::Pat, result)
    }

    fn authenticate_bearer(
        &self,
        token: &str,
        org: usize,
        now: Timestamp,
    ) -> (CredentialKind, Result<Principal, Rejection>) {
        let Some(issued) = self.credentials.issued.get(token.trim()) else {
            return (CredentialKind::Unknown, Err(Rejection::Unauthorized));
        };
        let (kind, principal) = match issued.to {
            Bearer::Agent(agent) => (CredentialKind::AgentToken, Principal::Agent(agent)),
            Bearer::Job(request) => (CredentialKind::JobToken, Principal::Job(request)),
            Bearer::Entra(Right::Nothing) => {
                return (CredentialKind::Entra, Err(Rejection::Unauthorized));
            }
            Bearer::Entra(right) => (CredentialKind::Entra, Principal::Admin(right)),
        };
        let orphaned = match principal {
            Principal::Agent(agent) => {
                self.switches.deleted_agent_is_unauthorized && !self.agents.contains_key(&agent)
            }
            _ => false,
        };
        let elsewhere = issued.org.is_some_and(|only| only != org);
        let rejected = issued.until <= now || orphaned || elsewhere;
        (
            kind,
            if rejected {
                Err(Rejection::Unauthorized)
            } else {
                Ok(principal)
            },
        )
    }

    /// Lets an agent at what is its own.
    pub(super) fn require_agent(&self, principal: Principal, id: u64) -> Result<(), ApiError> {
        match principal {
            Principal::Agent(own) if own == id && self.agents.contains_key(&id) => Ok(()),
            Principal::Agent(own) if own == id => Err(ApiError::agent_not_found(id)),
            _ => Err(denied("Listen")),
        }
    }

    /// Makes every token agents hold worthless.
    pub(super) fn expire_agent_tokens(&mut self) {
        self.credentials
            .issued
            .retain(|_, issued| !matches!(issued.to, Bearer::Agent(_)));
    }

    /// Returns what a rejected request is answered.
    pub(super) fn reject(&self, rejection: Rejection) -> Response {
        match rejection {
            Rejection::Unauthorized => unauthorized(&self.public_url),
            Rejection::SignInRedirect => {
                let target = format!("{}/_signin", self.public_url);
                (StatusCode::FOUND, [(header::LOCATION, target)]).into_response()
            }
            Rejection::SignInPage => sign_in_page(),
        }
    }
}

fn unauthorized(public_url: &str) -> Response {
    let mut response = (StatusCode::UNAUTHORIZED, Body::empty()).into_response();
    let challenges = [
        format!("Bearer authorization_uri={public_url}/tenant"),
        format!("Basic realm=\"{public_url}/\""),
    ];
    let headers = response.headers_mut();
    for challenge in challenges {
        if let Ok(value) = HeaderValue::from_str(&challenge) {
            headers.append(header::WWW_AUTHENTICATE, value);
        }
    }
    headers.insert(
        "X-TFS-ServiceError",
        HeaderValue::from_static("TF400813%3A+The+user+%27%27+is+not+authorized"),
    );
    response
}

/// Returns what the hosted service sends instead of an error when it wants a person to sign in.
pub(super) fn sign_in_page() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    let page = "<!DOCTYPE html>\r\n<html><head><title>Azure DevOps Services | Sign In</title></head>\
                <body>Sign in to continue.</body></html>";
    (StatusCode::NON_AUTHORITATIVE_INFORMATION, headers, page).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::{CredentialKind, Pat, Principal, Rejection};
    use crate::azure_sim::{PatMode, Right, clock::wall, testing};

    fn basic(secret: &str) -> String {
        format!("Basic {}", STANDARD.encode(format!("anyone:{secret}")))
    }

    #[test]
    fn personal_access_tokens_are_judged_by_life_scope_and_organisation() {
        let (mut state, _) = testing::state();
        let now = wall();
        let pats = [
            Pat::manage("all"),
            Pat::read_only("reader"),
            Pat {
                scopes: vec!["vso.code".to_owned()],
                ..Pat::manage("coder")
            },
            Pat {
                valid_for_ms: Some(1000),
                ..Pat::manage("short")
            },
            Pat {
                org: Some("elsewhere".to_owned()),
                ..Pat::manage("abroad")
            },
        ];
        for pat in pats {
            state.add_pat(pat, now);
        }
        let judge = |secret: &str, at| state.authenticate(Some(&basic(secret)), 0, at);
        let admin = |right| (CredentialKind::Pat, Ok(Principal::Admin(right)));
        let no = |kind| (kind, Err(Rejection::Unauthorized));
        assert_eq!(judge("all", now), admin(Right::Manage));
        assert_eq!(judge("reader", now), admin(Right::Read));
        assert_eq!(judge("coder", now), admin(Right::Nothing));
        assert_eq!(judge("short", now), admin(Right::Manage));
        assert_eq!(
            judge("short", now + Duration::from_secs(1)),
            no(CredentialKind::Pat)
        );
        assert_eq!(judge("abroad", now), no(CredentialKind::Pat));
        assert_eq!(judge("unheard", now), no(CredentialKind::Unknown));
        assert_eq!(state.authenticate(None, 0, now), no(CredentialKind::None));
    }

    #[test]
    fn the_mode_turns_away_personal_access_tokens_and_nobody_else() {
        let (mut state, pool) = testing::state();
        let now = wall();
        state.add_pat(Pat::manage("all"), now);
        let agent = testing::add_agent(&mut state, pool, "stove-01");
        let (token, _) = state.issue_agent_token(agent, now);
        state.credentials.pat_mode = PatMode::SignInPage;
        let (_, pat) = state.authenticate(Some(&basic("all")), 0, now);
        assert_eq!(pat, Err(Rejection::SignInPage));
        let bearer = format!("Bearer {token}");
        let (_, agents) = state.authenticate(Some(&bearer), 0, now);
        assert_eq!(agents, Ok(Principal::Agent(agent)));
    }

    #[test]
    fn an_agents_token_is_worthless_in_another_organisation() {
        let (mut state, pool) = testing::state();
        let (now, other) = (wall(), state.add_org("other"));
        let agent = testing::add_agent(&mut state, pool, "stove-01");
        let (token, _) = state.issue_agent_token(agent, now);
        let bearer = format!("Bearer {token}");
        let judged = state.authenticate(Some(&bearer), other, now);
        let expected = (CredentialKind::AgentToken, Err(Rejection::Unauthorized));
        assert_eq!(judged, expected);
    }
}
