//! `images rollback`.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::RollbackImageRequest;
use jiff::Timestamp;

use crate::args::OutputArgs;
use crate::commands::confirm::confirm;
use crate::commands::{Context, Done, call, missing, patient_call};
use crate::error::CliError;
use crate::progress::{Notes, say};
use crate::rows::image::Rollback;
use crate::{complete, output};

/// A provision job that has just ended may have old images to remove first.
const DEADLINE: Duration = Duration::from_secs(180);

/// Point a target's alias at an older image
///
/// Goes back to the image before the present one, or to the one that --to names, which may be a
/// newer one. Idle agents are replaced, busy ones finish their jobs first. Says what changes and
/// asks on a terminal; elsewhere it needs --yes. Refused while a provision job for the target is
/// queued or running. The next provision job goes forward again.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl images rollback linux --dry-run
  iapctl images rollback linux -m 'node 22 breaks webshop'
  iapctl images rollback linux --to 9fd8d5c0ffee --yes")]
pub(crate) struct RollbackArgs {
    /// The alias
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    target: String,
    /// Fingerprint of the image to go to, or how it begins; the one before when left out
    #[arg(long, value_name = "FINGERPRINT", add = ArgValueCompleter::new(complete::images))]
    to: Option<String>,
    /// Incus project; needed only when several have such a target
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Why, for the audit trail and for whoever looks at the alias
    #[arg(short = 'm', long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: RollbackArgs) -> Result<Done, CliError> {
    let mut client = context.images().await?;
    let mut request = RollbackImageRequest {
        target: args.target,
        project: args.project.unwrap_or_default(),
        to: args.to.unwrap_or_default(),
        reason: args.reason.unwrap_or_default(),
        dry_run: true,
        ..RollbackImageRequest::default()
    };
    let answer = call(client.rollback_image(request.clone())).await?;
    let wanted = Rollback::of(answer).ok_or_else(missing)?;
    let plan = output::labelled(&wanted.lines(Timestamp::now()), false);
    if args.dry_run {
        args.output.answer(&wanted.to.fingerprint, &plan, &wanted)?;
        Notes::stderr().say("a dry run: nothing was done");
        return Ok(Done::Yes);
    }
    say(plan.trim_end());
    confirm(&format!("Roll {} back?", wanted.target), args.yes)?;
    // What was shown is what happens, or nothing does.
    request.project.clone_from(&wanted.project);
    request.to.clone_from(&wanted.to.fingerprint);
    request.expected = wanted
        .from
        .map_or_else(String::new, |from| from.fingerprint);
    request.dry_run = false;
    let answer = patient_call(DEADLINE, client.rollback_image(request)).await?;
    let done = Rollback::of(answer).ok_or_else(missing)?;
    let text = format!(
        "{}: rolled back to image {}\n",
        done.target,
        done.to.short()
    );
    args.output.answer(&done.to.fingerprint, &text, &done)?;
    Ok(Done::Yes)
}
