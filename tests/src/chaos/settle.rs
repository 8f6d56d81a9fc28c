//! After the storm: everything goes right again, what waits is done, and all is removed.

use std::time::Duration;

use anyhow::Context;
use iap_common::v1;
use iap_common::v1::scale_pool_request::Change;

use super::hostile_jobs::KILLS_LISTENER;
use super::world::{AGENTS, World};
use crate::azure_sim::JobState;
use crate::wait;

/// Jobs that wait are done by then, on a machine that others use too.
const WORK: Duration = Duration::from_secs(240);
/// What is left is removed by then.
const EMPTY: Duration = Duration::from_secs(150);
/// Longer than a job's lock and an agent's session.
const LAPSE: Duration = Duration::from_secs(700);

/// See the module.
pub(super) async fn run(world: &World) -> anyhow::Result<()> {
    calm(world).await?;
    wait::until("all jobs that can be done", WORK, async || {
        let instances = world.instances().await?;
        let open = world.host.sim.jobs().into_iter().filter(|job| {
            // Its guest goes when its unit has ended. Where Incus was down right then, it starts the
            // guest anew instead, and Azure alone can say that the job is over.
            let is_lost = job.display_name == KILLS_LISTENER && job.state == JobState::Running;
            job.state != JobState::Finished
                && !is_lost
                && job
                    .agent
                    .as_ref()
                    .is_none_or(|agent| instances.contains(agent))
        });
        let open: Vec<_> = open.collect();
        anyhow::ensure!(open.is_empty(), "not done: {open:#?}");
        Ok(Some(()))
    })
    .await?;
    world.say("all jobs are done that had an agent to the end");
    // Azure gives up those whose agent is gone.
    world.host.sim.advance(LAPSE);
    wait::until("Azure's word on the others", WORK, async || {
        let jobs = world.host.sim.jobs();
        let open = jobs.iter().filter(|job| job.result.is_none());
        Ok((open.count() == 0).then_some(()))
    })
    .await?;
    repair(world).await?;
    full(world).await.context("the pools do not recover")?;
    world.say("both pools are full and well");
    std::fs::write(world.host.config_path(), world.host.config_without_pools())?;
    world.reload()?;
    wait::until("everything to be gone", EMPTY, async || {
        let instances = world.instances().await?;
        let pools = world.azure_pools.iter();
        let registrations: Vec<_> = pools
            .flat_map(|pool| world.host.sim.agents(*pool))
            .map(|agent| (agent.name, agent.online, agent.assigned_request))
            .collect();
        anyhow::ensure!(
            instances.is_empty() && registrations.is_empty(),
            "left in Incus: {instances:?}, in Azure: {registrations:?}"
        );
        Ok(Some(()))
    })
    .await?;
    world.say("nothing is left in Incus and in Azure");
    Ok(())
}

/// Ends all faults and whatever operators wanted.
async fn calm(world: &World) -> anyhow::Result<()> {
    world.host.sim.clear_faults();
    let testbed = &world.testbed;
    let project = testbed.project();
    project
        .point_alias(&testbed.runner, "", &world.images[0])
        .await?;
    for instance in project.instances().await? {
        if instance.status == iapd::incus::Status::Frozen {
            // It may be about to be removed.
            let _ = world.incus(&["start", &instance.name]).await;
        }
    }
    world
        .host
        .daemon_service()
        .await?
        .resume_host(v1::ResumeHostRequest {})
        .await?;
    for pool in &world.pools {
        let name = pool.clone();
        let mut service = world.host.pool_service().await?;
        service
            .resume_pool(v1::ResumePoolRequest { name: name.clone() })
            .await?;
        let request = v1::ScalePoolRequest {
            name,
            change: Some(Change::Reset(v1::ResetCount {})),
            until: None,
        };
        service.scale_pool(request).await?;
    }
    Ok(())
}

/// Does what iapd asks an operator for: an Incus that is killed while it makes or removes an
/// instance may leave a plain directory where its volume was, and then refuses to remove that.
async fn repair(world: &World) -> anyhow::Result<()> {
    let agents = world.host.agents().await?;
    for agent in agents {
        if agent.state() != v1::AgentState::Stuck {
            continue;
        }
        anyhow::ensure!(
            agent.detail.contains("Not a Btrfs subvolume"),
            "stuck, and nobody had Incus killed for it: {agent:?}"
        );
        world
            .journal
            .refused("instance that Incus itself could not remove after it was killed");
        let incus = world.incus.lock().await;
        let left = incus.storage().join("containers").join(&agent.name);
        incus.in_mounts(&["rm", "-rf", &left.display().to_string()])?;
    }
    Ok(())
}

/// Waits until both pools are as wanted, and say so.
async fn full(world: &World) -> anyhow::Result<()> {
    wait::until("both pools to be full and well", EMPTY, async || {
        for pool in &world.pools {
            let name = pool.clone();
            let mut service = world.host.pool_service().await?;
            let answer = service.get_pool(v1::GetPoolRequest { name }).await?;
            let seen = answer.into_inner().pool.context("no pool")?;
            let idle = seen.counts.as_ref().map_or(0, |counts| counts.idle);
            anyhow::ensure!(
                idle == AGENTS && seen.problems.is_empty(),
                "{pool}: {:?} {:?}",
                seen.counts,
                seen.problems
            );
        }
        Ok(Some(()))
    })
    .await
}
