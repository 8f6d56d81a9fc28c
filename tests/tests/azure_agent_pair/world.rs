//! A simulator with one pool, and agents installed from the package as an orchestrator would.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use iap_tests::azure_sim::{AzureSim, DEFAULT_ORG, Pat, SimOptions, Timings};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

/// The admin secret of these tests; no agent may come to know it.
pub(crate) const PAT: &str = "sim-admin-pat-7f3a";

/// Long enough for a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A throw-away key that belongs to nothing; every agent here has it.
const VECTORS: &str = include_str!("../../fake_agent/src/key/vectors.json");

pub(crate) struct World {
    pub(crate) sim: AzureSim,
    pub(crate) pool: u64,
    base: String,
    scale: f64,
}

impl World {
    /// Starts a simulator in which time runs so much faster.
    pub(crate) async fn fast(scale: f64) -> Result<Self> {
        let timings = Timings::scaled(scale);
        Self::with(SimOptions {
            timings,
            ..SimOptions::default()
        })
        .await
    }

    pub(crate) async fn with(options: SimOptions) -> Result<Self> {
        let scale = options.timings.time_scale;
        let sim = AzureSim::start(options).await?;
        sim.add_pat(Pat::manage(PAT));
        let pool = sim.add_pool(DEFAULT_ORG, "linux");
        let base = format!(
            "http://{}/{DEFAULT_ORG}/_apis/distributedtask/pools/{pool}",
            sim.address()
        );
        Ok(Self {
            sim,
            pool,
            base,
            scale,
        })
    }

    /// Registers an agent with a key and the capability `stove`, and returns the service's answer.
    pub(crate) async fn register(&self, name: &str) -> Result<Value> {
        let vectors: Value = serde_json::from_str(VECTORS)?;
        let body = json!({
            "name": name,
            "version": "4.275.0",
            "maxParallelism": 1,
            "provisioningState": "Provisioned",
            "authorization": { "publicKey": vectors["publicKeyForAgentRegistration"] },
            "systemCapabilities": { "stove": "1", "Agent.Name": name },
        });
        let url = format!("{}/agents?api-version=7.1", self.base);
        let request = reqwest::Client::new()
            .post(url)
            .basic_auth("", Some(PAT))
            .json(&body);
        Ok(request
            .timeout(PATIENCE)
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    pub(crate) async fn delete_agent(&self, name: &str) -> Result<()> {
        let agents = self.sim.agents(self.pool);
        let agent = agents
            .iter()
            .find(|agent| agent.name == name)
            .context("no such agent")?;
        let url = format!("{}/agents/{}?api-version=7.1", self.base, agent.id);
        let request = reqwest::Client::new().delete(url).basic_auth("", Some(PAT));
        request.timeout(PATIENCE).send().await?.error_for_status()?;
        Ok(())
    }

    pub(crate) async fn wait_online(&self, name: &str) -> Result<()> {
        let online = self.sim.wait_agents(self.pool, PATIENCE, |agents| {
            agents
                .iter()
                .any(|agent| agent.name == name && agent.online)
        });
        online.await.map(drop)
    }

    /// Unpacks the package and puts the agent's files beside it.
    pub(crate) fn install(&self, registration: &Value) -> Result<Package> {
        let package = Package {
            directory: tempfile::tempdir()?,
            scale: self.scale,
        };
        let unpacked = std::process::Command::new("tar")
            .arg("-xzf")
            .arg(tarball()?)
            .arg("-C")
            .arg(package.directory.path())
            .status()?;
        ensure!(unpacked.success(), "tar: {unpacked}");
        let vectors: Value = serde_json::from_str(VECTORS)?;
        let url = &registration["authorization"]["authorizationUrl"];
        let files = [
            (
                ".agent",
                json!({
                    "acceptTeeEula": true,
                    "agentId": registration["id"],
                    "agentName": registration["name"],
                    "poolId": self.pool,
                    "poolName": "linux",
                    "serverUrl": self.sim.url(DEFAULT_ORG),
                    "workFolder": "_work",
                }),
            ),
            (
                ".credentials",
                json!({ "scheme": "OAuth", "data": {
                    "clientId": registration["authorization"]["clientId"],
                    "authorizationUrl": url,
                    "oauthEndpointUrl": url,
                }}),
            ),
            (
                ".credentials_rsaparams",
                vectors["credentials_rsaparams"].clone(),
            ),
        ];
        for (name, content) in files {
            package.write(name, &content.to_string())?;
        }
        Ok(package)
    }
}

/// Builds the package once and returns where it is.
fn tarball() -> Result<&'static Path> {
    static TARBALL: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = TARBALL.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fake_agent/package");
        let output = std::process::Command::new(script)
            .output()
            .map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let stdout = String::from_utf8_lossy(&output.stdout);
        stdout
            .lines()
            .last()
            .map(PathBuf::from)
            .ok_or_else(|| "no path".to_owned())
    });
    built
        .as_deref()
        .map_err(|error| anyhow::anyhow!("the package cannot be built: {error}"))
}

