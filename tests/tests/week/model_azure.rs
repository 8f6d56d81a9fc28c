//! Azure DevOps, as far as an agent pool goes: registrations, sessions, and lists that may lag
//! behind.

use std::collections::{BTreeMap, BTreeSet};

use iapd::agent::{key, tag};
use iapd::azure::{Agent, JobRequest};

use super::clock::{MINUTE, SECOND};
use super::model_incus::{Machine, No, Unit};
use super::model_jobs::{Job, Stage};
use super::world::{Event, Mishap, World};

/// A session nobody polls is kept so long.
const SESSION: u64 = 5 * MINUTE;
/// A list shows what was true at most so long before.
const LAG: u64 = 15 * SECOND;

pub(super) const OWNER: &str = "owner";
pub(super) const POOL: &str = "linux";
pub(super) const PROJECT: &str = "default";

/// A registration.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) name: String,
    pub(super) enabled: bool,
    pub(super) session: Option<u32>,
    /// Its listener polls.
    connected: bool,
    pub(super) assigned: Option<u64>,
    pub(super) last: Option<(u64, &'static str)>,
    /// Tagged by the POST; a session replaces that.
    system_tags: bool,
    user_tags: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Azure {
    pub(super) agents: BTreeMap<i64, Registered>,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) open: BTreeSet<u64>,
    next_agent: i64,
    pub(super) next_job: u64,
    sessions: u32,
    listed: Option<(u64, Vec<Agent>)>,
    /// When a launch was last shown to work.
    pub(super) last_success: u64,
}

impl World {
    pub(super) fn register(&mut self, name: &str) -> Result<i64, No> {
        if self.azure.agents.values().any(|agent| agent.name == name) {
            return Err(No::Conflict);
        }
        self.azure.next_agent += 1;
        let id = self.azure.next_agent;
        let agent = Registered {
            name: name.into(),
            enabled: true,
            session: None,
            connected: false,
            assigned: None,
            last: None,
            system_tags: true,
            user_tags: false,
        };
        self.azure.agents.insert(id, agent);
        Ok(id)
    }

    pub(super) fn set_tags(&mut self, id: i64) -> Result<(), No> {
        let agent = self.azure.agents.get_mut(&id).ok_or(No::Gone)?;
        agent.user_tags = true;
        Ok(())
    }

    fn shown(&self, id: i64, agent: &Registered) -> Agent {
        let mut capabilities = BTreeMap::new();
        if agent.system_tags || agent.user_tags {
            for (key, value) in [
                (tag::OWNER, OWNER),
                (tag::POOL, POOL),
                (tag::PROJECT, PROJECT),
            ] {
                capabilities.insert(key.to_owned(), value.to_owned());
            }
        }
        let request = |id: u64, result: Option<&str>| JobRequest {
            request_id: i64::try_from(id).unwrap_or_default(),
            result: result.map(str::to_owned),
            ..JobRequest::default()
        };
        Agent {
            id,
            name: agent.name.clone(),
            version: "4.275.0".into(),
            enabled: agent.enabled,
            online: agent.session.is_some(),
            assigned: agent.assigned.map(|job| request(job, None)),
            last_completed: agent.last.map(|(job, result)| request(job, Some(result))),
            capabilities,
            created_on: None,
            status_changed_on: None,
        }
    }

    pub(super) fn agent(&self, id: i64) -> Option<Agent> {
        let agent = self.azure.agents.get(&id)?;
        Some(self.shown(id, agent))
    }

    pub(super) fn agent_named(&self, name: &str) -> Option<Agent> {
        let mut agents = self.azure.agents.iter();
        let (id, agent) = agents.find(|(_, agent)| agent.name == name)?;
        Some(self.shown(*id, agent))
    }

