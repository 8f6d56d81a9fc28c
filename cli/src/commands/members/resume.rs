//! `members resume`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::ResumeMemberRequest;

use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::{complete, output};

/// Let agents be placed on a member again
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl members resume h2")]
pub(crate) struct ResumeArgs {
    /// Name of the member
    #[arg(value_name = "MEMBER", add = ArgValueCompleter::new(complete::members))]
    name: String,
}

pub(super) async fn run(context: &Context, args: ResumeArgs) -> Result<Done, CliError> {
    let mut client = context.daemon().await?;
    let name = args.name.clone();
    let answer = call(client.resume_member(ResumeMemberRequest { name })).await?;
    let what = match answer.was_drained {
        true => "resumed",
        false => "was not drained",
    };
    output::line(&format!("{}: {what}", args.name))?;
    Ok(Done::Yes)
}
