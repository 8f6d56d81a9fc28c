//! What the chaos goes over: an Incus of its own behind a proxy, the simulator, and one daemon with
//! two pools.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use iap_common::v1;

use super::clock::Clock;
use super::journal::Journal;
use crate::fault_proxy::FaultProxy;
use crate::host::{AZURE_POOL, Host, HostOptions, ORG, binary};
use crate::private_incus::PrivateIncus;
use crate::testbed::Testbed;
use crate::wait;

/// The second Azure pool.
pub const SECOND_POOL: &str = "linux-second";
/// Agents in each pool.
pub const AGENTS: u32 = 3;
const START: Duration = Duration::from_secs(60);

/// See the module. `close` puts the machine back.
pub struct World {
    /// The daemon's files, the simulator, the gRPC clients. The daemon itself is below.
    pub host: Host,
    /// The daemon's way to Incus.
    pub proxy: FaultProxy,
    /// Incus.
    pub incus: tokio::sync::Mutex<PrivateIncus>,
    /// Where Incus is.
    pub testbed: Testbed,
    /// Our pools' names; the second begins with the first.
    pub pools: [String; 2],
    /// The Azure pools' ids.
    pub azure_pools: [u64; 2],
    /// The daemon's wall clock.
    pub clock: Clock,
    /// What was done.
    pub journal: Journal,
    /// The image's fingerprint, and that of its twin.
    pub images: [String; 2],
    /// See [`super::Plan`].
    pub seed: u64,
    daemon: Mutex<Option<Child>>,
    began: Instant,
}

impl World {
    /// Brings everything up but the daemon's agents.
    pub async fn start(seed: u64) -> anyhow::Result<Self> {
        let incus = PrivateIncus::start_sized("16GiB").await?;
        let incus = incus.context("the chaos run wants root, for an Incus of its own")?;
        incus.simplify_quotas()?;
        let twin = incus.import_twin()?;
        let testbed = incus.testbed();
        let original = testbed.project().alias(&testbed.runner).await?;
        let images = [original.context("no image")?, twin];
        let proxy = FaultProxy::start(&testbed.socket, incus.dir().join("proxy.socket"))?;
        let host = Host::prepare(HostOptions {
            count: AGENTS,
            pool_extra: "    offlineGracePeriod: 8s\n".into(),
            incus_extra: "      startupGracePeriod: 20s\n\
                 \x20     maxProcesses: 400\n\
                 \x20     maxRamInGb: 1\n\
                 \x20     maxCores: 1\n\
                 \x20     diskSizeInGb: 2\n"
                .into(),
            testbed: Some(testbed.clone()),
            incus_socket: Some(proxy.path().to_owned()),
            ..HostOptions::default()
        })
        .await?;
        // A pool that is empty for a moment must not cost jobs: it has agents on other hosts.
        host.sim.switch(|switches| switches.no_queue_check = true);
        let second = host.sim.add_pool(ORG, SECOND_POOL);
        let clock = Clock::new(host.dir())?;
        let world = Self {
            azure_pools: [host.azure_pool, second],
            pools: [host.pool.clone(), format!("{}-b", host.pool)],
            host,
            proxy,
            incus: tokio::sync::Mutex::new(incus),
            testbed,
            clock,
            journal: Journal::default(),
            images,
            seed,
            daemon: Mutex::new(None),
            began: Instant::now(),
        };
        world.write_config(AGENTS)?;
        world.start_daemon().await?;
        Ok(world)
    }

    /// Prints a line, with the time since the start.
    #[expect(clippy::print_stdout, reason = "the run's answer")]
    pub fn say(&self, line: &str) {
        println!("chaos: {:7.1}s {line}", self.began.elapsed().as_secs_f64());
    }

    /// Notes that something begins, and prints it.
    pub fn begin(&self, kind: &'static str, target: Option<&str>) -> usize {
        self.say(&format!("  {kind} {}", target.unwrap_or_default()));
        self.journal.begin(kind, target)
    }

