//! One agent: which instance and which registration it is, and what it is doing.
//!
//! An agent's state is computed from what Incus and Azure say and is never stored:
//!
//! ```text
//!  Creating ─► Registering ─► Starting ─► Idle ─► Busy ─► Finishing ─► Deregistering ─► (gone)
//!                                │          │       │
//!                                └──────────┴─► Unknown ─► Stopping ─► ...
//! ```
//!
//! One that is kept for debugging is `Kept` from its end until its instance is removed. An instance
//! that waits for an agent's place is `Spare` from its creation on, and goes on as `Registering`.
//!
//! This module knows the names of the facts and how states follow from them. It does no I/O and
//! reads no clock.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::azure;
use crate::incus;

mod keep;

pub use keep::Keep;

/// Instance configuration keys. Guests can read them: no secrets.
pub mod key {
    /// Whose instance it is.
    pub const OWNER: &str = "user.iapd.owner";
    /// The pool it belongs to.
    pub const POOL: &str = "user.iapd.pool";
    /// Hash of what it was built from.
    pub const SPEC: &str = "user.iapd.spec";
    /// Set from its creation on, and until its registration exists, on one that becomes an agent
    /// only when it is needed.
    pub const SPARE: &str = "user.iapd.spare";
    /// Set once its registration exists.
    pub const AZURE_AGENT_ID: &str = "user.iapd.azure-agent-id";
    /// Organisation URL of that registration, for pools that left the configuration.
    pub const AZURE_URL: &str = "user.iapd.azure-url";
    /// Azure's name of the agent pool, for the same reason.
    pub const AZURE_POOL: &str = "user.iapd.azure-pool";
    /// The wish to finish and go: see [`super::Drain`].
    pub const DRAIN: &str = "user.iapd.drain";
    /// When an instance that is kept for debugging goes, RFC 3339: see [`super::Keep`].
    pub const KEEP_UNTIL: &str = "user.iapd.keep-until";
    /// Why it is kept.
    pub const KEEP_REASON: &str = "user.iapd.keep-reason";
    /// Who asked for it; empty for the pool's policy.
    pub const KEEP_BY: &str = "user.iapd.keep-by";
    /// Since when its agent has ended, RFC 3339.
    pub const KEPT_SINCE: &str = "user.iapd.kept-since";
    /// Fingerprint of the image it was made from, written by Incus.
    pub const BASE_IMAGE: &str = "volatile.base_image";
}

/// Capabilities that mark a registration as ours.
pub mod tag {
    /// Whose registration it is.
    pub const OWNER: &str = "iap.owner";
    /// The pool it belongs to.
    pub const POOL: &str = "iap.pool";
    /// The Incus project that its instance is in. A pool may move from one to another.
    pub const PROJECT: &str = "iap.project";
}

/// How long the doorbell is believed. A job can ring it too; Incus then shows `Ready` for the
/// rest of that instance's life, and the agent must not look finished for ever.
pub const DOORBELL_WINDOW: Duration = Duration::from_secs(10);

/// The wish to finish and go, kept on the instance. The greater wish is the more urgent one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Drain {
    /// No such wish.
    #[default]
    No,
    /// Go when others have taken its place.
    Recycle,
    /// Finish the job, then go.
    Finish,
    /// Finish the job, then go, and be killed at this Unix time if that is not done.
    FinishBy(Reverse<i64>),
    /// Go now, job or not.
    Force,
}

impl Drain {
    /// Reads the value of [`key::DRAIN`].
    pub fn parse(value: Option<&str>) -> Self {
        match value {
            None | Some("") => Self::No,
            Some("force") => Self::Force,
            Some("recycle") => Self::Recycle,
            // What is not understood is a wish to go all the same, and never to be killed.
            Some(value) => value
                .strip_prefix("finish;by=")
                .and_then(|by| by.parse().ok())
                .map_or(Self::Finish, |by| Self::FinishBy(Reverse(by))),
        }
    }

    /// Returns the value of [`key::DRAIN`].
    pub fn as_value(self) -> Option<String> {
        match self {
            Self::No => None,
            Self::Recycle => Some("recycle".into()),
            Self::Finish => Some("finish".into()),
            Self::FinishBy(Reverse(by)) => Some(format!("finish;by={by}")),
            Self::Force => Some("force".into()),
        }
    }

