//! Authentication on demand.
//!
//! As in the real client the first request goes out without a credential. Only a 401 that offers
//! `Bearer` makes it sign an assertion, fetch a token and repeat the request.

use std::sync::PoisonError;

use hyper::Method;
use jiff::Timestamp;
use serde::Deserialize;
use url::form_urlencoded;

use crate::error::CallError;
use crate::http::{Answer, Body, Call, guid};
use crate::key::Claims;

use super::{CALL_TIMEOUT, RETRY_BASE, Server, check};

const TOKEN_RETRIES: u32 = 5;
const AUTHENTICATION_ROUNDS: u32 = 3;
const ASSERTION_SECONDS: i64 = 300;

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    /// The older spelling; servers may send both.
    errordescription: Option<String>,
}

impl TokenAnswer {
    /// Returns the token, none if there is neither token nor error.
    fn token(self) -> Result<Option<String>, CallError> {
        let Some(error) = self.error else {
            return Ok(self.access_token);
        };
        let description = self.error_description.or(self.errordescription);
        Err(CallError::TokenRequest(description.unwrap_or(error)))
    }
}

impl Server {
    /// Sends a request, fetching a token when one is asked for.
    pub(super) async fn authenticated(&self, call: &Call) -> Result<Answer, CallError> {
        let mut round = 1;
        loop {
            let token = self
                .token
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let answer = self.http.send(call, token.as_deref()).await?;
            let challenged =
                answer.status == 401 && answer.header("WWW-Authenticate").contains("Bearer");
            if !challenged || round == AUTHENTICATION_ROUNDS {
                return check(answer);
            }
            let Some(token) = self.exchange().await? else {
                return check(answer);
            };
            *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
            round += 1;
        }
    }

    /// Signs an assertion and exchanges it for a token; none when the endpoint fails otherwise than by
    /// refusing it.
    async fn exchange(&self) -> Result<Option<String>, CallError> {
        let mut retry = 0;
        loop {
            let answer = self.request_token().await;
            let passing = match &answer {
                Ok(answer) => matches!(answer.status, 429 | 500 | 502..=504),
                Err(error) => matches!(error, CallError::Network { .. }),
            };
            if passing && retry < TOKEN_RETRIES {
                self.clock.sleep(RETRY_BASE * 2_u32.pow(retry)).await;
                retry += 1;
                continue;
            }
            let answer = answer?;
            self.diag
                .trace(&format!("token exchange: {}", answer.status));
            if !matches!(answer.status, 200 | 400) {
                return Ok(None);
            }
            return match serde_json::from_str::<TokenAnswer>(&answer.text()) {
                Ok(reply) => reply.token(),
                Err(_) => Ok(None),
            };
        }
    }

    async fn request_token(&self) -> Result<Answer, CallError> {
        let now = Timestamp::now().as_second();
        let client = self.credentials.client_id.as_str();
        let assertion = self
            .credentials
            .key
            .assertion(&Claims {
                sub: client,
                jti: &guid(),
                iss: client,
                aud: &self.credentials.authorization_url,
                nbf: now,
                exp: now + ASSERTION_SECONDS,
            })
            .map_err(CallError::Key)?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .append_pair(
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            )
            .append_pair("client_assertion", &assertion)
            .finish();
        let call = Call {
            method: Method::POST,
            url: self.credentials.endpoint_url.clone(),
            body: Body::Form(form),
            deadline: self.clock.deadline(CALL_TIMEOUT),
        };
        self.http.send(&call, None).await
    }
}

#[cfg(test)]
mod tests {
    use super::{CallError, TokenAnswer};

    fn token(text: &str) -> Result<Option<String>, CallError> {
        serde_json::from_str::<TokenAnswer>(text).unwrap().token()
    }

    #[test]
    fn a_refusal_is_understood_in_either_spelling_and_in_both() {
        for members in [
            r#""error_description":"why""#,
            r#""errordescription":"why""#,
            r#""error_description":"why","errordescription":"why""#,
        ] {
            let refused = token(&format!(r#"{{"error":"invalid_client",{members}}}"#));
            assert!(matches!(refused, Err(CallError::TokenRequest(text)) if text == "why"));
        }
    }

    #[test]
    fn an_answer_without_token_and_error_is_no_token() {
        assert!(matches!(token("{}"), Ok(None)));
        assert!(matches!(token(r#"{"access_token":"t"}"#), Ok(Some(token)) if token == "t"));
    }
}
