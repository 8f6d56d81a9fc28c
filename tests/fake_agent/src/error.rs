//! What can go wrong with a call to the service, told apart as the real client tells it.
//!
//! All of the listener's decisions hang on the class of the error (`typeKey`), not on the status code.

use std::error::Error;
use std::time::Duration;

use crate::key::KeyError;

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The service refused and said which exception it is.
    #[error("{message}")]
    Refused { class: String, message: String },
    /// The credential was not accepted, even after a token exchange.
    #[error("{0}")]
    Unauthorized(String),
    /// The token endpoint refused the assertion.
    #[error("{0}")]
    TokenRequest(String),
    #[error("Response status code does not indicate success: {0}")]
    Status(u16),
    #[error("the answer of {path} cannot be read")]
    Answer {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{what}")]
    Network {
        what: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{0} is no address this agent can call")]
    Address(String),
    #[error("the agent's key failed")]
    Key(#[source] KeyError),
}

impl CallError {
    /// Returns the exception class the service named.
    pub fn class(&self) -> Option<&str> {
        match self {
            Self::Refused { class, .. } => Some(class),
            _ => None,
        }
    }

    /// Tells whether the service complains about this machine's clock.
    pub fn is_clock_skew(&self) -> bool {
        matches!(self, Self::TokenRequest(text) if text.contains("Current server time is"))
    }

    /// Tells whether the client itself tries again: gateway errors and the network.
    pub fn is_retried_by_client(&self) -> bool {
        matches!(self, Self::Status(502..=504) | Self::Network { .. })
    }
}

/// Returns an error with everything that caused it, for the console and the logs.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
