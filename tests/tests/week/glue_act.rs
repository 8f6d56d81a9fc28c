//! All that is done to agents that are there, as `pool/apply/*` does it: the same calls in the
//! same order.

use iapd::agent::{Drain, Keep, key};
use iapd::azure::JobRequest;
use iapd::incus::Status;
use iapd::pool::apply::leave::Left;
use iapd::pool::ending::Ending;
use iapd::pool::plan::{Action, Proof, ReapReason, Staying};

use super::calls::Server;
use super::clock::SECOND;
use super::glue_launch::{Means, NotLaunched, Why};
use super::model_incus::No;
use super::world::{Late, World};

/// How an action ended.
#[derive(Debug)]
pub(super) enum Ended {
    Launch(Result<i64, NotLaunched>),
    Noted(Result<(), Why>),
    Doorbell(Result<Option<Ending>, Why>),
    Heard(Option<Ending>, Option<JobRequest>),
    Kept(Keep, Staying, Result<Option<Ending>, Why>),
    Left(Result<Left, Why>),
    Removed(ReapReason, bool, Result<(), Why>),
    Deregistered(Result<Option<JobRequest>, Why>),
}

fn ending(status: i32) -> Ending {
    Ending {
        exit_status: Some(status),
        ..Ending::default()
    }
}

/// Carries an action out.
pub(super) async fn carry_out(means: Means, action: Action) -> Ended {
    match action {
        Action::NoteDrain { name, drain, .. } => {
            let pairs = vec![(key::DRAIN, drain.as_value())];
            let patched = means.calls.incus(|world| world.patch(&name, pairs, None));
            Ended::Noted(patched.await.map_err(Why::Incus))
        }
        Action::AnswerDoorbell { name, heard, .. } => {
            Ended::Doorbell(answer(&means, &name, heard).await)
        }
        Action::Hear {
            name,
            azure_agent_id,
        } => hear(&means, &name, azure_agent_id).await,
        Action::Keep {
            name,
            azure_agent_id,
            keep: wish,
            drain,
            staying,
        } => {
            let result = keep(&means, &name, azure_agent_id, (&wish, drain), staying).await;
            Ended::Kept(wish, staying, result)
        }
        Action::Leave {
            name,
            azure_agent_id,
        } => Ended::Left(leave(&means, &name, azure_agent_id).await),
        Action::Remove {
            name,
            azure_agent_id,
            reason,
            proof,
        } => {
            let result = remove(&means, &name, azure_agent_id, reason, proof).await;
            Ended::Removed(reason, proof.disables(), result)
        }
        Action::Deregister {
            name,
            azure_agent_id,
            ghost,
        } => Ended::Deregistered(deregister(&means, &name, azure_agent_id, ghost).await),
        Action::Adopt { .. } | Action::Promote { .. } | Action::CancelLaunch { .. } => {
            unreachable!("not carried out here")
        }
    }
}

async fn answer(means: &Means, name: &str, heard: bool) -> Result<Option<Ending>, Why> {
    let status = match heard {
        true => None,
        false => match means.calls.incus(|world| world.status_file(name)).await {
            Ok(status) => Some(ending(status)),
            Err(_) => return Ok(Some(Ending::default())),
        },
    };
    verdict(means, name, false).await?;
    Ok(status)
}

async fn verdict(means: &Means, name: &str, stay: bool) -> Result<(), Why> {
    match means.calls.incus(|world| world.answer(name, stay)).await {
        Ok(()) | Err(No::Gone) => Ok(()),
        Err(no) => Err(Why::Incus(no)),
    }
}

async fn hear(means: &Means, name: &str, id: i64) -> Ended {
    let Ok(status) = means.calls.incus(|world| world.status_file(name)).await else {
        return Ended::Heard(None, None);
    };
    let mut job = None;
    for _ in 0..5 {
        match means.calls.azure(|world| Ok(world.agent(id))).await {
            Ok(Some(agent)) if agent.assigned.is_none() => {
                job = agent.last_completed;
                break;
            }
            Ok(None) => break,
            _ => means.calls.wait(200).await,
        }
    }
    Ended::Heard(Some(ending(status)), job)
}