    /// Returns whether it is to go now, or as soon as its job ends.
    pub fn leaves(self) -> bool {
        self >= Self::Finish
    }

    /// Returns when it is killed if it is still there.
    pub fn deadline(self) -> Option<Timestamp> {
        match self {
            Self::FinishBy(Reverse(by)) => Timestamp::from_second(by).ok(),
            _ => None,
        }
    }
}

/// What Incus says of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceFacts {
    /// Its name; the agent's too.
    pub name: String,
    /// Computed from `status_text` by the client.
    pub status: incus::Status,
    /// As Incus writes it.
    pub status_text: String,
    /// Value of [`key::SPEC`].
    pub spec: String,
    /// Value of [`key::AZURE_AGENT_ID`].
    pub azure_agent_id: Option<i64>,
    /// It has [`key::SPARE`], and no registration was noted on it.
    pub spare: bool,
    /// Value of [`key::DRAIN`].
    pub drain: Drain,
    /// The wish that it stays for debugging.
    pub keep: Option<Keep>,
    /// Fingerprint of its image.
    pub image: String,
    /// By Incus's clock; for people only.
    pub created_at: Option<Timestamp>,
    /// Cluster member.
    pub location: String,
}

impl InstanceFacts {
    /// Reads the facts off an instance.
    pub fn of(instance: &incus::Instance) -> Self {
        let value = |key: &str| instance.config.get(key).map(String::as_str);
        let azure_agent_id = value(key::AZURE_AGENT_ID).and_then(|id| id.parse().ok());
        Self {
            name: instance.name.clone(),
            status: instance.status,
            status_text: instance.status_text.clone(),
            spec: value(key::SPEC).unwrap_or_default().to_owned(),
            azure_agent_id,
            spare: azure_agent_id.is_none() && value(key::SPARE).is_some(),
            drain: Drain::parse(value(key::DRAIN)),
            keep: Keep::read(value),
            image: value(key::BASE_IMAGE).unwrap_or_default().to_owned(),
            created_at: instance.created_at,
            // What Incus says where there is no cluster.
            location: Some(&instance.location)
                .filter(|location| *location != "none")
                .cloned()
                .unwrap_or_default(),
        }
    }
}

impl InstanceFacts {
    /// Returns whether its agent has ended and it stays for debugging.
    pub fn is_kept(&self) -> bool {
        self.keep.as_ref().is_some_and(Keep::has_ended)
    }
}

/// What Azure says of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationFacts {
    /// Azure's id.
    pub id: i64,
    /// May get jobs.
    pub enabled: bool,
    /// Has a session.
    pub online: bool,
    /// The job assigned to it.
    pub job: Option<azure::JobRequest>,
    /// Values of [`tag::OWNER`], [`tag::POOL`] and [`tag::PROJECT`].
    pub owner: Option<String>,
    /// See `owner`.
    pub pool: Option<String>,
    /// See `owner`.
    pub project: Option<String>,
}

impl RegistrationFacts {
    /// Reads the facts off a registration.
    pub fn of(agent: &azure::Agent) -> Self {
        Self {
            id: agent.id,
            enabled: agent.enabled,
            online: agent.online,
            job: agent.assigned.clone(),
            owner: agent.capabilities.get(tag::OWNER).cloned(),
            pool: agent.capabilities.get(tag::POOL).cloned(),
            project: agent.capabilities.get(tag::PROJECT).cloned(),
        }
    }

    /// Returns whether it is tagged as an agent of this owner's pool in this Incus project. One
    /// without a project may be in any.
    pub fn is_of(&self, owner: &str, pool: &str, project: &str) -> bool {
        self.owner.as_deref() == Some(owner)
            && self.pool.as_deref() == Some(pool)
            && self.project.as_deref().is_none_or(|own| own == project)
    }

    /// Returns whether nothing runs on it and nothing can.
    pub fn is_dead(&self) -> bool {
        !self.online && self.job.is_none()
    }
}

