//! `agents logs`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::StreamAgentLogRequest;

use crate::commands::logs::print_log;
use crate::commands::{Context, Done};
use crate::complete;
use crate::error::CliError;

/// Print an agent's log, also when it has ended
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl agents logs linux-h1-k3v9x --follow
  iapctl agents logs linux-h1-k3v9x --tail 50
  iapctl agents logs linux-h1-k3v9x --file console.log")]
pub(crate) struct LogsArgs {
    /// Name of the agent
    #[arg(value_name = "AGENT", add = ArgValueCompleter::new(complete::agents_ever))]
    name: String,
    /// Go on as the log grows, until the agent is gone
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last so many lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// Of an agent that has ended: another file that is left of it, see `jobs show`
    #[arg(long, value_name = "NAME", conflicts_with = "follow")]
    file: Option<String>,
}

pub(super) async fn run(context: &Context, args: LogsArgs) -> Result<Done, CliError> {
    let mut client = context.agents().await?;
    let request = StreamAgentLogRequest {
        name: args.name,
        follow: args.follow,
        tail_bytes: 0,
        file: args.file.unwrap_or_default(),
    };
    let open = async || client.stream_agent_log(request.clone()).await;
    print_log(open, |message| message.chunk, args.tail, args.follow).await
}
