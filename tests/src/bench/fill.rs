//! How long an empty pool takes to be full.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};
use nix::sys::signal::Signal;

use crate::host::{Host, HostOptions};
use crate::wait;

use super::floor::Floor;
use super::report::{line, ratio};
use super::usage::{METRICS_PORT, TICKS, calls, processor};

const WIDTHS: [usize; 4] = [1, 2, 4, 8];
const LIMIT: Duration = Duration::from_secs(300);
/// Seconds without work after which a daemon has all the keys that it keeps; it pauses between them.
const CALM: usize = 6;

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
    for (met, words) in [
        (Met::Running, "a pool for a running daemon"),
        (Met::Starting, "a pool for a daemon that starts"),
    ] {
        let took = iapd(agents, met).await?;
        line(&format!("iapd,  {agents} agents, {words}: {took:.2?}"));
        ratio(&format!("fill, {words}"), took, best, 1.1);
    }
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

/// How the daemon meets the empty pool.
#[derive(Debug, Clone, Copy)]
enum Met {
    /// It has just started, and has everything yet to do.
    Starting,
    /// It has run for a while, and its configuration gets the pool.
    Running,
}

async fn iapd(agents: usize, met: Met) -> anyhow::Result<Duration> {
    let count = u32::try_from(agents)?;
    let options = HostOptions {
        count,
        log: "info".into(),
        ..HostOptions::default()
    };
    let mut host = Host::prepare(options).await?;
    let metrics = format!("metricsPort: {METRICS_PORT}");
    let path = host.config_path();
    let write = |config: &str| std::fs::write(&path, config.replace("metricsPort: 0", &metrics));
    let (empty, full) = (host.config_without_pools(), host.config(count));
    write(match met {
        Met::Starting => &full,
        Met::Running => &empty,
    })?;
    let mut began = Instant::now();
    host.start_daemon().await?;
    let pid = host.pid().context("the daemon is not running")?;
    let before = match met {
        Met::Starting => 0,
        Met::Running => {
            let ticks = until_calm(pid).await?;
            write(&full)?;
            began = Instant::now();
            host.signal(Signal::SIGHUP)?;
            ticks
        }
    };
    // Not asked for over gRPC: that would cost what is measured.
    let last = wait::until("all sessions", LIMIT, async || {
        let mut first = BTreeMap::new();
        for post in host.sim.session_posts() {
            first.entry(post.agent).or_insert(post.instant);
        }
        let last = first.values().max().copied();
        Ok(last.filter(|_| first.len() >= agents))
    })
    .await
    .with_context(|| host.log())?;
    let ticks = processor(pid)? - before;
    host.wait_idle(agents, LIMIT).await?;
    let (incus, azure) = calls().await?;
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    {
        let each = |n: u64| n as f64 / agents as f64;
        let processor = ticks as f64 / TICKS;
        let (incus, azure) = (each(incus), each(azure));
        line(&format!(
            "iapd, for each agent: {incus:.1} Incus calls, {azure:.1} Azure calls; \
             {processor:.2} s of processor time in all"
        ));
    }
    Ok(last.duration_since(began))
}

/// Waits until the daemon has nothing to do but wait, and returns its processor time so far.
async fn until_calm(pid: u32) -> anyhow::Result<u64> {
    let mut before = processor(pid)?;
    let mut calm = 0;
    while calm < CALM {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = processor(pid)?;
        calm = if now - before <= 1 { calm + 1 } else { 0 };
        before = now;
    }
    Ok(before)
}
