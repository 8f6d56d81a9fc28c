//! Pools that move or go while their agents have jobs: the former agents finish, are cleaned up by
//! whatever credential is left, and are not taken for a clone's.

use std::time::Duration;

use anyhow::{Context, ensure};
use iap_common::v1;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_tests::azure_sim::Pat;
use iap_tests::host::{Host, ORG, PAT};
use iap_tests::wait;

use super::project::Project;
use super::world::{no_problem, problem, queue, reload, running, runs_once, settled_host};
use crate::SOON;

/// A second personal access token of the simulator.
const OTHER_PAT: &str = "sim-pat-7d793037a0760186574b0282f2f435e7";

async fn pools(host: &Host) -> anyhow::Result<Vec<v1::Pool>> {
    let request = v1::ListPoolsRequest::default();
    let answer = host.pool_service().await?.list_pools(request).await?;
    Ok(answer.into_inner().pools)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_moves_to_another_incus_project_lets_its_former_agents_finish()
-> anyhow::Result<()> {
    let host = settled_host(2).await?;
    let project = Project::new(&host)?;
    // Dropped before the project, in which its daemon makes agents.
    let host = host;
    let before = host.registrations();
    let job = queue(&host, Duration::from_secs(8))?;
    let busy = running(&host, job).await?;
    let here = format!("projectName: {}", host.testbed.project);
    let there = format!("projectName: {}", project.name());
    reload(&host, &host.config(2).replace(&here, &there))?;
    let alone = async || {
        let pools = pools(&host).await?;
        for problem in pools.iter().flat_map(|pool| &pool.problems) {
            ensure!(!problem.contains("clone"), "{problem}\n{}", host.log());
        }
        let agents = host.sim.agents(host.azure_pool);
        let fresh = agents
            .iter()
            .all(|agent| agent.online && !before.contains(&agent.name));
        let done = fresh && agents.len() == 2 && pools.len() == 1;
        Ok(done.then_some(()))
    };
    wait::until("the new agents alone", SOON, alone)
        .await
        .with_context(|| host.log())?;
    assert_eq!(runs_once(&host, job).await?.agent, Some(busy));
    assert!(host.instances().await?.is_empty());
    assert_eq!(project.instances().len(), 2);
    host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_pool_is_cleaned_up_with_a_credential_that_is_left() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    host.sim.add_pat(Pat::manage(OTHER_PAT));
    let other = host.dir().join("other-pat");
    std::fs::write(&other, OTHER_PAT)?;
    host.sim.add_pool(ORG, "other");
    let job = queue(&host, Duration::from_secs(4))?;
    running(&host, job).await?;
    // The same organisation, with another pool and another token.
    let name = format!("name: {}\n", host.pool);
    let config = host
        .config(1)
        .replace(&name, &format!("name: {}-x\n", host.pool))
        .replace("pool: linux", "pool: other")
        .replace(
            &host.dir().join("pat").display().to_string(),
            &other.display().to_string(),
        );
    reload(&host, &config)?;
    host.sim.remove_pat(PAT);
    runs_once(&host, job).await?;
    wait::until("nothing to be left of the removed pool", SOON, async || {
        let names: Vec<String> = pools(&host).await?.into_iter().map(|p| p.name).collect();
        let alone = names == [format!("{}-x", host.pool)];
        Ok((alone && host.registrations().is_empty()).then_some(()))
    })
    .await
    .with_context(|| host.log())?;
    std::fs::write(host.config_path(), host.config_without_pools())?;
    host.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait::until("everything to be gone", SOON, async || {
        Ok((host.instances().await?.is_empty()).then_some(()))
    })
    .await
}

/// Returns what was told of Azure, oldest first.
async fn told_of_azure(host: &Host) -> anyhow::Result<Vec<String>> {
    let request = v1::StreamEventsRequest {
        types: vec!["azure-lost".into(), "azure-recovered".into()],
        ..v1::StreamEventsRequest::default()
    };
    let mut client = HistoryServiceClient::new(host.channel().await?);
    let mut stream = client.stream_events(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(event) = stream.message().await? {
        all.push(event.event.context("an event")?.r#type);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_credential_by_reload_ends_the_loss_of_azure_and_begins_none() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    host.sim.add_pat(Pat::manage(OTHER_PAT));
    let other = host.dir().join("other-pat");
    std::fs::write(&other, OTHER_PAT)?;
    let pat = host.dir().join("pat").display().to_string();
    let former = host.config(1);
    let config = former.replace(&pat, &other.display().to_string());
    host.sim.remove_pat(PAT);
    problem(&host, "rejects the credential").await?;
    reload(&host, &config)?;
    no_problem(&host).await?;
    let paired = ["azure-lost", "azure-recovered"];
    wait::until("the recovery to be told", SOON, async || {
        Ok((told_of_azure(&host).await? == paired).then_some(()))
    })
    .await
    .with_context(|| host.log())?;

    host.sim.add_pat(Pat::manage(PAT));
    let lists = |host: &Host| {
        let journal = host.sim.journal();
        let mut all = journal.iter().filter(|e| e.path.ends_with("/agents"));
        all.by_ref().filter(|e| e.status == Some(200)).count()
    };
    let before = lists(&host);
    reload(&host, &former)?;
    wait::until("some lists by the former credential", SOON, async || {
        Ok((lists(&host) > before + 3).then_some(()))
    })
    .await?;
    assert_eq!(told_of_azure(&host).await?, paired, "nothing was wrong");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_that_no_pool_is_in_any_more_is_not_missed() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let here = format!("projectName: {}", host.testbed.project);
    let missing = host.config(1).replace(&here, "projectName: it-no-such");
    let warned = async |wanted: bool| {
        wait::until("a warning, or none", SOON, async || {
            let warnings = host.daemon_status().await?.warnings;
            let is_there = warnings.iter().any(|w| w.contains("it-no-such"));
            Ok((is_there == wanted).then_some(()))
        })
        .await
        .with_context(|| host.log())
    };
    reload(&host, &missing)?;
    warned(true).await?;
    reload(&host, &host.config(1))?;
    warned(false).await?;
    host.empty(SOON).await
}
