//! Drains: of agents, of a pool, of this host. They differ in who is meant, and in that a pool or
//! a host is paused first; waiting, forcing and forecasting are the same and are here.

use std::collections::BTreeSet;

use clap::Args;
use iap_common::v1::{
    Agent as Message, DrainAgentsRequest, GetAgentRequest, ListAgentsRequest, ListPoolsRequest,
    PauseHostRequest, PausePoolRequest,
};

use super::confirm::confirm_jobs_lost;
use super::{Context, Done, call, missing};
use crate::args::{DurationArg, ListOutputArgs, UntilArgs};
use crate::error::CliError;
use crate::fleet::{self, addressed};
use crate::progress::{Mode, Notes};
use crate::rows::agent::Agent;

mod report;
pub(super) mod view;
mod wait;

use view::Crowd;

/// Options of every drain.
#[derive(Args)]
pub(super) struct DrainOptions {
    /// Why, for the daemon's log and for whoever looks
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: Option<String>,
    /// Kill what is left after this long; its jobs fail. Also when nobody waits
    #[arg(long, value_name = "DURATION")]
    deadline: Option<DurationArg>,
    /// Stop waiting after this long, with exit code 3; the drain goes on
    #[arg(long, value_name = "DURATION", conflicts_with = "detach")]
    timeout: Option<DurationArg>,
    /// Do not wait for jobs: stop busy agents too; their jobs fail
    #[arg(long, conflicts_with = "deadline")]
    force: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Do not wait for the agents to be gone
    #[arg(long)]
    detach: bool,
    /// Only wait for a drain that is under way
    #[arg(long, conflicts_with_all = ["detach", "force", "deadline", "reason", "dry_run"])]
    watch: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: ListOutputArgs,
}

/// Who is to go.
#[derive(Clone)]
pub(super) enum Target {
    /// These agents; others take their places.
    Agents(BTreeSet<String>),
    /// The agents of a pool as of now; others take their places.
    AgentsOf(String),
    /// All agents as of now; others take their places.
    AllAgents,
    /// A pool: it is paused.
    Pool(String),
    /// This host: all pools are paused.
    Host,
}

impl Target {
    /// Returns the pool that it is confined to, or an empty text.
    fn pool(&self) -> &str {
        match self {
            Self::AgentsOf(pool) | Self::Pool(pool) => pool,
            _ => "",
        }
    }

    fn pauses(&self) -> bool {
        matches!(self, Self::Pool(_) | Self::Host)
    }

    /// Returns what is done, for a question.
    fn what(&self) -> String {
        match self {
            Self::Agents(_) => "drain agents".to_owned(),
            Self::AllAgents => "drain all agents".to_owned(),
            Self::AgentsOf(pool) => format!("drain the agents of pool {pool}"),
            Self::Pool(pool) => format!("drain pool {pool}"),
            Self::Host => "drain".to_owned(),
        }
    }

    fn undo(&self) -> Option<String> {
        match self {
            Self::Pool(pool) => Some(addressed(&format!("iapctl pools resume {pool}"))),
            Self::Host => Some(addressed("iapctl resume")),
            _ => None,
        }
    }

    /// Returns the command that waits again.
    fn again(&self, left: &BTreeSet<String>) -> String {
        let command = match self {
            Self::Pool(pool) => format!("iapctl pools drain {pool} --watch"),
            Self::Host => "iapctl drain --watch".to_owned(),
            _ => {
                let names: Vec<&str> = left.iter().map(String::as_str).collect();
                format!("iapctl agents drain --watch {}", names.join(" "))
            }
        };
        addressed(&command)
    }
}

