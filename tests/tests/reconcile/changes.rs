//! What agents are built from changes: idle ones are replaced, busy ones finish.

use std::time::Duration;

use iap_common::v1::AgentState;
use iap_tests::azure_sim::JobRequest;
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::wait;

use super::world::{options, queue, reload, running, runs_once, settled, settled_host};
use crate::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_environment_replaces_idle_agents_and_lets_a_busy_one_finish()
-> anyhow::Result<()> {
    let host = settled_host(2).await?;
    let before = host.registrations();
    let job = queue(&host, Duration::from_secs(6))?;
    let busy = running(&host, job).await?;
    let config = host.config(2);
    let with_env = config.replace(
        "    azure:\n",
        "    env:\n      STOVE: 'hot & dry'\n    azure:\n",
    );
    assert_ne!(config, with_env);
    reload(&host, &with_env)?;
    wait::until("the idle agent to be replaced", SOON, async || {
        let agents = host.agents().await?;
        let fresh = |agent: &iap_common::v1::Agent| {
            agent.state() == AgentState::Idle && !before.contains(&agent.name)
        };
        let at_work = |agent: &iap_common::v1::Agent| {
            agent.state() == AgentState::Busy && agent.name == busy && agent.outdated
        };
        let done = agents.len() == 2 && agents.iter().any(fresh) && agents.iter().any(at_work);
        Ok(done.then_some(()))
    })
    .await
    .map_err(|error| error.context(host.log()))?;
    assert!(
        host.sim.job(job).is_some_and(|job| job.result.is_none()),
        "the job still runs"
    );
    runs_once(&host, job).await?;
    let after = settled(&host, 2).await?;
    assert!(after.iter().all(|name| !before.contains(name)));
    let look = JobRequest::new(AZURE_POOL).running("echo \"it is $STOVE\"");
    let look = host.sim.queue_job(look)?;
    runs_once(&host, look).await?;
    assert!(host.sim.job_output(look).contains("it is hot & dry"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_moves_replaces_idle_agents() -> anyhow::Result<()> {
    let testbed = iap_tests::testbed::Testbed::get();
    let (alias, copy) = (
        format!("rc-{}", std::process::id()),
        format!("rc2-{}", std::process::id()),
    );
    let project = testbed.project();
    let runner = project
        .alias(&testbed.runner)
        .await?
        .expect("the test bed has a runner");
    project.point_alias(&alias, "", &runner).await?;
    let moved = async {
        let host = Host::start(HostOptions {
            image: Some(alias.clone()),
            ..options(2)
        })
        .await?;
        let before = settled(&host, 2).await?;
        host.incus(&["init", &testbed.runner, &copy])?;
        let made = host.incus(&["publish", &copy, "--alias", &copy, "--compression", "none"]);
        host.incus(&["delete", &copy])?;
        made?;
        let image = project.alias(&copy).await?.expect("just made");
        project.point_alias(&alias, "", &image).await?;
        wait::until("all agents to be of the new image", SOON, async || {
            let agents = host.agents().await?;
            let fresh = agents.iter().all(|agent| !before.contains(&agent.name));
            Ok((fresh && agents.len() == 2).then_some(()))
        })
        .await
        .map_err(|error| error.context(host.log()))?;
        settled(&host, 2).await?;
        anyhow::Ok(host)
    };
    let moved = moved.await;
    project.delete_alias(&alias).await?;
    let host = moved?;
    host.incus(&["image", "delete", &copy])
}
