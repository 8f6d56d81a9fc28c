//! From statuses to messages. Cannot fail.

use std::time::Duration;

use jiff::Timestamp;

use iap_common::v1;

use crate::agent::AgentState;
use crate::auth_check::{Ability, Checked, Verdict};
use crate::azure::JobRequest;
use crate::config;
use crate::doctor::{Check, Severity};
use crate::intents::Effective;
use crate::pool::azure_link::CredentialState;
use crate::pool::breaker::BreakerStatus;
use crate::pool::spec::{CredentialSpec, ProofSpec};
use crate::pool::status::{AgentStatus, PassReport, PoolStatus};

use super::{intents, members};

pub(super) fn timestamp(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

pub(super) fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(length).unwrap_or_default()
}

/// Age of something by the wall clock; a clock that was set back makes it zero.
pub(super) fn age(at: Timestamp) -> prost_types::Duration {
    duration(Duration::try_from(Timestamp::now() - at).unwrap_or_default())
}

pub(super) fn pool(status: &PoolStatus, intent: &Effective) -> v1::Pool {
    let spec = &status.spec;
    let state = if status.removed {
        v1::PoolState::Draining
    } else if status.last_pass.is_none() {
        v1::PoolState::Starting
    } else if intent.pause.is_some() {
        v1::PoolState::Paused
    } else if status.incus_reachable
        && status.azure.usable
        && !status.launches.open
        && !status.image.fingerprint.is_empty()
        && status
            .agents
            .iter()
            .all(|agent| agent.state != AgentState::Stuck)
    {
        v1::PoolState::Ok
    } else {
        v1::PoolState::Degraded
    };
    v1::Pool {
        name: spec.name.clone(),
        state: state.into(),
        counts: Some(counts(&status.agents)),
        agent_count: if status.removed { 0 } else { spec.agent_count },
        spares: if status.removed { 0 } else { spec.spares },
        problems: status.problems.clone(),
        image: Some(v1::PoolImage {
            alias: spec.instance.image.clone(),
            fingerprint: status.image.fingerprint.clone(),
            agent_version: status.image.agent_version.clone(),
            created_at: status.image.created_at.map(timestamp),
        }),
        incus_breaker: Some(breaker(&status.launches)),
        azure_breaker: Some(breaker(&status.azure.breaker)),
        azure: Some(v1::AzurePool {
            url: spec.azure.url.clone(),
            pool_name: spec.azure.pool.clone(),
            pool_id: status.azure.pool_id.unwrap_or(0),
            snapshot_age: status.azure.listed_at.map(age),
        }),
        last_pass: status.last_pass.as_ref().map(pass),
        project: spec.instance.project.clone(),
        instance_type: spec.instance.kind.api_name().to_owned(),
        profiles: spec.instance.profiles.clone(),
        spec_hash: status.spec_hash.clone(),
        queued_jobs: status.azure.waiting_jobs,
        wait_reasons: status.wait_reasons.clone(),
        job_waits: status.azure.job_waits.map(|waits| v1::JobWaits {
            p95: Some(duration(waits.p95)),
            jobs: u32::try_from(waits.jobs).unwrap_or(u32::MAX),
        }),
        pause: intents::pause_message(intent),
        count_override: intents::count_message(intent),
        wanted: if status.removed {
            0
        } else {
            intent.wanted(spec.agent_count)
        },
        members: members::of_pool(status),
    }
}

fn counts(agents: &[AgentStatus]) -> v1::AgentCounts {
    let mut counts = v1::AgentCounts::default();
    let (spares, agents): (Vec<_>, Vec<_>) = agents
        .iter()
        .partition(|agent| agent.state == AgentState::Spare);
    counts.spare = u32::try_from(spares.len()).unwrap_or(u32::MAX);
    for agent in agents {
        counts.outdated += u32::from(agent.outdated);
        match agent.state {
            AgentState::Unknown | AgentState::Stuck => counts.troubled += 1,
            AgentState::Kept => counts.kept += 1,
            AgentState::Spare => {} // Counted.
            AgentState::Busy => counts.busy += 1,
            AgentState::Finishing | AgentState::Stopping | AgentState::Deregistering => {
                counts.leaving += 1;
            }
            _ if agent.draining => counts.leaving += 1,
            AgentState::Idle => counts.idle += 1,
            AgentState::Creating | AgentState::Registering | AgentState::Starting => {
                counts.starting += 1;
            }
        }
    }
    counts
}

pub(super) fn breaker(status: &BreakerStatus) -> v1::Breaker {
    let state = if status.open {
        v1::BreakerState::Open
    } else {
        v1::BreakerState::Closed
    };
    v1::Breaker {
        state: state.into(),
        last_error: status.last_error.clone(),
        last_error_at: status.last_error_at.map(timestamp),
        next_try_at: status.next_try_at.map(timestamp),
        consecutive_failures: status.failures,
    }
}

fn pass(report: &PassReport) -> v1::PassReport {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    v1::PassReport {
        number: report.number,
        trigger: report.trigger.to_owned(),
        ended_at: Some(timestamp(report.ended_at)),
        took: Some(duration(report.took)),
        started: count(report.started),
        in_flight: count(report.in_flight),
        failed: count(report.failed),
    }
}

