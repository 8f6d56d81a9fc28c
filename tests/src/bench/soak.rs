//! Whether the daemon grows: jobs flow for a while through agents, looked at, as people do, by
//! `iapctl`'s calls, and what the daemon holds is measured every minute. Old history goes after a
//! minute here, so that the store has to stay as large as it is, too.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use iap_common::v1;

use crate::azure_sim::{JobRequest, JobResult};
use crate::host::{AZURE_POOL, Host, HostOptions};
use crate::wait;

use super::report::line;
use super::usage::{METRICS_PORT, memory, open_files, tasks};

const AGENTS: usize = 6;
const LIMIT: Duration = Duration::from_secs(300);
/// Jobs are queued so often, and last so long: half of the agents are busy.
const EVERY: Duration = Duration::from_secs(1);
const LASTING: Duration = Duration::from_secs(2);
/// The pool, its caches and its store are filled by then.
const SETTLED: usize = 3;
/// What the last third may hold more than the first one.
const GROWTH: f64 = 1.1;

/// What the daemon holds at a time.
struct Sample {
    resident: u64,
    files: u64,
    tasks: u64,
    store: u64,
}

/// Measures and prints.
pub async fn run(minutes: usize) -> anyhow::Result<()> {
    let mut host = Host::prepare(HostOptions {
        count: u32::try_from(AGENTS)?,
        pool_extra: "    spares: 1\n".into(),
        top_extra: "history:\n  keepFor: 1m\n".into(),
        log: "info".into(),
        ..HostOptions::default()
    })
    .await?;
    let config = host.config(u32::try_from(AGENTS)?);
    let metrics = format!("metricsPort: {METRICS_PORT}");
    std::fs::write(
        host.config_path(),
        config.replace("metricsPort: 0", &metrics),
    )?;
    host.start_daemon().await?;
    wait::until("idle agents", LIMIT, async || {
        let agents = host.agents().await?;
        let idle = agents.iter().filter(|a| a.state() == v1::AgentState::Idle);
        Ok((idle.count() == AGENTS).then_some(()))
    })
    .await?;
    let mut samples = Vec::new();
    let mut jobs = Vec::new();
    line("minute      jobs   memory KiB   files   tasks   store KiB");
    for minute in 1..=SETTLED + minutes {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let job = JobRequest::new(AZURE_POOL).lasting(LASTING);
            jobs.push(host.sim.queue_job(job)?);
            host.agents().await?;
            tokio::time::sleep(EVERY).await;
        }
        let sample = look(&host).await?;
        line(&format!(
            "{minute:6}  {:8}   {:10}  {:6}  {:6}  {:10}",
            jobs.len(),
            sample.resident,
            sample.files,
            sample.tasks,
            sample.store / 1024
        ));
        samples.push(sample);
    }
    let mut done = 0;
    for job in &jobs {
        let ended = host.sim.wait_job(*job, LIMIT).await?;
        done += usize::from(ended.result == Some(JobResult::Succeeded));
    }
    line(&format!("{done} of {} jobs done", jobs.len()));
    let samples = samples.split_off(SETTLED);
    let all = |of: fn(&Sample) -> u64| samples.iter().map(of).collect();
    compare("memory", all(|sample| sample.resident));
    compare("open files", all(|sample| sample.files));
    compare("tasks", all(|sample| sample.tasks));
    compare("store", all(|sample| sample.store));
    Ok(())
}

async fn look(host: &Host) -> anyhow::Result<Sample> {
    let pid = host.pid().context("the daemon is not running")?;
    Ok(Sample {
        resident: memory(pid)?.resident,
        files: open_files(pid)?,
        tasks: tasks().await?,
        store: size(&host.dir().join("state"))?,
    })
}

/// Bytes of all files below a directory.
fn size(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // What is gone since it was listed takes no room.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        bytes += if metadata.is_dir() {
            size(&entry.path()).unwrap_or(0)
        } else {
            metadata.len()
        };
    }
    Ok(bytes)
}

/// Says whether the middle of the last third is above that of the first.
fn compare(what: &str, values: Vec<u64>) {
    let third = (values.len() / 3).max(1);
    let middle = |values: &[u64]| {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    };
    let first = middle(values.get(..third).unwrap_or(&values));
    let last = middle(values.get(values.len() - third..).unwrap_or(&values));
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let ratio = last as f64 / first.max(1) as f64;
    let verdict = if ratio <= GROWTH { "flat" } else { "GROWS" };
    line(&format!(
        "{what}: last third {ratio:.2} x first third (at most {GROWTH}: {verdict})"
    ));
}
