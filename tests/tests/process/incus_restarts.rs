//! Incus stopped and started again under agents at work.

use std::time::Duration;

use iap_common::v1::AgentState;
use iap_tests::azure_sim::{JobRequest, JobResult};
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::private_incus::PrivateIncus;
use iap_tests::wait;

use crate::{QUICK, SOON};

/// An open exec operation would keep Incus from stopping for five minutes.
const STOP: Duration = Duration::from_secs(30);
/// What a guest takes to go down after its job when nobody answers its doorbell.
const POWER_OFF: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_on_while_incus_restarts_and_its_agent_is_found_again() -> anyhow::Result<()> {
    let Some(mut incus) = PrivateIncus::start().await? else {
        return Ok(());
    };
    let testbed = Some(incus.testbed());
    let host = Host::start(HostOptions {
        testbed,
        ..HostOptions::default()
    })
    .await?;
    host.wait_idle(1, SOON).await?;
    let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(10));
    let job = host.sim.queue_job(job)?;
    let busy = async || {
        let agents = host.agents().await?;
        Ok(agents
            .into_iter()
            .find(|agent| agent.state() == AgentState::Busy))
    };
    let agent = wait::until("a busy agent", SOON, busy).await?;
    // A log that is followed must not hold Incus either.
    let request = iap_common::v1::StreamAgentLogRequest {
        name: agent.name.clone(),
        follow: true,
        tail_bytes: 0,
        file: String::new(),
    };
    let mut log = host
        .agent_service()
        .await?
        .stream_agent_log(request)
        .await?
        .into_inner();
    log.message().await?;

    let took = incus.stop(STOP).await?;
    wait::until("the reason to be told", SOON, async || {
        let problems = host.status().await?.problems;
        Ok(problems
            .into_iter()
            .find(|problem| problem.contains("Incus does not answer")))
    })
    .await?;
    incus.launch().await?;
    wait::until("Incus to be found again", QUICK, async || {
        Ok(host.status().await?.problems.is_empty().then_some(()))
    })
    .await?;
    let found = wait::until("the busy agent", SOON, busy).await?;
    assert_eq!(
        found.name,
        agent.name,
        "Incus took {took:?} to stop\n{}",
        host.log()
    );
    let ended = host.sim.wait_job(job, SOON).await?;
    assert_eq!(ended.result, Some(JobResult::Succeeded), "{ended:?}");
    assert_eq!(ended.runs, 1);
    let idle = host.wait_idle(1, SOON).await?;
    assert_ne!(idle[0].name, agent.name);
    host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_while_incus_is_down_has_its_agent_replaced_after() -> anyhow::Result<()> {
    let Some(mut incus) = PrivateIncus::start().await? else {
        return Ok(());
    };
    let testbed = Some(incus.testbed());
    let host = Host::start(HostOptions {
        testbed,
        ..HostOptions::default()
    })
    .await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    incus.stop(STOP).await?;
    let job = host.sim.queue_job(JobRequest::new(AZURE_POOL))?;
    let ended = host.sim.wait_job(job, SOON).await?;
    assert_eq!(ended.result, Some(JobResult::Succeeded), "{ended:?}");
    assert_eq!(
        host.registrations(),
        std::slice::from_ref(&agent.name),
        "Incus has to confirm its end"
    );
    incus.launch().await?;
    wait::until("another agent", SOON, async || {
        let agents = host.agents().await?;
        let idle = agents.len() == 1 && agents[0].state() == AgentState::Idle;
        Ok((idle && agents[0].name != agent.name).then_some(()))
    })
    .await?;
    assert_eq!(host.registrations().len(), 1);
    host.empty(SOON).await
}

/// Incus boots what ran when it was last seen running: a machine whose agent has ended, and which held its
/// slot until the offline grace was over.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_went_down_while_incus_was_killed_is_not_booted_again() -> anyhow::Result<()>
{
    let Some(mut incus) = PrivateIncus::start().await? else {
        return Ok(());
    };
    let testbed = Some(incus.testbed());
    let host = Host::start(HostOptions {
        testbed,
        ..HostOptions::default()
    })
    .await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    incus.kill()?;
    let job = host.sim.queue_job(JobRequest::new(AZURE_POOL))?;
    let ended = host.sim.wait_job(job, SOON).await?;
    assert_eq!(ended.result, Some(JobResult::Succeeded), "{ended:?}");
    // Its hook waits for an answer, and powers the machine off without one.
    tokio::time::sleep(POWER_OFF).await;
    incus.launch().await?;
    let idle = host.wait_idle(1, SOON).await?;
    assert_ne!(idle[0].name, agent.name);
    assert_eq!(host.registrations(), [idle[0].name.clone()]);
    host.empty(SOON).await
}
