//! `provision logs`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::StreamProvisionLogRequest;

use crate::commands::logs::print_log;
use crate::commands::{Context, Done};
use crate::complete;
use crate::error::CliError;

/// Print the whole log of a provision job
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl provision logs 91c2e0 --follow
  iapctl provision logs 91c2e0 --tail 200")]
pub(crate) struct LogsArgs {
    /// Name of the job
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(complete::jobs))]
    id: String,
    /// Go on until the job ends
    #[arg(short, long)]
    follow: bool,
    /// Begin with the last so many lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
}

pub(super) async fn run(context: &Context, args: LogsArgs) -> Result<Done, CliError> {
    let mut client = context.provision().await?;
    let request = StreamProvisionLogRequest {
        id: args.id,
        follow: args.follow,
    };
    let open = async || client.stream_provision_log(request.clone()).await;
    print_log(open, |message| message.chunk, args.tail, args.follow).await
}
