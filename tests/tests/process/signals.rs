//! Signals and reloads.

use std::time::{Duration, Instant};

use iap_common::v1;
use iap_common::v1::pool_service_client::PoolServiceClient;
use iap_tests::host::{Host, HostOptions};
use iap_tests::wait;
use nix::sys::signal::Signal;

use super::way::Way;
use crate::{QUICK, SOON};

/// A host whose pool makes no agents: there is no such image.
async fn without_agents() -> anyhow::Result<Host> {
    let image = Some("it-no-such-image".to_owned());
    let host = Host::start(HostOptions {
        image,
        ..HostOptions::default()
    })
    .await?;
    wait::until("the pool", QUICK, async || Ok(host.status().await.ok())).await?;
    Ok(host)
}

async fn reload(host: &Host, dry_run: bool) -> anyhow::Result<v1::ReloadConfigResponse> {
    let mut service = host.daemon_service().await?;
    Ok(service
        .reload_config(v1::ReloadConfigRequest { dry_run })
        .await?
        .into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_open_streams_and_the_daemon_with_code_0() -> anyhow::Result<()> {
    let mut host = without_agents().await?;
    let mut client = PoolServiceClient::new(host.channel().await?);
    let mut pools = client
        .watch_pools(v1::WatchPoolsRequest {})
        .await?
        .into_inner();
    let first = pools.message().await?.expect("a snapshot comes first");
    assert_eq!(first.pools[0].name, host.pool);
    let began = Instant::now();
    host.signal(Signal::SIGTERM)?;
    let end = loop {
        match pools.message().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    let end = end.expect_err("the end is told as an error");
    assert_eq!(end.code(), tonic::Code::Unavailable, "{end:?}");
    assert!(end.message().contains("stopping"), "{end:?}");
    assert_eq!(host.wait_for_exit().await?, Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(!host.socket().exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_is_not_applied_on_sighup_and_its_problems_are_told() -> anyhow::Result<()> {
    let host = without_agents().await?;
    let good = std::fs::read_to_string(host.config_path())?;
    let bad = good
        .replace("agentCount: 1", "agentCount: many")
        .replace("metricsPort", "metricPort");
    std::fs::write(host.config_path(), bad)?;
    host.signal(Signal::SIGHUP)?;
    let said = wait::until("the problems", QUICK, async || {
        let said = host.daemon_status().await?;
        Ok((!said.config_problems.is_empty()).then_some(said))
    })
    .await?;
    let keys: Vec<&str> = said
        .config_problems
        .iter()
        .map(|p| p.key.as_str())
        .collect();
    assert_eq!(keys, ["metricPort", "pools[0].agentCount"]);
    assert!(
        said.config_problems
            .iter()
            .all(|problem| problem.line > 0 && problem.column > 0)
    );
    assert!(
        said.warnings.iter().any(|w| w.contains("2 problems")),
        "{:?}",
        said.warnings
    );
    assert_eq!(host.status().await?.agent_count, 1);

    std::fs::write(
        host.config_path(),
        good.replace("agentCount: 1", "agentCount: 3"),
    )?;
    host.signal(Signal::SIGHUP)?;
    wait::until("the new count", QUICK, async || {
        Ok((host.status().await?.agent_count == 3).then_some(()))
    })
    .await?;
    assert_eq!(host.daemon_status().await?.config_problems, []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_lists_changes_and_applies_none() -> anyhow::Result<()> {
    let host = without_agents().await?;
    let mut service = host.daemon_service().await?;
    let before = service
        .get_config(v1::GetConfigRequest {})
        .await?
        .into_inner()
        .yaml;
    host.write_config(4)?;
    let said = reload(&host, true).await?;
    assert_eq!(said.problems, []);
    assert_eq!(said.changes.len(), 1, "{said:?}");
    assert!(said.changes[0].ends_with("agents 1 → 4"), "{said:?}");
    let after = service
        .get_config(v1::GetConfigRequest {})
        .await?
        .into_inner()
        .yaml;
    assert_eq!(before, after);
    assert!(!before.contains(iap_tests::host::PAT));
    // What a reload applies is in force when the pool was told: so a dry run's would be by now.
    assert_eq!(reload(&host, false).await?.changes, said.changes);
    wait::until("the new count", QUICK, async || {
        Ok((host.status().await?.agent_count == 4).then_some(()))
    })
    .await?;
    assert_eq!(reload(&host, true).await?.changes, Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_the_daemon_at_once_while_incus_hangs() -> anyhow::Result<()> {
    let mut way = Way::idle(1).await?;
    let mut held = way.proxy.hold(0, |method, path| {
        method == "POST" && path.starts_with("/1.0/instances?")
    });
    way.queue(1)?;
    tokio::time::timeout(SOON, held.reached()).await?;
    way.host.signal(Signal::SIGTERM)?;
    wait::until("the first signal to be taken", QUICK, async || {
        Ok(way.host.log().contains("agents keep running").then_some(()))
    })
    .await?;
    wait::never(
        "it ended without its action",
        Duration::from_secs(1),
        async || Ok(way.host.log().contains("stopped").then_some(())),
    )
    .await?;
    let began = Instant::now();
    way.host.signal(Signal::SIGTERM)?;
    way.host.wait_for_exit().await?;
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    held.release();

    // What was being created is found and used.
    way.host.start_daemon().await?;
    way.settled(1, SOON).await?;
    way.host.empty(SOON).await
}
