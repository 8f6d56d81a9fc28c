//! How long a slot is empty: from a job's end to the next agent's session.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::azure_sim::JobRequest;
use crate::host::{AZURE_POOL, Host, HostOptions};

use super::floor::{Floor, session};
use super::report::{line, percentile, ratio};

const LIMIT: Duration = Duration::from_secs(120);

/// Measures and prints.
pub async fn run(rounds: usize) -> anyhow::Result<()> {
    let mut floor = floor_rounds(rounds).await?;
    let mut iapd = iapd_rounds(rounds).await?;
    let (floor_p50, floor_p95) = (percentile(&mut floor, 50), percentile(&mut floor, 95));
    let (iapd_p50, iapd_p95) = (percentile(&mut iapd, 50), percentile(&mut iapd, 95));
    line(&format!(
        "floor (stop, create, files, exec): p50 {floor_p50:.2?}, p95 {floor_p95:.2?}"
    ));
    line(&format!(
        "iapd (job end to next session):    p50 {iapd_p50:.2?}, p95 {iapd_p95:.2?}"
    ));
    ratio("replace p50", iapd_p50, floor_p50, 1.3);
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

async fn iapd_rounds(rounds: usize) -> anyhow::Result<Vec<Duration>> {
    let host = Host::start(HostOptions {
        log: "info".into(),
        ..HostOptions::default()
    })
    .await?;
    host.wait_idle(1, LIMIT).await?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let job = JobRequest::new(AZURE_POOL).lasting(Duration::from_millis(500));
        let job = host.sim.queue_job(job)?;
        let ended = host.sim.wait_job(job, LIMIT).await?;
        let finished = ended.finished_instant.context("the job has no end")?;
        let next = session(&host, |_, at| at > finished).await?;
        times.push(next.duration_since(finished));
    }
    Ok(times)
}
