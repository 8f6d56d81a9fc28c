//! The daemon is killed between any two steps of an agent's life and started again. Each step is
//! held, by the simulator or by a proxy on Incus's socket, before or after it took effect.

use std::time::Duration;

use anyhow::Context;
use iap_common::v1;
use iap_tests::azure_sim::{Gate, HoldAt, Matching};
use iap_tests::fault_proxy::{FaultProxy, Held};
use iap_tests::host::{Host, HostOptions};

use super::world::{options, queue, runs_once, settled, settled_with};
use crate::SOON;

/// Longer than Azure keeps a session that nobody polls.
const SESSION_LAPSE: Duration = Duration::from_secs(400);

/// Where the daemon is killed.
enum Moment {
    /// The request is on its way to Azure.
    BeforeAzure(&'static str, &'static str),
    /// Azure has carried it out and not answered.
    AfterAzure(&'static str, &'static str),
    /// Incus has carried it out and not answered.
    AfterIncus(&'static str, &'static str),
}

use Moment::{AfterAzure, AfterIncus, BeforeAzure};

enum Hold {
    Azure(Gate),
    Incus(Held),
}

struct World {
    host: Host,
    proxy: FaultProxy,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> anyhow::Result<Self> {
        Self::with(options(1)).await
    }

    async fn with(options: HostOptions) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let incus = iap_tests::testbed::Testbed::get().socket;
        let proxy = FaultProxy::start(incus, dir.path().join("incus.sock"))?;
        let incus_socket = Some(proxy.path().to_owned());
        let host = Host::start(HostOptions {
            incus_socket,
            ..options
        })
        .await?;
        Ok(Self {
            host,
            proxy,
            _dir: dir,
        })
    }

    fn hold(&self, moment: &Moment) -> Hold {
        let azure =
            |method, path, at| Hold::Azure(self.host.sim.hold(Matching::new(method, path), at));
        match *moment {
            BeforeAzure(method, path) => azure(method, path, HoldAt::Before),
            AfterAzure(method, path) => azure(method, path, HoldAt::After),
            AfterIncus(method, part) => Hold::Incus(
                self.proxy
                    .hold(0, move |m, path| m == method && path.contains(part)),
            ),
        }
    }

    /// Waits until the step is held, kills the daemon, lets the step go on and starts the daemon.
    async fn kill_at(&mut self, mut hold: Hold) -> anyhow::Result<()> {
        match &mut hold {
            Hold::Azure(gate) => gate.wait_arrived(1, SOON).await?,
            Hold::Incus(held) => tokio::time::timeout(SOON, held.reached()).await?,
        }
        self.host.kill_daemon()?;
        match hold {
            Hold::Azure(gate) => gate.release(),
            Hold::Incus(held) => held.release(),
        }
        self.host.start_daemon().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_a_replacement_costs_no_job_and_leaves_one_agent()
-> anyhow::Result<()> {
    let mut world = World::new().await?;
    let moments = [
        ("told of the end", AfterIncus("HEAD", "status.json")),
        ("answered the doorbell", AfterIncus("POST", "verdict")),
        (
            "asked for an instance",
            AfterIncus("POST", "/1.0/instances?"),
        ),
        ("waits for the instance", AfterIncus("GET", "/wait")),
        ("registers", BeforeAzure("POST", "*/agents")),
        ("registered", AfterAzure("POST", "*/agents")),
        (
            "notes the registration",
            AfterIncus("PATCH", "/1.0/instances/"),
        ),
        (
            "tags the registration",
            BeforeAzure("PUT", "*/usercapabilities"),
        ),
        (
            "pushes the first file",
            AfterIncus("POST", "%2Fhome%2Fagent%2F"),
        ),
        ("pushes the hook", AfterIncus("POST", "iapd-agent-ended")),
        ("starts the listener", AfterIncus("POST", "/exec?")),
        ("listener begins", BeforeAzure("POST", "*/sessions")),
        (
            "deletes the old registration",
            BeforeAzure("DELETE", "*/agents/*"),
        ),
        (
            "deleted the old registration",
            AfterAzure("DELETE", "*/agents/*"),
        ),
    ];
    for (step, moment) in &moments {
        let run = async {
            let before = settled(&world.host, 1).await?;
            let hold = world.hold(moment);
            // Both at once: Azure fails jobs at once that no registered agent could take.
            let first = queue(&world.host, Duration::ZERO)?;
            let second = queue(&world.host, Duration::from_millis(100))?;
            world.kill_at(hold).await?;
            let first = runs_once(&world.host, first).await?;
            let second = runs_once(&world.host, second).await?;
            assert_eq!(first.agent.as_ref(), before.first(), "{step}");
            assert_ne!(first.agent, second.agent, "{step}");
            settled(&world.host, 1).await
        };
        run.await
            .with_context(|| format!("killed when it {step}"))?;
    }
    assert_eq!(world.host.sim.jobs_run_more_than_once(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_a_promotion_costs_no_job_and_leaves_one_agent_and_one_spare()
-> anyhow::Result<()> {
    let mut world = World::with(super::spares::options_with_spares(1, 1)).await?;
    let moments = [
        ("registers the spare", BeforeAzure("POST", "*/agents")),
        ("registered the spare", AfterAzure("POST", "*/agents")),
        ("pushes the hook", AfterIncus("POST", "iapd-agent-ended")),
        (
            "notes the registration",
            AfterIncus("PATCH", "/1.0/instances/"),
        ),
        (
            "pushes the first file",
            AfterIncus("POST", "%2Fhome%2Fagent%2F"),
        ),
        ("starts the listener", AfterIncus("POST", "/exec?")),
        ("listener begins", BeforeAzure("POST", "*/sessions")),
        (
            "asked for the next spare",
            AfterIncus("POST", "/1.0/instances?"),
        ),
        ("waits for the next spare", AfterIncus("GET", "/wait")),
    ];
    for (step, moment) in &moments {
        let run = async {
            let (before, _) = settled_with(&world.host, 1, 1).await?;
            let hold = world.hold(moment);
            let first = queue(&world.host, Duration::ZERO)?;
            let second = queue(&world.host, Duration::from_millis(100))?;
            world.kill_at(hold).await?;
            let first = runs_once(&world.host, first).await?;
            let second = runs_once(&world.host, second).await?;
            assert_eq!(first.agent.as_ref(), before.first(), "{step}");
            assert_ne!(first.agent, second.agent, "{step}");
            settled_with(&world.host, 1, 1).await
        };
        run.await
            .with_context(|| format!("killed when it {step}"))?;
    }
    assert_eq!(world.host.sim.jobs_run_more_than_once(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_of_a_drain_or_a_removal_leaves_one_agent_and_a_drain_goes_on()
-> anyhow::Result<()> {
    let mut world = World::new().await?;
    let drains = [
        ("noted the drain", AfterIncus("PATCH", "/1.0/instances/")),
        ("disables the agent", BeforeAzure("PATCH", "*/agents/*")),
        ("disabled the agent", AfterAzure("PATCH", "*/agents/*")),
        ("looks at the agent", BeforeAzure("GET", "*/agents/*")),
        ("stops the listener", AfterIncus("POST", "/exec?")),
        (
            "deletes the registration",
            BeforeAzure("DELETE", "*/agents/*"),
        ),
    ];
    let removals = [
        ("stops the instance", AfterIncus("PUT", "/state")),
        (
            "deletes the instance",
            AfterIncus("DELETE", "/1.0/instances/"),
        ),
    ];
    let all = drains
        .iter()
        .map(|m| (true, m))
        .chain(removals.iter().map(|m| (false, m)));
    for (is_drain, (step, moment)) in all {
        let run = async {
            let before = settled(&world.host, 1).await?.remove(0);
            let hold = world.hold(moment);
            let mut service = world.host.agent_service().await?;
            let name = before.clone();
            // Answered when it is done, or not at all when the daemon is killed first.
            let asked = async move {
                if is_drain {
                    let names = vec![name];
                    let request = v1::DrainAgentsRequest {
                        names,
                        ..Default::default()
                    };
                    let _ = service.drain_agents(request).await;
                } else {
                    let _ = service
                        .reap_agent(v1::ReapAgentRequest { name, force: true })
                        .await;
                }
            };
            tokio::join!(asked, world.kill_at(hold)).1?;
            if !is_drain {
                // A listener that was not stopped stays online in Azure until its session lapses.
                world.host.sim.advance(SESSION_LAPSE);
            }
            let after = settled(&world.host, 1).await?.remove(0);
            assert_ne!(before, after, "{step}");
            anyhow::Ok(())
        };
        run.await
            .with_context(|| format!("killed when it {step}"))?;
    }
    Ok(())
}
