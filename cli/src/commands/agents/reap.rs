//! `agents reap`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::{GetAgentRequest, ReapAgentRequest};

use crate::commands::confirm::confirm_jobs_lost;
use crate::commands::{Context, Done, call, missing};
use crate::error::CliError;
use crate::rows::agent::Agent;
use crate::{complete, output};

/// Remove an agent now: its instance and its registration
///
/// A busy agent is refused without --force. With it, its job fails: that is asked for on a
/// terminal and needs --yes elsewhere. To let the job finish first: iapctl agents drain.
///
/// A registration that has no instance here, and that Azure calls online, is refused without
/// --force as well: its machine may be elsewhere.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl agents reap linux-h1-k3v9x
  iapctl agents reap linux-h1-k3v9x --force --yes")]
pub(crate) struct ReapArgs {
    /// Name of the agent
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::agents))]
    name: String,
    /// Also when a job runs on it; the job fails
    #[arg(long)]
    force: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

pub(super) async fn run(context: &Context, args: ReapArgs) -> Result<Done, CliError> {
    let mut client = context.agents().await?;
    if args.force {
        let answer = call(client.get_agent(GetAgentRequest {
            name: args.name.clone(),
        }))
        .await?;
        let agent = Agent::from(answer.agent.ok_or_else(missing)?);
        if agent.is_busy() {
            confirm_jobs_lost(&[agent], args.yes)?;
        }
    }
    let request = ReapAgentRequest {
        name: args.name.clone(),
        force: args.force,
    };
    call(client.reap_agent(request)).await?;
    output::line(&format!("{}: removed", args.name))?;
    Ok(Done::Yes)
}
