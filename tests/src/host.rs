//! A host as an operator has it: the simulator as Azure, `iapd` as a process of its own on the
//! real Incus, and its gRPC socket. Everything it made goes when it is dropped.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tonic::transport::Channel;

use iap_common::v1;
use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_common::v1::daemon_service_client::DaemonServiceClient;
use iap_common::v1::pool_service_client::PoolServiceClient;

use crate::azure_sim::{AzureSim, Pat, SimOptions};
use crate::testbed::Testbed;
use crate::wait;

/// Organisation, Azure pool and token of the simulator.
pub const ORG: &str = "sim-org";
/// See [`ORG`].
pub const AZURE_POOL: &str = "linux";
/// See [`ORG`]. Looked for in guests by the secrecy test.
pub const PAT: &str = "sim-pat-5d41402abc4b2a76b9719d911017c592";

/// How long the daemon may take to open its socket.
const START: Duration = Duration::from_secs(20);
/// How long it may take to stop: its own bound is 20 s.
const STOP: Duration = Duration::from_secs(30);

static HOSTS: AtomicU32 = AtomicU32::new(0);

/// What a test wants of its host.
#[derive(Debug, Clone)]
pub struct HostOptions {
    /// Agents in the pool.
    pub count: u32,
    /// YAML lines for the pool, indented by four.
    pub pool_extra: String,
    /// YAML lines for the pool's `incus` section, indented by six.
    pub incus_extra: String,
    /// YAML lines for the `daemon` section, indented by two.
    pub daemon_extra: String,
    /// YAML lines at the top.
    pub top_extra: String,
    /// Image alias.
    pub image: Option<String>,
    /// Incus's socket, if it is not the test bed's.
    pub incus_socket: Option<PathBuf>,
    /// YAML lines that say where Incus is, in place of a socket, indented by two.
    pub incus_remote: Option<String>,
    /// Another test bed than the one that all tests share.
    pub testbed: Option<Testbed>,
    /// What to log.
    pub log: String,
}

impl Default for HostOptions {
    fn default() -> Self {
        Self {
            count: 1,
            pool_extra: String::new(),
            incus_extra: String::new(),
            daemon_extra: String::new(),
            top_extra: String::new(),
            image: None,
            incus_socket: None,
            incus_remote: None,
            testbed: None,
            log: "info,iapd=debug".into(),
        }
    }
}

/// See the module.
pub struct Host {
    /// Azure.
    pub sim: AzureSim,
    /// The Azure pool's id.
    pub azure_pool: u64,
    /// The test bed.
    pub testbed: Testbed,
    /// The pool's name, no other test's.
    pub pool: String,
    dir: TempDir,
    options: HostOptions,
    daemon: Option<Child>,
}

impl Host {
    /// Starts the simulator and the daemon.
    pub async fn start(options: HostOptions) -> anyhow::Result<Self> {
        let mut host = Self::prepare(options).await?;
        host.start_daemon().await?;
        Ok(host)
    }

    /// Starts the simulator and writes the configuration.
    pub async fn prepare(options: HostOptions) -> anyhow::Result<Self> {
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let pool = format!("t{}-{number}", std::process::id());
        // Below /var/tmp: the simulator's socket is bind-mounted into guests.
        let dir = tempfile::Builder::new()
            .prefix("iapd-test-")
            .tempdir_in("/var/tmp")?;
        open_for_guests(dir.path())?;
        let azure = dir.path().join("azure");
        std::fs::create_dir(&azure)?;
        open_for_guests(&azure)?;
        let sim = AzureSim::start(SimOptions {
            unix_socket: Some(azure.join("azure.sock")),
            ..SimOptions::default()
        })
        .await?;
        let azure_pool = sim.add_pool(ORG, AZURE_POOL);
        sim.add_pat(Pat::manage(PAT));
        let testbed = options.testbed.clone().unwrap_or_else(Testbed::get);
        let host = Self {
            sim,
            azure_pool,
            testbed,
            pool,
            dir,
            options,
            daemon: None,
        };
        host.make_profile()?;
        host.write_config(host.options.count)?;
        Ok(host)
    }

    /// The profile that gives guests the simulator's socket.
    fn make_profile(&self) -> anyhow::Result<()> {
        let source = format!("source={}", self.dir.path().join("azure").display());
        self.incus(&["profile", "create", &self.pool])?;
        self.incus(&[
            "profile",
            "device",
            "add",
            &self.pool,
            "azure",
            "disk",
            &source,
            "path=/srv/azure-sim",
        ])
    }

