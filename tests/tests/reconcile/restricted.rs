//! A project that Incus's administrator has restricted, as those are that `incus-user` makes, and more
//! so: without nesting. What a pool loses there is told, and agents work without it.

use std::time::Duration;

use anyhow::Context;
use iap_common::v1::{Check, CheckSeverity, DiagnoseRequest};
use iap_tests::host::Host;
use iap_tests::wait;

use super::project::Project;
use super::world::{no_problem, problem, queue, reload, runs_once, settled_host};
use crate::SOON;

async fn restrictions(host: &Host) -> anyhow::Result<Check> {
    let mut service = host.daemon_service().await?;
    let checks = service.diagnose(DiagnoseRequest {}).await?.into_inner();
    let mut checks = checks.checks.into_iter();
    let check = checks.find(|check| check.id == "restrictions");
    check.context("nothing is said about the project")
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_work_in_a_restricted_project_once_the_pool_does_without_nesting()
-> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let project = Project::new(&host)?;
    // Dropped before the project, in which its daemon makes agents.
    let host = host;
    let azure = host.dir().join("azure").display().to_string();
    // As incus-user sets them, but for nesting, which it allows.
    project.set("restricted.devices.disk", "allow")?;
    project.set("restricted.devices.disk.paths", &azure)?;
    project.set("restricted", "true")?;

    let here = format!("projectName: {}\n", host.testbed.project);
    let there = format!("projectName: {}\n", project.name());
    let nested = host.config(1).replace(&here, &there);
    reload(&host, &nested)?;
    problem(&host, "nesting is forbidden").await?;
    let check = restrictions(&host).await?;
    assert_eq!(check.severity(), CheckSeverity::Error, "{check:?}");
    assert!(check.finding.contains("forbids nesting"), "{check:?}");

    let without = format!("{there}      nesting: false\n");
    reload(&host, &nested.replace(&there, &without))?;
    let agents = async || {
        let there = project.instances();
        let agents = host.agents().await?;
        let is_alone = agents.len() == 1 && there == [agents[0].name.clone()];
        let is_idle = is_alone && agents[0].state() == iap_common::v1::AgentState::Idle;
        Ok(is_idle.then_some(()))
    };
    wait::until("an idle agent in the restricted project", SOON, agents)
        .await
        .with_context(|| host.log())?;
    no_problem(&host).await?;
    runs_once(&host, queue(&host, Duration::from_secs(1))?).await?;
    let check = restrictions(&host).await?;
    assert_eq!(check.severity(), CheckSeverity::Ok, "{check:?}");
    assert!(check.finding.contains("cannot use docker"), "{check:?}");
    host.empty(SOON).await?;
    assert!(project.instances().is_empty(), "{:?}", project.instances());
    Ok(())
}
