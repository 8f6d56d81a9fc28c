//! What operators want for a while: pauses, other counts, deadlines. They hold over a kill of the
//! daemon and lapse by themselves.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use iap_common::v1;
use iap_common::v1::scale_pool_request::Change;
use iap_tests::azure_sim::{JobRequest, JobResult};
use iap_tests::host::{AZURE_POOL, Host};
use iap_tests::wait;

use super::world::{GRACE, queue, reload, running, runs_once, settled, settled_host};
use crate::SOON;

fn ahead(time: Duration) -> Option<prost_types::Timestamp> {
    Some((SystemTime::now() + time).into())
}

async fn pause(host: &Host, lasting: Option<Duration>) -> anyhow::Result<v1::Pool> {
    let request = v1::PausePoolRequest {
        name: host.pool.clone(),
        reason: "cert swap".into(),
        until: lasting.and_then(ahead),
    };
    let answer = host.pool_service().await?.pause_pool(request).await?;
    answer.into_inner().pool.context("no pool")
}

async fn resume(host: &Host) -> anyhow::Result<v1::ResumePoolResponse> {
    let name = host.pool.clone();
    let request = v1::ResumePoolRequest { name };
    Ok(host
        .pool_service()
        .await?
        .resume_pool(request)
        .await?
        .into_inner())
}

async fn scale(host: &Host, change: Change, lasting: Option<Duration>) -> anyhow::Result<()> {
    let request = v1::ScalePoolRequest {
        name: host.pool.clone(),
        change: Some(change),
        until: lasting.and_then(ahead),
    };
    host.pool_service().await?.scale_pool(request).await?;
    Ok(())
}

