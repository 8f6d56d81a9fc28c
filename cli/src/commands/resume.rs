//! `resume`: ends the pause of this host.

use clap::Args;
use iap_common::v1::ResumeHostRequest;

use super::{Context, Done, call};
use crate::args::SeveralArgs;
use crate::error::CliError;
use crate::progress::Notes;
use crate::rows::pool::Pool;
use crate::{fleet, output};

/// End the pause of this host: its pools are filled again
///
/// Undoes iapctl drain. Agents that were leaving go all the same and are replaced. Pools that
/// were paused by themselves stay so: iapctl pools resume.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl resume")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    several: SeveralArgs,
}

pub(super) async fn run(context: &Context, args: ResumeArgs) -> Result<Done, CliError> {
    fleet::change(context, "resume", args.several.yes, resume).await
}

async fn resume(context: &Context) -> Result<Done, CliError> {
    let mut client = context.daemon().await?;
    let answer = call(client.resume_host(ResumeHostRequest {})).await?;
    let notes = Notes::stderr();
    for pool in answer.pools.into_iter().map(Pool::from) {
        if let Some(why) = pool.paused(jiff::Timestamp::now()) {
            notes.say(&format!("{} stays {why}", pool.name));
        }
    }
    output::line(if answer.was_paused {
        "this host: resumed"
    } else {
        "this host: was not paused"
    })?;
    Ok(Done::Yes)
}
