//! What idle agents cost: calls, memory, processor time. With the shipped intervals, and for
//! several numbers of agents one after the other: calls must not grow with them.

use std::time::Duration;

use anyhow::Context;

use crate::host::{Host, HostOptions};

use super::report::line;
use super::usage::{METRICS_PORT, TICKS, calls, memory, processor};

const LIMIT: Duration = Duration::from_secs(300);

/// How much more the most agents may cost than the fewest.
const GROWTH: f64 = 1.2;
/// Of resident memory, in KiB, for 64 agents.
const MEMORY: u64 = 16 * 1024;

/// Calls a minute.
#[derive(Clone, Copy)]
struct Traffic {
    incus: f64,
    azure: f64,
}

/// Measures and prints.
pub async fn run(numbers: &[usize], seconds: u64) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for agents in numbers {
        all.push(measure(*agents, seconds).await?);
    }
    if let [first, .., last] = all[..] {
        let verdict = |ratio: f64| if ratio <= GROWTH { "met" } else { "missed" };
        let (incus, azure) = (last.incus / first.incus, last.azure / first.azure);
        line(&format!(
            "the last against the first: {incus:.2} x the Incus calls ({}), {azure:.2} x the Azure \
             calls ({}; target at most {GROWTH} x)",
            verdict(incus),
            verdict(azure)
        ));
    }
    Ok(())
}

async fn measure(agents: usize, seconds: u64) -> anyhow::Result<Traffic> {
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
    // Out of the hurry that follows the last start, and calm.
    tokio::time::sleep(Duration::from_secs(150)).await;
    let pid = host.pid().context("the daemon is not running")?;
    let (before, ticks) = (calls().await?, processor(pid)?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (after, ticks) = (calls().await?, processor(pid)? - ticks);
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let per_minute = |n: u64| n as f64 * 60.0 / seconds as f64;
    let traffic = Traffic {
        incus: per_minute(after.0 - before.0),
        azure: per_minute(after.1 - before.1),
    };
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let each = traffic.incus / agents as f64;
    let memory = memory(pid)?;
    let within = if memory.resident < MEMORY {
        "met"
    } else {
        "missed"
    };
    let share = per_minute(ticks) / TICKS / 60.0 * 100.0;
    line(&format!(
        "{agents} idle agents: {:.1} Incus calls a minute ({each:.2} an agent), {:.1} Azure calls, \
         {share:.2} % of a core",
        traffic.incus, traffic.azure
    ));
    line(&format!(
        "  memory: {} KiB resident (target under {MEMORY}: {within}), {} KiB of it allocated",
        memory.resident, memory.anonymous
    ));
    Ok(traffic)
}