/// Drain this host: pause all pools and wait until no agent is left
///
/// No new agents start, idle ones leave, busy ones finish their jobs. There is no time limit
/// unless --deadline sets one: a job cannot be moved to another agent. Says "drained" when all
/// instances and registrations are gone. Survives restarts of the daemon and of the host; ends
/// with iapctl resume. While a pool has no agent anywhere, Azure fails new jobs for it at once.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl drain -m 'kernel 6.12' --deadline 2h
  iapctl drain --dry-run                       who is busy with what
  iapctl drain --watch                         wait again
  iapctl resume")]
pub(crate) struct DrainArgs {
    #[command(flatten)]
    options: DrainOptions,
    #[command(flatten)]
    until: UntilArgs,
}

pub(super) async fn run(context: &Context, args: DrainArgs) -> Result<Done, CliError> {
    Box::pin(drain(context, Target::Host, &args.options, &args.until)).await
}

/// Makes agents go and waits until they are gone, as far as the options say so.
pub(super) async fn drain(
    context: &Context,
    target: Target,
    options: &DrainOptions,
    until: &UntilArgs,
) -> Result<Done, CliError> {
    let until = until.at()?;
    if let Target::Agents(_) = target {
        // Names are one host's; this is the error when several are meant.
        context.connect().await?;
    }
    if options.dry_run {
        let ask = async |context: &Context| {
            let agents = present(context, &target).await?;
            Ok(view::forecasts(agents, options.force))
        };
        let done = fleet::list(context, &options.output, ask).await?;
        Notes::stderr().say("a dry run: nothing was done");
        return Ok(done);
    }
    let act = async |context: &Context| drain_one(context, target.clone(), options, until).await;
    let yes = options.yes || options.watch;
    Box::pin(fleet::change(context, &target.what(), yes, act)).await
}

async fn drain_one(
    context: &Context,
    target: Target,
    options: &DrainOptions,
    until: Option<prost_types::Timestamp>,
) -> Result<Done, CliError> {
    if options.force {
        let agents = present(context, &target).await?;
        let busy: Vec<Agent> = agents.into_iter().filter(Agent::is_busy).collect();
        confirm_jobs_lost(&busy, options.yes)?;
    }
    let crowd = if options.watch {
        watched(context, &target).await?
    } else {
        let reason = options.reason.clone().unwrap_or_default();
        pause(context, &target, &reason, until).await?;
        let agents = ask(context, &target, options, reason).await?;
        if options.detach {
            return detached(&target, options, agents);
        }
        crowd_of(&target, &agents)
    };
    let mode = Mode::of(context.progress);
    let wait = wait::Gone {
        target,
        history: context.history().await?,
        timeout: options.timeout.map(|timeout| timeout.0),
        output: &options.output.answer,
    };
    Box::pin(wait.until(context.agents().await?, crowd, mode)).await
}

fn crowd_of(target: &Target, agents: &[Agent]) -> Crowd {
    let now = jiff::Timestamp::now();
    if target.pauses() {
        return Crowd::everybody(target.pool(), now);
    }
    let names = agents.iter().map(|agent| agent.name.clone());
    Crowd::new(names.collect(), now)
}

/// Pauses a pool or the host, so that nothing takes the place of what goes.
async fn pause(
    context: &Context,
    target: &Target,
    reason: &str,
    until: Option<prost_types::Timestamp>,
) -> Result<(), CliError> {
    let reason = match reason {
        "" => "drain",
        reason => reason,
    };
    match target {
        Target::Pool(name) => {
            let request = PausePoolRequest {
                name: name.clone(),
                reason: reason.to_owned(),
                until,
            };
            call(context.pools().await?.pause_pool(request)).await?;
        }
        Target::Host => {
            let request = PauseHostRequest {
                reason: reason.to_owned(),
                until,
            };
            call(context.daemon().await?.pause_host(request)).await?;
        }
        Target::Agents(_) | Target::AgentsOf(_) | Target::AllAgents => {}
    }
    Ok(())
}

