//! `agents keep`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::KeepAgentRequest;
use jiff::Timestamp;

use crate::args::UntilArgs;
use crate::commands::{Context, Done, call, missing};
use crate::error::CliError;
use crate::progress::Notes;
use crate::rows::agent::Agent;
use crate::{complete, output};

/// Keep an agent for debugging: its instance stays when its agent has ended
///
/// The agent is disabled in Azure and another takes its place. A busy one finishes its job first,
/// an idle one ends now; the instance stays with all its files, and goes by itself when the time
/// is over. One that is kept already is kept until then instead. Without --for and --until that is
/// as long as the pool keeps failed agents, else two hours.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl agents keep linux-h1-k3v9x --for 2h -m 'what fills the disk'
  iapctl agents show linux-h1-k3v9x            how to get in
  iapctl agents release linux-h1-k3v9x")]
pub(crate) struct KeepArgs {
    /// Name of the agent
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::agents))]
    name: String,
    /// Why, for whoever looks
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    until: UntilArgs,
}

pub(super) async fn run(context: &Context, args: KeepArgs) -> Result<Done, CliError> {
    let request = KeepAgentRequest {
        name: args.name,
        until: args.until.at()?,
        reason: args.reason.unwrap_or_default(),
    };
    let answer = call(context.agents().await?.keep_agent(request)).await?;
    let agent = Agent::from(answer.agent.ok_or_else(missing)?);
    let kept = agent.keep_text(Timestamp::now()).ok_or_else(missing)?;
    output::line(&format!("{}: kept {kept}", agent.name))?;
    let notes = Notes::stderr();
    notes.say(&format!("get in: {}", agent.way_in()));
    notes.say(&format!("let it go: iapctl agents release {}", agent.name));
    Ok(Done::Yes)
}
