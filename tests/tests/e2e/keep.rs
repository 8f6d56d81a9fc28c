//! Agents that are kept for debugging: by the pool's policy, and by an operator.

use std::time::Duration;

use anyhow::Context;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_common::v1::{self, AgentState};
use iap_tests::azure_sim::{FaultAction, FaultRule, JobRequest, JobResult, Matching};
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::wait;

use crate::{LATER, SOON};

fn keeping(when: &str, ttl: &str) -> HostOptions {
    HostOptions {
        pool_extra: format!(
            "    offlineGracePeriod: 2s\n    keep: {{when: {when}, ttl: {ttl}, max: 1}}\n"
        ),
        ..HostOptions::default()
    }
}

/// Waits until an agent is kept and nothing of it is left in Azure.
async fn kept(host: &Host) -> anyhow::Result<v1::Agent> {
    wait::until("an agent to be kept", LATER, async || {
        let agents = host.agents().await?;
        let kept = agents.into_iter().find(|a| a.state() == AgentState::Kept);
        let is_registered =
            |a: &v1::Agent| a.azure_agent_id != 0 || host.registrations().contains(&a.name);
        Ok(kept.filter(|kept| !is_registered(kept)))
    })
    .await
    .with_context(|| host.log())
}

/// Waits until another agent than this is idle.
async fn replaced(host: &Host, name: &str) -> anyhow::Result<v1::Agent> {
    wait::until("its successor", SOON, async || {
        let agents = host.agents().await?;
        let idle = |agent: &v1::Agent| agent.state() == AgentState::Idle && agent.name != name;
        Ok(agents.into_iter().find(idle))
    })
    .await
    .with_context(|| host.log())
}

async fn gone(host: &Host, name: &str) -> anyhow::Result<()> {
    wait::until("it to be gone", LATER, async || {
        let there = host.instances().await?.iter().any(|n| n == name);
        Ok((!there).then_some(()))
    })
    .await
    .with_context(|| host.log())
}

fn failing(what: &str) -> JobRequest {
    JobRequest::new(AZURE_POOL).running(format!("{what}; exit 3"))
}

/// Lets a kept agent go, which is gone then.
async fn release(host: &Host, name: &str) -> Result<(), tonic::Status> {
    let request = v1::ReleaseAgentRequest {
        name: name.to_owned(),
    };
    let mut client = host.agent_service().await.expect("it listens");
    let answer = client.release_agent(request).await?;
    assert_eq!(answer.into_inner().agent, None);
    Ok(())
}

async fn keep(host: &Host, name: &str, length: Duration) -> Result<v1::Agent, tonic::Status> {
    let until = std::time::SystemTime::now() + length;
    let request = v1::KeepAgentRequest {
        name: name.to_owned(),
        until: Some(until.into()),
        reason: "look into it".to_owned(),
    };
    let mut client = host.agent_service().await.expect("it listens");
    let answer = client.keep_agent(request).await?;
    Ok(answer.into_inner().agent.unwrap_or_default())
}

/// Waits for the last event of an agent and returns all of them.
async fn events(host: &Host, agent: &str) -> anyhow::Result<Vec<String>> {
    wait::until("its end to be told", SOON, async || {
        let told = events_so_far(host, agent).await?;
        let is_last = told.iter().any(|kind| kind == "agent-ended");
        Ok(is_last.then_some(told))
    })
    .await
    .with_context(|| host.log())
}