/// Asks the agents themselves, where the pause alone does not do; returns who goes.
async fn ask(
    context: &Context,
    target: &Target,
    options: &DrainOptions,
    reason: String,
) -> Result<Vec<Agent>, CliError> {
    if target.pauses() && options.deadline.is_none() && !options.force {
        return present(context, target).await;
    }
    let names = match target {
        Target::Agents(names) => names.iter().cloned().collect(),
        _ => Vec::new(),
    };
    let request = DrainAgentsRequest {
        names,
        reason,
        force: options.force,
        deadline: options.deadline.map(DurationArg::message),
        pool: target.pool().to_owned(),
        all: matches!(target, Target::AllAgents | Target::Host),
    };
    let answer = call(context.agents().await?.drain_agents(request)).await?;
    Ok(answer.agents.into_iter().map(Agent::from).collect())
}

fn detached(target: &Target, options: &DrainOptions, agents: Vec<Agent>) -> Result<Done, CliError> {
    let names = agents.iter().map(|agent| agent.name.clone()).collect();
    options.output.list(&agents)?;
    let notes = Notes::stderr();
    notes.say(&format!("wait for them: {}", target.again(&names)));
    if let Some(undo) = target.undo() {
        notes.say(&format!("undo: {undo}"));
    }
    Ok(Done::Yes)
}

/// Returns the agents that are meant; an unknown name is the daemon's error.
async fn present(context: &Context, target: &Target) -> Result<Vec<Agent>, CliError> {
    let mut client = context.agents().await?;
    if let Target::Agents(names) = target {
        let mut agents = Vec::new();
        for name in names {
            let answer = call(client.get_agent(GetAgentRequest { name: name.clone() })).await?;
            agents.push(Agent::from(answer.agent.ok_or_else(missing)?));
        }
        return Ok(agents);
    }
    let pool = target.pool().to_owned();
    let answer = call(client.list_agents(ListAgentsRequest { pool })).await?;
    let agents = answer.agents.into_iter().map(Agent::from);
    Ok(agents.filter(|agent| !agent.is_foreign()).collect())
}

/// Returns whom a watch waits for: the named ones, else all that are on their way out.
async fn watched(context: &Context, target: &Target) -> Result<Crowd, CliError> {
    let now = jiff::Timestamp::now();
    if target.pauses() {
        is_paused(context, target).await?;
        return Ok(Crowd::everybody(target.pool(), now));
    }
    let pool = target.pool().to_owned();
    let request = ListAgentsRequest { pool };
    let agents = call(context.agents().await?.list_agents(request)).await?;
    let (draining, others): (Vec<Message>, Vec<Message>) =
        agents.agents.into_iter().partition(|agent| agent.draining);
    let notes = Notes::stderr();
    if let Target::Agents(names) = target
        && !names.is_empty()
    {
        for agent in others.iter().filter(|agent| names.contains(&agent.name)) {
            notes.say(&format!(
                "{} was not asked to go; that is without --watch",
                agent.name
            ));
        }
        return Ok(Crowd::new(names.clone(), now));
    }
    if draining.is_empty() {
        notes.say("no agent is draining");
    }
    let names = draining.into_iter().map(|agent| agent.name);
    Ok(Crowd::new(names.collect(), now))
}

/// Refuses to wait for the end of what is not going to end.
async fn is_paused(context: &Context, target: &Target) -> Result<(), CliError> {
    let pools = call(context.pools().await?.list_pools(ListPoolsRequest {})).await?;
    let mut pools = pools.pools.into_iter();
    let (paused, what) = match target {
        Target::Pool(name) => {
            let pool = pools.find(|pool| pool.name == *name);
            (pool.is_none_or(|pool| pool.pause.is_some()), name.as_str())
        }
        _ => (pools.all(|pool| pool.pause.is_some()), "this host"),
    };
    if paused {
        return Ok(());
    }
    Err(CliError::Refused {
        what: format!("{what} is not paused, so it does not drain"),
        hint: "that is without --watch".to_owned(),
    })
}
