//! `agents release`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::ReleaseAgentRequest;

use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::rows::agent::Agent;
use crate::{complete, output};

/// Let a kept agent go: its instance is removed
///
/// One that is to be kept and is still at its job is not kept: it goes when that ends.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl agents release linux-h1-k3v9x")]
pub(crate) struct ReleaseArgs {
    /// Name of the agent
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::kept_agents))]
    name: String,
}

pub(super) async fn run(context: &Context, args: ReleaseArgs) -> Result<Done, CliError> {
    let name = args.name.clone();
    let request = ReleaseAgentRequest { name };
    let answer = call(context.agents().await?.release_agent(request)).await?;
    let left = answer.agent.map(Agent::from);
    let what = match left {
        Some(agent) if agent.is_busy() => "is not kept: it goes when its job ends",
        Some(_) => "is not kept: it goes",
        None => "released: its instance is gone",
    };
    output::line(&format!("{}: {what}", args.name))?;
    Ok(Done::Yes)
}