async fn events_so_far(host: &Host, agent: &str) -> anyhow::Result<Vec<String>> {
    let mut client = HistoryServiceClient::new(host.channel().await?);
    let request = v1::StreamEventsRequest::default();
    let mut stream = client.stream_events(request).await?.into_inner();
    let mut types = Vec::new();
    while let Some(message) = stream.message().await? {
        types.extend(message.event.filter(|e| e.agent == agent).map(|e| e.r#type));
    }
    Ok(types)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_job_failed_is_kept_with_its_files_and_replaced_and_outlives_the_daemon()
-> anyhow::Result<()> {
    let mut host = Host::start(keeping("job-failed", "1h")).await?;
    let first = host.wait_idle(1, SOON).await?.remove(0);
    // In a job's work, in memory, and where only root looks.
    let job = failing("echo a > /home/agent/left; sudo sh -c 'echo b > /run/left'");
    let job = host.sim.queue_job(job)?;
    assert_eq!(
        host.sim.wait_job(job, SOON).await?.result,
        Some(JobResult::Failed)
    );
    let agent = kept(&host).await?;
    assert_eq!(agent.name, first.name);
    assert_eq!(agent.instance_status, "Ready", "it did not power off");
    assert_eq!(agent.azure_agent_id, 0);
    let keep = agent.keep.clone().context("it says until when")?;
    assert_eq!((&*keep.reason, &*keep.user), ("job-failed", ""));
    assert!(keep.until.is_some() && keep.since.is_some());
    replaced(&host, &agent.name).await?;
    let counts = host.status().await?.counts.unwrap_or_default();
    assert_eq!((counts.idle, counts.kept), (1, 1));

    // The pool keeps no more than one.
    let second = replaced(&host, &agent.name).await?;
    let job = host.sim.queue_job(failing("true"))?;
    host.sim.wait_job(job, SOON).await?;
    gone(&host, &second.name).await?;
    assert!(
        host.log().contains("the pool keeps its most already"),
        "{}",
        host.log()
    );

    host.kill_daemon()?;
    host.start_daemon().await?;
    let again = kept(&host).await?;
    assert_eq!((&again.name, &again.keep), (&agent.name, &Some(keep)));
    let project = host.testbed.project();
    for file in ["/home/agent/left", "/run/left"] {
        let deadline = Duration::from_secs(10);
        let info = project.head_file(&agent.name, file, deadline).await?;
        assert!(info.is_some(), "{file} is left");
    }
    replaced(&host, &agent.name).await?;

    // Draining is for those that work.
    let request = v1::DrainAgentsRequest {
        names: vec![agent.name.clone()],
        ..v1::DrainAgentsRequest::default()
    };
    let refused = host.agent_service().await?.drain_agents(request).await;
    let refused = refused.expect_err("it is kept");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);

    release(&host, &agent.name).await?;
    assert!(!host.instances().await?.contains(&agent.name));
    let seen = events(&host, &agent.name).await?;
    let told = ["agent-kept", "agent-released", "agent-ended"];
    for kind in told {
        assert!(seen.iter().any(|seen| seen == kind), "{kind}: {seen:?}");
    }
    let ended = seen.iter().filter(|kind| *kind == "agent-ended").count();
    assert_eq!(ended, 1, "{seen:?}");
    let mut history = HistoryServiceClient::new(host.channel().await?);
    let key = v1::get_ended_agent_request::Key::Name(agent.name.clone());
    let request = v1::GetEndedAgentRequest { key: Some(key) };
    let record = history.get_ended_agent(request).await?.into_inner();
    let names: Vec<&str> = record.evidence.iter().map(|file| &*file.name).collect();
    assert!(names.contains(&"agent.log"), "{names:?}");
    let record = record.agent.context("it is kept")?;
    assert_eq!(record.reason, "job-failed", "{record:?}");
    assert_eq!(record.job_result, "failed", "{record:?}");
    let refused = release(&host, &replaced(&host, "").await?.name).await;
    let refused = refused.expect_err("it is not kept");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_agent_goes_by_itself_and_a_good_job_keeps_nothing() -> anyhow::Result<()> {
    let host = Host::start(keeping("[job-failed, never-online]", "6s")).await?;
    let good = host.wait_idle(1, SOON).await?.remove(0);
    let job = host
        .sim
        .queue_job(JobRequest::new(AZURE_POOL).running("true"))?;
    host.sim.wait_job(job, SOON).await?;
    gone(&host, &good.name).await?;
    replaced(&host, &good.name).await?;
    let job = host.sim.queue_job(failing("true"))?;
    host.sim.wait_job(job, SOON).await?;
    let agent = kept(&host).await?;
    gone(&host, &agent.name).await?;
    let until = agent.keep.and_then(|keep| keep.until).context("a time")?;
    let now = std::time::SystemTime::now();
    assert!(now >= std::time::SystemTime::try_from(until)?, "not before");
    host.wait_idle(1, SOON).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_agent_that_an_operator_keeps_finishes_its_job_and_stays() -> anyhow::Result<()> {
    let mut host = Host::start(HostOptions::default()).await?;
    host.wait_idle(1, SOON).await?;
    let job = JobRequest::new(AZURE_POOL)
        .running("echo done > /home/agent/left")
        .lasting(Duration::from_secs(6));
    let job = host.sim.queue_job(job)?;
    let running = host.sim.wait_job_until(job, SOON, |job| job.runs > 0);
    let name = running.await?.agent.context("a running job has an agent")?;
    wait::until("it to be seen busy", SOON, async || {
        let agents = host.agents().await?;
        let busy = |a: &v1::Agent| a.name == name && a.state() == AgentState::Busy;
        Ok(agents.iter().any(busy).then_some(()))
    })
    .await?;
    let agent = keep(&host, &name, Duration::from_secs(3600)).await?;
    assert_eq!(agent.state(), AgentState::Busy);
    // The wish is on the instance.
    host.kill_daemon()?;
    host.start_daemon().await?;
    let ended = host.sim.wait_job(job, SOON).await?;
    assert_eq!(ended.result, Some(JobResult::Succeeded), "{}", host.log());
    let agent = kept(&host).await?;
    assert_eq!(agent.name, name);
    let keep_of = |agent: &v1::Agent| agent.keep.clone().unwrap_or_default();
    assert_eq!(keep_of(&agent).reason, "look into it");
    assert!(!keep_of(&agent).user.is_empty());
    replaced(&host, &name).await?;

    // Kept for less long, it goes by then. How it ended is not forgotten by a restart.
    host.kill_daemon()?;
    host.start_daemon().await?;
    kept(&host).await?;
    let before = keep_of(&agent);
    let agent = keep(&host, &name, Duration::from_secs(2)).await?;
    assert_eq!(keep_of(&agent).since, before.since);
    assert_ne!(keep_of(&agent).until, before.until);
    gone(&host, &name).await?;
    let seen = events(&host, &name).await?;
    assert!(seen.iter().any(|kind| kind == "agent-released"), "{seen:?}");
    let mut history = HistoryServiceClient::new(host.channel().await?);
    let key = Some(v1::get_ended_agent_request::Key::Name(name));
    let record = history.get_ended_agent(v1::GetEndedAgentRequest { key });
    let record = record.await?.into_inner().agent.context("it is kept")?;
    assert_eq!(record.reason, "job-succeeded", "{record:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_that_an_operator_keeps_is_replaced_and_no_drain_waits_for_it()
-> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let name = host.wait_idle(1, SOON).await?.remove(0).name;
    keep(&host, &name, Duration::from_secs(3600)).await?;
    let agent = kept(&host).await?;
    assert_eq!(agent.name, name);
    assert_eq!(agent.instance_status, "Ready");
    replaced(&host, &name).await?;
    let mut pools = host.pool_service().await?;
    let request = v1::PausePoolRequest {
        name: host.pool.clone(),
        reason: "test".into(),
        until: None,
    };
    pools.pause_pool(request).await?;
    wait::until("the pool to be drained", SOON, async || {
        let left = (host.instances().await?, host.registrations());
        Ok((left.0 == [name.clone()] && left.1.is_empty()).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    release(&host, &name).await?;
    host.wait_nothing_left(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_came_online_is_kept_also_when_its_listener_gives_up()
-> anyhow::Result<()> {
    let host = Host::start(HostOptions {
        incus_extra: "      startupGracePeriod: 1s\n".into(),
        ..keeping("never-online", "1h")
    })
    .await?;
    let sessions = Matching::new("POST", "*/sessions");
    let fails = FaultAction::status(503);
    host.sim.fault(FaultRule::new(sessions, fails));
    let first = wait::until("an agent", SOON, async || {
        Ok(host.registrations().into_iter().next())
    })
    .await?;
    let agent = kept(&host).await?;
    assert_eq!(agent.name, first);
    assert_eq!(agent.keep.unwrap_or_default().reason, "never-online");
    host.sim.clear_faults();
    replaced(&host, &first).await?;
    // Its listener tries again, learns that it is not registered any more, and ends.
    let stays = wait::until("its doorbell", LATER, async || {
        let agents = host.agents().await?;
        let rang = |a: &v1::Agent| a.name == first && a.instance_status == "Ready";
        Ok(agents.into_iter().find(rang))
    })
    .await
    .with_context(|| host.log())?;
    // The hook waits five seconds for its answer, and the machine goes without one.
    wait::never("its end", Duration::from_secs(8), async || {
        let there = host.instances().await?.contains(&first);
        Ok((!there).then_some(()))
    })
    .await?;
    assert_eq!(stays.state(), AgentState::Kept);
    let agents = host.agents().await?;
    let now = agents.iter().find(|a| a.name == first);
    assert_eq!(
        now.map(|a| &*a.instance_status),
        Some("Ready"),
        "{agents:?}"
    );
    release(&host, &first).await?;
    Ok(())
}
