//! How long a slot is empty: from a job's end to the next agent's session, without spares and with
//! one.

use std::time::{Duration, Instant};

use anyhow::Context;

use iap_common::v1;

use crate::azure_sim::JobRequest;
use crate::host::{AZURE_POOL, Host, HostOptions};
use crate::wait;

use super::floor::{Floor, session};
use super::report::{line, percentile, ratio};

const LIMIT: Duration = Duration::from_secs(120);

/// Measures and prints.
pub async fn run(rounds: usize) -> anyhow::Result<()> {
    let mut floor = floor_rounds(rounds).await?;
    let mut iapd = iapd_rounds(rounds, 0).await?;
    let mut spare = iapd_rounds(rounds, 1).await?;
    let (floor_p50, floor_p95) = (percentile(&mut floor, 50), percentile(&mut floor, 95));
    let (iapd_p50, iapd_p95) = (percentile(&mut iapd, 50), percentile(&mut iapd, 95));
    let (spare_p50, spare_p95) = (percentile(&mut spare, 50), percentile(&mut spare, 95));
    line(&format!(
        "floor (stop, create, files, exec): p50 {floor_p50:.2?}, p95 {floor_p95:.2?}"
    ));
    line(&format!(
        "iapd (job end to next session):    p50 {iapd_p50:.2?}, p95 {iapd_p95:.2?}"
    ));
    line(&format!(
        "iapd, the same with a spare:       p50 {spare_p50:.2?}, p95 {spare_p95:.2?}"
    ));
    ratio("replace p50", iapd_p50, floor_p50, 1.3);
    ratio("replace with a spare p50", spare_p50, floor_p50, 0.5);
    Ok(())
}

async fn floor_rounds(rounds: usize) -> anyhow::Result<Vec<Duration>> {
    let host = Host::prepare(HostOptions::default()).await?;
    let floor = Floor::new(&host).await?;
    let mut last = floor.prepare(0).await?;
    floor.launch(&last).await?;
    floor.session(&last.name).await?;
    let mut times = Vec::new();
    for number in 1..=rounds {
        let next = floor.prepare(number).await?;
        let began = Instant::now();
        floor.stop(&last.name).await?;
        floor.launch(&next).await?;
        times.push(floor.session(&next.name).await?.duration_since(began));
        last = next;
    }
    floor.stop(&last.name).await?;
    Ok(times)
}

async fn iapd_rounds(rounds: usize, spares: usize) -> anyhow::Result<Vec<Duration>> {
    let host = Host::start(HostOptions {
        log: "info".into(),
        pool_extra: format!("    spares: {spares}\n"),
        ..HostOptions::default()
    })
    .await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        // Each job finds the pool as it is in calm moments.
        wait_ready(&host, spares).await?;
        let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_millis(500));
        let job = host.sim.queue_job(job)?;
        let ended = host.sim.wait_job(job, LIMIT).await?;
        let finished = ended.finished_instant.context("the job has no end")?;
        let next = session(&host, |_, at| at > finished).await?;
        times.push(next.duration_since(finished));
    }
    Ok(times)
}

/// Waits until the agent is idle and the spares are there.
async fn wait_ready(host: &Host, spares: usize) -> anyhow::Result<()> {
    wait::until("an idle agent and the spares", LIMIT, async || {
        let agents = host.agents().await?;
        let (waiting, agents): (Vec<_>, Vec<_>) = agents
            .into_iter()
            .partition(|agent| agent.state() == v1::AgentState::Spare);
        let is_idle = |agent: &v1::Agent| agent.state() == v1::AgentState::Idle;
        let is_there = |spare: &v1::Agent| spare.detail.starts_with("becomes an agent");
        let ready = agents.len() == 1
            && agents.iter().all(is_idle)
            && waiting.len() == spares
            && waiting.iter().all(is_there);
        Ok(ready.then_some(()))
    })
    .await
    .with_context(|| host.log())
}
