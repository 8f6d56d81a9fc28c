//! The daemon is killed and started again, Azure goes away: no job is lost.

use std::time::Duration;

use anyhow::Context;
use iap_common::v1::{self, AgentState};
use iap_tests::azure_sim::{JobRequest, JobResult, PatMode};
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::wait;

use crate::{LATER, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_daemon_again_and_again_loses_no_job() -> anyhow::Result<()> {
    // Agents that end while nobody looks leave registrations, which go after this.
    let pool_extra = "    offlineGracePeriod: 3s\n".to_owned();
    let options = HostOptions {
        count: 2,
        pool_extra,
        ..HostOptions::default()
    };
    let mut host = Host::start(options).await?;
    // Azure fails jobs at once that no registered agent could take.
    host.wait_idle(2, SOON).await?;
    let jobs: Vec<u64> = (0..10)
        .map(|n| {
            let job = JobRequest::new(AZURE_POOL).named(format!("job {n}"));
            host.sim
                .queue_job(job.lasting(Duration::from_millis(400)))
                .expect("the pool exists")
        })
        .collect();
    // Other moments each time: in creating, registering, starting, finishing.
    for pause in [150, 430, 710, 1100, 270, 890] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        host.kill_daemon()?;
        host.start_daemon().await?;
    }
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
    host.wait_idle(2, LATER).await?;
    std::fs::write(host.config_path(), host.config_without_pools())?;
    host.signal(nix::sys::signal::Signal::SIGHUP)?;
    host.wait_nothing_left(LATER).await
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_daemon_leaves_agents_at_work_and_it_finds_them_again() -> anyhow::Result<()> {
    let mut host = Host::start(HostOptions::default()).await?;
    let before = host.wait_idle(1, SOON).await?;
    assert_eq!(host.stop_daemon().await?, Some(0));
    assert!(!host.socket().exists(), "the socket is removed");
    let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(1));
    let job = host.sim.queue_job(job)?;
    assert_eq!(
        host.sim.wait_job(job, SOON).await?.result,
        Some(JobResult::Succeeded)
    );
    host.start_daemon().await?;
    let after = host.wait_idle(1, SOON).await?;
    assert_ne!(before[0].name, after[0].name);
    assert_eq!(host.registrations(), [after[0].name.clone()]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_jobs_survive_a_rejected_credential() -> anyhow::Result<()> {
    let host = Host::start(HostOptions {
        count: 2,
        ..HostOptions::default()
    })
    .await?;
    host.wait_idle(2, SOON).await?;
    let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(4));
    let job = host.sim.queue_job(job)?;
    for mode in [
        PatMode::Unauthorized,
        PatMode::SignInPage,
        PatMode::SignInRedirect,
    ] {
        host.sim.set_pat_mode(mode);
        wait::until("the rejection to be told", SOON, async || {
            let pool = host.status().await?;
            Ok(pool
                .problems
                .into_iter()
                .find(|p| p.contains("rejects the credential")))
        })
        .await?;
    }
    assert_eq!(
        host.sim.wait_job(job, SOON).await?.result,
        Some(JobResult::Succeeded)
    );
    assert!(!host.instances().await?.is_empty(), "the idle agent stays");
    host.sim.set_pat_mode(PatMode::Valid);
    host.wait_idle(2, LATER).await?;
    let log = host.log();
    assert!(
        !log.contains(iap_tests::host::PAT),
        "the token is in the log"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_agent_is_never_told_that_it_is_gone_after_a_restart() -> anyhow::Result<()>
{
    let mut host = Host::start(HostOptions::default()).await?;
    host.wait_idle(1, SOON).await?;
    let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(8));
    let job = host.sim.queue_job(job)?;
    let busy = host
        .sim
        .wait_job_until(job, SOON, |job| job.runs > 0)
        .await?;
    let agent = busy.agent.context("a running job has an agent")?;
    for _ in 0..2 {
        host.kill_daemon()?;
        host.start_daemon().await?;
        let request = v1::WatchAgentsRequest {
            names: vec![agent.clone()],
            ..v1::WatchAgentsRequest::default()
        };
        let first = wait::until("the first snapshot", SOON, async || {
            match host
                .agent_service()
                .await?
                .watch_agents(request.clone())
                .await
            {
                Ok(stream) => Ok(stream.into_inner().message().await?),
                Err(status) if status.code() == tonic::Code::Unavailable => Ok(None),
                Err(status) => Err(status.into()),
            }
        })
        .await?;
        assert_eq!(first.agents.len(), 1, "{}", host.log());
    }
    assert_eq!(
        host.sim.wait_job(job, SOON).await?.result,
        Some(JobResult::Succeeded)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_stopped_behind_its_back_is_replaced() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    host.incus(&["stop", "-f", &agent.name])?;
    wait::until("another agent", SOON, async || {
        let agents = host.agents().await?;
        let other =
            |a: &&iap_common::v1::Agent| a.state() == AgentState::Idle && a.name != agent.name;
        Ok(agents.iter().find(other).cloned())
    })
    .await?;
    wait::until("the registration to go", SOON, async || {
        Ok((!host.registrations().contains(&agent.name)).then_some(()))
    })
    .await
}
