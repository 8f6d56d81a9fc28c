//! What a pool's task tells: one value, published after each pass, from which gRPC and the
//! metrics take everything they show.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::agent::{AgentState, Keep};
use crate::azure::{CredentialClock, JobRequest};
use crate::members::Standing;

use super::azure_link::CredentialState;
use super::breaker::BreakerStatus;
use super::ghosts::{AdoptionStatus, Seen};
use super::spec::PoolSpec;
use super::waits::WaitSummary;

/// Which pool: also tells a pool from its former self after a reload moved it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    /// The configured name.
    pub name: String,
    /// Incus project.
    pub project: String,
    /// Organisation URL.
    pub azure_url: String,
    /// Azure's name of the agent pool.
    pub azure_pool: String,
}

impl PoolKey {
    /// Returns a spec's key.
    pub fn of(spec: &PoolSpec) -> Self {
        Self {
            name: spec.name.clone(),
            project: spec.instance.project.clone(),
            azure_url: spec.azure.url.clone(),
            azure_pool: spec.azure.pool.clone(),
        }
    }
}

/// A pool as it is.
#[derive(Debug, Clone)]
pub struct PoolStatus {
    /// What is wanted.
    pub spec: Arc<PoolSpec>,
    /// Hash of what an agent is built from.
    pub spec_hash: String,
    /// It left the configuration.
    pub removed: bool,
    /// How many agents are wanted now; 0 when it is removed or paused.
    pub wanted: u32,
    /// An operator paused it or the host.
    pub is_paused: bool,
    /// What operators wanted for a while, as of this revision, is taken into account.
    pub intents_revision: u64,
    /// Its agents by name.
    pub agents: Vec<AgentStatus>,
    /// Instances of the earlier Go tool in its project.
    pub foreign: Vec<String>,
    /// A registration of this host is online without ever having had an instance here.
    pub looks_cloned: bool,
    /// What keeps it from being as wanted, in words, most important first.
    pub problems: Vec<String>,
    /// Incus was seen at least once: an agent that is not among these is not there.
    pub instances_known: bool,
    /// Why jobs that wait do so, in words, most important first; empty when none is known to.
    pub wait_reasons: Vec<String>,
    /// The last look at Incus worked.
    pub incus_reachable: bool,
    /// Instances and registrations were listed at least once since the start.
    pub was_seen: bool,
    /// What the image alias points at.
    pub image: ImageStatus,
    /// Why the host has no room for one more agent; `None` when it has, or none is missing.
    pub no_room: Option<String>,
    /// The brake on launches.
    pub launches: BreakerStatus,
    /// Its Azure side.
    pub azure: AzureStatus,
    /// Registrations of its Azure pool with an owner's tag, its own among them.
    pub ghosts: Seen,
    /// The registrations of another owner that an operator had removed last.
    pub adoption: Option<AdoptionStatus>,
    /// Members of the cluster that may have agents of it, or have.
    pub members: Vec<MemberStatus>,
    /// The pass that made this; `None` before the first.
    pub last_pass: Option<PassReport>,
}

/// A member of the cluster, as a pool sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its name.
    pub name: String,
    /// Whether it can run agents.
    pub standing: Standing,
    /// Its agents are to finish and go.
    pub leaving: bool,
    /// Why it gets no more agents of the pool for want of room.
    pub full: Option<String>,
}

/// An agent as it is.
#[derive(Debug, Clone)]
pub struct AgentStatus {
    /// Instance and agent name.
    pub name: String,
    /// What it is doing.
    pub state: AgentState,
    /// Why, in words; may be empty.
    pub detail: String,
    /// Asked to finish and go.
    pub draining: bool,
    /// When it is killed if it is still there.
    pub leave_by: Option<Timestamp>,
    /// It is kept for debugging, or will be when it has ended.
    pub keep: Option<Keep>,
    /// By Incus's clock.
    pub created_at: Option<Timestamp>,
    /// Azure's id.
    pub azure_agent_id: Option<i64>,
    /// The job it has, or had, if it is kept.
    pub job: Option<JobRequest>,
    /// Fingerprint of its image.
    pub image: String,
    /// Built from another image or spec than the pool's present one.
    pub outdated: bool,
    /// As Incus writes it; empty without an instance.
    pub instance_status: String,
    /// Online in Azure; `None` when not registered or not known.
    pub online: Option<bool>,
    /// May get jobs.
    pub enabled: bool,
    /// Somebody else disabled it in Azure: it is replaced, after its job if it has one.
    pub disabled_by_others: bool,
    /// Cluster member.
    pub location: String,
}

/// The image that new agents are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageStatus {
    /// What the alias points at; empty when there is no such alias.
    pub fingerprint: String,
    /// Version of the agent in it, when its properties say.
    pub agent_version: String,
    /// When it was made.
    pub created_at: Option<Timestamp>,
}

/// The Azure side of a pool.
#[derive(Debug, Clone, Default)]
pub struct AzureStatus {
    /// Azure's id of the pool, once it was found.
    pub pool_id: Option<i32>,
    /// The last list worked.
    pub usable: bool,
    /// What Azure thinks of the credential.
    pub credential: CredentialState,
    /// How long it lasts, as far as that is known.
    pub clock: CredentialClock,
    /// The brake on lists.
    pub breaker: BreakerStatus,
    /// When the list that the last pass used was complete.
    pub listed_at: Option<Timestamp>,
    /// Since when the next one is awaited, when that takes long.
    pub unanswered_since: Option<Timestamp>,
    /// Unfinished jobs that wait for an agent.
    pub waiting_jobs: Option<u32>,
    /// How long jobs wait; `None` when there was none lately.
    pub job_waits: Option<WaitSummary>,
}

/// One pass.
#[derive(Debug, Clone)]
pub struct PassReport {
    /// Counts up from 1.
    pub number: u64,
    /// Why it ran.
    pub trigger: &'static str,
    /// When it ended.
    pub ended_at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// Actions it began.
    pub started: usize,
    /// Actions in flight when it ended.
    pub in_flight: usize,
    /// Actions that failed since the pass before.
    pub failed: usize,
}