pub(super) fn agents(status: &PoolStatus) -> Vec<v1::Agent> {
    let foreign = status.foreign.iter().map(|name| v1::Agent {
        name: name.clone(),
        pool: status.spec.name.clone(),
        state: v1::AgentState::Foreign.into(),
        detail: "made by the earlier tool; left alone".into(),
        project: status.spec.instance.project.clone(),
        ..v1::Agent::default()
    });
    status
        .agents
        .iter()
        .map(|a| agent(status, a))
        .chain(foreign)
        .collect()
}

pub(super) fn agent(pool: &PoolStatus, agent: &AgentStatus) -> v1::Agent {
    let state = match agent.state {
        // Of a pool that nobody configures any more: it finishes its job and goes.
        AgentState::Idle | AgentState::Unknown if pool.removed => v1::AgentState::Orphaned,
        AgentState::Creating => v1::AgentState::Creating,
        AgentState::Registering => v1::AgentState::Registering,
        AgentState::Starting => v1::AgentState::Starting,
        AgentState::Idle => v1::AgentState::Idle,
        AgentState::Busy => v1::AgentState::Busy,
        AgentState::Finishing => v1::AgentState::Finishing,
        AgentState::Stopping => v1::AgentState::Stopping,
        AgentState::Deregistering => v1::AgentState::Deregistering,
        AgentState::Unknown => v1::AgentState::Unknown,
        AgentState::Stuck => v1::AgentState::Stuck,
        AgentState::Kept => v1::AgentState::Kept,
        AgentState::Spare => v1::AgentState::Spare,
    };
    let azure_status = match agent.online {
        Some(true) => "online",
        Some(false) => "offline",
        None => "",
    };
    v1::Agent {
        name: agent.name.clone(),
        pool: pool.spec.name.clone(),
        state: state.into(),
        detail: agent.detail.clone(),
        draining: agent.draining,
        created_at: agent.created_at.map(timestamp),
        azure_agent_id: agent.azure_agent_id.unwrap_or(0),
        job: agent.job.as_ref().map(job),
        image_fingerprint: agent.image.clone(),
        outdated: agent.outdated,
        instance_status: agent.instance_status.clone(),
        azure_status: azure_status.to_owned(),
        azure_enabled: agent.enabled,
        project: pool.spec.instance.project.clone(),
        location: agent.location.clone(),
        drain_deadline: agent.leave_by.map(timestamp),
        keep: agent.keep.as_ref().map(|keep| v1::Keep {
            until: Some(timestamp(keep.until)),
            reason: keep.reason.clone(),
            user: keep.by.clone(),
            since: keep.since.map(timestamp),
        }),
    }
}

pub(super) fn job(job: &JobRequest) -> v1::Job {
    v1::Job {
        request_id: job.request_id,
        name: job.job_name.clone(),
        pipeline: job.pipeline.clone(),
        run: job.run.clone(),
        requested_for: job.requested_for.clone(),
        queued_at: job.queue_time.map(timestamp),
        assigned_at: job.assign_time.map(timestamp),
        received_at: job.receive_time.map(timestamp),
    }
}

/// Returns what was found out about a credential, an ability each.
pub(super) fn abilities(checked: &Checked) -> Vec<v1::AuthAbility> {
    let ability = |ability: &Ability| v1::AuthAbility {
        url: checked.url.clone(),
        credential_kind: credential_kind(&checked.credential).into(),
        credential_source: config::describe_credential(&checked.credential),
        pools: checked.pools.clone(),
        azure_pool: ability.azure_pool.clone(),
        ability: ability.name.to_owned(),
        verdict: match ability.verdict {
            Verdict::Yes => v1::AuthVerdict::Yes,
            Verdict::No => v1::AuthVerdict::No,
            Verdict::Unknown => v1::AuthVerdict::Unknown,
        }
        .into(),
        detail: ability.detail.clone(),
        fix: ability.fix.clone(),
    };
    checked.abilities.iter().map(ability).collect()
}

pub(super) fn credential_kind(spec: &CredentialSpec) -> v1::CredentialKind {
    match spec {
        CredentialSpec::Pat(_) | CredentialSpec::PatFile(_) => v1::CredentialKind::Pat,
        CredentialSpec::ManagedIdentity { .. } => v1::CredentialKind::ManagedIdentity,
        CredentialSpec::Application(application) => match application.proof {
            ProofSpec::ClientSecret(_) => v1::CredentialKind::ClientSecret,
            ProofSpec::Certificate(_) => v1::CredentialKind::Certificate,
            ProofSpec::FederatedToken(_) => v1::CredentialKind::WorkloadIdentity,
        },
    }
}

pub(super) fn credential(state: CredentialState) -> v1::CredentialState {
    match state {
        CredentialState::Untried => v1::CredentialState::Untried,
        CredentialState::Accepted => v1::CredentialState::Accepted,
        CredentialState::Rejected => v1::CredentialState::Rejected,
    }
}

pub(super) fn check(check: Check) -> v1::Check {
    let severity = match check.severity {
        Severity::Ok => v1::CheckSeverity::Ok,
        Severity::Notice => v1::CheckSeverity::Notice,
        Severity::Warning => v1::CheckSeverity::Warning,
        Severity::Error => v1::CheckSeverity::Error,
        Severity::Skipped => v1::CheckSeverity::Skipped,
    };
    v1::Check {
        id: check.id.to_owned(),
        title: check.title.to_owned(),
        severity: severity.into(),
        finding: check.finding,
        why: check.why.to_owned(),
        fix: check.fix,
        subject: check.subject,
    }
}