/// What an agent is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AgentState {
    /// Its instance is being created.
    Creating,
    /// Its instance runs; the registration is being made.
    Registering,
    /// Registered; not online yet.
    Starting,
    /// Online without a job.
    Idle,
    /// A job is assigned to it.
    Busy,
    /// Its listener ended; the machine goes away.
    Finishing,
    /// Being stopped or deleted.
    Stopping,
    /// The instance is gone, the registration is not.
    Deregistering,
    /// Was online and is not; or its instance is frozen or in error.
    Unknown,
    /// Refuses to be deleted.
    Stuck,
    /// Its agent has ended; its instance stays for a while, for debugging.
    Kept,
    /// Not an agent, but an instance that becomes one when it is needed.
    Spare,
}

impl AgentState {
    /// Returns whether it fills one of the pool's slots.
    pub fn holds_slot(self) -> bool {
        matches!(
            self,
            Self::Creating
                | Self::Registering
                | Self::Starting
                | Self::Idle
                | Self::Busy
                | Self::Unknown
        )
    }

    /// Returns the word used in logs, metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Registering => "registering",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Finishing => "finishing",
            Self::Stopping => "stopping",
            Self::Deregistering => "deregistering",
            Self::Unknown => "unknown",
            Self::Stuck => "stuck",
            Self::Kept => "kept",
            Self::Spare => "spare",
        }
    }
}

/// What is being done to an agent right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doing {
    /// Creating, registering and starting it.
    Launch,
    /// Creating an instance that becomes an agent when it is needed.
    Spare,
    /// Disabling it and, when it has no job, stopping its listener.
    Leave,
    /// Stopping and deleting its instance.
    Remove,
    /// Finding out whether it is dead, and then the same.
    Judge,
    /// Deleting its registration.
    Deregister,
    /// Writing to its instance's configuration, or answering its doorbell.
    Note,
    /// Making its instance stay.
    Keep,
}

/// Everything a state follows from.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// What Incus says, if there is an instance.
    pub instance: Option<&'a InstanceFacts>,
    /// What Azure says, if there is a registration.
    pub registration: Option<&'a RegistrationFacts>,
    /// What is being done to it.
    pub doing: Option<Doing>,
    /// It was seen online at least once.
    pub was_online: bool,
    /// Since when its instance shows `Ready`.
    pub ready_since: Option<Instant>,
    /// It was made to become an agent when it is needed, and is not registered.
    pub spare: bool,
    /// Its deletion keeps failing.
    pub stuck: bool,
    /// The moment to judge for.
    pub now: Instant,
}

/// Returns what an agent is doing.
pub fn state(evidence: &Evidence<'_>) -> AgentState {
    let Some(instance) = evidence.instance else {
        return match evidence.doing {
            Some(Doing::Launch) => AgentState::Creating,
            _ if evidence.spare => AgentState::Spare,
            _ => AgentState::Deregistering,
        };
    };
    if evidence.stuck {
        return AgentState::Stuck;
    }
    if evidence.spare && evidence.doing != Some(Doing::Launch) {
        return AgentState::Spare;
    }
    if evidence.doing == Some(Doing::Remove) {
        return AgentState::Stopping;
    }
    if instance.is_kept() {
        return AgentState::Kept;
    }
    let busy = evidence.registration.is_some_and(|r| r.job.is_some());
    match instance.status {
        incus::Status::Stopped if evidence.doing == Some(Doing::Launch) => AgentState::Creating,
        incus::Status::Starting => AgentState::Creating,
        incus::Status::Stopped | incus::Status::Stopping => AgentState::Stopping,
        incus::Status::Frozen | incus::Status::Error | incus::Status::Other => {
            if busy {
                AgentState::Busy
            } else {
                AgentState::Unknown
            }
        }
        incus::Status::Running | incus::Status::Ready => {
            if instance.azure_agent_id.is_none() {
                return AgentState::Registering;
            }
            let rang = evidence
                .ready_since
                .is_some_and(|since| evidence.now.duration_since(since) < DOORBELL_WINDOW);
            if rang {
                return AgentState::Finishing;
            }
            match evidence.registration {
                Some(_) if busy => AgentState::Busy,
                Some(registration) if registration.online => AgentState::Idle,
                _ if evidence.was_online => AgentState::Unknown,
                _ => AgentState::Starting,
            }
        }
    }
}

#[cfg(test)]
mod tests;
