//! What a worker tells a job's plan: that it completed, what it logged. Timelines are taken and forgotten.

use axum::{http::StatusCode, response::Response};
use serde_json::{Value, json};

use super::{
    auth::Principal,
    call::{Answer, Call, empty, list, ok},
    errors::ApiError,
    jobs::JobResult,
    state::{Hub, State},
};

impl State {
    /// Returns the job of a plan, if the asking job or agent has to do with it.
    fn plan_job(&self, call: &Call) -> Result<u64, ApiError> {
        let plan = call.text("plan");
        let job = self
            .jobs
            .values()
            .find(|job| job.plan_id.eq_ignore_ascii_case(plan));
        let job = job.ok_or_else(|| ApiError::plan_not_found(plan))?;
        let fits = job.scope_id.eq_ignore_ascii_case(call.text("scope"))
            && self
                .pools
                .get(&job.pool)
                .is_some_and(|pool| pool.org == call.org);
        if !fits {
            return Err(ApiError::plan_not_found(plan));
        }
        let own = match call.principal {
            Principal::Job(request) => request == job.id,
            Principal::Agent(agent) => job.agent_id() == Some(agent),
            Principal::Admin(_) => false,
        };
        if own {
            Ok(job.id)
        } else {
            Err(ApiError::access_denied("The plan is another job's."))
        }
    }
}

/// Answers `POST .../plans/{id}/events`.
pub(super) fn event(hub: &Hub, call: &Call) -> Answer {
    let body: Value = call.json()?;
    hub.with(|state, now| {
        let id = state.plan_job(call)?;
        if body.get("name") != Some(&json!("JobCompleted")) {
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        let result = body.get("result").and_then(JobResult::read);
        let result = result.ok_or_else(|| ApiError::bad_argument("The result is not known."))?;
        // The token in the message outlives an assignment: whoever has lost the job cannot end it.
        let job = state
            .jobs
            .get(&id)
            .filter(|job| job.result.is_none() && job.agent.is_some());
        let job = job.ok_or_else(|| ApiError::job_not_found(id))?;
        let names_job = body["jobId"]
            .as_str()
            .is_some_and(|id| id.eq_ignore_ascii_case(&job.job_id));
        if !names_job || body["requestId"] != json!(id) {
            return Err(ApiError::bad_argument("The event is about another job."));
        }
        let agent = job.agent_id().and_then(|agent| state.agents.get(&agent));
        let session = agent.and_then(|agent| agent.session.clone());
        if body.get("agentShuttingDown") == Some(&Value::Bool(true))
            && let Some(session) = session.and_then(|id| state.sessions.get_mut(&id))
        {
            session.shutting_down = true;
        }
        state.finish_job(id, result, now);
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

/// Answers `POST .../plans/{id}/logs`.
pub(super) fn create_log(hub: &Hub, call: &Call) -> Answer {
    hub.with(|state, _| {
        let id = state.plan_job(call)?;
        let job = state
            .jobs
            .get_mut(&id)
            .ok_or_else(|| ApiError::job_not_found(id))?;
        job.logs += 1;
        Ok(ok(
            json!({"id": job.logs, "path": format!("logs\\{}", job.logs), "lineCount": 0}),
        ))
    })
}

/// Answers `POST .../plans/{id}/logs/{id}`: keeps what the job printed.
pub(super) fn append_log(hub: &Hub, call: &Call) -> Answer {
    let log = call.id("log")?;
    hub.with(|state, _| {
        let id = state.plan_job(call)?;
        let job = state
            .jobs
            .get_mut(&id)
            .ok_or_else(|| ApiError::job_not_found(id))?;
        job.append_output(&call.body);
        state.touch();
        Ok(ok(
            json!({"id": log, "path": format!("logs\\{log}"), "lineCount": 0}),
        ))
    })
}

/// Answers `GET .../timelines/{id}`.
pub(super) fn timeline(hub: &Hub, call: &Call) -> Answer {
    stub(
        hub,
        call,
        ok(json!({"id": call.text("timeline"), "changeId": 1, "records": []})),
    )
}

/// Answers `GET` and `PATCH .../timelines/{id}/records`.
pub(super) fn records(hub: &Hub, call: &Call) -> Answer {
    stub(hub, call, list(Vec::new()))
}

/// Answers what is only swallowed: feeds and attachments.
pub(super) fn swallow(hub: &Hub, call: &Call) -> Answer {
    stub(hub, call, empty(StatusCode::NO_CONTENT))
}

fn stub(hub: &Hub, call: &Call, response: Response) -> Answer {
    hub.with(|state, _| state.plan_job(call)).map(|_| response)
}
