//! `agents drain`: asks agents to go and waits until they are gone.

use std::collections::BTreeSet;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_common::v1::{DrainAgentsRequest, GetAgentRequest, ListAgentsRequest};
use tonic::transport::Channel;

use super::confirm::confirm_jobs_lost;
use crate::args::{DurationArg, ListOutputArgs};
use crate::commands::{Context, Done, call, missing};
use crate::complete;
use crate::error::CliError;
use crate::progress::{Mode, Notes};
use crate::rows::agent::Agent;

mod report;
mod view;
mod wait;

/// Let agents finish their jobs, then remove them
///
/// The agents are disabled in Azure, so that no new job comes; busy ones finish theirs, idle ones
/// go at once. Fresh agents take their places. There is no time limit: a job cannot be moved to
/// another agent. Waits until instances and registrations are gone; Ctrl-C stops only the waiting.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl agents drain linux-h1-k3v9x --reason 'kernel update'
  iapctl agents ls --pool linux -o name | xargs iapctl agents drain --timeout 2h
  iapctl agents drain --watch                  wait for all that are on their way out")]
pub(crate) struct DrainArgs {
    /// Names of the agents
    #[arg(
        value_name = "AGENT",
        required_unless_present = "watch",
        add = ArgValueCompleter::new(complete::agents)
    )]
    names: Vec<String>,
    /// Why, for the daemon's log
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: Option<String>,
    /// Stop waiting after this long, with exit code 3; the drain goes on
    #[arg(long, value_name = "DURATION", conflicts_with = "detach")]
    timeout: Option<DurationArg>,
    /// Do not wait for jobs: stop busy agents too; their jobs fail
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Do not wait for the agents to be gone
    #[arg(long)]
    detach: bool,
    /// Only wait for agents that are draining already; for all of them when none is named
    #[arg(long, conflicts_with_all = ["detach", "force", "reason", "dry_run"])]
    watch: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: DrainArgs) -> Result<Done, CliError> {
    let mut client = context.agents().await?;
    let mut names: BTreeSet<String> = args.names.iter().cloned().collect();
    if args.watch {
        names = leaving(&mut client, names).await?;
    }
    if args.dry_run || args.force {
        let agents = get(&mut client, &names).await?;
        if args.dry_run {
            args.output.list(&view::forecasts(agents, args.force))?;
            Notes::stderr().say("a dry run: nothing was done");
            return Ok(Done::Yes);
        }
        let busy: Vec<Agent> = agents.into_iter().filter(Agent::is_busy).collect();
        confirm_jobs_lost(&busy, args.yes)?;
    }
    if !args.watch {
        let request = DrainAgentsRequest {
            names: names.iter().cloned().collect(),
            reason: args.reason.clone().unwrap_or_default(),
            force: args.force,
            ..DrainAgentsRequest::default()
        };
        let answer = call(client.drain_agents(request)).await?;
        if args.detach {
            let agents: Vec<Agent> = answer.agents.into_iter().map(Agent::from).collect();
            args.output.list(&agents)?;
            Notes::stderr().say(&format!("wait for them: {}", wait::again(&names)));
            return Ok(Done::Yes);
        }
    }
    let timeout = args.timeout.map(|timeout| timeout.0);
    let mode = Mode::of(context.progress);
    Box::pin(wait::until_gone(
        client,
        names,
        mode,
        timeout,
        &args.output.answer,
    ))
    .await
}

/// Returns the agents to wait for: the named ones, else all that are on their way out.
async fn leaving(
    client: &mut AgentServiceClient<Channel>,
    names: BTreeSet<String>,
) -> Result<BTreeSet<String>, CliError> {
    let agents = call(client.list_agents(ListAgentsRequest::default()))
        .await?
        .agents;
    let (draining, others): (Vec<_>, Vec<_>) = agents.into_iter().partition(|agent| agent.draining);
    let notes = Notes::stderr();
    for agent in others.iter().filter(|agent| names.contains(&agent.name)) {
        notes.say(&format!(
            "{} was not asked to go; that is without --watch",
            agent.name
        ));
    }
    if !names.is_empty() {
        return Ok(names);
    }
    if draining.is_empty() {
        notes.say("no agent is draining");
    }
    Ok(draining.into_iter().map(|agent| agent.name).collect())
}

/// Returns the named agents; an unknown name is the daemon's error.
async fn get(
    client: &mut AgentServiceClient<Channel>,
    names: &BTreeSet<String>,
) -> Result<Vec<Agent>, CliError> {
    let mut agents = Vec::new();
    for name in names {
        let answer = call(client.get_agent(GetAgentRequest { name: name.clone() })).await?;
        agents.push(Agent::from(answer.agent.ok_or_else(missing)?));
    }
    Ok(agents)
}
