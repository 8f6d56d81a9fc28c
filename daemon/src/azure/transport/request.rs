//! A call to Azure, as it is to be made.

use reqwest::Method;
use serde::Serialize;

use crate::azure::error::Operation;

/// Understood by Azure DevOps Server 2020 and everything newer, and offered by the hosted service
/// next to its successors. Later versions add nothing that is used here.
const API_VERSION: &str = "6.0";

/// One call, to be made.
pub(in crate::azure) struct Request {
    pub(super) operation: Operation,
    pub(super) method: Method,
    /// Below `_apis`.
    pub(super) path: String,
    pub(super) version: &'static str,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: Option<Vec<u8>>,
}

impl Request {
    pub(in crate::azure) fn get(operation: Operation, path: impl Into<String>) -> Self {
        Self::new(Method::GET, operation, path.into())
    }

    pub(in crate::azure) fn post(operation: Operation, path: impl Into<String>) -> Self {
        Self::new(Method::POST, operation, path.into())
    }

    pub(in crate::azure) fn put(operation: Operation, path: impl Into<String>) -> Self {
        Self::new(Method::PUT, operation, path.into())
    }

    pub(in crate::azure) fn patch(operation: Operation, path: impl Into<String>) -> Self {
        Self::new(Method::PATCH, operation, path.into())
    }

    pub(in crate::azure) fn delete(operation: Operation, path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, operation, path.into())
    }

    fn new(method: Method, operation: Operation, path: String) -> Self {
        Self {
            operation,
            method,
            path,
            version: API_VERSION,
            query: Vec::new(),
            body: None,
        }
    }

    /// Asks for another API version than the usual one.
    pub(in crate::azure) fn version(mut self, version: &'static str) -> Self {
        self.version = version;
        self
    }

    pub(in crate::azure) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(in crate::azure) fn body(mut self, body: &impl Serialize) -> Self {
        self.body =
            Some(serde_json::to_vec(body).expect("only strings and numbers, named by strings"));
        self
    }
}
