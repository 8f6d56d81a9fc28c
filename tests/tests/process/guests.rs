//! Guests that do not behave: that stay, that refuse to be deleted, that vanish.

use std::time::Instant;

use iap_common::v1;
use iap_tests::azure_sim::{JobRequest, JobResult};
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::wait;
use iapd::incus::InstancePatch;

use crate::{QUICK, SOON};

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_refuses_to_be_deleted_is_shown_and_holds_no_slot() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    // What is protected is deleted all the same when it is ephemeral and ends by itself.
    let key = "security.protection.delete";
    let protect = |value: Option<&str>, ephemeral| InstancePatch {
        ephemeral,
        ..InstancePatch::config(key, value.map(str::to_owned))
    };
    let project = host.testbed.project();
    project
        .patch(&agent.name, &protect(Some("true"), Some(false)))
        .await?;
    let job = host.sim.queue_job(JobRequest::new(AZURE_POOL))?;
    host.sim.wait_job(job, SOON).await?;
    let stuck = wait::until("it to be called stuck", SOON, async || {
        let agents = host.agents().await?;
        let found = agents.into_iter().find(|found| found.name == agent.name);
        Ok(found.filter(|found| found.state() == v1::AgentState::Stuck))
    })
    .await?;
    assert!(
        stuck.detail.contains("protect"),
        "Incus's own words: {stuck:?}"
    );
    let agents = host.agents().await?;
    let idle = agents
        .iter()
        .filter(|agent| agent.state() == v1::AgentState::Idle)
        .count();
    assert_eq!(
        (agents.len(), idle),
        (2, 1),
        "its slot has another agent: {agents:?}"
    );
    let pool = host.status().await?;
    assert_eq!(pool.state(), v1::PoolState::Degraded);
    let problem = pool
        .problems
        .iter()
        .find(|problem| problem.contains(&agent.name));
    assert!(
        problem.is_some_and(|problem| problem.contains("cannot be removed")),
        "{pool:?}"
    );

    project.patch(&agent.name, &protect(None, None)).await?;
    wait::until("it to go", SOON, async || {
        let gone = !host.instances().await?.contains(&agent.name);
        Ok((gone && !host.registrations().contains(&agent.name)).then_some(()))
    })
    .await?;
    host.wait_idle(1, SOON).await?;
    host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_leaves_running_does_not_keep_its_machine() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    let stubborn = "trap '' TERM INT HUP; while :; do sleep 1; done";
    let script = format!(
        "trap '' TERM INT HUP\n\
         sleep 1000 &\n\
         setsid sh -c \"{stubborn}\" >/dev/null 2>&1 </dev/null &\n\
         sudo setsid sh -c \"{stubborn}\" >/dev/null 2>&1 </dev/null &\n\
         sleep 1"
    );
    let job = host
        .sim
        .queue_job(JobRequest::new(AZURE_POOL).running(script))?;
    let ended = host.sim.wait_job(job, SOON).await?;
    assert_eq!(ended.result, Some(JobResult::Succeeded));
    let began = Instant::now();
    wait::until("the machine to be gone", SOON, async || {
        Ok((!host.instances().await?.contains(&agent.name)).then_some(()))
    })
    .await?;
    assert!(began.elapsed() < QUICK, "it took {:?}", began.elapsed());
    host.wait_idle(1, SOON).await?;
    host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_vanish_at_once_are_counted_braked_and_explained() -> anyhow::Result<()> {
    let mut host = Host::prepare(HostOptions {
        count: 2,
        ..HostOptions::default()
    })
    .await?;
    // These machines do not boot: they end.
    host.incus(&[
        "profile",
        "set",
        &host.pool,
        "raw.lxc=lxc.init.cmd = /bin/sleep 0.3",
    ])?;
    host.start_daemon().await?;
    let broken = wait::until("the brake", SOON, async || {
        let pool = host.status().await?;
        let braked = |breaker: &v1::Breaker| breaker.consecutive_failures >= 3;
        Ok(pool
            .incus_breaker
            .as_ref()
            .is_some_and(braked)
            .then_some(pool))
    })
    .await?;
    let breaker = broken.incus_breaker.clone().unwrap_or_default();
    assert_eq!(breaker.state(), v1::BreakerState::Open);
    assert!(breaker.next_try_at.is_some());
    assert_eq!(broken.state(), v1::PoolState::Degraded);
    assert!(
        broken
            .problems
            .iter()
            .any(|p| p.contains("agents fail to start")),
        "{broken:?}"
    );
    let launches = host.log().matches("agent failed to start").count();
    assert!(launches <= 6, "{launches} launches for 3 failures in a row");

    // Incus saves this and complains of the guests that are just ending.
    let _ = host.incus(&["profile", "unset", &host.pool, "raw.lxc"]);
    let mut client = v1::pool_service_client::PoolServiceClient::new(host.channel().await?);
    client
        .retry_pool(v1::RetryPoolRequest {
            name: host.pool.clone(),
        })
        .await?;
    host.wait_idle(2, SOON).await?;
    let pool = host.status().await?;
    assert_eq!(pool.problems, Vec::<String>::new());
    wait::until("the dead ones' registrations to go", SOON, async || {
        Ok((host.registrations().len() == 2).then_some(()))
    })
    .await?;
    host.empty(SOON).await
}
