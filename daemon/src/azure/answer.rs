//! What an answer means.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION};
use serde::de::DeserializeOwned;
use tokio::time::Duration;
use url::{Url, form_urlencoded};

use super::auth::Token;
use super::error::{AzureError, Operation};
use super::wire::{self, Refusal};

/// Enough for Azure's longest sentences, and little enough for a log line.
const MAX_WORDS: usize = 400;

/// An answer, read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// The pause that it asks for.
    pub(super) pause: Option<Duration>,
}

impl Answer {
    fn content(&self) -> &[u8] {
        self.body.strip_prefix(wire::BOM).unwrap_or(&self.body)
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    fn has_type(&self, part: &str) -> bool {
        self.header(CONTENT_TYPE.as_str())
            .to_ascii_lowercase()
            .contains(part)
    }
}

/// Returns whether the call succeeded. A page for people is no success, whatever its status.
pub(super) fn is_success(answer: &Answer) -> bool {
    answer.status.is_success()
        && answer.status != StatusCode::NON_AUTHORITATIVE_INFORMATION
        && (answer.content().is_empty() || answer.has_type("json"))
}

/// Reads an object.
pub(super) fn object<T: DeserializeOwned>(
    operation: Operation,
    answer: Answer,
) -> Result<T, AzureError> {
    serde_json::from_slice(answer.content())
        .map_err(|source| AzureError::Malformed { operation, source })
}

/// Reads a list, all of it.
pub(super) fn list<T: DeserializeOwned>(
    operation: Operation,
    answer: Answer,
) -> Result<Vec<T>, AzureError> {
    let more = !answer.header("x-ms-continuationtoken").is_empty();
    let list: wire::List<T> = object(operation, answer)?;
    let got = list.value.len();
    let reason = match list.count {
        Some(count) if count != got => format!("counts {count} and lists {got}"),
        _ if more => format!("stops after {got}, with more to come"),
        _ => return Ok(list.value),
    };
    Err(AzureError::Unusable { operation, reason })
}

/// Makes an error of an answer that is no success.
pub(super) fn refusal(
    operation: Operation,
    path: String,
    answer: &Answer,
    token: &Token,
) -> AzureError {
    let status = answer.status;
    let refusal: Refusal = serde_json::from_slice(answer.content()).unwrap_or_default();
    let words = line(&token.mask(&words(answer, &refusal)));
    if let Some(origin) = moved(answer, &path) {
        return AzureError::Status {
            operation,
            status,
            type_key: String::new(),
            message: format!("it is at {origin} now: change the configured URL"),
            path,
            retry_after: answer.pause,
        };
    }
    match rejection(answer, &words, token.is_principals()) {
        Some(reason) => AzureError::Rejected {
            operation,
            status,
            reason,
        },
        None => AzureError::Status {
            operation,
            status,
            type_key: line(&token.mask(&refusal.type_key.unwrap_or_default())),
            message: words,
            path,
            retry_after: answer.pause,
        },
    }
}

/// Returns where a redirect leads that keeps the path, as from http to https: no sign-in page.
fn moved(answer: &Answer, path: &str) -> Option<String> {
    if !answer.status.is_redirection() {
        return None;
    }
    let to = Url::parse(answer.header(LOCATION.as_str())).ok()?;
    (to.path() == path).then(|| to.origin().ascii_serialization())
}

/// Says what the credential lacks, if that is what the answer means.
fn rejection(answer: &Answer, words: &str, is_principals: bool) -> Option<String> {
    let status = answer.status.as_u16();
    let words = |otherwise: &str| {
        if words.is_empty() {
            otherwise.to_owned()
        } else {
            words.to_owned()
        }
    };
    Some(match status {
        401 if is_principals => format!(
            "HTTP 401: {}; has the principal been added to the organisation?",
            words("access denied")
        ),
        401 => format!(
            "HTTP 401: {}",
            words("the token is unknown, expired or revoked")
        ),
        403 if is_principals => format!(
            "HTTP 403: {}; its principal must be an administrator of the agent pool",
            words("access denied")
        ),
        403 => format!(
            "HTTP 403: {}; it needs the scope Agent Pools (read & manage), and its owner must be \
             an administrator of the agent pool",
            words("access denied"),
        ),
        302 | 303 => {
            let to = Url::parse(answer.header(LOCATION.as_str())).ok();
            let host = to
                .as_ref()
                .and_then(Url::host_str)
                .unwrap_or("a sign-in page");
            format!("HTTP {status} to {host}: the token is expired or revoked")
        }
        // Azure's answer to an expired token, if it does not say 401.
        203 if answer.has_type("html") => {
            "HTTP 203 with an HTML page: the token is expired or revoked".to_owned()
        }
        203 => "HTTP 203: the token is expired or revoked".to_owned(),
        200..300 => format!(
            "HTTP {status} with {} in place of JSON: the token is expired or revoked, or a proxy \
             answered",
            if answer.has_type("html") {
                "an HTML page"
            } else {
                "something"
            },
        ),
        _ => return None,
    })
}

/// Returns the words in which the server explains itself.
fn words(answer: &Answer, refusal: &Refusal) -> String {
    if let Some(message) = refusal
        .message
        .as_deref()
        .filter(|message| !message.is_empty())
    {
        return message.to_owned();
    }
    let header = answer.header("x-tfs-serviceerror");
    if !header.is_empty() {
        let header = format!("={header}");
        return form_urlencoded::parse(header.as_bytes())
            .map(|(_, text)| text.into_owned())
            .collect();
    }
    if answer.has_type("text/plain") {
        return String::from_utf8_lossy(answer.content()).into_owned();
    }
    String::new()
}

/// Returns `text` as one line of bounded length.
pub(super) fn line(text: &str) -> String {
    let words: Vec<&str> = text
        .split(|char: char| char.is_whitespace() || char.is_control())
        .collect();
    let text = words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    match text.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
