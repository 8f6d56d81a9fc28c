//! Job requests: what a test asks to be run, and how far it got.
//!
//! ```text
//!   Queued ──assign──► Assigned ──delivered──► Running ──► Finished
//!     ▲                   │ session ends or lock lapses before delivery
//!     └───────────────────┘         lock lapses while running: Finished, abandoned
//!   NoAgentMatches: no registered agent met the demands when it was queued
//! ```

use std::time::Instant;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

mod request;
mod wire;

pub use self::request::{JobRequest, JobResult};
use super::{
    auth::{Bearer, Issued},
    clock::{as_text, as_text_opt, time_span},
    state::{Kind, State},
};

/// How much of a job's output is kept.
const OUTPUT_LIMIT: usize = 1 << 20;

/// How far a job got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobState {
    /// No registered agent met its demands when it was queued; it never waited.
    NoAgentMatches,
    /// It waits for an agent.
    Queued,
    /// An agent was picked and does not have it yet.
    Assigned,
    /// An agent has it.
    Running,
    /// It has a result.
    Finished,
}

/// A job and its course.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) pool: u64,
    pub(super) job_id: String,
    pub(super) plan_id: String,
    pub(super) scope_id: String,
    pub(super) token: String,
    pub(super) request: JobRequest,
    pub(super) queued: Timestamp,
    pub(super) assigned: Option<Timestamp>,
    pub(super) received: Option<Timestamp>,
    pub(super) locked_until: Option<Timestamp>,
    pub(super) finished: Option<Timestamp>,
    pub(super) finished_instant: Option<Instant>,
    pub(super) result: Option<JobResult>,
    pub(super) no_agent_matches: bool,
    /// When it was asked to stop.
    pub(super) canceled: Option<Timestamp>,
    /// The agent it is or was assigned to last, which may be deleted by now.
    pub(super) agent: Option<(u64, String)>,
    /// The lock was renewed since the last assignment, which is when an agent starts its worker.
    pub(super) begun: bool,
    pub(super) runs: u32,
    pub(super) deliveries: u32,
    pub(super) requeues: u32,
    pub(super) output: Vec<u8>,
    pub(super) logs: u64,
}

/// A job as tests see it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// Its number.
    pub request_id: u64,
    /// Its pool's name.
    pub pool: String,
    /// Its name.
    pub display_name: String,
    /// How far it got.
    pub state: JobState,
    /// How it ended.
    pub result: Option<JobResult>,
    /// The agent it was assigned to last.
    pub agent: Option<String>,
    /// That agent's id.
    pub agent_id: Option<u64>,
    /// How often its message was handed to a poll.
    pub deliveries: u32,
    /// How often an agent began it.
    pub runs: u32,
    /// How often it went back to the queue.
    pub requeues: u32,
    /// Whether it was asked to stop.
    pub cancel_requested: bool,
    /// When it was queued.
    #[serde(serialize_with = "as_text")]
    pub queued: Timestamp,
    /// When it was last assigned.
    #[serde(serialize_with = "as_text_opt")]
    pub assigned: Option<Timestamp>,
    /// When an agent got it.
    #[serde(serialize_with = "as_text_opt")]
    pub received: Option<Timestamp>,
    /// Until when its lock holds.
    #[serde(serialize_with = "as_text_opt")]
    pub locked_until: Option<Timestamp>,
    /// When it ended.
    #[serde(serialize_with = "as_text_opt")]
    pub finished: Option<Timestamp>,
    /// When it ended, to measure with.
    #[serde(skip)]
    pub finished_instant: Option<Instant>,
}

impl Job {
    pub(super) fn state(&self) -> JobState {
        if self.no_agent_matches {
            JobState::NoAgentMatches
        } else if self.result.is_some() {
            JobState::Finished
        } else if self.received.is_some() {
            JobState::Running
        } else if self.assigned.is_some() {
            JobState::Assigned
        } else {
            JobState::Queued
        }
    }

    pub(super) fn agent_id(&self) -> Option<u64> {
        self.agent.as_ref().map(|(id, _)| *id)
    }

    pub(super) fn display_name(&self) -> String {
        self.request
            .display_name
            .clone()
            .unwrap_or_else(|| format!("Job {}", self.id))
    }

    fn pipeline(&self) -> &str {
        self.request.pipeline.as_deref().unwrap_or("ci")
    }

    /// Keeps the start of what the job printed.
    pub(super) fn append_output(&mut self, bytes: &[u8]) {
        let room = OUTPUT_LIMIT
            .saturating_sub(self.output.len())
            .min(bytes.len());
        self.output.extend_from_slice(&bytes[..room]);
    }

