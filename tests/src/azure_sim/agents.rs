//! Agents: registering, replacing, changing, deleting and showing them.

use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

mod wire;

use self::wire::Detail;
use super::{
    call::{Answer, Call, empty, list, ok},
    clock::as_text,
    crypto::PublicKey,
    demands::{self, Capabilities},
    errors::ApiError,
    state::{Hub, Kind, State},
};

/// A registered agent.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: u64,
    pub(super) pool: u64,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) os_description: String,
    pub(super) enabled: bool,
    pub(super) max_parallelism: u32,
    pub(super) client_id: String,
    pub(super) public_key: Option<PublicKey>,
    pub(super) system_capabilities: Capabilities,
    pub(super) user_capabilities: Capabilities,
    pub(super) created: Timestamp,
    pub(super) status_changed: Timestamp,
    pub(super) session: Option<String>,
    pub(super) assigned: Option<u64>,
    pub(super) last_completed: Option<u64>,
    pub(super) pending_update: Option<PendingUpdate>,
}

/// An update the server wants an agent to make.
#[derive(Debug)]
pub(super) struct PendingUpdate {
    pub(super) source: String,
    pub(super) target: String,
    pub(super) requested: Timestamp,
    /// Why, as the service spells it.
    pub(super) reason: &'static str,
    pub(super) state: String,
}

/// Everything about an agent but its key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Its id.
    pub id: u64,
    /// Its pool's name.
    pub pool: String,
    /// Its name.
    pub name: String,
    /// The version it says it has.
    pub version: String,
    /// The system it says it runs on.
    pub os_description: String,
    /// How many jobs it may have at once, as it was registered.
    pub max_parallelism: u32,
    /// Whether it may be given jobs.
    pub enabled: bool,
    /// Whether it has a session.
    pub online: bool,
    /// The client id of its key.
    pub client_id: String,
    /// Whether it registered a key.
    pub has_public_key: bool,
    /// What it says of itself.
    pub system_capabilities: Capabilities,
    /// What administrators say of it.
    pub user_capabilities: Capabilities,
    /// When it was registered.
    #[serde(serialize_with = "as_text")]
    pub created: Timestamp,
    /// When it last came or went.
    #[serde(serialize_with = "as_text")]
    pub status_changed: Timestamp,
    /// Its session.
    pub session: Option<String>,
    /// The job request it has.
    pub assigned_request: Option<u64>,
    /// The job request it had last.
    pub last_completed_request: Option<u64>,
    /// The version it has been told to update to.
    pub pending_update: Option<String>,
    /// How far it says that update is.
    pub update_state: Option<String>,
}

