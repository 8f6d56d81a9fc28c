//! Jobs go through, once each, and nothing is left.

use std::time::Duration;

use iap_common::v1::{AgentState, PoolState};
use iap_tests::azure_sim::{JobRequest, JobResult};
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::wait;

use crate::{LATER, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_jobs_through_a_pool_of_three_finish_exactly_once_and_nothing_is_left()
-> anyhow::Result<()> {
    let host = Host::start(HostOptions {
        count: 3,
        ..HostOptions::default()
    })
    .await?;
    host.wait_idle(3, SOON).await?;
    let jobs: Vec<u64> = (0..20)
        .map(|n| {
            let job = JobRequest::new(AZURE_POOL).named(format!("job {n}"));
            host.sim
                .queue_job(job.lasting(Duration::from_millis(300)))
                .expect("the pool exists")
        })
        .collect();
    for job in &jobs {
        let ended = host.sim.wait_job(*job, LATER).await?;
        assert_eq!(
            ended.result,
            Some(JobResult::Succeeded),
            "{ended:?}\n{}",
            host.log()
        );
        assert_eq!(ended.runs, 1, "{ended:?}");
    }
    let mut agents: Vec<_> = jobs
        .iter()
        .filter_map(|job| host.sim.job(*job).and_then(|job| job.agent))
        .collect();
    agents.sort();
    agents.dedup();
    assert_eq!(agents.len(), 20, "each agent takes one job and no more");

    // The pool leaves the configuration: its agents go.
    std::fs::write(host.config_path(), host.config_without_pools())?;
    host.signal(nix::sys::signal::Signal::SIGHUP)?;
    host.wait_nothing_left(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_job_is_a_failed_job_and_its_agent_is_replaced() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let before = host.wait_idle(1, SOON).await?;
    let job = host
        .sim
        .queue_job(JobRequest::new(AZURE_POOL).running("exit 3"))?;
    let ended = host.sim.wait_job(job, SOON).await?;
    assert_eq!(ended.result, Some(JobResult::Failed));
    let after = wait::until("another agent", SOON, async || {
        let agents = host.agents().await?;
        Ok(agents
            .into_iter()
            .find(|agent| agent.state() == AgentState::Idle && agent.name != before[0].name))
    })
    .await?;
    assert_ne!(after.azure_agent_id, before[0].azure_agent_id);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_said_and_found_as_soon_as_it_is_there() -> anyhow::Result<()> {
    let image = format!("it-missing-{}", std::process::id());
    let options = HostOptions {
        image: Some(image.clone()),
        ..HostOptions::default()
    };
    let host = Host::start(options).await?;
    let problem = wait::until("the problem to be told", SOON, async || {
        let pool = host.status().await?;
        Ok(pool
            .problems
            .into_iter()
            .find(|problem| problem.contains(&image)))
    })
    .await?;
    assert!(problem.contains("iapctl provision"), "{problem}");
    assert!(host.instances().await?.is_empty());

    let project = host.testbed.project();
    let runner = project
        .alias(&host.testbed.runner)
        .await?
        .expect("the test bed has a runner");
    project.point_alias(&image, "", &runner).await?;
    let idle = host.wait_idle(1, SOON).await;
    project.delete_alias(&image).await?;
    idle.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_count_that_is_lowered_and_raised_is_followed() -> anyhow::Result<()> {
    let host = Host::start(HostOptions {
        count: 3,
        ..HostOptions::default()
    })
    .await?;
    host.wait_idle(3, SOON).await?;
    // Longer than idle agents need to leave, on a busy machine too.
    let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(20));
    let job = host.sim.queue_job(job)?;
    wait::until("the job to run", SOON, async || {
        let agents = host.agents().await?;
        Ok(agents
            .iter()
            .any(|agent| agent.state() == AgentState::Busy)
            .then_some(()))
    })
    .await?;
    host.write_config(1)?;
    host.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait::until("the idle agents to leave", SOON, async || {
        let agents = host.agents().await?;
        Ok((agents.len() == 1 && agents[0].state() == AgentState::Busy).then_some(()))
    })
    .await?;
    assert_eq!(
        host.sim.wait_job(job, SOON).await?.result,
        Some(JobResult::Succeeded)
    );
    host.write_config(2)?;
    host.signal(nix::sys::signal::Signal::SIGHUP)?;
    host.wait_idle(2, SOON).await?;
    assert_eq!(host.status().await?.state(), PoolState::Ok);
    Ok(())
}