    /// Writes the configuration with so many agents in each pool.
    pub fn write_config(&self, count: u32) -> anyhow::Result<()> {
        let config = self.host.config(count);
        let (head, first) = config.split_once("pools:\n").context("no pools")?;
        let second = first
            .replace(
                &format!("name: {}\n", self.pools[0]),
                &format!(
                    "name: {}\n    keep: {{when: [job-failed, never-online], ttl: 15s, max: 1}}\n",
                    self.pools[1]
                ),
            )
            .replace(
                &format!("pool: {AZURE_POOL}\n"),
                &format!("pool: {SECOND_POOL}\n"),
            );
        let text = format!("{head}pools:\n{first}{second}");
        std::fs::write(self.host.config_path(), text).context("cannot write the configuration")
    }

    /// Starts the daemon and waits until it serves.
    pub async fn start_daemon(&self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let mut command = Command::new(binary("iapd"));
        self.clock.give(&mut command);
        let child = command
            .args(["--config".as_ref(), self.host.config_path().as_os_str()])
            .args(["--log-level", "info,iapd=debug"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start iapd: run tests/run, which builds it")?;
        *self.daemon.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
        wait::until("the daemon's socket", START, async || {
            ensure!(self.daemon_runs(), "iapd ended by itself");
            Ok(iap_common::client::connect(&self.host.socket()).await.ok())
        })
        .await
        .map(|_| ())
        .with_context(|| tail(&self.host.log()))
    }

    /// Returns whether the daemon was started and has not ended.
    pub fn daemon_runs(&self) -> bool {
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let child = daemon.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Kills the daemon as a power cut would.
    pub fn kill_daemon(&self) -> anyhow::Result<()> {
        ensure!(self.daemon_runs(), "iapd ended by itself");
        let mut daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = daemon.take().context("the daemon is not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Makes the daemon read its configuration again.
    pub fn reload(&self) -> anyhow::Result<()> {
        let daemon = self.daemon.lock().unwrap_or_else(PoisonError::into_inner);
        let child = daemon.as_ref().context("the daemon is not running")?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).context("cannot signal")
    }

    /// Waits until the pools are filled.
    pub async fn wait_started(&self) -> anyhow::Result<()> {
        let wanted = 2 * AGENTS as usize;
        wait::until("all agents", START, async || {
            let agents = self.host.agents().await?;
            let idle = |agent: &&v1::Agent| agent.state() == v1::AgentState::Idle;
            Ok((agents.iter().filter(idle).count() == wanted).then_some(()))
        })
        .await
        .with_context(|| self.host.log())
    }

    /// Returns the names of the instances as Incus tells them.
    pub async fn instances(&self) -> anyhow::Result<Vec<String>> {
        self.host.instances().await
    }

    /// Runs Incus's own client beside the proxy.
    pub async fn incus(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = tokio::process::Command::new("timeout")
            .args(["60", "incus", "-q"])
            .args(arguments)
            .env("INCUS_SOCKET", &self.testbed.socket)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "incus {arguments:?}: {said}");
        Ok(())
    }

    /// Returns the daemon's log.
    pub fn log_path(&self) -> PathBuf {
        self.host.dir().join("iapd.log")
    }

    /// Returns where the daemon keeps its records.
    pub fn state_dir(&self) -> PathBuf {
        self.host.dir().join("state")
    }

    /// Copies the daemon's log to where it is not removed.
    pub fn keep_logs(&self) {
        let to = Path::new("/var/tmp").join(format!("iapd-chaos-{}.log", self.seed));
        if std::fs::copy(self.log_path(), &to).is_ok() {
            self.say(&format!("the daemon's log is {}", to.display()));
        }
    }

    /// Ends what was going wrong, so that everything can be removed.
    pub async fn close(&self) -> anyhow::Result<()> {
        // It has gone already when all went well.
        let _ = self.kill_daemon();
        let mut incus = self.incus.lock().await;
        if !incus.is_running() {
            incus.launch().await?;
        }
        Ok(())
    }
}

/// Returns the last lines.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

impl Drop for World {
    fn drop(&mut self) {
        // It has gone already when all went well.
        let _ = self.kill_daemon();
    }
}