/// What a registration, a replacement or a change says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AgentBody {
    pub(super) id: Option<u64>,
    pub(super) name: Option<String>,
    pub(super) version: Option<String>,
    pub(super) os_description: Option<String>,
    pub(super) enabled: Option<bool>,
    pub(super) max_parallelism: Option<u32>,
    pub(super) authorization: Option<AuthorizationBody>,
    pub(super) system_capabilities: Option<Capabilities>,
    pub(super) user_capabilities: Option<Capabilities>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct AuthorizationBody {
    public_key: Option<KeyBody>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct KeyBody {
    exponent: String,
    modulus: String,
}

impl Agent {
    /// Tells whether the agent meets all demands; what administrators say of it goes first.
    pub(super) fn meets(&self, wanted: &[String]) -> bool {
        let held = [&self.user_capabilities, &self.system_capabilities];
        wanted.iter().all(|demand| demands::met(demand, held))
    }
}

impl AgentBody {
    fn key(&self) -> Result<Option<PublicKey>, ApiError> {
        let key = self
            .authorization
            .as_ref()
            .and_then(|body| body.public_key.as_ref());
        let key = key
            .map(|key| PublicKey::parse(&key.modulus, &key.exponent))
            .transpose();
        key.map_err(|what| ApiError::bad_argument(format!("The public key is not valid: {what}.")))
    }
}

impl State {
    pub(super) fn create_agent(
        &mut self,
        pool: u64,
        body: AgentBody,
        now: Timestamp,
    ) -> Result<u64, ApiError> {
        let public_key = body.key()?;
        let name = self.free_name(pool, None, body.name.as_deref())?;
        let id = self.next_id(Kind::Agent);
        let agent = Agent {
            id,
            pool,
            name,
            version: body.version.unwrap_or_default(),
            os_description: body.os_description.unwrap_or_default(),
            enabled: body.enabled.unwrap_or(true),
            max_parallelism: body.max_parallelism.unwrap_or(1),
            client_id: self.guid(),
            public_key,
            system_capabilities: body.system_capabilities.unwrap_or_default(),
            user_capabilities: body.user_capabilities.unwrap_or_default(),
            created: now,
            status_changed: now,
            session: None,
            assigned: None,
            last_completed: None,
            pending_update: None,
        };
        self.agents.insert(id, agent);
        self.touch();
        Ok(id)
    }

    /// Writes an agent anew; what is absent becomes what it is in a new agent. Id, session and work stay.
    pub(super) fn replace_agent(
        &mut self,
        pool: u64,
        id: u64,
        body: AgentBody,
    ) -> Result<(), ApiError> {
        let public_key = body.key()?;
        let name = self.free_name(pool, Some(id), body.name.as_deref())?;
        self.check_id(pool, id, &body)?;
        let client_id = self.switches.replace_renews_client_id.then(|| self.guid());
        let agent = self.agent_mut(pool, id)?;
        agent.name = name;
        agent.version = body.version.unwrap_or_default();
        agent.os_description = body.os_description.unwrap_or_default();
        agent.enabled = body.enabled.unwrap_or(true);
        agent.max_parallelism = body.max_parallelism.unwrap_or(1);
        agent.public_key = public_key;
        agent.system_capabilities = body.system_capabilities.unwrap_or_default();
        // They are a resource of their own, which a client replacing an agent has not read.
        if let Some(capabilities) = body.user_capabilities {
            agent.user_capabilities = capabilities;
        }
        agent.client_id = client_id.unwrap_or_else(|| agent.client_id.clone());
        self.touch();
        Ok(())
    }

    /// Changes what is present, except capabilities and keys: they are not changed this way.
    pub(super) fn change_agent(
        &mut self,
        pool: u64,
        id: u64,
        body: AgentBody,
    ) -> Result<(), ApiError> {
        self.check_id(pool, id, &body)?;
        let name = match &body.name {
            Some(name) => Some(self.free_name(pool, Some(id), Some(name))?),
            None => None,
        };
        let agent = self.agent_mut(pool, id)?;
        agent.name = name.unwrap_or_else(|| agent.name.clone());
        agent.version = body.version.unwrap_or_else(|| agent.version.clone());
        agent.os_description = body
            .os_description
            .unwrap_or_else(|| agent.os_description.clone());
        agent.enabled = body.enabled.unwrap_or(agent.enabled);
        agent.max_parallelism = body.max_parallelism.unwrap_or(agent.max_parallelism);
        self.touch();
        Ok(())
    }

    /// Refuses a body that is about another agent than the path.
    fn check_id(&self, pool: u64, id: u64, body: &AgentBody) -> Result<(), ApiError> {
        self.agent(pool, id)?;
        if body.id.is_some_and(|named| named != 0 && named != id) {
            return Err(ApiError::bad_argument(
                "The agent's id differs from the one in the path.",
            ));
        }
        Ok(())
    }

    /// Returns the name if an agent, this one or a new one, may have it.
    fn free_name(
        &self,
        pool: u64,
        own: Option<u64>,
        name: Option<&str>,
    ) -> Result<String, ApiError> {
        let name = name.filter(|name| !name.trim().is_empty());
        let name = name.ok_or_else(|| ApiError::bad_argument("The agent has no name."))?;
        let taken = |agent: &Agent| Some(agent.id) != own && agent.name.eq_ignore_ascii_case(name);
        if self.agents_of(pool).any(taken) {
            return Err(ApiError::agent_exists(pool, name));
        }
        Ok(name.to_owned())
    }

    pub(super) fn delete_agent(
        &mut self,
        pool: u64,
        id: u64,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let agent = self.agent(pool, id)?;
        if agent.assigned.is_some() {
            return Err(ApiError::agent_busy(&agent.name, self.pool_name(pool)));
        }
        self.remove_agent(id, now);
        Ok(())
    }

    /// Removes an agent whatever it is doing; a job it runs is left to its lock.
    pub(super) fn remove_agent(&mut self, id: u64, now: Timestamp) {
        if let Some(session) = self.agents.get(&id).and_then(|agent| agent.session.clone()) {
            self.end_session(&session, now);
        }
        self.agents.remove(&id);
        if self.switches.recheck_waiting_jobs {
            self.fail_unmatched_jobs(now);
        }
        self.touch();
    }

    pub(super) fn agent_view(&self, agent: &Agent) -> AgentView {
        let update = agent.pending_update.as_ref();
        AgentView {
            id: agent.id,
            pool: self.pool_name(agent.pool).to_owned(),
            name: agent.name.clone(),
            version: agent.version.clone(),
            os_description: agent.os_description.clone(),
            max_parallelism: agent.max_parallelism,
            enabled: agent.enabled,
            online: agent.session.is_some(),
            client_id: agent.client_id.clone(),
            has_public_key: agent.public_key.is_some(),
            system_capabilities: agent.system_capabilities.clone(),
            user_capabilities: agent.user_capabilities.clone(),
            created: agent.created,
            status_changed: agent.status_changed,
            session: agent.session.clone(),
            assigned_request: agent.assigned,
            last_completed_request: agent.last_completed,
            pending_update: update.map(|update| update.target.clone()),
            update_state: update.map(|update| update.state.clone()),
        }
    }
}

/// Answers `GET .../agents`.
pub(super) fn get_all(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_read()?;
    let pool = call.id("pool")?;
    hub.with(|state, _| {
        state.check_version(call, false)?;
        state.pool(call.org, pool)?;
        let name = call.query("agentName");
        let wanted: Vec<String> = call
            .query("demands")
            .map(|text| text.split(',').map(str::to_owned).collect())
            .unwrap_or_default();
        let agents = state.agents_of(pool).filter(|agent| {
            name.is_none_or(|name| agent.name.eq_ignore_ascii_case(name)) && agent.meets(&wanted)
        });
        let detail = Detail::of(call);
        Ok(list(
            agents
                .map(|agent| state.agent_json(call.org, agent, detail))
                .collect(),
        ))
    })
}

/// Answers `GET .../agents/{id}`.
pub(super) fn get(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_read()?;
    let (pool, id) = (call.id("pool")?, call.id("agent")?);
    hub.with(|state, _| {
        state.check_version(call, false)?;
        state.pool(call.org, pool)?;
        Ok(ok(state.agent_json(
            call.org,
            state.agent(pool, id)?,
            Detail::of(call),
        )))
    })
}

/// Answers `POST .../agents`.
pub(super) fn create(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_manage()?;
    let (pool, body) = (call.id("pool")?, call.json()?);
    hub.with(|state, now| {
        state.check_version(call, false)?;
        state.pool(call.org, pool)?;
        let id = state.create_agent(pool, body, now)?;
        Ok(ok(state.agent_json(
            call.org,
            state.agent(pool, id)?,
            Detail::REGISTRATION,
        )))
    })
}

/// Answers `PUT .../agents/{id}`.
pub(super) fn replace(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_manage()?;
    let (pool, id, body) = (call.id("pool")?, call.id("agent")?, call.json()?);
    hub.with(|state, _| {
        state.check_version(call, false)?;
        state.pool(call.org, pool)?;
        state.replace_agent(pool, id, body)?;
        Ok(ok(state.agent_json(
            call.org,
            state.agent(pool, id)?,
            Detail::REGISTRATION,
        )))
    })
}

/// Answers `PATCH .../agents/{id}`.
pub(super) fn change(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_manage()?;
    let (pool, id) = (call.id("pool")?, call.id("agent")?);
    let body: AgentBody = call.json()?;
    hub.with(|state, now| {
        state.check_version(call, false)?;
        state.pool(call.org, pool)?;
        if body.enabled == Some(false) {
            state.spring_ambush(id, now);
        }
        state.change_agent(pool, id, body)?;
        Ok(ok(state.agent_json(
            call.org,
            state.agent(pool, id)?,
            Detail::default(),
        )))
    })
}

/// Answers `DELETE .../agents/{id}`.
pub(super) fn delete(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_manage()?;
    let (pool, id) = (call.id("pool")?, call.id("agent")?);
    hub.with(|state, now| {
        state.check_version(call, false)?;
        state.pool(call.org, pool)?;
        state.delete_agent(pool, id, now)?;
        let with_body = state.switches.delete_answers_200;
        Ok(empty(if with_body {
            StatusCode::OK
        } else {
            StatusCode::NO_CONTENT
        }))
    })
}

/// Answers `PUT .../agents/{id}/usercapabilities`.
pub(super) fn set_user_capabilities(hub: &Hub, call: &Call) -> Answer {
    call.principal.require_manage()?;
    let (pool, id, capabilities) = (call.id("pool")?, call.id("agent")?, call.json()?);
    hub.with(|state, _| {
        state.check_version(call, true)?;
        state.pool(call.org, pool)?;
        state.agent_mut(pool, id)?.user_capabilities = capabilities;
        state.touch();
        Ok(ok(state.agent_json(
            call.org,
            state.agent(pool, id)?,
            Detail::CAPABILITIES,
        )))
    })
}

/// Answers `PUT .../agents/{id}/updates`.
pub(super) fn report_update(hub: &Hub, call: &Call) -> Answer {
    let (pool, id) = (call.id("pool")?, call.id("agent")?);
    hub.with(|state, _| {
        state.check_version(call, true)?;
        state.pool(call.org, pool)?;
        state.require_agent(call.principal, id)?;
        let progress = call.query("currentState").unwrap_or_default().to_owned();
        if let Some(update) = &mut state.agent_mut(pool, id)?.pending_update {
            update.state = progress;
        }
        Ok(ok(state.agent_json(
            call.org,
            state.agent(pool, id)?,
            Detail::default(),
        )))
    })
}