/// An unpacked agent with its files.
pub(crate) struct Package {
    directory: tempfile::TempDir,
    scale: f64,
}

impl Package {
    pub(crate) fn write(&self, name: &str, content: &str) -> Result<()> {
        Ok(fs::write(self.directory.path().join(name), content)?)
    }

    /// Starts `run.sh --once`.
    pub(crate) fn start(&self, variables: &[(&str, &str)]) -> Result<Agent> {
        let root = self.directory.path();
        let logs = tempfile::tempdir()?;
        let child = Command::new(root.join("run.sh"))
            .arg("--once")
            .env("AGENT_ALLOW_RUNASROOT", "1")
            .env("FAKE_AGENT_TIME_SCALE", self.scale.to_string())
            .env("FAKE_AGENT_UPDATE_PAUSE", "0")
            .env("FAKE_AGENT_FORBIDDEN", sha256(PAT))
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(logs.path().join("stdout"))?)
            .stderr(File::create(logs.path().join("stderr"))?)
            .process_group(0)
            .spawn()?;
        Ok(Agent { child, logs })
    }
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A running agent.
pub(crate) struct Agent {
    child: Child,
    logs: tempfile::TempDir,
}

/// How an agent ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Agent {
    /// Signals the listener itself, which `run.sh` does not do.
    pub(crate) async fn signal_listener(&self, signal: Signal) -> Result<()> {
        let shell = self.child.id().context("it has ended")?;
        let children = tokio::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        let children = children.await?;
        let listener = children.split_whitespace().next().context("no listener")?;
        Ok(kill(Pid::from_raw(listener.parse()?), signal)?)
    }

    /// Waits until the agent ends by itself.
    pub(crate) async fn end(mut self) -> Result<End> {
        let read = |name: &str| fs::read_to_string(self.logs.path().join(name));
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => {
                let code = status?.code();
                Ok(End {
                    code,
                    stdout: read("stdout")?,
                    stderr: read("stderr")?,
                })
            }
            Err(_) => bail!("it does not end: {} {}", read("stdout")?, read("stderr")?),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // A failed test leaves the shell and its listener; after a good one the id is gone.
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// Returns the lines with their times, which have to be there in the right form, made equal.
pub(crate) fn stamped(stdout: &str) -> Vec<String> {
    let shape = "dddd-dd-dd dd:dd:ddZ: ";
    let line = |line: &str| {
        let fits = line.len() > shape.len()
            && shape.chars().zip(line.chars()).all(|(wanted, found)| {
                if wanted == 'd' {
                    found.is_ascii_digit()
                } else {
                    wanted == found
                }
            });
        if fits {
            format!("TIME: {}", &line[shape.len()..])
        } else {
            line.to_owned()
        }
    };
    stdout.lines().map(line).collect()
}