async fn keep(
    means: &Means,
    name: &str,
    azure_agent_id: Option<i64>,
    (wish, drain): (&Keep, Drain),
    staying: Staying,
) -> Result<Option<Ending>, Why> {
    if let Staying::InsteadOf(_, proof) = staying {
        prove(means, name, azure_agent_id, proof).await?;
    }
    let wall = means.calls.world.borrow().wall();
    let mut pairs = wish.pairs().to_vec();
    pairs.push((key::DRAIN, drain.as_value()));
    let ephemeral = Some(!wish.has_ended() && wish.is_over(wall));
    let patched = means
        .calls
        .incus(|world| world.patch(name, pairs, ephemeral));
    patched.await.map_err(Why::Incus)?;
    match staying {
        Staying::Noted => Ok(None),
        Staying::InsteadOf(..) => Ok(Some(Ending::default())),
        Staying::Answered { heard } => {
            verdict(means, name, true).await?;
            if let Some(id) = azure_agent_id {
                let _ = disable(means, id).await;
            }
            if heard {
                return Ok(None);
            }
            let status = means.calls.incus(|world| world.status_file(name)).await;
            Ok(Some(status.map(ending).unwrap_or_default()))
        }
    }
}

async fn disable(means: &Means, id: i64) -> Result<(), Why> {
    if !means.pool_known.get() {
        return Err(Why::NoPool);
    }
    match means.calls.azure(|world| world.disable(id)).await {
        Ok(()) | Err(No::Gone) => Ok(()),
        Err(no) => Err(Why::Azure(no)),
    }
}

async fn leave(means: &Means, name: &str, id: i64) -> Result<Left, Why> {
    disable(means, id).await?;
    for look in 0..2 {
        if look > 0 {
            means.calls.wait(means.poll_interval.min(10 * SECOND)).await;
        }
        let agent = means.calls.azure(|world| Ok(world.agent(id))).await;
        let agent = agent.map_err(Why::Azure)?;
        if agent.is_some_and(|agent| agent.assigned.is_some()) {
            return Ok(Left::Busy);
        }
    }
    match means.calls.incus(|world| world.interrupt(name)).await {
        Ok(0) | Err(No::Gone) => Ok(Left::Stopping),
        Ok(_) => Err(Why::Stop),
        Err(no) => Err(Why::Incus(no)),
    }
}

async fn remove(
    means: &Means,
    name: &str,
    azure_agent_id: Option<i64>,
    reason: ReapReason,
    proof: Proof,
) -> Result<(), Why> {
    prove(means, name, azure_agent_id, proof).await?;
    if reason == ReapReason::Deadline
        && means
            .calls
            .incus(|world| world.interrupt(name))
            .await
            .is_ok()
    {
        for _ in 0..60 {
            means.calls.wait(SECOND / 2).await;
            let runs = means.calls.incus(|world| Ok(runs(world, name))).await;
            if runs == Ok(false) {
                break;
            }
        }
    }
    let late = Some(Late::Stop(name.to_owned()));
    let stopped = means
        .calls
        .call(Server::Incus, late, |world| world.force_stop(name));
    match stopped.await {
        Ok(()) | Err(No::Gone) => {}
        Err(no) => {
            // Its answer may be lost and its effect be there.
            let there = means.calls.incus(|world| Ok(runs(world, name))).await;
            if there != Ok(false) {
                return Err(Why::Incus(no));
            }
        }
    }
    match means.calls.incus(|world| world.delete(name)).await {
        Ok(()) | Err(No::Gone) => Ok(()),
        Err(no) => Err(Why::Incus(no)),
    }
}

fn runs(world: &World, name: &str) -> bool {
    let machine = world.incus.machines.get(name);
    machine.is_some_and(|machine| machine.shown.status != Status::Stopped)
}

