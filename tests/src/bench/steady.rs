//! What idle agents cost: calls, memory, processor time. With the shipped intervals.

use std::time::Duration;

use anyhow::Context;

use crate::host::{Host, HostOptions};

use super::report::line;
use super::usage::{METRICS_PORT, TICKS, calls, processor, resident};

const LIMIT: Duration = Duration::from_secs(300);

/// Measures and prints.
pub async fn run(agents: usize, seconds: u64) -> anyhow::Result<()> {
    let count = u32::try_from(agents)?;
    let options = HostOptions {
        count,
        log: "info".into(),
        ..HostOptions::default()
    };
    let mut host = Host::prepare(options).await?;
    let config = host
        .config(count)
        .replace("metricsPort: 0", &format!("metricsPort: {METRICS_PORT}"))
        .replace("reconcileInterval: 2s", "reconcileInterval: 5s")
        .replace("reaperInterval: 2s", "reaperInterval: 30s")
        .replace("pollInterval: 1s", "pollInterval: 10s");
    std::fs::write(host.config_path(), config)?;
    host.start_daemon().await?;
    host.wait_idle(agents, LIMIT).await?;
    // Out of the hurry that follows the last start.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let pid = host.pid().context("the daemon is not running")?;
    let (before, ticks) = (calls().await?, processor(pid)?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, ticks) = (calls().await?, processor(pid)? - ticks);
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let per = |n: u64, of: f64| n as f64 * 60.0 / (seconds as f64 * of);
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let agents_f = agents as f64;
    let incus = per(after.0 - before.0, agents_f);
    let verdict = if incus < 0.6 { "met" } else { "missed" };
    line(&format!(
        "Incus calls per agent and minute: {incus:.2} (target under 0.6: {verdict})"
    ));
    line(&format!(
        "Azure calls per pool and minute:  {:.1}",
        per(after.1 - before.1, 1.0)
    ));
    line(&format!("resident memory: {} KiB", resident(pid)?));
    let share = per(ticks, TICKS) / 60.0 * 100.0;
    line(&format!("processor: {share:.2} % of a core"));
    Ok(())
}
