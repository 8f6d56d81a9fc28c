//! Draining and removing by an operator's word.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use iap_common::v1;
use iap_tests::azure_sim::{JobRequest, JobResult};
use iap_tests::host::{AZURE_POOL, Host, HostOptions, binary};
use iap_tests::wait;

use crate::SOON;

async fn busy_agent(host: &Host) -> anyhow::Result<v1::Agent> {
    wait::until("a busy agent", SOON, async || {
        let agents = host.agents().await?;
        Ok(agents
            .into_iter()
            .find(|agent| agent.state() == v1::AgentState::Busy))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_busy_agent_finishes_its_job_and_is_replaced() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    host.wait_idle(1, SOON).await?;
    let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(6));
    let job = host.sim.queue_job(job)?;
    let agent = busy_agent(&host).await?;
    let request = v1::DrainAgentsRequest {
        names: vec![agent.name.clone()],
        reason: "test".into(),
        ..v1::DrainAgentsRequest::default()
    };
    let answer = host
        .agent_service()
        .await?
        .drain_agents(request)
        .await?
        .into_inner();
    assert!(answer.agents.iter().all(|agent| agent.draining));
    wait::until("the agent to be disabled in Azure", SOON, async || {
        let agents = host.sim.agents(host.azure_pool);
        Ok(agents
            .iter()
            .any(|a| a.name == agent.name && !a.enabled)
            .then_some(()))
    })
    .await?;
    let ended = host.sim.wait_job(job, SOON).await?;
    assert_eq!(ended.result, Some(JobResult::Succeeded));
    let idle = host.wait_idle(1, SOON).await?;
    assert_ne!(idle[0].name, agent.name);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_idle_agent_leaves_by_itself_and_is_replaced() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    let request = v1::DrainAgentsRequest {
        names: vec![agent.name.clone()],
        reason: String::new(),
        ..v1::DrainAgentsRequest::default()
    };
    host.agent_service().await?.drain_agents(request).await?;
    wait::until("another agent", SOON, async || {
        let agents = host.agents().await?;
        let idle = |a: &&v1::Agent| a.state() == v1::AgentState::Idle && a.name != agent.name;
        Ok((agents.len() == 1)
            .then(|| agents.iter().find(idle).cloned())
            .flatten())
    })
    .await?;
    assert!(!host.instances().await?.contains(&agent.name));
    assert!(!host.registrations().contains(&agent.name));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_drains_nobody_and_gets_a_suggestion() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    let mut near = agent.name.clone();
    near.pop();
    let request = v1::DrainAgentsRequest {
        names: vec![agent.name.clone(), near],
        reason: String::new(),
        ..v1::DrainAgentsRequest::default()
    };
    let refused = host
        .agent_service()
        .await?
        .drain_agents(request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::NotFound);
    let details = tonic_types::StatusExt::get_error_details(&refused);
    let help = details.help().expect("a hint");
    assert!(help.links[0].description.contains(&agent.name), "{help:?}");
    assert!(!host.agents().await?[0].draining);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_agent_is_reaped_by_force_only() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    host.wait_idle(1, SOON).await?;
    let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(120));
    host.sim.queue_job(job)?;
    let agent = busy_agent(&host).await?;
    let request = |force| v1::ReapAgentRequest {
        name: agent.name.clone(),
        force,
    };
    let mut service = host.agent_service().await?;
    let refused = service.reap_agent(request(false)).await.unwrap_err();
    assert_eq!(
        refused.code(),
        tonic::Code::FailedPrecondition,
        "{refused:?}"
    );
    assert!(host.instances().await?.contains(&agent.name));
    service.reap_agent(request(true)).await?;
    assert!(!host.instances().await?.contains(&agent.name));
    wait::until("a new agent", SOON, async || {
        let agents = host.agents().await?;
        Ok(agents
            .iter()
            .any(|a| a.state() == v1::AgentState::Idle)
            .then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_all_agents_learns_when_all_of_them_are_known() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    host.wait_idle(1, SOON).await?;
    let request = v1::WatchAgentsRequest::default();
    let mut service = host.agent_service().await?;
    let mut watch = service.watch_agents(request).await?.into_inner();
    let all_seen = async {
        while let Some(seen) = watch.message().await? {
            if seen.unseen_pools.is_empty() {
                return anyhow::Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(SOON, all_seen).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_of_a_host_ends_and_tells_how_many_jobs_it_killed() -> anyhow::Result<()> {
    let options = HostOptions {
        count: 2,
        ..HostOptions::default()
    };
    let host = Host::start(options).await?;
    host.wait_idle(2, SOON).await?;
    host.sim
        .queue_job(JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(300)))?;
    busy_agent(&host).await?;
    let drain = tokio::process::Command::new(binary("iapctl"))
        .args(["drain", "-m", "kernel", "--deadline", "1s", "--socket"])
        .arg(host.socket())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(SOON * 2, drain)
        .await
        .with_context(|| host.log())??;
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "drained: 2/2, 1 job killed.   undo: iapctl resume\n",
        "{told}"
    );
    assert!(host.instances().await?.is_empty());
    Ok(())
}
