//! Sessions: an agent is online while it has one. Creating, ending and letting them lapse.

use std::{collections::VecDeque, time::Instant};

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    agents::PendingUpdate,
    call::{Answer, Call, empty, ok},
    clock::{as_text, time_span},
    demands::{Capabilities, version},
    errors::ApiError,
    messages::Message,
    state::{Hub, State},
};

/// An agent's session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) agent: u64,
    pub(super) owner: String,
    pub(super) key: [u8; 32],
    pub(super) created: Timestamp,
    pub(super) last_seen: Timestamp,
    pub(super) polls_in_flight: u32,
    /// Undeleted messages, oldest first.
    pub(super) queue: VecDeque<Message>,
    /// The agent said that it takes no more jobs.
    pub(super) shutting_down: bool,
}

/// A session as tests see it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its id.
    pub id: String,
    /// The agent whose it is.
    pub agent: String,
    /// The agent's id.
    pub agent_id: u64,
    /// The host name the agent gave.
    pub owner: String,
    /// When it began.
    #[serde(serialize_with = "as_text")]
    pub created: Timestamp,
    /// When it was last polled.
    #[serde(serialize_with = "as_text")]
    pub last_seen: Timestamp,
    /// How many polls are held now.
    pub polls_in_flight: u32,
    /// How many messages are undeleted.
    pub messages: usize,
    /// Whether the agent said that it takes no more jobs.
    pub shutting_down: bool,
}

