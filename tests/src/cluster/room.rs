//! A member without room gets no agents while the others do; when none has room the pool says so.

use anyhow::Context;
use iap_common::v1::Member;
use nix::sys::signal::Signal;

use super::{Cluster, SOON, until_member};
use crate::host::Host;
use crate::wait;

/// See the module.
pub(super) async fn run(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.run(&["fill", "c1"])?;
    let host = Host::start(cluster.options(4, "5s")?).await?;
    let agents = host.wait_idle(4, SOON).await?;
    let mut places: Vec<&str> = agents.iter().map(|agent| &*agent.location).collect();
    places.sort_unstable();
    assert_eq!(places, ["c2", "c2", "c3", "c3"], "{}", host.log());
    let is_full = |member: &Member| !member.full.is_empty() && !member.storage.is_empty();
    let full = until_member(&host, "c1", "full", is_full).await?;
    cluster.say(&format!("no agent is on c1: {}", full.full));
    let members = host.status().await?.members;
    let told: Vec<(&str, u32, bool)> = members
        .iter()
        .map(|member| (&*member.name, member.idle, member.full.is_empty()))
        .collect();
    assert_eq!(told, [("c1", 0, false), ("c2", 2, true), ("c3", 2, true)]);

    for name in ["c2", "c3"] {
        cluster.run(&["fill", name])?;
        until_member(&host, name, "full", is_full).await?;
    }
    host.write_config(6)?;
    host.signal(Signal::SIGHUP)?;
    let told = wait::until("the pool to say that all are full", SOON, async || {
        let problems = host.status().await?.problems;
        Ok(problems.into_iter().find(|text| {
            ["no member of the cluster has room", " c1 ", " c2 ", " c3 "]
                .iter()
                .all(|part| text.contains(part))
        }))
    })
    .await
    .with_context(|| host.log())?;
    cluster.say(&format!("the pool says: {told}"));
    assert_eq!(host.agents().await?.len(), 4, "none was made, none went");

    cluster.run(&["clear", "c3"])?;
    let agents = host.wait_idle(6, SOON).await?;
    let on_c3 = agents.iter().filter(|agent| agent.location == "c3").count();
    assert_eq!(on_c3, 4, "{}", host.log());
    cluster.say("c3 has room again, and both agents that were missing");
    for name in ["c1", "c2"] {
        cluster.run(&["clear", name])?;
    }
    host.empty(SOON).await
}
