//! Spares: instances that Azure knows nothing of, and that take the places of agents that end.

use std::time::Duration;

use anyhow::Context;
use iap_common::v1;
use iap_tests::host::{Host, HostOptions};
use iap_tests::wait;

use super::world::{no_problem, options, queue, reload, running, runs_once, settled, settled_with};
use crate::SOON;

pub(crate) fn options_with_spares(count: u32, spares: u32) -> HostOptions {
    let options = options(count);
    HostOptions {
        pool_extra: format!("    spares: {spares}\n{}", options.pool_extra),
        ..options
    }
}

async fn start(count: u32, spares: u32) -> anyhow::Result<(Host, Vec<String>, Vec<String>)> {
    let host = Host::start(options_with_spares(count, spares)).await?;
    let (agents, waiting) = settled_with(&host, count as usize, spares as usize).await?;
    Ok((host, agents, waiting))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_becomes_the_next_agent_when_a_job_ends_and_another_is_made() -> anyhow::Result<()>
{
    let (host, agents, _) = start(1, 1).await?;
    let pool = host.status().await?;
    let counts = pool.counts.context("counts")?;
    assert_eq!((counts.idle, counts.spare, pool.spares), (1, 1, 1));
    assert_eq!((counts.starting, counts.leaving, pool.wanted), (0, 0, 1));
    assert_eq!(host.registrations(), agents, "Azure knows no spare");
    for _ in 0..2 {
        let (agents, spares) = settled_with(&host, 1, 1).await?;
        let job = runs_once(&host, queue(&host, Duration::ZERO)?).await?;
        assert_eq!(job.agent.as_ref(), agents.first());
        let (next, waiting) = settled_with(&host, 1, 1).await?;
        assert_eq!(next, spares, "the spare has become the agent");
        assert_ne!(waiting, spares);
    }
    let journal = host.sim.journal();
    let registered = journal
        .iter()
        .filter(|entry| entry.method == "POST" && entry.path.ends_with("/agents"))
        .count();
    assert_eq!(
        registered, 3,
        "each was registered once, when it was needed"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_retires_spares_and_the_end_of_it_brings_them_back() -> anyhow::Result<()> {
    let (host, _, before) = start(1, 2).await?;
    let request = v1::PausePoolRequest {
        name: host.pool.clone(),
        reason: "test".into(),
        until: None,
    };
    host.pool_service().await?.pause_pool(request).await?;
    host.wait_nothing_left(SOON).await?;
    let request = v1::ResumePoolRequest {
        name: host.pool.clone(),
    };
    host.pool_service().await?.resume_pool(request).await?;
    let (_, after) = settled_with(&host, 1, 2).await?;
    assert!(after.iter().all(|name| !before.contains(name)));
    host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_good_spares_and_a_kill_in_the_making_leaves_none_over()
-> anyhow::Result<()> {
    let (mut host, agents, spares) = start(1, 1).await?;
    host.stop_daemon().await?;
    host.start_daemon().await?;
    assert_eq!(settled_with(&host, 1, 1).await?, (agents.clone(), spares));
    host.kill_daemon()?;
    host.start_daemon().await?;
    settled_with(&host, 1, 1).await?;
    // A second one is about to be made.
    let more = host.config(1).replace("spares: 1", "spares: 2");
    reload(&host, &more)?;
    wait::until("a spare in the making", SOON, async || {
        let spares = host.status().await?.counts.context("counts")?.spare;
        Ok((spares == 2).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    host.kill_daemon()?;
    host.start_daemon().await?;
    assert_eq!(settled_with(&host, 1, 2).await?.0, agents);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_agents_are_made_of_rebuilds_spares_while_jobs_go_on() -> anyhow::Result<()>
{
    let (host, agents, spares) = start(1, 1).await?;
    let job = queue(&host, Duration::from_secs(6))?;
    assert_eq!(running(&host, job).await?, agents[0]);
    let changed = host
        .config(1)
        .replace("    azure:\n", "    env:\n      STOVE: hot\n    azure:\n");
    reload(&host, &changed)?;
    let rebuilt = wait::until("the spare to be rebuilt", SOON, async || {
        let all = host.agents().await?;
        let waiting = |agent: &&v1::Agent| agent.state() == v1::AgentState::Spare;
        let waiting: Vec<&v1::Agent> = all.iter().filter(waiting).collect();
        let is_new = |spare: &v1::Agent| {
            spare.name != spares[0] && spare.instance_status == "Running" && !spare.outdated
        };
        Ok(match waiting[..] {
            [spare] if is_new(spare) => Some(spare.name.clone()),
            _ => None,
        })
    })
    .await
    .with_context(|| host.log())?;
    runs_once(&host, job).await?;
    let (next, _) = settled_with(&host, 1, 1).await?;
    assert_eq!(next, [rebuilt]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn fewer_spares_are_wanted_after_a_reload_and_one_that_vanishes_is_made_again()
-> anyhow::Result<()> {
    let (host, agents, spares) = start(1, 2).await?;
    host.incus(&["delete", "--force", &spares[0]])?;
    let (_, after) = settled_with(&host, 1, 2).await?;
    assert!(after.contains(&spares[1]) && !after.contains(&spares[0]));
    let none = host.config(1).replace("spares: 2", "spares: 0");
    reload(&host, &none)?;
    assert_eq!(settled(&host, 1).await?, agents);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn spares_that_vanish_while_they_boot_brake_launches_and_cost_no_agent() -> anyhow::Result<()>
{
    let (host, agents, _) = start(1, 1).await?;
    wait::until("the brake", SOON, async || {
        let all = host.agents().await?;
        let made = |agent: &&v1::Agent| agent.detail.starts_with("becomes an agent");
        for spare in all.iter().filter(made) {
            host.incus(&["delete", "--force", &spare.name])?;
        }
        let problems = host.status().await?.problems;
        let told = |problem: &String| problem.contains("a spare cannot be made");
        Ok(problems.iter().any(told).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    no_problem(&host).await?;
    assert_eq!(settled_with(&host, 1, 1).await?.0, agents);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_may_drain_and_reap_spares_like_agents() -> anyhow::Result<()> {
    let (host, agents, spares) = start(1, 1).await?;
    super::world::drain(&host, &spares[0]).await?;
    let (same, second) = settled_with(&host, 1, 1).await?;
    assert_eq!(same, agents);
    assert_ne!(second, spares);
    let name = second[0].clone();
    let request = v1::ReapAgentRequest { name, force: false };
    host.agent_service().await?.reap_agent(request).await?;
    let (same, third) = settled_with(&host, 1, 1).await?;
    assert_eq!(same, agents);
    assert_ne!(third, second);
    Ok(())
}
