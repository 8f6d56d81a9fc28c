//! Registrations without an instance.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use iap_common::v1;
use iap_tests::host::{Host, ORG, PAT};
use iap_tests::wait;
use iapd::azure::{Azure, Credential, NewAgent};
use iapd::registration::AgentKey;
use tonic::Code;

use super::world::{GRACE, no_problem, problem, settled, settled_host};
use crate::SOON;

async fn owner(host: &Host) -> anyhow::Result<String> {
    let status = host
        .daemon_service()
        .await?
        .get_status(v1::GetStatusRequest {})
        .await?;
    Ok(status.into_inner().owner)
}

/// Registers an agent that nobody runs.
async fn ghost(host: &Host, name: &str, owner: &str, pool: &str) -> anyhow::Result<()> {
    let credential = Credential::Pat(PAT.into());
    let azure = Azure::new(&host.sim.url(ORG), credential, None, Arc::new(|_| ()))?;
    let agent = NewAgent {
        name: name.to_owned(),
        version: "4.275.0".into(),
        os_description: "Linux".into(),
        public_key: AgentKey::generate()?.public(),
        system_capabilities: BTreeMap::from([
            ("iap.owner".to_owned(), owner.to_owned()),
            ("iap.pool".to_owned(), pool.to_owned()),
        ]),
    };
    azure
        .create_agent(host.azure_pool.try_into()?, &agent)
        .await?;
    Ok(())
}

async fn wait_swept(host: &Host, name: &str) -> anyhow::Result<()> {
    wait::until("the ghost to be swept", SOON, async || {
        Ok((!host.registrations().iter().any(|other| other == name)).then_some(()))
    })
    .await
    .map_err(|error| error.context(host.log()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ghost_of_ours_is_swept_after_its_grace_and_no_other() -> anyhow::Result<()> {
    let host = settled_host(1).await?;
    let owner = owner(&host).await?;
    for (name, owner, pool) in [
        ("ghost-owner", "somebody-else", host.pool.as_str()),
        ("ghost-ours", owner.as_str(), host.pool.as_str()),
    ] {
        ghost(&host, name, owner, pool).await?;
    }
    let began = std::time::Instant::now();
    wait_swept(&host, "ghost-ours").await?;
    assert!(
        began.elapsed() >= GRACE,
        "swept after {:?}",
        began.elapsed()
    );
    wait::never("a ghost of another went", GRACE * 2, async || {
        let left = host.registrations();
        let is_there = left.iter().any(|name| name == "ghost-owner");
        Ok((!is_there || left.len() != 2).then_some(left))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_ours_online_elsewhere_suspends_the_sweep() -> anyhow::Result<()> {
    let mut host = settled_host(1).await?;
    let owner = owner(&host).await?;
    let clone = host.registrations().remove(0);
    // From here on it is an agent with our tags on an instance that is not ours.
    host.stop_daemon().await?;
    host.incus(&["config", "set", &clone, "user.iapd.owner=the-clone"])?;
    host.start_daemon().await?;
    problem(&host, "clone of this host").await?;
    ghost(&host, "ghost-ours", &owner, &host.pool).await?;
    wait::never("something was swept", GRACE * 3, async || {
        let left = host.registrations();
        let both = left.contains(&clone) && left.iter().any(|name| name == "ghost-ours");
        Ok((!both).then_some(left))
    })
    .await?;
    assert!(
        host.instances().await?.contains(&clone),
        "what is not ours is not touched"
    );

    host.incus(&["delete", "-f", &clone])?;
    // Azure keeps its session for a while.
    host.sim.advance(Duration::from_secs(400));
    wait_swept(&host, "ghost-ours").await?;
    wait_swept(&host, &clone).await?;
    settled(&host, 1).await?;
    no_problem(&host).await
}

/// Waits until an agent is told of, as Azure's list had it.
async fn wait_listed(host: &Host, name: &str) -> anyhow::Result<()> {
    wait::until("the registration to be seen", SOON, async || {
        let agents = host.agents().await?;
        Ok(agents.iter().any(|agent| agent.name == name).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_ours_goes_at_an_operators_word_and_by_force_while_azure_calls_it_online()
-> anyhow::Result<()> {
    let mut host = settled_host(1).await?;
    for by_drain in [false, true] {
        let lost = host.registrations().remove(0);
        host.kill_daemon()?;
        host.incus(&["delete", "-f", &lost])?;
        host.start_daemon().await?;
        wait_listed(&host, &lost).await?;
        let mut agents = host.agent_service().await?;
        let reap = |force| v1::ReapAgentRequest {
            name: lost.clone(),
            force,
        };
        if by_drain {
            let drain = v1::DrainAgentsRequest {
                names: vec![lost.clone()],
                force: true,
                ..Default::default()
            };
            agents.drain_agents(drain).await?;
            wait_swept(&host, &lost).await?;
        } else {
            let refused = agents.reap_agent(reap(false)).await.unwrap_err();
            assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
            assert!(host.registrations().contains(&lost), "{}", host.log());
            agents.reap_agent(reap(true)).await?;
            assert!(!host.registrations().contains(&lost), "{}", host.log());
        }
        settled(&host, 1).await?;
    }
    Ok(())
}

/// Waits until the daemon tells of the configured pool and of no other.
async fn wait_alone(host: &Host) -> anyhow::Result<()> {
    wait::until("no other pool to be left", SOON, async || {
        let request = v1::ListPoolsRequest::default();
        let answer = host.pool_service().await?.list_pools(request).await?;
        let names: Vec<String> = answer
            .into_inner()
            .pools
            .into_iter()
            .map(|p| p.name)
            .collect();
        Ok((names == [host.pool.as_str()]).then_some(()))
    })
    .await
    .map_err(|error| error.context(host.log()))
}

#[tokio::test(flavor = "multi_thread")]
async fn ghosts_of_a_pool_that_left_while_nobody_looked_are_swept_after_their_grace()
-> anyhow::Result<()> {
    let mut host = settled_host(1).await?;
    let owner = owner(&host).await?;
    host.stop_daemon().await?;
    ghost(&host, "ghost-left", &owner, "left-the-config").await?;
    ghost(&host, "ghost-owner", "somebody-else", "left-the-config").await?;
    let began = std::time::Instant::now();
    host.start_daemon().await?;
    wait_swept(&host, "ghost-left").await?;
    assert!(
        began.elapsed() >= GRACE,
        "swept after {:?}",
        began.elapsed()
    );
    wait_alone(&host).await?;

    // The same after a reload.
    ghost(&host, "ghost-later", &owner, "left-later").await?;
    host.write_config(2)?;
    host.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait_swept(&host, "ghost-later").await?;
    wait_alone(&host).await?;
    assert!(host.registrations().contains(&"ghost-owner".to_owned()));
    Ok(())
}
