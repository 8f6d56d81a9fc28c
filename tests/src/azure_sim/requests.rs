//! Job requests over HTTP: orchestrators list them, agents renew and finish theirs.

use axum::{
    http::{HeaderValue, StatusCode},
    response::Response,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    call::{Answer, Call, empty, list, ok},
    errors::ApiError,
    jobs::{Job, JobResult},
    state::{Hub, State},
};

/// What the service returns at most with `$top`.
const TOP_LIMIT: usize = 200;

impl State {
    /// Returns the asking agent's job, while it is its.
    fn own_job(&self, call: &Call, id: u64) -> Result<(), ApiError> {
        let pool = call.id("pool")?;
        self.pool(call.org, pool)?;
        let own = self.asking_agent(call.principal)?;
        self.agent(pool, own)?;
        let job = self.jobs.get(&id).filter(|job| job.pool == pool);
        match job.ok_or_else(|| ApiError::job_not_found(id))? {
            Job {
                result: Some(_), ..
            }
            | Job { agent: None, .. } => Err(if self.switches.finished_is_token_expired {
                ApiError::job_token_expired(id)
            } else {
                ApiError::job_not_found(id)
            }),
            job if job.agent_id() != Some(own) => Err(ApiError::access_denied(
                "The job request belongs to another agent.",
            )),
            _ => Ok(()),
        }
    }

    /// Prolongs a job's lock; the first time, the agent is about to begin it.
    pub(super) fn renew_job(&mut self, id: u64, now: Timestamp) {
        let until = self.lock_until(now);
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.locked_until = Some(until);
        job.received.get_or_insert(now);
        if !job.begun {
            job.begun = true;
            job.runs += 1;
        }
        self.touch();
    }

    fn selected<'s>(&'s self, call: &Call, pool: u64) -> Result<Vec<&'s Job>, ApiError> {
        let agent = call.query_id("agentId")?;
        let agents: Option<Vec<u64>> = call.query("agentIds").map(|ids| {
            ids.split(',')
                .filter_map(|id| id.trim().parse().ok())
                .collect()
        });
        let (plan, job_id) = (call.query("planId"), call.query("jobId"));
        let selected = self.jobs.values().filter(|job| {
            job.pool == pool
                && !job.no_agent_matches
                && agent.is_none_or(|id| job.agent_id() == Some(id))
                && agents
                    .as_ref()
                    .is_none_or(|ids| job.agent_id().is_some_and(|id| ids.contains(&id)))
                && plan.is_none_or(|id| job.plan_id == id)
                && job_id.is_none_or(|id| job.job_id == id)
        });
        // Newest first.
        let mut selected: Vec<&Job> = selected.collect();
        selected.reverse();
        Ok(selected)
    }

    fn newest_page(&self, jobs: &[&Job], call: &Call, top: u64) -> Result<Response, ApiError> {
        let before = call.query_id("continuationToken")?.unwrap_or(u64::MAX);
        let top = usize::try_from(top).unwrap_or(TOP_LIMIT).min(TOP_LIMIT);
        let left: Vec<&&Job> = jobs.iter().filter(|job| job.id < before).collect();
        let page: Vec<Value> = left
            .iter()
            .take(top)
            .map(|job| self.job_json(job, false))
            .collect();
        let last = left.get(top.wrapping_sub(1)).filter(|_| left.len() > top);
        let mut response = if self.switches.top_is_bare_array {
            ok(json!(page))
        } else {
            list(page)
        };
        if let Some(last) = last {
            response
                .headers_mut()
                .insert("x-ms-continuationtoken", HeaderValue::from(last.id));
        }
        Ok(response)
    }
}

/// Answers `GET .../jobrequests`.
pub(super) fn get_all(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_read()?;
    let pool = call.id("pool")?;
    let (top, completed) = (
        call.query_id("$top")?,
        call.query_id("completedRequestCount")?,
    );
    if top.is_some() && completed.is_some() {
        let message = "$top and completedRequestCount cannot be combined.";
        return Err(ApiError::bad_argument(message));
    }
    hub.with(|state, _| {
        state.check_version(call, true)?;
        state.pool(call.org, pool)?;
        let jobs = state.selected(call, pool)?;
        if let Some(top) = top {
            return state.newest_page(&jobs, call, top);
        }
        let mut left = completed.unwrap_or(u64::MAX);
        let shown = jobs.into_iter().filter(|job| {
            let shown = job.result.is_none() || left > 0;
            left = if job.result.is_some() {
                left.saturating_sub(1)
            } else {
                left
            };
            shown
        });
        Ok(list(shown.map(|job| state.job_json(job, true)).collect()))
    })
}

/// Answers `GET .../jobrequests/{id}`.
pub(super) fn get(hub: &Hub, call: &Call) -> Answer {
    let (pool, id) = (call.id("pool")?, call.id("request")?);
    hub.with(|state, _| {
        state.check_version(call, true)?;
        if call.principal.require_read().is_err() {
            state.own_job(call, id)?;
        }
        state.pool(call.org, pool)?;
        let job = state
            .jobs
            .get(&id)
            .filter(|job| job.pool == pool && !job.no_agent_matches);
        let job = job.ok_or_else(|| ApiError::job_not_found(id))?;
        Ok(ok(state.job_json(job, true)))
    })
}

/// Answers `PATCH .../jobrequests/{id}`: a result finishes the job, none renews its lock.
pub(super) fn change(hub: &Hub, call: &Call) -> Answer {
    let id = call.id("request")?;
    let body: Value = call.json()?;
    let result = body
        .get("result")
        .filter(|result| !result.is_null())
        .map(JobResult::read);
    if result == Some(None) {
        return Err(ApiError::bad_argument("The result is not known."));
    }
    hub.with(|state, now| {
        state.check_version(call, true)?;
        state.own_job(call, id)?;
        match result.flatten() {
            Some(result) => state.finish_job(id, result, now),
            None => state.renew_job(id, now),
        }
        let job = state
            .jobs
            .get(&id)
            .ok_or_else(|| ApiError::job_not_found(id))?;
        Ok(ok(state.job_json(job, false)))
    })
}

/// Answers `DELETE .../jobrequests/{id}`.
pub(super) fn delete(hub: &Hub, call: &Call) -> Answer {
    let id = call.id("request")?;
    let result = call
        .query("result")
        .and_then(|text| JobResult::read(&json!(text)));
    hub.with(|state, now| {
        state.check_version(call, true)?;
        state.own_job(call, id)?;
        match result {
            Some(result) => state.finish_job(id, result, now),
            None => state.requeue_job(id),
        }
        Ok(empty(StatusCode::NO_CONTENT))
    })
}