/// Nothing comes for a while.
async fn stays_empty(host: &Host) -> anyhow::Result<()> {
    // Azure has let go of the last one before its daemon knows.
    wait::until("the last one to be gone", SOON, async || {
        Ok(host.agents().await?.is_empty().then_some(()))
    })
    .await?;
    wait::never("an agent came", GRACE, async || {
        let agents = host.agents().await?;
        Ok((!agents.is_empty()).then_some(agents))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_lets_a_busy_agent_finish_and_starts_none_and_a_resume_refills()
-> anyhow::Result<()> {
    let host = settled_host(2).await?;
    let job = queue(&host, Duration::from_secs(5))?;
    let busy = running(&host, job).await?;
    let paused = pause(&host, None).await?;
    assert_eq!(paused.state(), v1::PoolState::Paused);
    assert_eq!((paused.agent_count, paused.wanted), (2, 0));
    let why = paused.pause.context("a pause")?;
    let uid = nix::unistd::getuid().as_raw();
    assert_eq!(why.who.and_then(|who| who.uid), Some(uid));
    assert_eq!(
        (why.reason.as_str(), why.host_wide),
        ("cert swap", false),
        "{}",
        host.log()
    );
    wait::until("the idle agent to be gone", SOON, async || {
        let agents = host.agents().await?;
        Ok((agents.len() == 1 && agents[0].name == busy).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    let ran = runs_once(&host, job).await?;
    assert_eq!(ran.agent, Some(busy));
    host.wait_nothing_left(SOON).await?;
    stays_empty(&host).await?;
    assert!(resume(&host).await?.was_paused);
    settled(&host, 2).await?;
    assert!(!resume(&host).await?.was_paused);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_survives_a_kill_and_a_reload_and_lapses_by_itself() -> anyhow::Result<()> {
    let mut host = settled_host(1).await?;
    pause(&host, Some(Duration::from_secs(12))).await?;
    host.kill_daemon()?;
    host.start_daemon().await?;
    host.wait_nothing_left(SOON).await?;
    reload(&host, &host.config(2))?;
    stays_empty(&host).await?;
    assert!(host.status().await?.pause.is_some(), "{}", host.log());
    settled(&host, 2).await?;
    assert!(host.status().await?.pause.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_azure_assigns_in_the_moment_of_a_pause_is_not_lost() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    for round in 0..3 {
        let before = settled(&host, 1).await?.remove(0);
        let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(1));
        host.sim
            .assign_while_stopping(job.named(format!("ambush {round}")));
        pause(&host, None).await?;
        let job = wait::until("the ambush", SOON, async || {
            let job = host.sim.jobs().into_iter().nth(round);
            Ok(job.map(|job| job.request_id))
        })
        .await?;
        // On the agent that was leaving, or on another one after the pause.
        wait::until("the agent to be gone", SOON, async || {
            Ok((!host.instances().await?.contains(&before)).then_some(()))
        })
        .await?;
        resume(&host).await?;
        runs_once(&host, job).await?;
    }
    settled(&host, 1).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_the_host_stops_all_pools_and_pools_own_pauses_outlive_it() -> anyhow::Result<()>
{
    let host = settled_host(1).await?;
    let mut daemon = host.daemon_service().await?;
    let request = v1::PauseHostRequest {
        reason: "kernel".into(),
        until: None,
    };
    daemon.pause_host(request).await?;
    host.wait_nothing_left(SOON).await?;
    let seen = host.status().await?.pause.context("a pause")?;
    assert!(seen.host_wide);
    assert!(!resume(&host).await?.was_paused, "it is the host's");
    pause(&host, None).await?;
    let answer = daemon.resume_host(v1::ResumeHostRequest {}).await?;
    assert!(answer.into_inner().was_paused);
    stays_empty(&host).await?;
    resume(&host).await?;
    settled(&host, 1).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_count_holds_over_a_kill_until_it_lapses_or_is_reset() -> anyhow::Result<()> {
    let mut host = settled_host(1).await?;
    scale(&host, Change::Count(3), None).await?;
    let three = settled(&host, 3).await?;
    let job = queue(&host, Duration::from_secs(4))?;
    running(&host, job).await?;
    scale(&host, Change::Count(0), None).await?;
    host.kill_daemon()?;
    host.start_daemon().await?;
    runs_once(&host, job).await?;
    host.wait_nothing_left(SOON).await?;
    scale(&host, Change::Reset(v1::ResetCount {}), None).await?;
    let one = settled(&host, 1).await?;
    assert!(!three.contains(&one[0]));
    scale(&host, Change::Count(2), Some(Duration::from_secs(8))).await?;
    settled(&host, 2).await?;
    settled(&host, 1).await?;
    assert!(host.status().await?.count_override.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_kills_what_is_left_also_after_a_restart() -> anyhow::Result<()> {
    let mut host = settled_host(2).await?;
    let job = queue(&host, Duration::from_secs(300))?;
    let busy = running(&host, job).await?;
    pause(&host, None).await?;
    let request = v1::DrainAgentsRequest {
        pool: host.pool.clone(),
        deadline: Some(prost_types::Duration {
            seconds: 10,
            nanos: 0,
        }),
        ..v1::DrainAgentsRequest::default()
    };
    let asked = host.agent_service().await?.drain_agents(request).await?;
    let asked = asked.into_inner().agents;
    assert!(asked.iter().any(|agent| agent.name == busy), "{asked:?}");
    host.kill_daemon()?;
    host.start_daemon().await?;
    let told = wait::until("the deadline to be told", SOON, async || {
        let agents = host.agents().await?;
        let agent = agents.into_iter().find(|agent| agent.name == busy);
        Ok(agent.and_then(|agent| agent.drain_deadline))
    })
    .await
    .with_context(|| host.log())?;
    wait::until("the busy agent to be killed", SOON, async || {
        Ok((!host.instances().await?.contains(&busy)).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    assert!(SystemTime::try_from(told)? <= SystemTime::now());
    wait::until("the deadline in the log", SOON, async || {
        Ok(host.log().contains("deadline").then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    // Its listener told Azure that the job is over: no lock has to lapse first.
    let ended = host.sim.wait_job(job, SOON).await?;
    assert_ne!(ended.result, Some(JobResult::Succeeded));
    host.wait_nothing_left(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn recycled_agents_are_replaced_one_by_one_and_a_busy_one_finishes() -> anyhow::Result<()> {
    let host = settled_host(3).await?;
    let before = host.registrations();
    let job = queue(&host, Duration::from_secs(5))?;
    running(&host, job).await?;
    let request = v1::RecyclePoolRequest {
        name: host.pool.clone(),
        scope: v1::RecycleScope::All.into(),
    };
    host.pool_service().await?.recycle_pool(request).await?;
    let fewest = async {
        let mut fewest = usize::MAX;
        let all_new = async {
            loop {
                let agents = host.agents().await?;
                let at_work = |agent: &&v1::Agent| {
                    matches!(agent.state(), v1::AgentState::Idle | v1::AgentState::Busy)
                };
                fewest = fewest.min(agents.iter().filter(at_work).count());
                if agents.iter().all(|agent| !before.contains(&agent.name)) {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(SOON, all_new)
            .await
            .with_context(|| host.log())??;
        anyhow::Ok(fewest)
    };
    let (ran, fewest) = tokio::join!(runs_once(&host, job), fewest);
    (ran?, assert!(fewest? >= 1, "capacity stays")).1;
    settled(&host, 3).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_job_is_told_why_it_waits() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let first = queue(&host, Duration::from_secs(6))?;
    running(&host, first).await?;
    let second = queue(&host, Duration::ZERO)?;
    wait::until("the reason", SOON, async || {
        let reasons = host.status().await?.wait_reasons;
        let full = |reason: &String| reason == "at capacity: the only agent is busy";
        Ok(reasons.iter().any(full).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    runs_once(&host, first).await?;
    runs_once(&host, second).await?;
    wait::until("nothing to wait for", SOON, async || {
        Ok(host.status().await?.wait_reasons.is_empty().then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    settled(&host, 1).await?;
    Ok(())
}
