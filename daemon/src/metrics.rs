//! What is counted, and how it is told to Prometheus. Labels are pools, reasons and kinds, never
//! agents or jobs.

use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::agent::AgentState;
use crate::calls::{CallOutcome, CallReport};
use crate::members::{Members, Standing};
use crate::pool::status::PoolStatus;

/// Seconds; replacing an agent takes about one.
const SECONDS: [f64; 12] = [
    0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 120.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabel {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    pool: String,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    pool: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabel {
    server: &'static str,
    call: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabel {
    member: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberStateLabel {
    member: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberStorageLabel {
    member: String,
    storage_pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AzureLabel {
    url: String,
}

/// All counts of the daemon.
pub struct Metrics {
    registry: Registry,
    created: Family<PoolLabel, Counter>,
    promoted: Family<PoolLabel, Counter>,
    launch_failures: Family<ReasonLabel, Counter>,
    action_failures: Family<ReasonLabel, Counter>,
    reaped: Family<ReasonLabel, Counter>,
    deregistered: Family<PoolLabel, Counter>,
    replacement: Family<PoolLabel, Histogram>,
    online: Family<PoolLabel, Histogram>,
    calls: Family<CallLabel, Counter>,
    agents: Family<StateLabel, Gauge>,
    spares: Family<PoolLabel, Gauge>,
    member_online: Family<MemberLabel, Gauge>,
    member_leaving: Family<MemberLabel, Gauge>,
    member_full: Family<MemberLabel, Gauge>,
    member_agents: Family<MemberStateLabel, Gauge>,
    member_memory: Family<MemberLabel, Gauge>,
    member_storage: Family<MemberStorageLabel, Gauge>,
    wanted: Family<PoolLabel, Gauge>,
    paused: Family<PoolLabel, Gauge>,
    launches_braked: Family<PoolLabel, Gauge>,
    azure_usable: Family<PoolLabel, Gauge>,
    waiting_jobs: Family<PoolLabel, Gauge>,
    history_dropped: Counter,
    tasks: Gauge,
    credential_expiry: Family<AzureLabel, Gauge>,
    token_expiry: Family<AzureLabel, Gauge>,
    credential_rejected: Family<AzureLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        let mut metrics = Self {
            registry: Registry::with_prefix("iapd"),
            created: Family::default(),
            promoted: Family::default(),
            launch_failures: Family::default(),
            action_failures: Family::default(),
            reaped: Family::default(),
            deregistered: Family::default(),
            replacement: Family::new_with_constructor(histogram),
            online: Family::new_with_constructor(histogram),
            calls: Family::default(),
            agents: Family::default(),
            spares: Family::default(),
            member_online: Family::default(),
            member_leaving: Family::default(),
            member_full: Family::default(),
            member_agents: Family::default(),
            member_memory: Family::default(),
            member_storage: Family::default(),
            wanted: Family::default(),
            paused: Family::default(),
            launches_braked: Family::default(),
            azure_usable: Family::default(),
            waiting_jobs: Family::default(),
            history_dropped: Counter::default(),
            tasks: Gauge::default(),
            credential_expiry: Family::default(),
            token_expiry: Family::default(),
            credential_rejected: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "build",
            "Version",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        r.register("agents_created", "Agents started", self.created.clone());
        r.register(
            "spares_promoted",
            "Agents of those that were started in a spare",
            self.promoted.clone(),
        );
        r.register(
            "agent_launch_failures",
            "Agents that failed to start, and spares, by reason",
            self.launch_failures.clone(),
        );
        r.register(
            "action_failures",
            "Other actions that failed and are retried",
            self.action_failures.clone(),
        );
        r.register(
            "agents_reaped",
            "Agents removed, by reason",
            self.reaped.clone(),
        );
        r.register(
            "registrations_deleted",
            "Registrations deleted",
            self.deregistered.clone(),
        );
        r.register_with_unit(
            "agent_replacement",
            "From an agent's end to its successor's start",
            Unit::Seconds,
            self.replacement.clone(),
        );
        r.register_with_unit(
            "agent_online",
            "From the beginning of an agent's creation until it was seen online",
            Unit::Seconds,
            self.online.clone(),
        );
        r.register(
            "calls",
            "Calls to Incus and Azure by kind and outcome",
            self.calls.clone(),
        );
        r.register("agents", "Agents by state", self.agents.clone());
        r.register(
            "spares",
            "Spares, those that are being made included",
            self.spares.clone(),
        );
        r.register(
            "member_online",
            "Whether a member of the cluster can run agents",
            self.member_online.clone(),
        );
        r.register(
            "member_agents",
            "Agents and spares on a member of the cluster by state",
            self.member_agents.clone(),
        );
        r.register(
            "member_leaving",
            "1 while the agents of a member of the cluster are to finish and go",
            self.member_leaving.clone(),
        );
        r.register(
            "member_full",
            "1 while a member of the cluster gets no agents of some pool for want of room",
            self.member_full.clone(),
        );
        r.register(
            "member_memory_free_bytes",
            "Memory that can be had on a member of the cluster, or more, where that is known",
            self.member_memory.clone(),
        );
        r.register(
            "member_storage_free_bytes",
            "What is left of a storage pool on a member of the cluster",
            self.member_storage.clone(),
        );
        r.register(
            "agents_wanted",
            "Number of agents the pool keeps now; 0 while it is paused",
            self.wanted.clone(),
        );
        r.register(
            "pool_paused",
            "1 while an operator paused the pool or the host",
            self.paused.clone(),
        );
        r.register(
            "launch_breaker_open",
            "1 while failures keep agents from being started",
            self.launches_braked.clone(),
        );
        r.register(
            "azure_usable",
            "1 while Azure answers",
            self.azure_usable.clone(),
        );
        r.register(
            "waiting_jobs",
            "Jobs in the Azure pool without agent",
            self.waiting_jobs.clone(),
        );
        r.register(
            "history_dropped",
            "Records of history that were dropped because the disk was behind",
            self.history_dropped.clone(),
        );
        r.register(
            "tasks",
            "Tasks of the daemon itself; does not grow with time",
            self.tasks.clone(),
        );
        r.register(
            "credential_expiry_timestamp_seconds",
            "When the credential of an Azure organisation ends, where that is known",
            self.credential_expiry.clone(),
        );
        r.register(
            "token_expiry_timestamp_seconds",
            "When the access token in hand ends; it is renewed before",
            self.token_expiry.clone(),
        );
        r.register(
            "credential_rejected_timestamp_seconds",
            "When the credential of an Azure organisation was rejected last",
            self.credential_rejected.clone(),
        );
    }

    /// Returns the count of dropped history, for who drops it.
    pub fn history_dropped(&self) -> Counter {
        self.history_dropped.clone()
    }

    /// An agent was started.
    pub fn agent_created(&self, pool: &str) {
        self.created.get_or_create(&label(pool)).inc();
    }

    /// A spare became an agent.
    pub fn spare_promoted(&self, pool: &str) {
        self.promoted.get_or_create(&label(pool)).inc();
    }

    /// An agent failed to start.
    pub fn launch_failed(&self, pool: &str, reason: &'static str) {
        self.launch_failures
            .get_or_create(&reasoned(pool, reason))
            .inc();
    }

    /// Another action failed.
    pub fn action_failed(&self, pool: &str, action: &'static str) {
        self.action_failures
            .get_or_create(&reasoned(pool, action))
            .inc();
    }

    /// An agent was removed by us.
    pub fn agent_reaped(&self, pool: &str, reason: &'static str) {
        self.reaped.get_or_create(&reasoned(pool, reason)).inc();
    }

    /// A registration was deleted.
    pub fn registration_deleted(&self, pool: &str) {
        self.deregistered.get_or_create(&label(pool)).inc();
    }

    /// An agent that ended has its successor.
    pub fn replaced(&self, pool: &str, took: Duration) {
        self.replacement
            .get_or_create(&label(pool))
            .observe(took.as_secs_f64());
    }

    /// An agent was seen online for the first time.
    pub fn came_online(&self, pool: &str, took: Duration) {
        self.online
            .get_or_create(&label(pool))
            .observe(took.as_secs_f64());
    }

    /// A call to a server ended.
    pub fn call_ended(&self, server: &'static str, report: CallReport) {
        let outcome = match report.outcome {
            CallOutcome::Ok => "ok",
            CallOutcome::Refused => "refused",
            CallOutcome::Failed => "failed",
            CallOutcome::Unreachable => "unreachable",
        };
        self.calls
            .get_or_create(&CallLabel {
                server,
                call: report.kind,
                outcome,
            })
            .inc();
    }

    /// Takes in the cluster's members and the agents on them.
    pub fn tell_members(&self, members: &Members, pools: &[std::sync::Arc<PoolStatus>]) {
        self.member_online.clear();
        self.member_leaving.clear();
        self.member_full.clear();
        self.member_agents.clear();
        self.member_memory.clear();
        self.member_storage.clear();
        let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        for member in members.all.values() {
            let label = MemberLabel {
                member: member.name.clone(),
            };
            let state = |state: AgentState| MemberStateLabel {
                member: member.name.clone(),
                state: state.as_str(),
            };
            for always in [AgentState::Busy, AgentState::Idle] {
                self.member_agents.get_or_create(&state(always)).set(0);
            }
            let agents = pools.iter().flat_map(|pool| &pool.agents);
            for agent in agents.filter(|agent| agent.location == member.name) {
                self.member_agents.get_or_create(&state(agent.state)).inc();
            }
            let seen = pools.iter().flat_map(|pool| &pool.members);
            let mut seen = seen.filter(|seen| seen.name == member.name);
            let leaving = seen.clone().any(|seen| seen.leaving);
            let full = seen.any(|seen| seen.full.is_some());
            let leaves = self.member_leaving.get_or_create(&label);
            leaves.set(i64::from(leaving));
            self.member_full.get_or_create(&label).set(full.into());
            if let Some(room) = members.rooms.get(&member.name) {
                if let Some(memory) = room.memory {
                    let gauge = self.member_memory.get_or_create(&label);
                    gauge.set(bytes(memory.free));
                }
                for (pool, space) in &room.storage {
                    let label = MemberStorageLabel {
                        member: member.name.clone(),
                        storage_pool: pool.clone(),
                    };
                    let gauge = self.member_storage.get_or_create(&label);
                    gauge.set(bytes(space.free));
                }
            }
            let online = i64::from(member.standing == Standing::Online);
            self.member_online.get_or_create(&label).set(online);
        }
    }

    /// Returns everything as Prometheus reads it. Gauges are made from the pools as they are.
    pub fn encode(&self, pools: &[std::sync::Arc<PoolStatus>]) -> Result<String, std::fmt::Error> {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = runtime.metrics().num_alive_tasks();
            self.tasks.set(i64::try_from(tasks).unwrap_or(i64::MAX));
        }
        self.agents.clear();
        self.spares.clear();
        self.wanted.clear();
        self.paused.clear();
        self.launches_braked.clear();
        self.azure_usable.clear();
        self.waiting_jobs.clear();
        self.credential_expiry.clear();
        self.token_expiry.clear();
        self.credential_rejected.clear();
        for pool in pools {
            let name = &pool.spec.name;
            let (spares, agents): (Vec<_>, Vec<_>) = pool
                .agents
                .iter()
                .partition(|agent| agent.state == AgentState::Spare);
            let spares = i64::try_from(spares.len()).unwrap_or(i64::MAX);
            self.spares.get_or_create(&label(name)).set(spares);
            for agent in agents {
                let state = agent.state.as_str();
                self.agents
                    .get_or_create(&StateLabel {
                        pool: name.clone(),
                        state,
                    })
                    .inc();
            }
            let (wanted, paused) = (i64::from(pool.wanted), i64::from(pool.is_paused));
            self.wanted.get_or_create(&label(name)).set(wanted);
            self.paused.get_or_create(&label(name)).set(paused);
            let braked = i64::from(pool.launches.open);
            self.launches_braked.get_or_create(&label(name)).set(braked);
            self.azure_usable
                .get_or_create(&label(name))
                .set(i64::from(pool.azure.usable));
            if let Some(waiting) = pool.azure.waiting_jobs {
                self.waiting_jobs
                    .get_or_create(&label(name))
                    .set(i64::from(waiting));
            }
            self.tell_clock(pool);
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Of several credentials for one organisation the one that ends first is told, and of
    /// rejections the last.
    fn tell_clock(&self, pool: &PoolStatus) {
        let (url, clock) = (&pool.spec.azure.url, &pool.azure.clock);
        let tell = |family: &Family<AzureLabel, Gauge>, at: Option<Timestamp>, first: bool| {
            let Some(at) = at.map(Timestamp::as_second) else {
                return;
            };
            let gauge = family.get_or_create(&AzureLabel { url: url.clone() });
            let told = gauge.get();
            let is_news = told == 0 || if first { at < told } else { at > told };
            if is_news {
                gauge.set(at);
            }
        };
        tell(&self.credential_expiry, clock.expires_at, true);
        tell(&self.token_expiry, clock.token_expires_at, true);
        tell(&self.credential_rejected, clock.rejected_at, false);
    }
}

fn label(pool: &str) -> PoolLabel {
    PoolLabel {
        pool: pool.to_owned(),
    }
}

fn reasoned(pool: &str, reason: &'static str) -> ReasonLabel {
    ReasonLabel {
        pool: pool.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests;