/// An attempt of an agent to begin a session: for a new agent, the moment it came up.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPost {
    /// The agent's name.
    pub agent: String,
    /// The agent's id.
    pub agent_id: u64,
    /// When, by the virtual clock.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// When, to measure with.
    #[serde(skip)]
    pub instant: Instant,
    /// Whether it got the session.
    pub accepted: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SessionBody {
    owner_name: String,
    agent: SessionAgent,
    system_capabilities: Option<Capabilities>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SessionAgent {
    id: u64,
    version: Option<String>,
    os_description: Option<String>,
}

impl State {
    pub(super) fn create_session(
        &mut self,
        pool: u64,
        body: SessionBody,
        now: Timestamp,
    ) -> Result<String, ApiError> {
        let id = body.agent.id;
        let agent = self.agent(pool, id)?;
        let name = agent.name.clone();
        let live = agent
            .session
            .as_ref()
            .and_then(|session| self.sessions.get(session));
        let conflict = live.map(|session| ApiError::session_conflict(&name, &session.owner));
        self.session_posts.push(SessionPost {
            agent: name,
            agent_id: id,
            at: now,
            instant: Instant::now(),
            accepted: conflict.is_none(),
        });
        self.touch();
        if let Some(conflict) = conflict {
            return Err(conflict);
        }
        let session = Session {
            id: self.guid(),
            agent: id,
            owner: body.owner_name,
            key: std::array::from_fn(|_| self.random.u8(..)),
            created: now,
            last_seen: now,
            polls_in_flight: 0,
            queue: VecDeque::new(),
            shutting_down: false,
        };
        let agent = self.agent_mut(pool, id)?;
        agent.session = Some(session.id.clone());
        agent.status_changed = now;
        agent.version = body.agent.version.unwrap_or_else(|| agent.version.clone());
        if let Some(description) = body.agent.os_description {
            agent.os_description = description;
        }
        if let Some(capabilities) = body.system_capabilities {
            agent.system_capabilities = capabilities;
        }
        let current = version(&agent.version);
        if agent
            .pending_update
            .as_ref()
            .is_some_and(|update| current >= version(&update.target))
        {
            agent.pending_update = None;
        }
        let session_id = session.id.clone();
        self.sessions.insert(session_id.clone(), session);
        self.require_least_version(pool, id, now);
        Ok(session_id)
    }

    /// Orders an update of an agent that is too old for its pool, if the pool updates agents.
    pub(super) fn require_least_version(&mut self, pool: u64, agent: u64, now: Timestamp) {
        let wanted = self.pools.get(&pool).filter(|pool| pool.auto_update);
        let Some(least) = wanted.and_then(|pool| pool.min_agent_version.clone()) else {
            return;
        };
        let current = self.agents.get(&agent).map(|agent| version(&agent.version));
        if current.is_some_and(|current| current < version(&least)) {
            self.refresh_agent(agent, &least, "minAgentVersionRequired", now);
        }
    }

    /// Tells an agent with a session to update itself; it gets no jobs until it has.
    pub(super) fn refresh_agent(
        &mut self,
        id: u64,
        target: &str,
        reason: &'static str,
        now: Timestamp,
    ) {
        let timeout = time_span(self.timings.refresh_timeout);
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        let Some(session) = agent.session.clone() else {
            return;
        };
        agent.pending_update = Some(PendingUpdate {
            source: agent.version.clone(),
            target: target.to_owned(),
            requested: now,
            reason,
            state: String::new(),
        });
        let body = json!({"agentId": id, "targetVersion": target, "timeout": timeout});
        self.send(&session, "AgentRefresh", &body, None);
    }

    /// Ends a session: the agent goes offline, and a job it has not begun goes back to the queue.
    pub(super) fn end_session(&mut self, id: &str, now: Timestamp) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        if let Some(agent) = self.agents.get_mut(&session.agent) {
            agent.session = None;
            agent.status_changed = now;
        }
        for request in session.queue.iter().filter_map(|message| message.request) {
            let untouched = self.jobs.get(&request).is_some_and(|job| {
                job.agent_id() == Some(session.agent) && !job.begun && job.result.is_none()
            });
            if untouched {
                self.requeue_job(request);
            }
        }
        self.touch();
    }

    /// Ends the sessions nobody polls any more.
    pub(super) fn lapse_sessions(&mut self, now: Timestamp) {
        let lapse = self.scaled(|timings| timings.session_lapse);
        let lapsed =
            |session: &&Session| session.polls_in_flight == 0 && session.last_seen + lapse <= now;
        let gone: Vec<String> = self
            .sessions
            .values()
            .filter(lapsed)
            .map(|session| session.id.clone())
            .collect();
        for id in gone {
            self.end_session(&id, now);
        }
    }

    /// Returns a session of the asking agent in a pool.
    pub(super) fn own_session(&self, call: &Call, id: &str) -> Result<&Session, ApiError> {
        let pool = call.id("pool")?;
        self.pool(call.org, pool)?;
        let own = self.asking_agent(call.principal)?;
        self.agent(pool, own)?;
        match self.sessions.get(id) {
            Some(session) if session.agent == own => Ok(session),
            Some(_) => Err(ApiError::access_denied(
                "The session belongs to another agent.",
            )),
            None => Err(ApiError::session_expired(id)),
        }
    }

    pub(super) fn session_view(&self, session: &Session) -> SessionView {
        let agent = self.agents.get(&session.agent);
        SessionView {
            id: session.id.clone(),
            agent: agent.map(|agent| agent.name.clone()).unwrap_or_default(),
            agent_id: session.agent,
            owner: session.owner.clone(),
            created: session.created,
            last_seen: session.last_seen,
            polls_in_flight: session.polls_in_flight,
            messages: session.queue.len(),
            shutting_down: session.shutting_down,
        }
    }

    fn session_json(&self, pool: u64, id: &str) -> Result<Value, ApiError> {
        let session = self
            .sessions
            .get(id)
            .ok_or_else(|| ApiError::session_expired(id))?;
        let agent = self.agent(pool, session.agent)?;
        let wrapped = agent
            .public_key
            .as_ref()
            .and_then(|key| key.wrap(&session.key));
        let key = wrapped.as_deref().unwrap_or(&session.key);
        Ok(json!({
            "sessionId": session.id,
            "ownerName": session.owner,
            "encryptionKey": {"encrypted": wrapped.is_some(), "value": STANDARD.encode(key)},
            "agent": self.agent_reference(agent),
            "systemCapabilities": {},
        }))
    }
}

/// Answers `POST .../sessions`.
pub(super) fn create(hub: &Hub, call: &Call) -> Answer {
    let pool = call.id("pool")?;
    let body: SessionBody = call.json()?;
    hub.with(|state, now| {
        state.check_version(call, true)?;
        state.pool(call.org, pool)?;
        state.require_agent(call.principal, body.agent.id)?;
        let id = state.create_session(pool, body, now)?;
        Ok(ok(state.session_json(pool, &id)?))
    })
}

