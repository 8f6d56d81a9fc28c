//! `provision ls`.

use std::time::Duration;

use clap::Args;
use iap_common::v1::ListProvisionJobsRequest;

use crate::args::ListOutputArgs;
use crate::commands::watch::poll_list;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::fleet;
use crate::rows::provision::ProvisionJob;

/// There is no watch over all jobs; steps take seconds to minutes.
const PACE: Duration = Duration::from_secs(2);

/// List provision jobs, the newest first
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl provision ls
  iapctl provision ls --watch")]
pub(crate) struct LsArgs {
    /// Go on showing what changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: LsArgs) -> Result<Done, CliError> {
    let list = async |context: &Context| {
        let mut client = context.provision().await?;
        let answer = call(client.list_provision_jobs(ListProvisionJobsRequest {})).await?;
        Ok(answer
            .jobs
            .into_iter()
            .map(ProvisionJob::from)
            .collect::<Vec<_>>())
    };
    if args.watch {
        return poll_list(context, &args.output, PACE, list).await;
    }
    fleet::list(context, &args.output, list).await
}
