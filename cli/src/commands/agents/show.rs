//! `agents show`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::GetAgentRequest;

use crate::args::OutputArgs;
use crate::commands::{Context, Done, call, missing};
use crate::complete;
use crate::error::CliError;
use crate::rows::agent::Agent;

/// Show all that is known about an agent
#[derive(Args)]
pub(crate) struct ShowArgs {
    /// Name of the agent
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::agents))]
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: ShowArgs) -> Result<Done, CliError> {
    let mut client = context.agents().await?;
    let answer = call(client.get_agent(GetAgentRequest { name: args.name })).await?;
    args.output
        .show(&Agent::from(answer.agent.ok_or_else(missing)?))?;
    Ok(Done::Yes)
}
