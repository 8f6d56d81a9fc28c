//! Agents whose member is cut off: with iapd restarted meanwhile, and for good.

use std::time::{Duration, Instant};

use anyhow::Context;
use iap_common::v1::get_ended_agent_request::Key;
use iap_common::v1::history_service_client::HistoryServiceClient;
use iap_common::v1::{self, Agent, AgentState, MemberState};

use super::{Cluster, SOON, until_member};
use crate::host::{Host, HostOptions};
use crate::wait;

/// Returns those on one member.
fn on<'a>(agents: &'a [Agent], member: &str) -> Vec<&'a Agent> {
    let here = agents.iter().filter(|agent| agent.location == member);
    here.collect()
}

async fn until_offline(host: &Host, name: &str) -> anyhow::Result<()> {
    let offline = |member: &v1::Member| member.state() == MemberState::Offline;
    until_member(host, name, "offline", offline).await.map(drop)
}

async fn until_unknown(host: &Host, names: &[String]) -> anyhow::Result<()> {
    wait::until("the lost agents to be unknown", SOON, async || {
        let agents = host.agents().await?;
        let is_unknown = |name: &String| {
            let found = agents.iter().find(|agent| agent.name == *name);
            found.is_some_and(|agent| agent.state() == AgentState::Unknown)
        };
        Ok(names.iter().all(is_unknown).then_some(()))
    })
    .await
    .with_context(|| host.log())
}

/// Lets Azure's time pass until the session of an agent that is dead has lapsed. In steps: those that
/// live poll between them.
async fn until_azure_knows(host: &Host, name: &str) -> anyhow::Result<()> {
    wait::until("Azure to show the lost agent offline", SOON, async || {
        host.sim.advance(Duration::from_secs(20));
        let agents = host.sim.agents(host.azure_pool);
        let found = agents.iter().find(|agent| agent.name == name);
        Ok(found.is_some_and(|agent| !agent.online).then_some(()))
    })
    .await
}

/// iapd is restarted while a member is lost, and again when its agent was replaced: how long the
/// member is away counts anew each time, and its return makes no agent too many.
pub(super) async fn restart(cluster: &Cluster) -> anyhow::Result<()> {
    const GRACE: Duration = Duration::from_secs(15);
    let mut host = Host::start(cluster.options(3, "15s")?).await?;
    let agents = host.wait_idle(3, SOON).await?;
    let lost = on(&agents, "c2");
    assert_eq!(lost.len(), 1, "one on each: {}", host.log());
    let lost = vec![lost[0].name.clone()];
    cluster.run(&["cut", "c2"])?;
    until_offline(&host, "c2").await?;
    let restarted = Instant::now();
    host.kill_daemon()?;
    host.start_daemon().await?;
    until_unknown(&host, &lost).await?;
    until_azure_knows(&host, &lost[0]).await?;
    let full = wait::until("its slot to be another's", SOON, async || {
        let agents = host.agents().await?;
        let idle = |agent: &&Agent| agent.state() == AgentState::Idle;
        let idle = agents.iter().filter(idle).count();
        Ok((idle == 3).then_some(agents))
    })
    .await
    .with_context(|| host.log())?;
    assert!(restarted.elapsed() >= GRACE, "replaced too early");
    assert_eq!(full.len(), 4, "the lost one is still told of: {full:?}");
    assert!(on(&full, "c2").len() == 1, "{full:?}");
    let waited = restarted.elapsed().as_secs();
    cluster.say(&format!(
        "c2 is lost; iapd restarted; its agent's slot was filled after {waited} s"
    ));

    host.kill_daemon()?;
    host.start_daemon().await?;
    until_unknown(&host, &lost).await?;
    cluster.run(&["start", "c2"])?;
    let left = wait::until("three agents, and not the lost one", SOON, async || {
        let agents = host.agents().await?;
        anyhow::ensure!(agents.len() <= 4, "one too many: {agents:?}");
        let gone = agents.iter().all(|agent| !lost.contains(&agent.name));
        let registered = host.registrations().len();
        Ok((gone && agents.len() == 3 && registered == 3).then_some(agents))
    })
    .await
    .with_context(|| host.log())?;
    for agent in &left {
        let stayed = full.iter().any(|before| before.name == agent.name);
        assert!(stayed, "{} is new: {}", agent.name, host.log());
    }
    cluster.say("c2 is back, its agent is removed, and no other was touched");
    host.empty(SOON).await
}

/// A member of the pool's group is cut off and removed by force: its agents end, their registrations
/// are deleted, and others of the group take their slots.
pub(super) async fn removal(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.incus(&["cluster", "group", "create", "fast"])?;
    for name in ["c2", "c3"] {
        cluster.incus(&["cluster", "group", "assign", name, "default,fast"])?;
    }
    let host = Host::start(HostOptions {
        incus_extra: "      target: '@fast'\n".into(),
        // Only its removal says that it does not come back.
        ..cluster.options(4, "1h")?
    })
    .await?;
    let agents = host.wait_idle(4, SOON).await?;
    let counts = ["c1", "c2", "c3"].map(|name| on(&agents, name).len());
    assert_eq!(counts, [0, 2, 2], "{}", host.log());
    cluster.say("4 agents for @fast, by member: [0, 2, 2]");
    let lost = on(&agents, "c3");
    let lost: Vec<String> = lost.iter().map(|agent| agent.name.clone()).collect();
    cluster.run(&["cut", "c3"])?;
    until_offline(&host, "c3").await?;
    until_unknown(&host, &lost).await?;
    cluster.incus(&["cluster", "remove", "c3", "--force", "--yes"])?;
    let left = wait::until("four agents on c2", SOON, async || {
        let agents = host.agents().await?;
        let idle = agents.iter().all(|agent| agent.state() == AgentState::Idle);
        let registered = host.registrations().len();
        Ok((idle && agents.len() == 4 && registered == 4).then_some(agents))
    })
    .await
    .with_context(|| host.log())?;
    assert_eq!(on(&left, "c2").len(), 4, "{left:?}");
    for name in &lost {
        assert!(left.iter().all(|agent| agent.name != *name), "{left:?}");
        let history = HistoryServiceClient::new(host.channel().await?);
        let record = wait::until("its record", SOON, async || {
            let request = v1::GetEndedAgentRequest {
                key: Some(Key::Name(name.clone())),
            };
            let answer = history.clone().get_ended_agent(request).await;
            Ok(answer.ok().and_then(|answer| answer.into_inner().agent))
        })
        .await?;
        assert_eq!(record.reason, "lost-contact", "{record:?}");
    }
    cluster.say("c3 is removed: its 2 agents ended as lost-contact, c2 has 4");
    host.empty(SOON).await?;
    cluster.say("nothing is left: no instance, no registration");
    Ok(())
}
