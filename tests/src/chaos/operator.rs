//! An operator at work: drains, pauses, other counts, keeps, and people who look.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use iap_common::v1;
use iap_common::v1::scale_pool_request::Change;
use tokio_util::sync::CancellationToken;

use super::world::{AGENTS, World};
use super::{Deck, pause};
use crate::host::binary;

/// What is done.
#[derive(Debug, Clone, Copy)]
enum Act {
    DrainAgent,
    DrainDeadline,
    DrainForce,
    DrainPool,
    DrainHost,
    Reap,
    ReapForce,
    PauseFor,
    PauseResume,
    PauseHost,
    Scale,
    ScaleReset,
    Recycle,
    RecycleOutdated,
    Keep,
    Release,
    Retry,
    Reload,
    Follow,
    Look,
}

/// A drain that kills what is left after a moment.
pub const DEADLINE: &str = "drain with deadline";
/// A drain that kills at once.
pub const DRAIN_FORCE: &str = "drain by force";
/// A removal that kills at once.
pub const REAP_FORCE: &str = "reap by force";

const ALL: [Act; 20] = [
    Act::DrainAgent,
    Act::DrainDeadline,
    Act::DrainForce,
    Act::DrainPool,
    Act::DrainHost,
    Act::Reap,
    Act::ReapForce,
    Act::PauseFor,
    Act::PauseResume,
    Act::PauseHost,
    Act::Scale,
    Act::ScaleReset,
    Act::Recycle,
    Act::RecycleOutdated,
    Act::Keep,
    Act::Release,
    Act::Retry,
    Act::Reload,
    Act::Follow,
    Act::Look,
];

/// An answer that is later than this is a finding of its own; the daemon bounds its calls.
const PATIENCE: Duration = Duration::from_secs(120);

/// Does one thing after the other until it is told to stop.
pub(super) async fn run(
    world: Arc<World>,
    rng: fastrand::Rng,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut deck = Deck::new(&ALL, rng);
    while !stop.is_cancelled() {
        pause(deck.millis(2000..7000), &stop).await;
        let Some(act) = deck.draw() else { break };
        // The daemon may be down, on purpose.
        let agents = world.host.agents().await.unwrap_or_default();
        let ours = |agent: &&v1::Agent| agent.pool.starts_with(&world.pools[0]);
        let all: Vec<v1::Agent> = agents.iter().filter(ours).cloned().collect();
        let kept = all.iter().filter(|a| a.state() == v1::AgentState::Kept);
        let kept: Vec<v1::Agent> = kept.cloned().collect();
        let from = if matches!(act, Act::Release) {
            &kept
        } else {
            &all
        };
        let turn = Turn {
            agent: deck.one_of(from).map(|agent| agent.name.clone()),
            pool: deck.one_of(&world.pools).cloned().unwrap_or_default(),
            lasting: deck.millis(1000..5000),
            count: deck.one_of(&[0, 1, 2, 4, 5]).copied().unwrap_or(AGENTS),
        };
        let target = turn.agent.as_deref().filter(|_| act.is_of_one());
        if act.is_of_one() && target.is_none() {
            continue;
        }
        let number = world.begin(act.kind(), target);
        let done = tokio::time::timeout(PATIENCE, turn.carry_out(&world, act)).await;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => world.journal.refused(&format!("{}: {error}", act.kind())),
            Err(_) => anyhow::bail!("{act:?} was not answered within {PATIENCE:?}"),
        }
        world.journal.end(number);
    }
    Ok(())
}

impl Act {
    fn is_of_one(self) -> bool {
        matches!(
            self,
            Self::DrainAgent
                | Self::DrainDeadline
                | Self::DrainForce
                | Self::Reap
                | Self::ReapForce
                | Self::Keep
                | Self::Release
                | Self::Follow
        )
    }

    fn kind(self) -> &'static str {
        match self {
            Self::DrainAgent => "drain",
            Self::DrainDeadline => DEADLINE,
            Self::DrainForce => DRAIN_FORCE,
            Self::DrainPool => "drain of a pool",
            Self::DrainHost => "drain of the host",
            Self::Reap => "reap",
            Self::ReapForce => REAP_FORCE,
            Self::PauseFor => "pause for a while",
            Self::PauseResume => "pause and resume",
            Self::PauseHost => "pause of the host",
            Self::Scale => "scale",
            Self::ScaleReset => "scale reset",
            Self::Recycle => "recycle",
            Self::RecycleOutdated => "recycle outdated",
            Self::Keep => "keep",
            Self::Release => "release",
            Self::Retry => "retry",
            Self::Reload => "reload",
            Self::Follow => "log followed",
            Self::Look => "status, doctor, history",
        }
    }
}

/// What is drawn for one act.
struct Turn {
    agent: Option<String>,
    pool: String,
    lasting: Duration,
    count: u32,
}

fn ahead(time: Duration) -> Option<prost_types::Timestamp> {
    Some((SystemTime::now() + time).into())
}