/// Answers `DELETE .../sessions/{id}`.
pub(super) fn delete(hub: &Hub, call: &Call) -> Answer {
    hub.with(|state, now| {
        state.check_version(call, true)?;
        let id = state.own_session(call, call.text("session"))?.id.clone();
        state.end_session(&id, now);
        Ok(empty(StatusCode::NO_CONTENT))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::azure_sim::{JobRequest, JobState, clock::wall, testing};

    #[test]
    fn a_second_session_conflicts_until_the_first_lapses() {
        let (mut state, pool) = testing::state();
        let agent = testing::add_agent(&mut state, pool, "stove-01");
        let now = wall();
        testing::add_session(&mut state, pool, agent, now).unwrap();
        let conflict = testing::add_session(&mut state, pool, agent, now).unwrap_err();
        assert_eq!(conflict.type_key, "TaskAgentSessionConflictException");
        assert!(
            conflict.message.contains("owner host-of-40"),
            "{}",
            conflict.message
        );
        state.expire(now + Duration::from_secs(299));
        assert!(state.agents[&agent].session.is_some());
        state.expire(now + Duration::from_secs(300));
        assert!(state.agents[&agent].session.is_none());
        testing::add_session(&mut state, pool, agent, now).unwrap();
        let accepted: Vec<bool> = state
            .session_posts
            .iter()
            .map(|post| post.accepted)
            .collect();
        assert_eq!(accepted, [true, false, true]);
    }

    #[test]
    fn a_held_poll_keeps_a_session_alive() {
        let (mut state, pool) = testing::state();
        let agent = testing::add_agent(&mut state, pool, "stove-01");
        let now = wall();
        let session = testing::add_session(&mut state, pool, agent, now).unwrap();
        state.sessions.get_mut(&session).unwrap().polls_in_flight = 1;
        state.expire(now + Duration::from_secs(3600));
        assert!(state.agents[&agent].session.is_some());
    }

    #[test]
    fn an_unacknowledged_job_goes_back_when_its_session_ends() {
        let (mut state, pool) = testing::state();
        let agent = testing::add_agent(&mut state, pool, "stove-01");
        let now = wall();
        let session = testing::add_session(&mut state, pool, agent, now).unwrap();
        let job = state.queue_job(JobRequest::new("linux"), now).unwrap();
        state.schedule(now);
        assert_eq!(testing::job_state(&state, job), JobState::Assigned);
        state.end_session(&session, now);
        assert_eq!(testing::job_state(&state, job), JobState::Queued);
        assert_eq!(state.agents[&agent].assigned, None);
    }

    #[test]
    fn an_agent_too_old_for_its_pool_is_told_to_update_and_gets_no_job() {
        let (mut state, pool) = testing::state();
        let agent = testing::add_agent(&mut state, pool, "stove-01");
        let now = wall();
        state.pools.get_mut(&pool).unwrap().min_agent_version = Some("4.280.0".to_owned());
        let session = testing::add_session(&mut state, pool, agent, now).unwrap();
        let job = state.queue_job(JobRequest::new("linux"), now).unwrap();
        state.schedule(now);
        assert_eq!(state.sessions[&session].queue[0].kind, "AgentRefresh");
        assert_eq!(testing::job_state(&state, job), JobState::Queued);
    }

    #[test]
    fn a_pool_that_updates_nobody_leaves_an_old_agent_alone() {
        let (mut state, pool) = testing::state();
        let agent = testing::add_agent(&mut state, pool, "stove-01");
        let now = wall();
        let session = testing::add_session(&mut state, pool, agent, now).unwrap();
        state.set_pool_update(pool, Some(false), Some("4.280.0".to_owned()), now);
        let job = state.queue_job(JobRequest::new("linux"), now).unwrap();
        state.schedule(now);
        let kinds: Vec<&str> = state.sessions[&session]
            .queue
            .iter()
            .map(|m| m.kind.as_str())
            .collect();
        assert_eq!(kinds, ["PipelineAgentJobRequest"]);
        assert_eq!(testing::job_state(&state, job), JobState::Assigned);
        state.set_pool_update(pool, Some(true), None, now);
        assert_eq!(state.sessions[&session].queue[1].kind, "AgentRefresh");
    }
}
