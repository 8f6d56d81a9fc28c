//! How long an empty pool takes to be full.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::host::{Host, HostOptions};

use super::floor::Floor;
use super::report::{line, ratio};
use super::usage::{METRICS_PORT, TICKS, calls, processor};

const WIDTHS: [usize; 4] = [1, 2, 4, 8];
const LIMIT: Duration = Duration::from_secs(300);

/// Measures and prints.
pub async fn run(agents: usize) -> anyhow::Result<()> {
    let mut best = Duration::MAX;
    for width in WIDTHS {
        let took = floor(agents, width).await?;
        line(&format!(
            "floor, {agents} agents, {width} at a time: {took:.2?}"
        ));
        best = best.min(took);
    }
    let took = iapd(agents).await?;
    line(&format!(
        "iapd,  {agents} agents from empty:       {took:.2?}"
    ));
    ratio("fill", took, best, 1.2);
    Ok(())
}

async fn floor(agents: usize, width: usize) -> anyhow::Result<Duration> {
    let host = Host::prepare(HostOptions::default()).await?;
    let floor = Floor::new(&host).await?;
    let mut ready = Vec::new();
    for number in 0..agents {
        ready.push(floor.prepare(number).await?);
    }
    let began = Instant::now();
    stream::iter(&ready)
        .map(|agent| floor.launch(agent))
        .buffer_unordered(width)
        .try_collect::<Vec<()>>()
        .await?;
    let mut last = began;
    for agent in &ready {
        last = last.max(floor.session(&agent.name).await?);
    }
    stream::iter(&ready)
        .map(|agent| floor.stop(&agent.name))
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(last.duration_since(began))
}

async fn iapd(agents: usize) -> anyhow::Result<Duration> {
    let count = u32::try_from(agents)?;
    let options = HostOptions {
        count,
        log: "info".into(),
        ..HostOptions::default()
    };
    let mut host = Host::prepare(options).await?;
    let config = host.config(count);
    let metrics = format!("metricsPort: {METRICS_PORT}");
    std::fs::write(
        host.config_path(),
        config.replace("metricsPort: 0", &metrics),
    )?;
    let began = Instant::now();
    host.start_daemon().await?;
    host.wait_idle(agents, LIMIT).await?;
    let pid = host.pid().context("the daemon is not running")?;
    let (incus, azure) = calls().await?;
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    {
        let each = |n: u64| n as f64 / agents as f64;
        let processor = processor(pid)? as f64 / TICKS;
        let (incus, azure) = (each(incus), each(azure));
        line(&format!(
            "iapd, for each agent: {incus:.1} Incus calls, {azure:.1} Azure calls; \
             {processor:.2} s of processor time in all"
        ));
    }
    let last = host
        .sim
        .session_posts()
        .iter()
        .map(|post| post.instant)
        .max();
    Ok(last.unwrap_or(began).duration_since(began))
}