impl Turn {
    async fn carry_out(&self, world: &World, act: Act) -> anyhow::Result<()> {
        let host = &world.host;
        let name = self.agent.clone().unwrap_or_default();
        let pool = self.pool.clone();
        let reason = "chaos".to_owned();
        let drain = |deadline: Option<Duration>, force| v1::DrainAgentsRequest {
            names: vec![name.clone()],
            reason: reason.clone(),
            force,
            deadline: deadline.and_then(|time| time.try_into().ok()),
            ..v1::DrainAgentsRequest::default()
        };
        match act {
            Act::DrainAgent => self.drain(world, drain(None, false)).await?,
            Act::DrainDeadline => {
                let deadline = Some(Duration::from_secs(1));
                self.drain(world, drain(deadline, false)).await?;
            }
            Act::DrainForce => self.drain(world, drain(None, true)).await?,
            Act::DrainPool => {
                let request = v1::DrainAgentsRequest {
                    pool,
                    reason,
                    ..v1::DrainAgentsRequest::default()
                };
                self.drain(world, request).await?;
            }
            Act::DrainHost => {
                iapctl(world, &["drain", "-m", "chaos", "--timeout", "4s"]).await;
                host.daemon_service()
                    .await?
                    .resume_host(v1::ResumeHostRequest {})
                    .await?;
            }
            Act::Reap | Act::ReapForce => {
                let force = matches!(act, Act::ReapForce);
                let request = v1::ReapAgentRequest { name, force };
                host.agent_service().await?.reap_agent(request).await?;
            }
            Act::PauseFor | Act::PauseResume => {
                let lapses = matches!(act, Act::PauseFor);
                let request = v1::PausePoolRequest {
                    name: pool.clone(),
                    reason,
                    until: lapses.then_some(self.lasting).and_then(ahead),
                };
                host.pool_service().await?.pause_pool(request).await?;
                if !lapses {
                    tokio::time::sleep(self.lasting).await;
                    let request = v1::ResumePoolRequest { name: pool };
                    host.pool_service().await?.resume_pool(request).await?;
                }
            }
            Act::PauseHost => {
                let until = ahead(self.lasting);
                let request = v1::PauseHostRequest { reason, until };
                host.daemon_service().await?.pause_host(request).await?;
            }
            Act::Scale | Act::ScaleReset => {
                let is_reset = matches!(act, Act::ScaleReset);
                let change = if is_reset {
                    Change::Reset(v1::ResetCount {})
                } else {
                    Change::Count(self.count)
                };
                let request = v1::ScalePoolRequest {
                    name: pool,
                    change: Some(change),
                    until: (!is_reset).then_some(self.lasting * 2).and_then(ahead),
                };
                host.pool_service().await?.scale_pool(request).await?;
            }
            Act::Recycle | Act::RecycleOutdated => {
                let scope = match act {
                    Act::Recycle => v1::RecycleScope::All,
                    _ => v1::RecycleScope::Outdated,
                };
                let request = v1::RecyclePoolRequest {
                    name: pool,
                    scope: scope.into(),
                };
                host.pool_service().await?.recycle_pool(request).await?;
            }
            Act::Keep => {
                let until = ahead(self.lasting * 3);
                let request = v1::KeepAgentRequest {
                    name,
                    until,
                    reason,
                };
                host.agent_service().await?.keep_agent(request).await?;
            }
            Act::Release => {
                let request = v1::ReleaseAgentRequest { name };
                host.agent_service().await?.release_agent(request).await?;
            }
            Act::Retry => {
                let request = v1::RetryPoolRequest { name: pool };
                host.pool_service().await?.retry_pool(request).await?;
            }
            Act::Reload => {
                world.write_config(AGENTS - 1)?;
                world.reload()?;
                tokio::time::sleep(self.lasting).await;
                world.write_config(AGENTS)?;
                world.reload()?;
            }
            Act::Follow => {
                let command = ["agents", "logs", "-f", &name];
                let _ = tokio::time::timeout(self.lasting, iapctl(world, &command)).await;
            }
            Act::Look => {
                for command in [
                    &["status"][..],
                    &["pools", "ls"],
                    &["agents", "ls"],
                    &["jobs", "ls"],
                    &["events"],
                    &["audit", "ls"],
                    &["doctor"],
                ] {
                    iapctl(world, command).await;
                }
            }
        }
        Ok(())
    }

    async fn drain(&self, world: &World, request: v1::DrainAgentsRequest) -> anyhow::Result<()> {
        world
            .host
            .agent_service()
            .await?
            .drain_agents(request)
            .await?;
        Ok(())
    }
}

/// Runs the operator's program; what it says is kept for the search for secrets.
async fn iapctl(world: &World, arguments: &[&str]) {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(world.host.dir().join("iapctl.log"));
    let Ok(log) = log else { return };
    let Ok(errors) = log.try_clone() else { return };
    // It fails when the daemon is down.
    let _ = tokio::process::Command::new(binary("iapctl"))
        .args(arguments)
        .arg("--socket")
        .arg(world.host.socket())
        .stdin(std::process::Stdio::null())
        .stdout(log)
        .stderr(errors)
        .kill_on_drop(true)
        .status()
        .await;
}