async fn prove(means: &Means, name: &str, id: Option<i64>, proof: Proof) -> Result<(), Why> {
    match (proof, id) {
        (Proof::None, None) => return Ok(()),
        (Proof::None, Some(id)) => {
            let _ = disable(means, id).await;
            return Ok(());
        }
        (Proof::NotStarted, _) | (_, None) => {}
        (Proof::Azure | Proof::AzureAndProbe | Proof::AzureUnprobed, Some(id)) => {
            disable(means, id).await?;
            if prove_dead(means, name, Some(id), proof).await? {
                means.calls.wait(means.poll_interval.min(10 * SECOND)).await;
            } else {
                return Ok(());
            }
        }
    }
    prove_dead(means, name, id, proof).await.map(drop)
}

/// Returns whether it is online all the same.
async fn prove_dead(means: &Means, name: &str, id: Option<i64>, proof: Proof) -> Result<bool, Why> {
    let mut is_online = false;
    if let Some(id) = id {
        if !means.pool_known.get() {
            return Err(Why::NoPool);
        }
        let agent = means.calls.azure(|world| Ok(world.agent(id))).await;
        if let Some(agent) = agent.map_err(Why::Azure)? {
            if agent.assigned.is_some() {
                return Err(Why::NotProven("Azure says a job is assigned to it"));
            }
            if proof != Proof::Azure && agent.online {
                return Err(Why::NotProven("Azure says it is online"));
            }
            is_online = agent.online;
        }
    }
    if proof == Proof::NotStarted {
        let looked = means.calls.incus(|world| world.look_for_start(name)).await;
        if looked != Ok(0) {
            return Err(Why::NotProven("its listener may have been started"));
        }
    }
    if proof == Proof::AzureUnprobed {
        let runs = |world: &mut World| {
            let machine = world.incus.machines.get(name);
            Ok(machine.is_some_and(|machine| machine.shown.status.is_running()))
        };
        match means.calls.incus(runs).await {
            Ok(false) => {}
            Ok(true) => return Err(Why::NotProven("it runs again")),
            Err(no) => return Err(Why::NotProbed(no)),
        }
    }
    if proof == Proof::AzureAndProbe {
        match means.calls.incus(|world| world.probe(name)).await {
            Ok(0) | Err(No::Gone) => {}
            Ok(10) => return Err(Why::NotProven("a job's worker runs in it")),
            Ok(_) => return Err(Why::NotProven("the probe failed")),
            Err(no) => return Err(Why::NotProbed(no)),
        }
    }
    Ok(is_online)
}

async fn deregister(
    means: &Means,
    name: &str,
    id: i64,
    ghost: bool,
) -> Result<Option<JobRequest>, Why> {
    if !means.pool_known.get() {
        return Err(Why::NoPool);
    }
    let kept = |world: &mut World| {
        let machine = world.incus.machines.get(name);
        Ok(machine.map(|machine| machine.shown.config.contains_key(key::KEPT_SINCE)))
    };
    let instance = means.calls.incus(kept).await.map_err(Why::Incus)?;
    if instance == Some(false) {
        return Err(Why::NotProven("its instance is still there"));
    }
    let may_live = ghost || instance.is_some();
    let job = match means.calls.azure(|world| Ok(world.agent(id))).await {
        Ok(Some(agent)) if may_live && (agent.online || agent.assigned.is_some()) => {
            return Err(Why::NotProven("Azure says it is online or has a job"));
        }
        Ok(agent) => agent.and_then(|agent| agent.last_completed),
        Err(no) if may_live => return Err(Why::Azure(no)),
        Err(_) => None,
    };
    match means.calls.azure(|world| world.delete_agent(id)).await {
        Ok(()) => Ok(job),
        Err(No::Refused(_)) => Err(Why::Busy),
        Err(no) => Err(Why::Azure(no)),
    }
}
