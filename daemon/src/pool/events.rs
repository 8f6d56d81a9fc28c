//! What happened between two statuses of a pool, in typed events for people and programs that look
//! on. Pure.

use std::collections::BTreeMap;

use crate::agent::AgentState;

use super::azure_link::CredentialState;
use super::ghosts::{AdoptionStatus, TargetState};
use super::status::{AgentStatus, PoolStatus};

/// What happened. A fixed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// An agent's instance is being created.
    AgentCreating,
    /// An agent is online and waits for a job.
    AgentIdle,
    /// An agent has a job.
    AgentBusy,
    /// An agent was asked to finish and go.
    AgentDraining,
    /// An agent does not answer as it should: offline, frozen, or it refuses to go.
    AgentTroubled,
    /// An agent has ended, and its instance stays for debugging.
    AgentKept,
    /// The time of a kept agent is over.
    AgentReleased,
    /// An agent is gone.
    AgentEnded,
    /// Registrations of another owner are being removed: an operator says that its host is gone.
    GhostsAdopted,
    /// One of them is gone.
    GhostRemoved,
    /// All of them are, or their host lives.
    AdoptionEnded,
    /// Failures keep agents from being started.
    LaunchesFailing,
    /// Agents start again.
    LaunchesRecovered,
    /// No agents are made, for want of memory or disk.
    HostFull,
    /// There is room for agents again.
    HostHasRoom,
    /// Azure cannot be used.
    AzureLost,
    /// Azure can be used again.
    AzureRecovered,
    /// Azure rejects the credential.
    CredentialRejected,
    /// Incus does not answer.
    IncusLost,
    /// Incus answers again.
    IncusRecovered,
    /// New agents are made from another image.
    ImageMoved,
    /// The image is missing.
    ImageMissing,
    /// The pool left the configuration.
    PoolRemoved,
    /// Somebody paused the pool, or the host.
    PoolPaused,
    /// The pool goes on.
    PoolResumed,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 25] = [
        Self::AgentCreating,
        Self::AgentIdle,
        Self::AgentBusy,
        Self::AgentDraining,
        Self::AgentTroubled,
        Self::AgentKept,
        Self::AgentReleased,
        Self::AgentEnded,
        Self::GhostsAdopted,
        Self::GhostRemoved,
        Self::AdoptionEnded,
        Self::LaunchesFailing,
        Self::LaunchesRecovered,
        Self::HostFull,
        Self::HostHasRoom,
        Self::AzureLost,
        Self::AzureRecovered,
        Self::CredentialRejected,
        Self::IncusLost,
        Self::IncusRecovered,
        Self::ImageMoved,
        Self::ImageMissing,
        Self::PoolRemoved,
        Self::PoolPaused,
        Self::PoolResumed,
    ];

    /// Returns the word used in records and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AgentCreating => "agent-creating",
            Self::AgentIdle => "agent-idle",
            Self::AgentBusy => "agent-busy",
            Self::AgentDraining => "agent-draining",
            Self::AgentTroubled => "agent-troubled",
            Self::AgentKept => "agent-kept",
            Self::AgentReleased => "agent-released",
            Self::AgentEnded => "agent-ended",
            Self::GhostsAdopted => "ghosts-adopted",
            Self::GhostRemoved => "ghost-removed",
            Self::AdoptionEnded => "adoption-ended",
            Self::LaunchesFailing => "launches-failing",
            Self::LaunchesRecovered => "launches-recovered",
            Self::HostFull => "host-full",
            Self::HostHasRoom => "host-has-room",
            Self::AzureLost => "azure-lost",
            Self::AzureRecovered => "azure-recovered",
            Self::CredentialRejected => "credential-rejected",
            Self::IncusLost => "incus-lost",
            Self::IncusRecovered => "incus-recovered",
            Self::ImageMoved => "image-moved",
            Self::ImageMissing => "image-missing",
            Self::PoolRemoved => "pool-removed",
            Self::PoolPaused => "pool-paused",
            Self::PoolResumed => "pool-resumed",
        }
    }
}

/// One thing that happened to a pool or to one of its agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolEvent {
    /// What.
    pub kind: EventKind,
    /// To which agent; empty when to the pool.
    pub agent: String,
    /// More words; may be empty.
    pub message: String,
}

