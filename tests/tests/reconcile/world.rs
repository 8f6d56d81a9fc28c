//! What the tests share: hosts with short graces, and what a settled pool looks like.

use std::time::Duration;

use anyhow::{Context, ensure};
use iap_common::v1;
use iap_tests::azure_sim::{JobRequest, JobResult, JobView};
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::wait;
use nix::sys::signal::Signal;

use crate::SOON;

/// Ghosts and offline agents are judged this soon.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

pub(crate) fn options(count: u32) -> HostOptions {
    HostOptions {
        count,
        pool_extra: "    offlineGracePeriod: 2s\n".into(),
        incus_extra: "      startupGracePeriod: 5s\n".into(),
        ..HostOptions::default()
    }
}

/// Starts a host and waits until its agents are idle.
pub(crate) async fn settled_host(count: u32) -> anyhow::Result<Host> {
    let host = Host::start(options(count)).await?;
    settled(&host, count as usize).await?;
    Ok(host)
}

/// Waits until there are so many idle agents, with an instance and a registration each, and
/// nothing else.
pub(crate) async fn settled(host: &Host, count: usize) -> anyhow::Result<Vec<String>> {
    Ok(settled_with(host, count, 0).await?.0)
}

/// Waits until there are so many idle agents, with an instance and a registration each, so many
/// spares, with an instance each, and nothing else. Returns the names of both.
pub(crate) async fn settled_with(
    host: &Host,
    count: usize,
    spares: usize,
) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    wait::until(
        &format!("{count} idle agents, {spares} spares and nothing else"),
        SOON,
        async || {
            let agents = host.agents().await?;
            let (waiting, agents): (Vec<_>, Vec<_>) = agents
                .into_iter()
                .partition(|agent| agent.state() == v1::AgentState::Spare);
            let all_ready = waiting.iter().all(|spare| {
                spare.instance_status == "Running" && spare.detail.starts_with("becomes an agent")
            });
            let waiting: Vec<String> = waiting.into_iter().map(|spare| spare.name).collect();
            let all_idle = agents
                .iter()
                .all(|a| a.state() == v1::AgentState::Idle && !a.draining);
            let mut names: Vec<String> = agents.into_iter().map(|agent| agent.name).collect();
            // Azure knows first: the daemon's list of a moment ago may show an agent that is done.
            let azure = host.sim.agents(host.azure_pool);
            let unused = azure.iter().all(|a| {
                a.online && a.assigned_request.is_none() && a.last_completed_request.is_none()
            });
            let mut instances = host.instances().await?;
            let all_there = waiting.iter().all(|name| instances.contains(name));
            instances.retain(|name| !waiting.contains(name));
            let mut registrations: Vec<String> = azure.into_iter().map(|a| a.name).collect();
            for list in [&mut names, &mut instances, &mut registrations] {
                list.sort();
            }
            let same = names == instances && names == registrations;
            let enough = names.len() == count && waiting.len() == spares;
            let settled = all_idle && unused && same && enough && all_ready && all_there;
            Ok(settled.then_some((names, waiting)))
        },
    )
    .await
    .with_context(|| host.log())
}

/// Queues a job that lasts this long.
pub(crate) fn queue(host: &Host, lasting: Duration) -> anyhow::Result<u64> {
    host.sim
        .queue_job(JobRequest::new(AZURE_POOL).lasting(lasting))
}

/// Waits for a job, which has to run once and well.
pub(crate) async fn runs_once(host: &Host, job: u64) -> anyhow::Result<JobView> {
    let ended = host
        .sim
        .wait_job(job, SOON)
        .await
        .with_context(|| host.log())?;
    ensure!(
        ended.result == Some(JobResult::Succeeded),
        "{ended:?}\n{}",
        host.log()
    );
    ensure!(ended.runs == 1, "{ended:?}\n{}", host.log());
    Ok(ended)
}

/// Waits until a job runs and returns the name of its agent.
pub(crate) async fn running(host: &Host, job: u64) -> anyhow::Result<String> {
    let job = host
        .sim
        .wait_job_until(job, SOON, |job| job.runs > 0)
        .await?;
    job.agent.context("a running job has an agent")
}

/// Waits until the pool tells a problem with these words.
pub(crate) async fn problem(host: &Host, words: &str) -> anyhow::Result<String> {
    wait::until(&format!("a problem with {words:?}"), SOON, async || {
        Ok(host
            .status()
            .await?
            .problems
            .into_iter()
            .find(|problem| problem.contains(words)))
    })
    .await
    .with_context(|| host.log())
}

/// Waits until the pool tells no problem.
pub(crate) async fn no_problem(host: &Host) -> anyhow::Result<()> {
    wait::until("no problem", SOON, async || {
        Ok(host.status().await?.problems.is_empty().then_some(()))
    })
    .await
    .with_context(|| host.log())
}

/// Gives the daemon another configuration.
pub(crate) fn reload(host: &Host, config: &str) -> anyhow::Result<()> {
    std::fs::write(host.config_path(), config)?;
    host.signal(Signal::SIGHUP)
}

pub(crate) async fn drain(host: &Host, agent: &str) -> anyhow::Result<()> {
    let request = v1::DrainAgentsRequest {
        names: vec![agent.to_owned()],
        reason: "test".into(),
        ..v1::DrainAgentsRequest::default()
    };
    host.agent_service().await?.drain_agents(request).await?;
    Ok(())
}
