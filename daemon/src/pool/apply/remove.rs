//! Removing: the instance of an agent that is not to go on, and the registration of one that is
//! gone. Both look again first.

use std::time::Duration;

use tracing::info;

use crate::agent::key;
use crate::azure::{Deleted, JobRequest};
use crate::incus::{Instance, StopMode};

use super::super::plan::{Proof, ReapReason};
use super::leave::pause_between_looks;
use super::{ApplyError, Context, evidence, shell};

/// A force stop takes 0.6 s; a host full of booting guests can stretch that.
const STOP_DEADLINE: Duration = Duration::from_secs(60);
const DELETE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a forced removal waits for Azure.
const FORCE_PATIENCE: Duration = Duration::from_secs(5);
const PROBE_DEADLINE: Duration = Duration::from_secs(20);
/// An agent that is told to end has its job cancelled within this, or it is killed.
const ENDING_PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks whether it has ended.
const ENDING_LOOK: Duration = Duration::from_millis(500);
/// Exit code of the probe when a worker runs.
const WORKER_RUNS: i32 = 10;

/// Stops and deletes an agent's instance after the proof that the plan asked for. Returns what is
/// to be known of the evidence.
pub async fn remove(
    context: &Context,
    name: &str,
    azure_agent_id: Option<i64>,
    reason: ReapReason,
    proof: Proof,
) -> Result<String, ApplyError> {
    let note = match azure_agent_id {
        Some(_) => evidence::collect(context, name).await,
        // It never ran an agent.
        None => String::new(),
    };
    prove(context, name, azure_agent_id, proof).await?;
    if reason == ReapReason::Deadline {
        end_job(context, name).await;
    }
    info!(agent = name, reason = reason.as_str(), "removing instance");
    context
        .project
        .stop(name, StopMode::Force, STOP_DEADLINE)
        .await
        .map_err(ApplyError::incus("cannot stop the instance"))?;
    context
        .project
        .delete(name, DELETE_DEADLINE)
        .await
        .map_err(ApplyError::incus("cannot delete the instance"))?;
    Ok(note)
}

/// Makes sure of what the plan asked for, and that no new job comes.
pub(super) async fn prove(
    context: &Context,
    name: &str,
    azure_agent_id: Option<i64>,
    proof: Proof,
) -> Result<(), ApplyError> {
    match (proof, azure_agent_id) {
        (Proof::None, None) => {}
        // Best effort: no new job while it is being killed. An unreachable Azure does not stop an
        // operator's force.
        (Proof::None, Some(id)) => {
            let disabled = tokio::time::timeout(FORCE_PATIENCE, disable(context, name, id));
            let _ = disabled.await;
        }
        (Proof::NotStarted, _) => {
            prove_dead(context, name, azure_agent_id, proof).await?;
        }
        // Disabled first: between the look and the stop Azure may assign a job.
        (Proof::Azure | Proof::AzureAndProbe | Proof::AzureUnprobed, id) => {
            if let Some(id) = id {
                disable(context, name, id).await?;
            }
            if prove_dead(context, name, azure_agent_id, proof).await? {
                // A job may have been on its way to it when it was disabled.
                tokio::time::sleep(pause_between_looks(context)).await;
                prove_dead(context, name, azure_agent_id, proof).await?;
            }
        }
    }
    Ok(())
}

pub(super) async fn disable(context: &Context, name: &str, id: i64) -> Result<(), ApplyError> {
    let pool = context.link.view().pool_id.ok_or(ApplyError::NoPool)?;
    match context.link.azure().disable_agent(pool, id, name).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map_err(ApplyError::azure("cannot disable the agent")),
    }
}

/// Lets a listener end its job as it does when its host shuts down: Azure learns at once that the
/// job is over, instead of when the job's lock lapses ten minutes later. Best effort.
async fn end_job(context: &Context, name: &str) {
    let exec = shell("iapd-stop", include_str!("../../guest/stop.sh"), Vec::new());
    if context
        .project
        .exec(name, &exec, PROBE_DEADLINE)
        .await
        .is_err()
    {
        return;
    }
    let ends = async {
        loop {
            tokio::time::sleep(ENDING_LOOK).await;
            match context.project.instance(name).await {
                Ok(Some(instance)) if instance.status.is_running() => {}
                Ok(_) => return,
                Err(_) => {}
            }
        }
    };
    let _ = tokio::time::timeout(ENDING_PATIENCE, ends).await;
}