    /// Runs Incus's own client in the test bed's project.
    pub fn incus(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("timeout")
            .args(["60", "incus", "--project", &self.testbed.project, "-q"])
            .args(arguments)
            .env("INCUS_SOCKET", &self.testbed.socket)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!(
                "incus {arguments:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// Writes the configuration with another number of agents.
    pub fn write_config(&self, count: u32) -> anyhow::Result<()> {
        std::fs::write(self.config_path(), self.config(count)).context("cannot write config")
    }

    /// Returns the configuration.
    pub fn config(&self, count: u32) -> String {
        let socket = self
            .options
            .incus_socket
            .as_ref()
            .unwrap_or(&self.testbed.socket);
        let socket = || format!("  socket: {}\n", socket.display());
        let incus = self.options.incus_remote.clone().unwrap_or_else(socket);
        let image = self.options.image.as_ref().unwrap_or(&self.testbed.runner);
        let mut text = String::new();
        let _ = write!(
            text,
            "metricsPort: 0\n\
             stateDir: {state}\n\
             socket:\n  path: {grpc}\n\
             incus:\n{incus}\
             daemon:\n  reconcileInterval: 2s\n  reaperInterval: 2s\n\
             {daemon}{top}\
             pools:\n\
             \x20 - name: {pool}\n\
             \x20   agentCount: {count}\n\
             \x20   agentPrefix: h\n\
             {pool_extra}\
             \x20   azure:\n\
             \x20     patFile: {pat}\n\
             \x20     url: {url}\n\
             \x20     pool: {azure_pool}\n\
             \x20     pollInterval: 1s\n\
             \x20   incus:\n\
             \x20     projectName: {project}\n\
             \x20     image: {image}\n\
             \x20     profiles: [default, {pool}]\n\
             {incus_extra}",
            state = self.dir.path().join("state").display(),
            grpc = self.socket().display(),
            daemon = self.options.daemon_extra,
            top = self.options.top_extra,
            pool = self.pool,
            pool_extra = self.options.pool_extra,
            pat = self.dir.path().join("pat").display(),
            url = self.sim.url(ORG),
            azure_pool = AZURE_POOL,
            project = self.testbed.project,
            incus_extra = self.options.incus_extra,
        );
        let _ = std::fs::write(self.dir.path().join("pat"), PAT);
        text
    }

    /// Returns the configuration without any pool.
    pub fn config_without_pools(&self) -> String {
        let text = self.config(1);
        let head = text.split("pools:").next().unwrap_or_default();
        format!("{head}pools: []\n")
    }

    /// Returns the configuration file's path.
    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    /// Returns the gRPC socket's path.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("iapd.sock")
    }

    /// Returns a directory of this host's own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the daemon and waits for its socket.
    pub async fn start_daemon(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let child = Command::new(binary("iapd"))
            .args(["--config".as_ref(), self.config_path().as_os_str()])
            .args(["--log-level", &self.options.log])
            .envs(unit_environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start iapd: run tests/run, which builds it")?;
        self.daemon = Some(child);
        wait::until("the daemon's socket", START, async || {
            Ok(iap_common::client::connect(&self.socket()).await.ok())
        })
        .await
        .map(|_| ())
        .with_context(|| self.log())
    }

    /// Returns the daemon's log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("iapd.log")
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let daemon = self.daemon.as_ref().context("the daemon is not running")?;
        kill(Pid::from_raw(i32::try_from(daemon.id())?), signal).context("cannot signal")
    }

    /// Takes the pool out of the configuration and waits until nothing of it is left.
    pub async fn empty(&self, limit: Duration) -> anyhow::Result<()> {
        std::fs::write(self.config_path(), self.config_without_pools())?;
        self.signal(Signal::SIGHUP)?;
        self.wait_nothing_left(limit).await
    }

    /// Returns the daemon's process id.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    /// Kills the daemon as a power cut would.
    pub fn kill_daemon(&mut self) -> anyhow::Result<()> {
        let mut daemon = self.daemon.take().context("the daemon is not running")?;
        daemon.kill()?;
        daemon.wait()?;
        Ok(())
    }

    /// Stops the daemon as systemd does and returns its exit code.
    pub async fn stop_daemon(&mut self) -> anyhow::Result<Option<i32>> {
        self.signal(Signal::SIGTERM)?;
        self.wait_for_exit().await
    }

    /// Waits until the daemon has ended and returns its exit code.
    pub async fn wait_for_exit(&mut self) -> anyhow::Result<Option<i32>> {
        let mut daemon = self.daemon.take().context("the daemon is not running")?;
        let began = std::time::Instant::now();
        loop {
            if let Some(status) = daemon.try_wait()? {
                return Ok(status.code());
            }
            if began.elapsed() > STOP {
                daemon.kill()?;
                daemon.wait()?;
                bail!("the daemon does not stop:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Connects to the daemon.
    pub async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(iap_common::client::connect(&self.socket()).await?)
    }

    /// Returns all agents as the daemon tells them.
    pub async fn agents(&self) -> anyhow::Result<Vec<v1::Agent>> {
        let mut client = AgentServiceClient::new(self.channel().await?);
        match client.list_agents(v1::ListAgentsRequest::default()).await {
            Ok(answer) => Ok(answer.into_inner().agents),
            // It has just started and has not seen any yet.
            Err(status) if status.code() == tonic::Code::Unavailable => Ok(Vec::new()),
            Err(status) => Err(status.into()),
        }
    }

    /// Returns the pool as the daemon tells it.
    pub async fn status(&self) -> anyhow::Result<v1::Pool> {
        let mut client = PoolServiceClient::new(self.channel().await?);
        let request = v1::GetPoolRequest {
            name: self.pool.clone(),
        };
        client
            .get_pool(request)
            .await?
            .into_inner()
            .pool
            .context("no pool")
    }

    /// Returns what the daemon tells of itself.
    pub async fn daemon_status(&self) -> anyhow::Result<v1::GetStatusResponse> {
        let mut client = self.daemon_service().await?;
        Ok(client
            .get_status(v1::GetStatusRequest {})
            .await?
            .into_inner())
    }

    /// Returns a client of the agent service.
    pub async fn agent_service(&self) -> anyhow::Result<AgentServiceClient<Channel>> {
        Ok(AgentServiceClient::new(self.channel().await?))
    }

    /// Returns a client of the pool service.
    pub async fn pool_service(&self) -> anyhow::Result<PoolServiceClient<Channel>> {
        Ok(PoolServiceClient::new(self.channel().await?))
    }

    /// Returns a client of the daemon service.
    pub async fn daemon_service(&self) -> anyhow::Result<DaemonServiceClient<Channel>> {
        Ok(DaemonServiceClient::new(self.channel().await?))
    }

    /// Waits until exactly so many agents are idle and nothing else is there.
    pub async fn wait_idle(&self, count: usize, limit: Duration) -> anyhow::Result<Vec<v1::Agent>> {
        wait::until(&format!("{count} idle agents"), limit, async || {
            let agents = self.agents().await?;
            let idle = agents
                .iter()
                .all(|agent| agent.state() == v1::AgentState::Idle);
            Ok((idle && agents.len() == count).then_some(agents))
        })
        .await
        .with_context(|| self.log())
    }

    /// Returns the names of the pool's instances as Incus tells them.
    pub async fn instances(&self) -> anyhow::Result<Vec<String>> {
        let all = self.testbed.project().instances().await?;
        let prefix = format!("{}-", self.pool);
        Ok(all
            .into_iter()
            .map(|i| i.name)
            .filter(|name| name.starts_with(&prefix))
            .collect())
    }

    /// Returns the names of the registrations as Azure tells them.
    pub fn registrations(&self) -> Vec<String> {
        self.sim
            .agents(self.azure_pool)
            .into_iter()
            .map(|agent| agent.name)
            .collect()
    }

    /// Waits until neither instances nor registrations are left.
    pub async fn wait_nothing_left(&self, limit: Duration) -> anyhow::Result<()> {
        wait::until("everything to be gone", limit, async || {
            let left = (self.instances().await?, self.registrations());
            Ok((left.0.is_empty() && left.1.is_empty()).then_some(()))
        })
        .await
        .with_context(|| self.log())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("IAPD_TEST_LOG").is_some() {
            let mut err = std::io::stderr();
            let _ = std::io::Write::write_all(&mut err, self.log().as_bytes());
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let list = Command::new("timeout")
            .args([
                "30",
                "incus",
                "--project",
                &self.testbed.project,
                "list",
                "-f",
                "csv",
                "-cn",
            ])
            .env("INCUS_SOCKET", &self.testbed.socket)
            .output();
        let names = list.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
        let prefix = format!("{}-", self.pool);
        for name in names
            .unwrap_or_default()
            .lines()
            .filter(|name| name.starts_with(&prefix))
        {
            let _ = self.incus(&["delete", "-f", name]);
        }
        let _ = self.incus(&["profile", "delete", &self.pool]);
    }
}

/// Returns what the service unit sets in the daemon's environment.
fn unit_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../../packaging/debian/iapd.service")
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
}

/// Returns the path of a program of this workspace: tests run from `target/<profile>/deps`.
pub fn binary(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().unwrap_or_default();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir.join(name)
}

/// Guests' users have no more rights here than anybody.
fn open_for_guests(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
