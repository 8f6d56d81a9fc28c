//! Agents that end as soon as they begin.

use std::time::Duration;

use aws_lc_rs::digest;
use iap_common::v1::BreakerState;
use iap_tests::host::{Host, HostOptions};
use iap_tests::wait;

use super::world::{no_problem, options, problem, reload, settled};

/// How long the failing pool is watched.
const WATCH: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_end_at_once_are_told_braked_and_forgiven() -> anyhow::Result<()> {
    // The agent refuses to run when it finds what it is told to look for.
    let found = digest::digest(&digest::SHA256, b"burnt-toast");
    let found: String = found
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let env =
        format!("    env:\n      FAKE_AGENT_FORBIDDEN: '{found}'\n      TOAST: burnt-toast\n");
    let good = options(3);
    let pool_extra = format!("{}{env}", good.pool_extra);
    let host = Host::start(HostOptions { pool_extra, ..good }).await?;
    let told = problem(&host, "agents fail to start").await?;
    assert!(told.contains("97"), "{told}");
    let registered = || {
        let journal = host.sim.journal();
        journal
            .iter()
            .filter(|e| e.method == "POST" && e.path.ends_with("/agents"))
            .count()
    };
    // The first three, three more that begin before the first end is understood, and then one after
    // 1, 2, 4, 8 s and a little jitter. Without a brake it would be dozens.
    wait::never("a storm", WATCH, async || {
        Ok(Some(registered()).filter(|n| *n > 12))
    })
    .await?;
    let status = host.status().await?;
    let breaker = status.incus_breaker.unwrap_or_default();
    assert_eq!(breaker.state(), BreakerState::Open, "{breaker:?}");
    assert!(breaker.consecutive_failures >= 3, "{breaker:?}");
    assert!(breaker.next_try_at.is_some(), "{breaker:?}");

    reload(&host, &host.config(3).replace("burnt-toast", "fresh-toast"))?;
    settled(&host, 3).await?;
    no_problem(&host).await
}
