//! A host whose way to Incus leads through a proxy that faults can be put into.

use std::time::Duration;

use anyhow::Context;
use iap_common::v1;
use iap_tests::azure_sim::{JobRequest, JobResult};
use iap_tests::fault_proxy::FaultProxy;
use iap_tests::host::{AZURE_POOL, Host, HostOptions};
use iap_tests::testbed::Testbed;
use iap_tests::wait;
use tempfile::TempDir;

use crate::SOON;

/// See the module.
pub(crate) struct Way {
    pub(crate) host: Host,
    pub(crate) proxy: FaultProxy,
    _dir: TempDir,
}

impl Way {
    /// Starts a host with so many agents, without waiting for them.
    pub(crate) async fn start(count: u32) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let proxy = FaultProxy::start(Testbed::get().socket, dir.path().join("incus.sock"))?;
        let options = HostOptions {
            count,
            // An agent may end while nobody can see it: its registration goes after this.
            pool_extra: "    offlineGracePeriod: 3s\n".into(),
            incus_socket: Some(proxy.path().to_owned()),
            ..HostOptions::default()
        };
        let host = Host::start(options).await?;
        Ok(Self {
            host,
            proxy,
            _dir: dir,
        })
    }

    /// Starts a host and waits until all its agents are idle.
    pub(crate) async fn idle(count: u32) -> anyhow::Result<Self> {
        let way = Self::start(count).await?;
        way.host.wait_idle(count as usize, SOON).await?;
        Ok(way)
    }

    /// Returns how many instances were asked for.
    pub(crate) fn creates(&self) -> usize {
        self.proxy
            .requests()
            .iter()
            .filter(|r| r.starts_with("POST /1.0/instances?"))
            .count()
    }

    /// Waits until there are so many idle agents, and in Incus and in Azure these and no others.
    pub(crate) async fn settled(
        &self,
        count: usize,
        limit: Duration,
    ) -> anyhow::Result<Vec<String>> {
        let host = &self.host;
        wait::until(
            &format!("exactly {count} agents everywhere"),
            limit,
            async || {
                let agents = host.agents().await?;
                let idle = agents
                    .iter()
                    .all(|agent| agent.state() == v1::AgentState::Idle);
                let mut names: Vec<String> = agents.into_iter().map(|agent| agent.name).collect();
                let (mut instances, mut registrations) =
                    (host.instances().await?, host.registrations());
                names.sort();
                instances.sort();
                registrations.sort();
                // One that was taken for dead is disabled, and about to be replaced.
                let agents = host.sim.agents(host.azure_pool);
                let enabled = agents.iter().all(|agent| agent.enabled);
                let same = enabled && names == instances && names == registrations;
                anyhow::ensure!(
                    idle && same && names.len() == count,
                    "agents {names:?}, instances {instances:?}, registrations {registrations:?}"
                );
                Ok(Some(names))
            },
        )
        .await
        .with_context(|| host.log())
    }

    /// Queues so many short jobs.
    pub(crate) fn queue(&self, jobs: usize) -> anyhow::Result<Vec<u64>> {
        (0..jobs)
            .map(|n| {
                let job = JobRequest::new(AZURE_POOL).named(format!("job {n}"));
                self.host
                    .sim
                    .queue_job(job.lasting(Duration::from_millis(300)))
            })
            .collect()
    }

    /// Waits until jobs have succeeded, each of them once.
    pub(crate) async fn succeeded(&self, jobs: &[u64], limit: Duration) -> anyhow::Result<()> {
        for job in jobs {
            let ended = self.host.sim.wait_job(*job, limit).await?;
            assert_eq!(
                ended.result,
                Some(JobResult::Succeeded),
                "{ended:?}\n{}",
                self.host.log()
            );
            assert_eq!(ended.runs, 1, "{ended:?}");
        }
        Ok(())
    }
}
