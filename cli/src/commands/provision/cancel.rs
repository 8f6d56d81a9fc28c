//! `provision cancel`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::CancelProvisionJobRequest;

use crate::args::OutputArgs;
use crate::commands::{Context, Done, call, missing};
use crate::complete;
use crate::error::CliError;
use crate::rows::provision::ProvisionJob;

/// Cancel a queued or running provision job; its builder is removed
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl provision cancel 91c2e0")]
pub(crate) struct CancelArgs {
    /// Name of the job
    #[arg(value_name = "JOB", add = ArgValueCompleter::new(complete::jobs))]
    id: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: CancelArgs) -> Result<Done, CliError> {
    let mut client = context.provision().await?;
    let request = CancelProvisionJobRequest { id: args.id };
    let answer = call(client.cancel_provision_job(request)).await?;
    let job = ProvisionJob::from(answer.job.ok_or_else(missing)?);
    // A running job has its builder to remove before it has ended.
    let state = if job.has_ended() {
        &job.state
    } else {
        "being cancelled"
    };
    args.output
        .answer(&job.id, &format!("{}: {state}\n", job.id), &job)?;
    Ok(Done::Yes)
}
