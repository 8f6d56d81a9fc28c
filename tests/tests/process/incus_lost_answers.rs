//! Answers of Incus that get lost or come late: what was asked for happened all the same, or not.

use std::time::Duration;

use anyhow::Context;
use iap_tests::azure_sim::{HoldAt, Matching};
use iap_tests::wait;
use nix::sys::signal::Signal;

use super::way::Way;
use crate::SOON;

fn is_create(method: &str, path: &str) -> bool {
    method == "POST" && path.starts_with("/1.0/instances?")
}

/// Ends the one agent and lets its successor's life meet a fault that is in place.
async fn replace(way: &Way) -> anyhow::Result<()> {
    let before = way.settled(1, SOON).await?;
    let jobs = way.queue(1)?;
    way.succeeded(&jobs, SOON).await?;
    wait::until("another agent", SOON, async || {
        let agents = way.host.agents().await?;
        Ok(agents
            .iter()
            .any(|agent| !before.contains(&agent.name))
            .then_some(()))
    })
    .await?;
    way.settled(1, SOON).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answer_is_lost_is_adopted_and_not_repeated() -> anyhow::Result<()> {
    let way = Way::idle(1).await?;
    way.proxy.cut_reply(0, 0, is_create);
    replace(&way).await?;
    assert_eq!(way.creates(), 2, "one for each agent");
    way.host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_never_arrived_is_repeated_under_another_name() -> anyhow::Result<()> {
    let way = Way::idle(1).await?;
    way.proxy.cut_request(0, is_create);
    replace(&way).await?;
    assert_eq!(way.creates(), 3);
    way.host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_is_answered_late_fills_its_slot_once() -> anyhow::Result<()> {
    let way = Way::idle(1).await?;
    let mut held = way.proxy.hold(0, is_create);
    let jobs = way.queue(1)?;
    way.succeeded(&jobs, SOON).await?;
    tokio::time::timeout(SOON, held.reached()).await?;
    // It is given up after ten seconds, and found.
    way.settled(1, SOON).await?;
    held.release();
    wait::never("another create", Duration::from_secs(1), async || {
        Ok((way.creates() != 2).then(|| way.creates()))
    })
    .await?;
    way.settled(1, SOON).await?;
    way.host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_at_any_step_of_an_agents_life_leaves_exactly_one_agent()
-> anyhow::Result<()> {
    type Step = fn(&str, &str) -> bool;
    let steps: [(&str, Step); 6] = [
        ("writing the marker", |method, path| {
            method == "PATCH" && path.contains("/instances/")
        }),
        ("writing a file", |method, path| {
            method == "POST" && path.contains("/files?")
        }),
        ("starting the agent", |method, path| {
            method == "POST" && path.contains("/exec")
        }),
        ("waiting for its start", |_, path| path.contains("/wait?")),
        ("reading how it ended", |method, path| {
            method == "GET" && path.contains("/files?")
        }),
        ("listing the instances", |method, path| {
            method == "GET" && path.contains("/instances?")
        }),
    ];
    let way = Way::idle(1).await?;
    for (step, matches) in steps {
        way.proxy.cut_reply(0, 0, matches);
        replace(&way)
            .await
            .with_context(|| format!("lost the answer to {step}"))?;
        let agents = way.host.agents().await?;
        assert_eq!(agents[0].detail, "", "lost the answer to {step}");
    }
    way.host.empty(SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_start_only_seemed_to_fail_holds_no_slot_without_getting_jobs()
-> anyhow::Result<()> {
    let way = Way::idle(1).await?;
    let host = &way.host;
    // The daemon does not learn that it came online before it has begun to remove it.
    let gate = host
        .sim
        .hold(Matching::new("GET", "*/agents"), HoldAt::Before);
    gate.wait_arrived(1, SOON).await?;
    way.proxy.cut_reply(0, 0, |method, path| {
        method == "POST" && path.contains("/exec")
    });
    host.write_config(2)?;
    host.signal(Signal::SIGHUP)?;
    let disabled = wait::until("it to be disabled for its removal", SOON, async || {
        let agents = host.sim.agents(host.azure_pool);
        let disabled = agents.into_iter().find(|a| !a.enabled && a.online);
        Ok(disabled.map(|agent| agent.name))
    })
    .await
    .with_context(|| host.log())?;
    gate.release();
    wait::until("it to be replaced", SOON, async || {
        let names = way.settled(2, SOON).await?;
        let all_enabled = host.sim.agents(host.azure_pool).iter().all(|a| a.enabled);
        Ok((all_enabled && !names.contains(&disabled)).then_some(()))
    })
    .await?;
    let log = host.log();
    assert!(!log.contains("by_others"), "it was our own doing:\n{log}");
    host.empty(SOON).await
}