    pub(super) fn view(&self, pool: &str) -> JobView {
        JobView {
            request_id: self.id,
            pool: pool.to_owned(),
            display_name: self.display_name(),
            state: self.state(),
            result: self.result,
            agent: self.agent.as_ref().map(|(_, name)| name.clone()),
            agent_id: self.agent_id(),
            deliveries: self.deliveries,
            runs: self.runs,
            requeues: self.requeues,
            cancel_requested: self.canceled.is_some(),
            queued: self.queued,
            assigned: self.assigned,
            received: self.received,
            locked_until: self.locked_until,
            finished: self.finished,
            finished_instant: self.finished_instant,
        }
    }
}

impl State {
    /// Queues a job, or fails it at once if no registered agent meets its demands.
    pub(super) fn queue_job(&mut self, request: JobRequest, now: Timestamp) -> Result<u64> {
        let org = match &request.org {
            Some(name) => self
                .org_named(name)
                .with_context(|| format!("no organisation {name}"))?,
            None => 0,
        };
        let named = |pool: &&super::state::Pool| {
            pool.org == org && pool.name.eq_ignore_ascii_case(&request.pool)
        };
        let pool = self.pools.values().find(named).map(|pool| pool.id);
        let pool = pool.with_context(|| format!("no pool {}", request.pool))?;
        let id = self.next_id(Kind::Request);
        let job = Job {
            id,
            pool,
            job_id: self.guid(),
            plan_id: self.guid(),
            scope_id: self.guid(),
            token: self.secret("sim-job"),
            request,
            queued: now,
            assigned: None,
            received: None,
            locked_until: None,
            finished: None,
            finished_instant: None,
            result: None,
            no_agent_matches: false,
            canceled: None,
            agent: None,
            begun: false,
            runs: 0,
            deliveries: 0,
            requeues: 0,
            output: Vec::new(),
            logs: 0,
        };
        let issued = Issued {
            to: Bearer::Job(id),
            org: Some(org),
            until: now + self.scaled(|timings| timings.job_token_life),
        };
        self.credentials.issued.insert(job.token.clone(), issued);
        let matched = self.switches.no_queue_check || self.matching_agents(&job).next().is_some();
        self.jobs.insert(id, job);
        self.open_jobs.insert(id);
        if !matched {
            self.fail_unmatched(id, now);
        }
        self.touch();
        Ok(id)
    }

    /// Asks a job to stop; what only waits is canceled at once.
    pub(super) fn cancel_job(&mut self, id: u64, now: Timestamp) -> bool {
        let timeout = time_span(self.timings.cancel_timeout);
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        if job.result.is_some() {
            return true;
        }
        job.canceled.get_or_insert(now);
        let body = json!({"jobId": job.job_id, "timeout": timeout});
        let session = job.agent_id().filter(|_| job.assigned.is_some());
        let session = session.and_then(|agent| self.agents.get(&agent)?.session.clone());
        if job.assigned.is_none() {
            self.finish_job(id, JobResult::Canceled, now);
        } else if let Some(session) = session {
            self.send(&session, "JobCancellation", &body, None);
        }
        true
    }

    /// Gives a job its result and frees its agent.
    pub(super) fn finish_job(&mut self, id: u64, result: JobResult, now: Timestamp) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.result.is_none()) else {
            return;
        };
        job.result = Some(result);
        job.finished = Some(now);
        job.finished_instant = Some(Instant::now());
        let agent = job.agent_id().and_then(|agent| self.agents.get_mut(&agent));
        if let Some(agent) = agent.filter(|agent| agent.assigned == Some(id)) {
            agent.assigned = None;
            agent.last_completed = Some(id);
        }
        self.open_jobs.remove(&id);
        self.touch();
    }

    /// Notes that a poll took the job's message.
    pub(super) fn note_delivery(&mut self, id: u64) {
        let now = self.clock.now();
        let late = self.switches.received_at_message_delete;
        if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.result.is_none()) {
            job.deliveries += 1;
            if !late {
                job.received.get_or_insert(now);
            }
            self.touch();
        }
    }

    /// Notes that the job's message was deleted.
    pub(super) fn note_acknowledgement(&mut self, id: u64) {
        let now = self.clock.now();
        if let Some(job) = self.jobs.get_mut(&id).filter(|job| job.result.is_none()) {
            job.received.get_or_insert(now);
            self.touch();
        }
    }

    pub(super) fn job_view(&self, id: u64) -> Option<JobView> {
        self.jobs
            .get(&id)
            .map(|job| job.view(self.pool_name(job.pool)))
    }
}
