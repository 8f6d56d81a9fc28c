//! Pools and daemons that share an Azure pool leave each other's agents alone.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use iap_common::v1;
use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_tests::host::{Host, binary};
use iap_tests::wait;

use super::world::{GRACE, queue, reload, runs_once, settled, settled_host};
use crate::SOON;

fn of(names: &[String], prefix: &str) -> Vec<String> {
    names
        .iter()
        .filter(|name| name.starts_with(prefix))
        .cloned()
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pools_in_one_azure_pool_keep_to_their_own_agents() -> anyhow::Result<()> {
    let host = settled_host(2).await?;
    let one = host.config(2);
    let (head, pool) = one.split_once("pools:\n").expect("a pool");
    let name = format!("name: {}\n", host.pool);
    let second = pool.replacen(&name, &format!("name: {}-x\n", host.pool), 1);
    let both = format!("{head}pools:\n{pool}{second}");
    reload(&host, &both)?;
    let all = settled(&host, 4).await?;
    let (first, other) = (format!("{}-h-", host.pool), format!("{}-x-h-", host.pool));
    assert_eq!(
        (of(&all, &first).len(), of(&all, &other).len()),
        (2, 2),
        "{all:?}"
    );

    let jobs: Vec<u64> = (0..6)
        .map(|_| queue(&host, Duration::from_millis(300)))
        .collect::<anyhow::Result<_>>()?;
    for job in jobs {
        runs_once(&host, job).await?;
    }
    let all = settled(&host, 4).await?;
    let left = of(&all, &first);
    assert_eq!(left.len(), 2, "{all:?}");

    reload(&host, &one)?;
    let after = settled(&host, 2).await?;
    assert_eq!(after, left, "the other pool's end touches nobody else");
    Ok(())
}

/// A second daemon on the same machine, with another owner.
struct Neighbour {
    config: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    process: Option<Child>,
}

impl Neighbour {
    fn new(host: &Host) -> anyhow::Result<Self> {
        let place = |name: &str| host.dir().join(name);
        let (config, socket, log) = (place("b.yaml"), place("b.sock"), place("b.log"));
        let state = |dir: &str| format!("stateDir: {}", place(dir).display());
        let text = host
            .config(1)
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

    fn start(&mut self) -> anyhow::Result<()> {
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

    async fn idle(&self) -> anyhow::Result<String> {
        wait::until("the neighbour's agent", SOON, async || {
            let channel = iap_common::client::connect(&self.socket).await?;
            let mut client = AgentServiceClient::new(channel);
            let agents = client.list_agents(v1::ListAgentsRequest::default()).await?;
            let agents = agents.into_inner().agents;
            let idle = agents
                .iter()
                .all(|agent| agent.state() == v1::AgentState::Idle);
            Ok((idle && agents.len() == 1).then(|| agents[0].name.clone()))
        })
        .await
        .map_err(|error| error.context(std::fs::read_to_string(&self.log).unwrap_or_default()))
    }

    fn kill(&mut self) {
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

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_with_pools_of_one_name_keep_to_their_own_agents() -> anyhow::Result<()> {
    let mut host = settled_host(1).await?;
    let ours = host.registrations().remove(0);
    let mut neighbour = Neighbour::new(&host)?;
    neighbour.start()?;
    let theirs = neighbour.idle().await?;
    assert_ne!(ours, theirs);
    let touched = async |mine: &str| {
        wait::never("a neighbour's agent was touched", GRACE * 2, async || {
            let (instances, registrations) = (host.instances().await?, host.registrations());
            let there = instances.iter().any(|name| name == mine)
                && registrations.iter().any(|name| name == mine);
            Ok((!there).then_some((instances, registrations)))
        })
        .await
    };
    touched(&ours).await?;
    neighbour.kill();
    touched(&theirs).await?;
    neighbour.start()?;
    assert_eq!(neighbour.idle().await?, theirs);

    // Ours leaves altogether; theirs stays.
    std::fs::write(host.config_path(), host.config_without_pools())?;
    host.signal(nix::sys::signal::Signal::SIGHUP)?;
    wait::until("ours to leave", SOON, async || {
        let alone = host.registrations() == [theirs.clone()];
        Ok((alone && host.instances().await? == [theirs.clone()]).then_some(()))
    })
    .await?;
    host.stop_daemon().await?;
    assert_eq!(neighbour.idle().await?, theirs);
    Ok(())
}
