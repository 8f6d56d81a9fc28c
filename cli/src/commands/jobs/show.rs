//! `jobs show`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::GetEndedAgentRequest;
use iap_common::v1::get_ended_agent_request::Key;

use crate::args::OutputArgs;
use crate::commands::{Context, Done, call, missing};
use crate::complete;
use crate::error::CliError;
use crate::rows::history::EndedAgentWithEvidence;

/// Show how a job ended, on which agent, and what is left of that
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl jobs show 7001                       Azure's number, as jobs ls has it
  iapctl jobs show linux-h1-k3v9x")]
pub(crate) struct ShowArgs {
    /// Azure's number of the job, or the agent that had it
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(complete::ended_jobs))]
    job: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: ShowArgs) -> Result<Done, CliError> {
    let key = match args.job.parse() {
        Ok(request_id) => Key::RequestId(request_id),
        Err(_) => Key::Name(args.job),
    };
    let mut client = context.history().await?;
    let answer = call(client.get_ended_agent(GetEndedAgentRequest { key: Some(key) })).await?;
    let agent = EndedAgentWithEvidence::of(answer).ok_or_else(missing)?;
    args.output.show(&agent)?;
    Ok(Done::Yes)
}
