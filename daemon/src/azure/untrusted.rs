//! Everything that Azure's answers go through. For [`crate::fuzz`].

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;

use super::answer::{self, Answer};
use super::auth::{self, Token};
use super::error::{AzureError, Operation};
use super::wire;
use super::{Agent, AgentPool, JobRequest, Package};
use crate::agent::RegistrationFacts;

/// Reads an answer as everything that it could be.
pub(crate) fn read(bytes: &[u8]) {
    for agent in list::<wire::TaskAgent>(bytes) {
        RegistrationFacts::of(&Agent::from(agent));
    }
    for pool in list::<wire::Pool>(bytes) {
        let _ = AgentPool::from(pool);
    }
    for job in list::<wire::TaskAgentJobRequest>(bytes) {
        let _ = JobRequest::from(job);
    }
    for package in list::<wire::PackageMetadata>(bytes) {
        let _ = Package::from(package);
    }
    if let Some(data) = object::<wire::ConnectionData>(bytes) {
        data.deployment();
        data.user();
    }
    if let Some(agent) = object::<wire::TaskAgent>(bytes) {
        RegistrationFacts::of(&Agent::from(agent));
    }
    object::<wire::Registered>(bytes);
    auth::read_grant(bytes);
    refuse(bytes);
}

fn page(status: StatusCode, bytes: &[u8]) -> Answer {
    let json = HeaderValue::from_static("application/json");
    Answer {
        status,
        headers: HeaderMap::from_iter([(CONTENT_TYPE, json)]),
        body: bytes.to_vec(),
        pause: None,
    }
}

fn object<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    told(answer::object(
        Operation::FindPool,
        page(StatusCode::OK, bytes),
    ))
}

fn list<T: DeserializeOwned>(bytes: &[u8]) -> Vec<T> {
    let read = answer::list(Operation::FindPool, page(StatusCode::OK, bytes));
    told(read).unwrap_or_default()
}

fn told<T>(result: Result<T, AzureError>) -> Option<T> {
    result
        .inspect_err(|error| {
            let _ = iap_common::error::chain(error).to_string();
        })
        .ok()
}

fn refuse(bytes: &[u8]) {
    let token = Token::of_pat("fuzz").expect("a word can be sent");
    for status in [StatusCode::UNAUTHORIZED, StatusCode::TOO_MANY_REQUESTS] {
        let answer = page(status, bytes);
        let error = answer::refusal(Operation::FindPool, "/x".to_owned(), &answer, &token);
        let _ = iap_common::error::chain(&error).to_string();
    }
}
