//! `agents show`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::get_ended_agent_request::Key;
use iap_common::v1::{GetAgentRequest, GetEndedAgentRequest};

use crate::args::OutputArgs;
use crate::commands::{Context, Done, call, missing};
use crate::complete;
use crate::error::CliError;
use crate::rows::agent::Agent;
use crate::rows::history::EndedAgentWithEvidence;

/// Show all that is known about an agent, also when it has ended
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl agents show linux-h1-k3v9x")]
pub(crate) struct ShowArgs {
    /// Name of the agent
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::agents_ever))]
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: ShowArgs) -> Result<Done, CliError> {
    let mut client = context.agents().await?;
    let name = args.name.clone();
    match call(client.get_agent(GetAgentRequest { name })).await {
        Ok(answer) => {
            let agent = answer.agent.ok_or_else(missing)?;
            args.output.show(&Agent::from(agent))?;
        }
        Err(not_found) if not_found.is_not_found() => {
            let key = Some(Key::Name(args.name));
            let mut history = context.history().await?;
            let ended = call(history.get_ended_agent(GetEndedAgentRequest { key })).await;
            // The first answer knows what may have been meant.
            let ended = ended.map_err(|_| not_found)?;
            let agent = EndedAgentWithEvidence::of(ended).ok_or_else(missing)?;
            args.output.show(&agent)?;
        }
        Err(error) => return Err(error),
    }
    Ok(Done::Yes)
}
