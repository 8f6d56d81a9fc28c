//! A host that is full: no agent is made, people are told, and jobs run on.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use iap_tests::azure_sim::JobRequest;
use iap_tests::host::{AZURE_POOL, Host};
use iap_tests::testbed::Testbed;
use iap_tests::wait;

use super::world::{GRACE, no_problem, options, problem, queue, running, runs_once, settled};
use crate::SOON;

/// Takes all but a little of the guest's disk, and gives it back with the job's end.
const FILLING: &str = "left=$(df --output=avail -BM / | tail -n 1 | tr -dc 0-9)\n\
                       head -c $((left - 60))M /dev/zero >/home/agent/filling\n\
                       sync\n\
                       while ! [ -e /srv/azure-sim/emptied ]; do sleep 0.2; done\n";

/// A storage pool of its own, removed with everything in it.
struct StoragePool(String);

impl StoragePool {
    fn new() -> anyhow::Result<Self> {
        let pool = Self(format!("t{}-small", std::process::id()));
        pool.incus(&["storage", "create", &pool.0, "btrfs", "size=2GiB"])?;
        Ok(pool)
    }

    fn incus(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("timeout")
            .args(["60", "incus", "-q"])
            .args(arguments)
            .env("INCUS_SOCKET", &Testbed::get().socket)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "incus {arguments:?}: {said}");
        Ok(())
    }
}

impl Drop for StoragePool {
    fn drop(&mut self) {
        let _ = self.incus(&["storage", "delete", &self.0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_storage_pool_no_agent_is_made_until_there_is_room() -> anyhow::Result<()> {
    let small = StoragePool::new()?;
    let mut options = options(2);
    let storage = format!("      storagePool: {}\n", small.0);
    options.incus_extra.push_str(&storage);
    // Dropped before the storage pool, in which its agents are.
    let host = Host::start(options).await?;
    settled(&host, 2).await?;
    let filling = JobRequest::new(AZURE_POOL).running(FILLING);
    let filling = host.sim.queue_job(filling)?;
    let full = running(&host, filling).await?;
    wait::until("the disk to be full", SOON, async || {
        let space = host.testbed.incus().storage_space(&small.0).await?;
        // Incus calls free what btrfs keeps for itself.
        Ok((space.used > space.total / 5 * 4).then_some(()))
    })
    .await?;

    let job = queue(&host, Duration::ZERO)?;
    runs_once(&host, job).await?;
    let told = problem(&host, "the host is full").await?;
    ensure!(told.contains(&small.0), "{told}");
    let others = async || {
        let mut instances = host.instances().await?;
        instances.retain(|name| *name != full);
        anyhow::Ok(instances)
    };
    wait::until("the one that is done to be gone", SOON, async || {
        Ok(others().await?.is_empty().then_some(()))
    })
    .await?;
    wait::never("an agent was made", GRACE * 2, async || {
        Ok(Some(others().await?).filter(|made| !made.is_empty()))
    })
    .await?;
    let waiting = queue(&host, Duration::ZERO)?;
    wait::until("to be told why the job waits", SOON, async || {
        let reasons = host.status().await?.wait_reasons;
        Ok(reasons
            .iter()
            .any(|reason| reason.contains("the storage pool of the instances is full"))
            .then_some(()))
    })
    .await?;
    ensure!(
        host.sim
            .job(filling)
            .is_some_and(|job| job.result.is_none()),
        "the job that fills the disk is left alone"
    );

    std::fs::write(host.dir().join("azure/emptied"), "")?;
    runs_once(&host, filling).await?;
    runs_once(&host, waiting).await?;
    settled(&host, 2).await?;
    no_problem(&host).await
}
