//! What is known of agents and jobs when they are over.

use std::time::Duration;

use anyhow::Context;
use iap_common::v1;
use iap_common::v1::get_ended_agent_request::Key;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_tests::azure_sim::JobRequest;
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::wait;

use crate::SOON;

/// Waits for a record that is as wanted.
async fn ended(
    host: &Host,
    key: Key,
    is_complete: impl Fn(&v1::EndedAgent) -> bool,
) -> anyhow::Result<v1::GetEndedAgentResponse> {
    let client = HistoryServiceClient::new(host.channel().await?);
    wait::until("the record", SOON, async || {
        let request = v1::GetEndedAgentRequest {
            key: Some(key.clone()),
        };
        match client.clone().get_ended_agent(request).await {
            Ok(answer) => {
                let answer = answer.into_inner();
                let complete = answer.agent.as_ref().is_some_and(&is_complete);
                Ok(complete.then_some(answer))
            }
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    })
    .await
    .with_context(|| host.log())
}

async fn log(host: &Host, agent: &str, file: &str) -> anyhow::Result<String> {
    let request = v1::StreamAgentLogRequest {
        name: agent.to_owned(),
        file: file.to_owned(),
        ..v1::StreamAgentLogRequest::default()
    };
    let answer = host
        .agent_service()
        .await?
        .stream_agent_log(request)
        .await?;
    let mut parts = answer.into_inner();
    let mut text = Vec::new();
    while let Some(part) = parts.message().await? {
        text.extend(part.chunk);
    }
    Ok(String::from_utf8(text)?)
}

/// Waits until the pool tells how long so many jobs waited.
async fn waited(host: &Host, jobs: u32) -> anyhow::Result<()> {
    wait::until("the waits", SOON, async || {
        let waits = host.status().await?.job_waits;
        let told = waits.filter(|waits| waits.jobs == jobs && waits.p95.is_some());
        Ok(told.map(|_| ()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_told_with_its_agents_log_when_that_is_long_gone() -> anyhow::Result<()> {
    let mut host = Host::start(HostOptions::default()).await?;
    host.wait_idle(1, SOON).await?;
    let job = JobRequest::new(AZURE_POOL).running("echo it went wrong; exit 3");
    let job = host.sim.queue_job(job.named("Test"))?;
    let id = i64::try_from(job)?;
    let found = ended(&host, Key::RequestId(id), |a| !a.job_result.is_empty()).await?;
    let agent = found.agent.context("it was found")?;
    assert_eq!(agent.reason, "job-failed", "{agent:?}");
    assert_eq!(agent.job_result, "failed");
    assert_eq!(agent.job.as_ref().map(|job| &*job.name), Some("Test"));
    assert_eq!(agent.pool, host.pool);
    assert!(agent.created_at.is_some() && agent.online_at.is_some());
    let names: Vec<&str> = found.evidence.iter().map(|file| &*file.name).collect();
    assert!(names.contains(&"agent.log"), "{names:?}");
    assert!(
        names.iter().any(|name| name.starts_with("Worker_")),
        "{names:?}"
    );
    let text = log(&host, &agent.name, "").await?;
    assert!(text.contains("completed with result: Failed"), "{text}");
    waited(&host, 1).await?;
    host.stop_daemon().await?;
    host.start_daemon().await?;
    waited(&host, 1).await?;
    let worker = names.iter().find(|name| name.starts_with("Worker_"));
    assert!(
        !log(&host, &agent.name, worker.context("just seen")?)
            .await?
            .is_empty()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_filled_its_disk_is_told_so() -> anyhow::Result<()> {
    let host = Host::start(HostOptions {
        incus_extra: "      diskSizeInGb: 1\n".into(),
        ..HostOptions::default()
    })
    .await?;
    host.wait_idle(1, SOON).await?;
    let fills = "cat /dev/zero >~/filler; exit 1";
    let job = host
        .sim
        .queue_job(JobRequest::new(AZURE_POOL).running(fills))?;
    let id = i64::try_from(job)?;
    let found = ended(&host, Key::RequestId(id), |a| !a.job_result.is_empty()).await?;
    let agent = found.agent.context("it was found")?;
    assert_eq!(
        (&*agent.reason, &*agent.job_result),
        ("disk-full", "failed"),
        "{agent:?}"
    );
    let full = "nothing more could be written to /home/agent";
    assert!(agent.detail.contains(full), "{agent:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agents_life_is_told_in_events_as_it_happens_and_afterwards() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0).name;
    let mut client = HistoryServiceClient::new(host.channel().await?);
    let request = v1::StreamEventsRequest {
        follow: true,
        ..v1::StreamEventsRequest::default()
    };
    let mut live = client.stream_events(request).await?.into_inner();
    host.sim.queue_job(
        JobRequest::new(AZURE_POOL)
            .named("Build")
            .lasting(Duration::from_secs(2)),
    )?;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| *last != "agent-ended") {
        let next = tokio::time::timeout(SOON, live.message()).await??;
        let event = next
            .and_then(|message| message.event)
            .context("it goes on")?;
        if event.agent == agent {
            seen.push(event.r#type);
        }
    }
    assert_eq!(
        seen,
        ["agent-creating", "agent-idle", "agent-busy", "agent-ended"]
    );
    let request = v1::StreamEventsRequest {
        types: vec!["agent-ended".into()],
        ..v1::StreamEventsRequest::default()
    };
    let mut kept = client.stream_events(request).await?.into_inner();
    let event = kept.message().await?.and_then(|message| message.event);
    let event = event.context("it is kept")?;
    assert_eq!(event.agent, agent);
    assert!(event.message.starts_with("job-succeeded"), "{event:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_while_the_daemon_is_down_is_told_all_the_same() -> anyhow::Result<()> {
    let mut host = Host::start(HostOptions {
        // After it the registration that was left behind is looked at and deleted.
        pool_extra: "    offlineGracePeriod: 2s\n".into(),
        ..HostOptions::default()
    })
    .await?;
    host.wait_idle(1, SOON).await?;
    let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_secs(3));
    let job = host.sim.queue_job(job)?;
    host.sim
        .wait_job_until(job, SOON, |job| job.runs > 0)
        .await?;
    host.kill_daemon()?;
    host.sim.wait_job(job, SOON).await?;
    wait::until("the guest to be gone", SOON, async || {
        Ok(host.instances().await?.is_empty().then_some(()))
    })
    .await?;
    host.start_daemon().await?;
    let id = i64::try_from(job)?;
    let found = ended(&host, Key::RequestId(id), |a| !a.job_result.is_empty()).await;
    let agent = found?.agent.context("it was found")?;
    assert_eq!(agent.reason, "job-succeeded", "{agent:?}");
    assert!(agent.detail.contains("not looking"), "{agent:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_operator_asks_for_is_in_the_audit_trail_and_in_the_reason() -> anyhow::Result<()> {
    let host = Host::start(HostOptions::default()).await?;
    let agent = host.wait_idle(1, SOON).await?.remove(0);
    let request = v1::DrainAgentsRequest {
        names: vec![agent.name.clone()],
        reason: "test".into(),
        ..v1::DrainAgentsRequest::default()
    };
    host.agent_service().await?.drain_agents(request).await?;
    let found = ended(&host, Key::Name(agent.name.clone()), |_| true).await?;
    let record = found.agent.context("it was found")?;
    assert_eq!(record.reason, "drained", "{record:?}");
    let mut client = HistoryServiceClient::new(host.channel().await?);
    let entries = client.list_audit_entries(v1::ListAuditEntriesRequest::default());
    let entries = entries.await?.into_inner().entries;
    let entry = entries.first().context("there is one")?;
    assert_eq!(entry.command, "agents drain");
    assert_eq!(entry.target, agent.name);
    assert_eq!(entry.outcome, "ok");
    assert_eq!(entry.uid, Some(nix::unistd::getuid().as_raw()));
    Ok(())
}