    /// The list, which may show what was true a little before.
    pub(super) fn agents(&mut self) -> Vec<Agent> {
        if self.is_wrong(Mishap::AzureLags)
            && let Some((at, agents)) = &self.azure.listed
            && self.now < at + LAG
        {
            let agents = agents.clone();
            self.count("list lagged");
            return agents;
        }
        let agents = self.azure.agents.iter();
        let agents: Vec<Agent> = agents.map(|(id, agent)| self.shown(*id, agent)).collect();
        self.azure.listed = Some((self.now, agents.clone()));
        agents
    }

    /// No job is assigned any more, but for one that is being assigned just now.
    pub(super) fn disable(&mut self, id: i64) -> Result<(), No> {
        let races = !self.calm && self.chance(200);
        let agent = self.azure.agents.get_mut(&id).ok_or(No::Gone)?;
        if agent.enabled && races {
            let length = self.between(0, 800);
            self.after(length, Event::Ambush(id));
        }
        if let Some(agent) = self.azure.agents.get_mut(&id) {
            agent.enabled = false;
        }
        Ok(())
    }

    pub(super) fn delete_agent(&mut self, id: i64) -> Result<(), No> {
        let Some(agent) = self.azure.agents.get(&id) else {
            return Ok(());
        };
        if agent.assigned.is_some() || self.is_wrong(Mishap::DeletesAreBusy) {
            self.count("delete answered busy");
            return Err(No::Refused("busy"));
        }
        let name = agent.name.clone();
        let machine = self.incus.machines.get(&name);
        let lives = |unit: Unit| match unit {
            Unit::Listener(runs) | Unit::Worker(runs, _) => runs == id,
            _ => false,
        };
        // Of one that never came online and is kept, the listener is told to give up.
        let kept = |machine: &Machine| {
            machine.shown.config.contains_key(key::KEPT_SINCE) && agent.session.is_none()
        };
        let lives = |m: &&Machine| m.runs && lives(m.unit) && m.excuse.is_none() && !kept(m);
        if let Some(machine) = machine.filter(lives) {
            let unit = machine.unit;
            self.violation(format!("deletes the registration of {name}, {unit:?}"));
        }
        self.azure.agents.remove(&id);
        Ok(())
    }

    /// A listener gets a session, unless it is not registered.
    pub(super) fn session(&mut self, id: i64) -> bool {
        self.azure.sessions += 1;
        let session = self.azure.sessions;
        let Some(agent) = self.azure.agents.get_mut(&id) else {
            return false;
        };
        agent.session.get_or_insert(session);
        agent.connected = true;
        agent.system_tags = false;
        self.azure.last_success = self.now;
        self.after(100, Event::Assigns);
        true
    }

    /// A listener closes its session: what it had not received waits again.
    pub(super) fn session_ends(&mut self, id: i64) {
        let Some(agent) = self.azure.agents.get_mut(&id) else {
            return;
        };
        agent.session = None;
        agent.connected = false;
        let assigned = agent.assigned;
        let waits = |job: &u64| self.azure.jobs[job].stage == Stage::Assigned;
        if let Some(job) = assigned.filter(waits) {
            self.requeue(job);
        }
    }

    /// A listener is gone, with its session closed or not, or does not reach Azure.
    pub(super) fn agent_died(&mut self, id: i64, says_goodbye: bool) {
        let is_over = |agent: &Registered| {
            let job = agent.assigned.and_then(|job| self.azure.jobs.get(&job));
            job.is_none_or(|job| job.stage != Stage::Runs)
        };
        let Some(agent) = self.azure.agents.get(&id) else {
            return;
        };
        let ended = says_goodbye && is_over(agent);
        if ended {
            self.session_ends(id);
            return;
        }
        if let Some(agent) = self.azure.agents.get_mut(&id) {
            agent.connected = false;
            if let Some(session) = agent.session {
                self.after(SESSION, Event::SessionDue(id, session));
            }
        }
    }

    pub(super) fn session_due(&mut self, id: i64, session: u32) {
        let agent = self.azure.agents.get(&id);
        if agent.is_some_and(|agent| agent.session == Some(session) && !agent.connected) {
            self.count("session lapsed");
            self.session_ends(id);
        }
    }
}