/// Returns what happened between two statuses. That agents ended is told elsewhere, with why.
pub fn between(old: &PoolStatus, new: &PoolStatus) -> Vec<PoolEvent> {
    let mut events = of_agents(old, new);
    events.extend(of_adoption(old.adoption.as_ref(), new.adoption.as_ref()));
    let mut tell = |kind, message: &str| {
        events.push(PoolEvent {
            kind,
            agent: String::new(),
            message: message.to_owned(),
        });
    };
    if new.removed && !old.removed {
        tell(EventKind::PoolRemoved, "");
    }
    match (old.is_paused, new.is_paused) {
        (false, true) => tell(EventKind::PoolPaused, ""),
        (true, false) => tell(EventKind::PoolResumed, ""),
        _ => {}
    }
    match (old.launches.open, new.launches.open) {
        (false, true) => tell(EventKind::LaunchesFailing, &new.launches.last_error),
        (true, false) => tell(EventKind::LaunchesRecovered, ""),
        _ => {}
    }
    match (&old.no_room, &new.no_room) {
        (None, Some(why)) => tell(EventKind::HostFull, why),
        (Some(_), None) => tell(EventKind::HostHasRoom, ""),
        _ => {}
    }
    match (old.incus_reachable, new.incus_reachable) {
        (true, false) => {
            let why = new.problems.first().map_or("", String::as_str);
            tell(EventKind::IncusLost, why);
        }
        (false, true) => tell(EventKind::IncusRecovered, ""),
        _ => {}
    }
    match (old.azure.usable, new.azure.usable) {
        (true, false) => tell(EventKind::AzureLost, &new.azure.breaker.last_error),
        // The first list after the start is no recovery; that of new credentials may be one.
        (false, true) if old.was_seen => tell(EventKind::AzureRecovered, ""),
        _ => {}
    }
    if new.azure.credential == CredentialState::Rejected
        && old.azure.credential != CredentialState::Rejected
    {
        tell(EventKind::CredentialRejected, &new.azure.breaker.last_error);
    }
    let (before, after) = (&old.image.fingerprint, &new.image.fingerprint);
    if before != after && !before.is_empty() {
        let alias = &new.spec.instance.image;
        if after.is_empty() {
            tell(EventKind::ImageMissing, alias);
        } else {
            tell(EventKind::ImageMoved, &format!("{alias} is {after} now"));
        }
    }
    events
}

fn of_agents(old: &PoolStatus, new: &PoolStatus) -> Vec<PoolEvent> {
    let before: BTreeMap<&str, &AgentStatus> =
        old.agents.iter().map(|a| (a.name.as_str(), a)).collect();
    let mut events = Vec::new();
    for agent in &new.agents {
        let was = before.get(agent.name.as_str());
        let changed = was.is_none_or(|was| was.state != agent.state);
        let (kind, message) = match agent.state {
            AgentState::Creating => (EventKind::AgentCreating, String::new()),
            AgentState::Idle => (EventKind::AgentIdle, String::new()),
            AgentState::Busy => (EventKind::AgentBusy, job_of(agent)),
            AgentState::Unknown | AgentState::Stuck => {
                (EventKind::AgentTroubled, agent.detail.clone())
            }
            AgentState::Kept => (EventKind::AgentKept, kept(agent)),
            _ => continue,
        };
        if changed {
            events.push(PoolEvent {
                kind,
                agent: agent.name.clone(),
                message,
            });
        }
        if agent.draining && was.is_some_and(|was| !was.draining) {
            events.push(PoolEvent {
                kind: EventKind::AgentDraining,
                agent: agent.name.clone(),
                message: if agent.disabled_by_others {
                    agent.detail.clone()
                } else {
                    String::new()
                },
            });
        }
    }
    events
}

fn of_adoption(old: Option<&AdoptionStatus>, new: Option<&AdoptionStatus>) -> Vec<PoolEvent> {
    let Some(new) = new else { return Vec::new() };
    let old = old.filter(|old| old.token == new.token);
    let event = |kind, agent: &str, message: String| PoolEvent {
        kind,
        agent: agent.to_owned(),
        message,
    };
    let (owner, all) = (&new.owner, new.targets.len());
    let mut events = Vec::new();
    if old.is_none() {
        let message = format!("owner {owner}: {all} registrations are to go");
        events.push(event(EventKind::GhostsAdopted, "", message));
    }
    let was_gone = |id| {
        old.is_some_and(|old| {
            old.targets
                .iter()
                .any(|t| t.id == id && t.state == TargetState::Gone)
        })
    };
    let gone = new
        .targets
        .iter()
        .filter(|t| t.state == TargetState::Gone && !was_gone(t.id));
    events.extend(gone.map(|target| {
        event(
            EventKind::GhostRemoved,
            &target.name,
            format!("owner {owner}"),
        )
    }));
    if let (Some(end), false) = (&new.end, old.is_some_and(|old| old.end.is_some())) {
        let words = match end.words(owner) {
            words if words.is_empty() => format!("owner {owner}"),
            words => words,
        };
        let message = format!("{words}; removed {}/{all}", new.gone());
        events.push(event(EventKind::AdoptionEnded, "", message));
    }
    events
}

fn kept(agent: &AgentStatus) -> String {
    agent.keep.as_ref().map_or_else(String::new, |keep| {
        let by = match &*keep.by {
            "" => String::new(),
            by => format!(" by {by}"),
        };
        format!("until {:.0}{by}: {}", keep.until, keep.reason)
            .trim_end_matches([':', ' '])
            .to_owned()
    })
}

fn job_of(agent: &AgentStatus) -> String {
    agent.job.as_ref().map_or_else(String::new, |job| {
        let parts = [&job.pipeline, &job.run, &job.job_name];
        let known: Vec<&str> = parts
            .into_iter()
            .map(String::as_str)
            .filter(|part| !part.is_empty())
            .collect();
        known.join(" ")
    })
}

#[cfg(test)]
mod tests;
