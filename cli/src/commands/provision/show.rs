//! `provision show`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::GetProvisionJobRequest;

use crate::args::OutputArgs;
use crate::commands::{Context, Done, call, missing};
use crate::complete;
use crate::error::CliError;
use crate::rows::provision::ProvisionJob;

/// Show all that is known about a provision job
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl provision show 91c2e0")]
pub(crate) struct ShowArgs {
    /// Name of the job
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(complete::jobs))]
    id: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: ShowArgs) -> Result<Done, CliError> {
    let mut client = context.provision().await?;
    let answer = call(client.get_provision_job(GetProvisionJobRequest { id: args.id })).await?;
    args.output
        .show(&ProvisionJob::from(answer.job.ok_or_else(missing)?))?;
    Ok(Done::Yes)
}
