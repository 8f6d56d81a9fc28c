//! Azure fails: agents, jobs and registrations are the same afterwards.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use iap_common::v1;
use iap_common::v1::get_ended_agent_request::Key;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_tests::azure_sim::{CredentialKind, FaultAction, FaultRule, HoldAt, Matching, NamedFault};
use iap_tests::host::{Host, ORG, PAT};
use iap_tests::wait;
use iapd::azure::{Azure, Credential};

use super::world::{
    GRACE, drain, no_problem, options, problem, queue, reload, running, runs_once, settled,
    settled_host,
};
use crate::SOON;

const LIST: &str = "*/agents";

fn answered(host: &Host, method: &str, path_end: &str, status: Option<u16>) -> usize {
    let journal = host.sim.journal();
    let hits = journal.iter().filter(|entry| {
        entry.method == method && entry.path.ends_with(path_end) && entry.status == status
    });
    hits.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_whose_answer_is_lost_is_made_again_and_not_twice() -> anyhow::Result<()> {
    let mut host = Host::prepare(options(2)).await?;
    host.sim
        .named_fault(NamedFault::LosePostResponse { times: 2 });
    host.start_daemon().await?;
    let names = settled(&host, 2).await?;
    assert_eq!(
        answered(&host, "POST", "/agents", None),
        2,
        "two answers were lost"
    );
    // Whoever lost one has a registration of the second try, under the same name.
    wait::never("another agent came", GRACE, async || {
        let now = host.registrations();
        Ok(now.iter().any(|name| !names.contains(name)).then_some(now))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_without_the_right_to_list_is_told_and_costs_no_agent() -> anyhow::Result<()> {
    let host = settled_host(2).await?;
    let job = queue(&host, Duration::from_secs(2))?;
    let busy = running(&host, job).await?;
    let forbidden = FaultAction::error(403, "AccessDeniedException");
    host.sim
        .fault(FaultRule::new(Matching::new("GET", LIST), forbidden));
    problem(&host, "rejects the credential").await?;
    runs_once(&host, job).await?;
    let agents = host.agents().await?;
    let idle = agents
        .iter()
        .find(|agent| agent.name != busy)
        .expect("the other agent");
    wait::never("the idle agent was touched", GRACE * 2, async || {
        let instances = host.instances().await?;
        Ok((!instances.contains(&idle.name)).then_some(instances))
    })
    .await?;
    host.sim.clear_faults();
    let after = settled(&host, 2).await?;
    assert!(after.contains(&idle.name));
    no_problem(&host).await
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_is_left_alone_for_as_long_as_it_asks() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let refusal = FaultAction::too_many_requests(4);
    host.sim
        .fault(FaultRule::new(Matching::new("GET", LIST), refusal).times(1));
    wait::until("the list after the refusal", SOON, async || {
        let journal = host.sim.journal();
        // By the daemon: guests have credentials of their own, and are not held back.
        let mut daemon = journal.iter().filter(|e| e.user_agent.starts_with("iapd"));
        let Some(refused) = daemon.find(|entry| entry.status == Some(429)) else {
            return Ok(None);
        };
        let Some(next) = daemon.next() else {
            return Ok(None);
        };
        let pause = next.instant.duration_since(refused.instant);
        assert!(pause >= Duration::from_millis(3900), "{pause:?}");
        Ok(Some(()))
    })
    .await?;
    settled(&host, 1).await?;
    no_problem(&host).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_azure_slows_down_starts_drains_and_replaces_all_the_same() -> anyhow::Result<()>
{
    let mut host = Host::prepare(options(1)).await?;
    let matching = Matching {
        credential: Some(CredentialKind::Pat),
        ..Matching::default()
    };
    let headers = [("Retry-After".to_owned(), "1".to_owned())].into();
    host.sim.fault(FaultRule::new(
        matching,
        FaultAction::AddHeaders { headers },
    ));
    host.start_daemon().await?;
    let before = settled(&host, 1).await?.remove(0);
    drain(&host, &before).await?;
    wait::until("the successor", SOON * 2, async || {
        let registered = host.registrations();
        Ok((registered.len() == 1 && registered[0] != before).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    no_problem(&host).await?;
    runs_once(&host, queue(&host, Duration::ZERO)?).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_used_as_soon_as_it_is_in_its_file() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let pat = host.dir().join("pat");
    std::fs::write(&pat, "sim-pat-that-azure-does-not-know")?;
    problem(&host, "rejects the credential").await?;
    // Until the next try is a while away.
    wait::until("some failures", SOON, async || {
        let azure = host.status().await?.azure_breaker;
        Ok(azure
            .is_some_and(|breaker| breaker.consecutive_failures >= 4)
            .then_some(()))
    })
    .await?;
    let failed = host.status().await?.azure_breaker.expect("just seen");
    let next_try = failed.next_try_at.expect("it is open");
    std::fs::write(&pat, iap_tests::host::PAT)?;
    no_problem(&host).await?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    assert!(
        i64::try_from(now.as_secs())? < next_try.seconds,
        "it was not just the next try"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_never_comes_holds_up_neither_a_job_nor_its_successor() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let gate = host.sim.hold(Matching::new("GET", LIST), HoldAt::Before);
    gate.wait_arrived(1, SOON).await?;
    let (first, second) = (queue(&host, Duration::ZERO)?, queue(&host, Duration::ZERO)?);
    runs_once(&host, first).await?;
    runs_once(&host, second).await?;
    // Nothing has failed yet, and people are told all the same.
    let slow = async |is_slow: bool| {
        wait::until(&format!("slow: {is_slow}"), SOON, async || {
            let azure = host.daemon_status().await?.azure;
            let unanswered = azure.iter().any(|azure| azure.unanswered_for.is_some());
            Ok((unanswered == is_slow).then_some(()))
        })
        .await
    };
    slow(true).await?;
    gate.release();
    slow(false).await?;
    settled(&host, 1).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_in_between_are_survived() -> anyhow::Result<()> {
    let host = settled_host(2).await?;
    let before = host.registrations();
    // Of the daemon's calls of any kind one in three fails.
    let matching = Matching {
        credential: Some(CredentialKind::Pat),
        ..Matching::default()
    };
    host.sim.fault(FaultRule {
        probability: Some(0.33),
        ..FaultRule::new(matching, FaultAction::status(500))
    });
    let jobs: Vec<u64> = (0..3)
        .map(|_| queue(&host, Duration::ZERO))
        .collect::<anyhow::Result<_>>()?;
    for job in jobs {
        runs_once(&host, job).await?;
    }
    host.sim.clear_faults();
    let after = settled(&host, 2).await?;
    assert!(after.iter().any(|name| !before.contains(name)));
    no_problem(&host).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_agent_and_no_job_is_lost_while_azure_is_down() -> anyhow::Result<()> {
    let host = settled_host(2).await?;
    let job = queue(&host, Duration::from_secs(2))?;
    let busy = running(&host, job).await?;
    let idle = host
        .registrations()
        .into_iter()
        .find(|name| *name != busy)
        .expect("two agents");
    host.sim.fault(FaultRule::new(
        Matching::default(),
        FaultAction::CloseBefore,
    ));
    problem(&host, "Azure is not usable").await?;
    // Longer than offline agents are given.
    wait::never("an agent was removed", GRACE * 3, async || {
        let instances = host.instances().await?;
        let both = instances.contains(&idle) && instances.contains(&busy);
        Ok((!both).then_some(instances))
    })
    .await?;
    host.sim.clear_faults();
    runs_once(&host, job).await?;
    let after = settled(&host, 2).await?;
    assert!(after.contains(&idle), "{after:?}");
    no_problem(&host).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_azure_pool_is_told_and_found_when_it_is_there() -> anyhow::Result<()> {
    let mut host = Host::prepare(options(1)).await?;
    let config = host.config(1).replace("pool: linux", "pool: 'Not Yet'");
    std::fs::write(host.config_path(), config)?;
    host.start_daemon().await?;
    problem(&host, "no agent pool named \"Not Yet\"").await?;
    assert!(host.instances().await?.is_empty());
    let pool = host.sim.add_pool(iap_tests::host::ORG, "Not Yet");
    host.wait_idle(1, SOON).await?;
    assert_eq!(host.sim.agents(pool).len(), 1);
    assert!(host.registrations().is_empty());
    no_problem(&host).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_would_need_the_daemons_credential_is_not_started() -> anyhow::Result<()> {
    let mut host = Host::prepare(options(2)).await?;
    host.sim.switch(|switches| switches.no_authorization = true);
    host.start_daemon().await?;
    problem(&host, "agents fail to start").await?;
    wait::never("an agent was started", Duration::from_secs(5), async || {
        Ok(host.sim.session_posts().first().cloned())
    })
    .await?;
    let posts = answered(&host, "POST", "/agents", Some(200));
    let deleted = answered(&host, "DELETE", "", Some(204));
    assert!((1..=10).contains(&posts), "{posts} registrations");
    assert!(
        host.registrations().len() <= 1 && deleted >= posts - 1,
        "{posts} {deleted}"
    );
    assert!(host.instances().await?.len() <= 2);
    host.sim
        .switch(|switches| switches.no_authorization = false);
    settled(&host, 2).await?;
    no_problem(&host).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_agent_that_somebody_deleted_in_azure_is_replaced() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let before = host.registrations().remove(0);
    host.sim.named_fault(NamedFault::DeleteAgentExternally {
        agent: before.clone(),
    });
    let after = wait::until("another agent", SOON, async || {
        let after = settled(&host, 1).await?.remove(0);
        Ok((after != before).then_some(after))
    })
    .await?;
    assert_ne!(after, before);
    Ok(())
}

/// Disables an agent as a person does on Azure's pages.
async fn disable(host: &Host, name: &str) -> anyhow::Result<()> {
    let agents = host.sim.agents(host.azure_pool);
    let agent = agents
        .iter()
        .find(|agent| agent.name == name)
        .context("no such agent")?;
    let credential = Credential::Pat(PAT.into());
    let azure = Azure::new(&host.sim.url(ORG), credential, None, Arc::new(|_| ()))?;
    let (pool, id) = (host.azure_pool.try_into()?, agent.id.try_into()?);
    azure.disable_agent(pool, id, name).await?;
    Ok(())
}

/// Waits for the record of an ended agent and returns its reason.
async fn end_reason(host: &Host, name: &str) -> anyhow::Result<String> {
    let client = HistoryServiceClient::new(host.channel().await?);
    wait::until("the record", SOON, async || {
        let key = Some(Key::Name(name.to_owned()));
        let request = v1::GetEndedAgentRequest { key };
        match client.clone().get_ended_agent(request).await {
            Ok(answer) => Ok(answer.into_inner().agent.map(|agent| agent.reason)),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_somebody_disabled_in_azure_are_told_and_replaced_after_their_jobs()
-> anyhow::Result<()> {
    let host = settled_host(2).await?;
    let job = queue(&host, Duration::from_secs(6))?;
    let busy = running(&host, job).await?;
    let before = host.registrations();
    let idle = before
        .iter()
        .find(|name| **name != busy)
        .context("two agents")?;
    disable(&host, &busy).await?;
    disable(&host, idle).await?;
    let told = problem(&host, "disabled in Azure, not by iapd").await?;
    assert!(told.contains(&busy) || told.contains(idle), "{told}");
    wait::until("the idle one to be replaced", SOON, async || {
        let agents = host.sim.agents(host.azure_pool);
        let fresh = |name: &String| !before.contains(name);
        let is_there = agents
            .iter()
            .any(|a| a.online && a.enabled && fresh(&a.name));
        Ok((is_there && agents.iter().all(|a| a.name != *idle)).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    assert_eq!(end_reason(&host, idle).await?, "disabled-in-azure");
    let job_runs = host.sim.job(job).is_some_and(|job| job.result.is_none());
    assert!(job_runs, "it is left to its job");
    let agents = host.agents().await?;
    let agent = agents.iter().find(|agent| agent.name == busy);
    let detail = agent.map(|agent| agent.detail.as_str());
    let wanted = "disabled in Azure, not by iapd: is replaced when its job ends";
    assert_eq!(detail, Some(wanted));
    runs_once(&host, job).await?;
    let after = settled(&host, 2).await?;
    assert!(after.iter().all(|name| !before.contains(name)), "{after:?}");
    no_problem(&host).await?;
    // New ones are not disabled, so nothing is replaced any more.
    wait::never("another agent came", GRACE * 2, async || {
        let now = host.registrations();
        Ok(now.iter().any(|name| !after.contains(name)).then_some(now))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_azure_calls_busy_is_deleted_later() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    host.sim.named_fault(NamedFault::BusyDelete {
        times: 2,
        agent: None,
    });
    let job = queue(&host, Duration::ZERO)?;
    let ran = runs_once(&host, job).await?;
    let after = settled(&host, 1).await?;
    assert_ne!(ran.agent.as_ref(), after.first());
    let refused = host
        .sim
        .journal()
        .into_iter()
        .filter(|e| e.method == "DELETE");
    assert_eq!(refused.filter(|entry| entry.status == Some(409)).count(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_moves_in_azure_gets_new_agents_there_and_leaves_none_behind()
-> anyhow::Result<()> {
    let mut host = settled_host(2).await?;
    let old = host.registrations();
    let job = queue(&host, Duration::from_secs(4))?;
    let busy = running(&host, job).await?;
    let other = host.sim.add_pool(iap_tests::host::ORG, "other");
    reload(&host, &host.config(2).replace("pool: linux", "pool: other"))?;
    wait::until("the idle agent to leave", SOON, async || {
        Ok((host.registrations() == [busy.clone()]).then_some(()))
    })
    .await?;
    runs_once(&host, job).await?;
    wait::until("two agents in the other pool, online", SOON, async || {
        let there = host.sim.agents(other);
        let fresh = there
            .iter()
            .all(|agent| agent.online && !old.contains(&agent.name));
        let done = fresh && there.len() == 2 && host.registrations().is_empty();
        Ok((done && host.instances().await?.len() == 2).then_some(()))
    })
    .await
    .map_err(|error| error.context(host.log()))?;
    let job = iap_tests::azure_sim::JobRequest::new("other");
    runs_once(&host, host.sim.queue_job(job)?).await?;

    // And back, while the daemon does not look.
    host.stop_daemon().await?;
    host.write_config(2)?;
    host.start_daemon().await?;
    settled(&host, 2).await?;
    wait::until("nothing to be left in the other pool", SOON, async || {
        Ok(host.sim.agents(other).is_empty().then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_job_ended_is_told_although_the_answers_to_its_end_were_lost() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let one = "*/agents/*";
    let job = queue(&host, Duration::from_secs(2))?;
    let agent = running(&host, job).await?;
    // The look at it fails, then the answer to its deletion is lost: there is nothing left to ask.
    for (method, action) in [
        ("GET", FaultAction::CloseBefore),
        ("DELETE", FaultAction::CloseAfter),
    ] {
        let matching = Matching {
            credential: Some(CredentialKind::Pat),
            ..Matching::new(method, one).agent(&agent)
        };
        host.sim.fault(FaultRule::new(matching, action).times(1));
    }
    runs_once(&host, job).await?;
    settled(&host, 1).await?;
    let mut history = HistoryServiceClient::new(host.channel().await?);
    let request = v1::GetEndedAgentRequest {
        key: Some(v1::get_ended_agent_request::Key::Name(agent)),
    };
    let record = history.get_ended_agent(request).await?.into_inner().agent;
    let record = record.context("no record")?;
    assert_eq!(
        (record.reason.as_str(), record.job_result.as_str()),
        ("job-succeeded", "succeeded"),
        "{}",
        host.log()
    );
    Ok(())
}
