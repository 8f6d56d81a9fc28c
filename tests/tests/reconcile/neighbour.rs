//! A second daemon on the same machine.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use iap_common::v1;
use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_tests::host::{Host, binary};
use iap_tests::wait;

use crate::SOON;

/// A second daemon on the same machine, with another owner, `neighbour`, and a pool of the same
/// name in the same Azure pool.
pub(crate) struct Neighbour {
    config: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl Neighbour {
    /// Makes its configuration, with so many agents.
    pub(crate) fn new(host: &Host, count: u32) -> anyhow::Result<Self> {
        let place = |name: &str| host.dir().join(name);
        let (config, socket, log) = (place("b.yaml"), place("b.sock"), place("b.log"));
        let state = |dir: &str| format!("stateDir: {}", place(dir).display());
        let text = host
            .config(count)
            .replace(
                &state("state"),
                &format!("owner: neighbour\n{}", state("state-b")),
            )
            .replace(
                &host.socket().display().to_string(),
                &socket.display().to_string(),
            );
        std::fs::write(&config, text)?;
        Ok(Self {
            config,
            socket,
            log,
            process: None,
        })
    }

    /// Starts it.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let process = Command::new(binary("iapd"))
            .args(["--config".as_ref(), self.config.as_os_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.process = Some(process);
        Ok(())
    }

    /// Waits until it has so many agents, all idle, and returns their names.
    pub(crate) async fn idle(&self, count: usize) -> anyhow::Result<Vec<String>> {
        wait::until("the neighbour's agents", SOON, async || {
            let channel = iap_common::client::connect(&self.socket).await?;
            let mut client = AgentServiceClient::new(channel);
            let agents = client.list_agents(v1::ListAgentsRequest::default()).await?;
            let agents = agents.into_inner().agents;
            let idle = agents
                .iter()
                .all(|agent| agent.state() == v1::AgentState::Idle);
            let names = || agents.iter().map(|agent| agent.name.clone()).collect();
            Ok((idle && agents.len() == count).then(names))
        })
        .await
        .map_err(|error| error.context(self.log()))
    }

    /// Returns what it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it, its agents stay.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.kill();
    }
}