/// Returns whether it is online all the same, where that was not to be proven.
async fn prove_dead(
    context: &Context,
    name: &str,
    azure_agent_id: Option<i64>,
    proof: Proof,
) -> Result<bool, ApplyError> {
    let mut is_online = false;
    if let Some(id) = azure_agent_id {
        let pool = context.link.view().pool_id.ok_or(ApplyError::NoPool)?;
        let agent = context
            .link
            .azure()
            .agent(pool, id)
            .await
            .map_err(ApplyError::azure("cannot look at the agent in Azure again"))?;
        if let Some(agent) = agent {
            if agent.assigned.is_some() {
                return Err(ApplyError::NotProven("Azure says a job is assigned to it"));
            }
            // An operator's request needs no more than that no job is on it.
            if proof != Proof::Azure && agent.online {
                return Err(ApplyError::NotProven("Azure says it is online"));
            }
            is_online = agent.online;
        }
    }
    if proof == Proof::NotStarted {
        let exec = shell(
            "iapd-look",
            include_str!("../../guest/not-started.sh"),
            Vec::new(),
        );
        // There is no hurry: an agent that cannot be looked at is waited for like any other.
        if !matches!(
            context.project.exec(name, &exec, PROBE_DEADLINE).await,
            Ok(0)
        ) {
            return Err(ApplyError::NotProven("its listener may have been started"));
        }
    }
    if proof == Proof::AzureUnprobed {
        match context.project.instance(name).await {
            // With whatever it was doing.
            Ok(Some(instance)) if instance.status.is_running() => {
                return Err(ApplyError::NotProven("it runs again"));
            }
            Ok(_) => {}
            Err(error) => return Err(ApplyError::NotProbed(error)),
        }
    }
    if proof == Proof::AzureAndProbe {
        let exec = shell(
            "iapd-probe",
            include_str!("../../guest/probe.sh"),
            Vec::new(),
        );
        let probed = context.project.exec(name, &exec, PROBE_DEADLINE).await;
        match probed {
            Ok(0) => {}
            Ok(WORKER_RUNS) => return Err(ApplyError::NotProven("a job's worker runs in it")),
            Ok(_) => return Err(ApplyError::NotProven("the probe failed")),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(ApplyError::NotProbed(error)),
        }
    }
    Ok(is_online)
}

/// Deletes the registration of an agent whose instance is gone, or stays without it. Also returns,
/// however that went, the job it had: Azure tells it only while there is a registration, and an
/// answer that is lost leaves none to ask about. A `ghost` may have a machine elsewhere.
pub async fn deregister(
    context: &Context,
    name: &str,
    id: i64,
    ghost: bool,
) -> (Option<JobRequest>, Result<(), ApplyError>) {
    let (pool, job) = match last_look(context, name, id, ghost).await {
        Ok(looked) => looked,
        Err(error) => return (None, Err(error)),
    };
    let result = match context.link.azure().delete_agent(pool, id).await {
        Ok(Deleted::Gone) => Ok(()),
        Ok(Deleted::Busy(words)) => Err(ApplyError::Busy(words)),
        Err(source) => Err(ApplyError::Azure {
            doing: "cannot delete the registration",
            source,
        }),
    };
    (job, result)
}

/// Makes sure that a registration may go. Returns the Azure pool and the job that it tells of.
async fn last_look(
    context: &Context,
    name: &str,
    id: i64,
    ghost: bool,
) -> Result<(i32, Option<JobRequest>), ApplyError> {
    let pool = context.link.view().pool_id.ok_or(ApplyError::NoPool)?;
    let instance = context
        .project
        .instance(name)
        .await
        .map_err(ApplyError::incus(
            "cannot make sure that the instance is gone",
        ))?;
    let is_kept = |instance: &Instance| instance.config.contains_key(key::KEPT_SINCE);
    if instance.as_ref().is_some_and(|instance| !is_kept(instance)) {
        return Err(ApplyError::NotProven("its instance is still there"));
    }
    // Its listener may still run.
    let may_live = ghost || instance.is_some();
    let agent = context
        .link
        .azure()
        .agent(pool, id)
        .await
        .map_err(ApplyError::azure("cannot look at the registration again"))?;
    match agent {
        Some(agent) if may_live && (agent.online || agent.assigned.is_some()) => Err(
            ApplyError::NotProven("Azure says it is online or has a job"),
        ),
        agent => Ok((pool, agent.and_then(|agent| agent.last_completed))),
    }
}
