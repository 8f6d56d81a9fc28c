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

const WIDTHS: [usize; 3] = [2, 4, 8];
const LIMIT: Duration = Duration::from_secs(300);
/// Seconds without work after which a daemon has all the keys that it keeps; it pauses between them.
const CALM: usize = 6;
/// What the last instances leave behind in Incus and its storage pool is done by then.
const SETTLE: Duration = Duration::from_secs(3);

/// Measures and prints. The machine's own speed changes from minute to minute, so each is measured
/// several times, one after the other, and the best of each is compared.
pub async fn run(agents: usize, rounds: usize) -> anyhow::Result<()> {
    let cases = [
        (Met::Running, "a pool for a running daemon", "with keys"),
        (Met::Starting, "a pool for a daemon that starts", "no keys"),
    ];
    let mut best = [(Duration::MAX, Duration::MAX); 2];
    for _ in 0..rounds {
        for ((met, pool, keys), (best_floor, best_iapd)) in cases.iter().zip(&mut best) {
            for width in WIDTHS {
                let took = floor(agents, width, *met).await?;
                line(&format!(
                    "floor, {agents} agents, {keys}, {width} at a time: {took:.2?}"
                ));
                *best_floor = took.min(*best_floor);
            }
            let took = iapd(agents, *met).await?;
            line(&format!("iapd,  {agents} agents, {pool}: {took:.2?}"));
            *best_iapd = took.min(*best_iapd);
        }
    }
    for ((_, pool, _), (floor, iapd)) in cases.iter().zip(best) {
        ratio(&format!("fill, {pool}"), iapd, floor, 1.1);
    }
    Ok(())
}

/// The same launches with nothing around them, so many at a time.
async fn floor(agents: usize, width: usize, met: Met) -> anyhow::Result<Duration> {
    tokio::time::sleep(SETTLE).await;
    let host = Host::prepare(HostOptions::default()).await?;
    let floor = Floor::new(&host).await?;
    let mut ready = Vec::new();
    if matches!(met, Met::Running) {
        for number in 0..agents {
            ready.push(floor.prepare(number).await?);
        }
    }
    let (floor, mut ready) = (&floor, ready.into_iter());
    let began = Instant::now();
    let names: Vec<String> = stream::iter(0..agents)
        .map(|number| {
            let prepared = ready.next();
            async move {
                let ready = match prepared {
                    Some(ready) => ready,
                    None => floor.prepare(number).await?,
                };
                floor.launch(&ready).await?;
                anyhow::Ok(ready.name)
            }
        })
        .buffer_unordered(width)
        .try_collect()
        .await?;
    let mut last = began;
    for name in &names {
        last = last.max(floor.session(name).await?);
    }
    stream::iter(&names)
        .map(|name| floor.stop(name))
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(last.duration_since(began))
}

/// How the empty pool is met.
#[derive(Debug, Clone, Copy)]
enum Met {
    /// By a daemon that has just started. Every key has yet to be made: some 70 ms of a core, which
    /// the floor spends as well.
    Starting,
    /// By a daemon that has run for a while, has keys, and is given the pool. The floor has its keys
    /// and registrations beforehand.
    Running,
}

async fn iapd(agents: usize, met: Met) -> anyhow::Result<Duration> {
    let count = u32::try_from(agents)?;
    tokio::time::sleep(SETTLE).await;
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
