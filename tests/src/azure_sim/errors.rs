//! The service's errors on the wire. Agents decide by `typeKey`, orchestrators by status, so both are exact.

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

const TASK_NAMESPACE: &str = "Microsoft.TeamFoundation.DistributedTask.WebApi";
const VSS_NAMESPACE: &str = "Microsoft.VisualStudio.Services.WebApi";

/// A refusal as the service words it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) type_key: String,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, type_key: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            type_key: type_key.to_owned(),
            message: message.into(),
        }
    }

    pub(super) fn pool_not_found(id: u64) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "TaskAgentPoolNotFoundException",
            format!("The pool with ID {id} does not exist."),
        )
    }

    pub(super) fn agent_not_found(id: u64) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "TaskAgentNotFoundException",
            format!("VS403002: The agent with ID {id} does not exist."),
        )
    }

    pub(super) fn agent_exists(pool: u64, name: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "TaskAgentExistsException",
            format!("The agent {name} already exists in pool {pool}."),
        )
    }

    pub(super) fn agent_busy(name: &str, pool: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "TaskAgentJobStillRunningException",
            format!("Agent \"{name}\" is running a job for pool \"{pool}\""),
        )
    }

    pub(super) fn session_conflict(agent: &str, owner: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "TaskAgentSessionConflictException",
            format!("The task agent {agent} already has an active session for owner {owner}."),
        )
    }

    pub(super) fn session_expired(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "TaskAgentSessionExpiredException",
            format!("The task agent session {id} has expired."),
        )
    }

    pub(super) fn job_not_found(id: u64) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "TaskAgentJobNotFoundException",
            format!("The job request {id} does not exist."),
        )
    }

    pub(super) fn job_token_expired(id: u64) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "TaskAgentJobTokenExpiredException",
            format!("The lock token of job request {id} has expired."),
        )
    }

    pub(super) fn plan_not_found(id: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "TaskOrchestrationPlanNotFoundException",
            format!("No orchestration plan found with identifier {id}."),
        )
    }

    pub(super) fn access_denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDeniedException", message)
    }

    pub(super) fn bad_argument(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ArgumentException", message)
    }

    pub(super) fn not_a_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "VssResourceNotFoundException",
            "The requested resource does not exist.",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let namespace = if self.type_key.starts_with("Task") {
            TASK_NAMESPACE
        } else {
            VSS_NAMESPACE
        };
        let body = json!({
            "$id": "1",
            "innerException": null,
            "message": self.message,
            "typeName": format!("{namespace}.{}, {namespace}", self.type_key),
            "typeKey": self.type_key,
            "errorCode": 0,
            "eventId": 3000,
        });
        let headers = [(header::CONTENT_TYPE, "application/json; charset=utf-8")];
        (self.status, headers, Body::from(body.to_string())).into_response()
    }
}
