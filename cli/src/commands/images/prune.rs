//! `images prune`.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::{NewerImages, PruneImagesRequest, PruneImagesResponse, PruneProblem};
use jiff::Timestamp;

use crate::args::ListOutputArgs;
use crate::commands::confirm::confirm;
use crate::commands::{Context, Done, call, patient_call};
use crate::complete;
use crate::error::CliError;
use crate::progress::{Notes, say};
use crate::rows::image::Image;
use crate::rows::plain;
use crate::rows::time::size;

/// Removing an image takes up to two minutes on a slow disk, and there may be many.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Remove images that nobody needs
///
/// Those that provision jobs made, that no alias points at, and that no instance is made of. Of
/// each target the newest few stay, counted from the present image back, and the image that the
/// present one took the place of. After a rollback, what is newer than the present image stays as
/// well, unless --newer is given. Lists what would go and asks on a terminal; elsewhere it needs
/// --yes. A target with a provision job under way is left alone.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl images prune --dry-run
  iapctl images prune linux --keep 1 --yes
  iapctl images prune linux --newer            after a rollback: those it went back from")]
pub(crate) struct PruneArgs {
    /// Only images of this target
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    target: Option<String>,
    /// Only in this Incus project, be it a pool's or not; may be repeated
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<String>,
    /// Images of each target that stay, the present one included: 1 leaves only that one. When left
    /// out 3, as provisioning keeps
    #[arg(long, value_name = "COUNT")]
    keep: Option<u32>,
    /// Also those that are newer than the present image
    #[arg(long)]
    newer: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: PruneArgs) -> Result<Done, CliError> {
    let mut client = context.images().await?;
    let newer = if args.newer {
        NewerImages::Remove
    } else {
        NewerImages::Keep
    };
    let mut request = PruneImagesRequest {
        target: args.target.unwrap_or_default(),
        projects: args.projects,
        keep: args.keep,
        newer: newer.into(),
        only: Vec::new(),
        dry_run: true,
    };
    let wanted = Gone::of(call(client.prune_images(request.clone())).await?);
    if args.dry_run || wanted.images.is_empty() {
        args.output.list(&wanted.images)?;
        wanted.tell_problems();
        if args.dry_run {
            let freed = wanted.freed();
            Notes::stderr().say(&format!(
                "a dry run: nothing was done; {freed} would be freed"
            ));
        }
        return Ok(Done::Yes);
    }
    if !args.yes {
        say(args
            .output
            .table(&wanted.images, Timestamp::now(), false)
            .trim_end());
        wanted.tell_problems();
        let count = wanted.images.len();
        let s = if count == 1 { "" } else { "s" };
        confirm(
            &format!("Remove {count} image{s}, {}?", wanted.freed()),
            false,
        )?;
    }
    // What was shown is what goes, or less.
    let shown = wanted.images.into_iter().map(|image| image.fingerprint);
    request.only = shown.collect();
    request.dry_run = false;
    let gone = Gone::of(patient_call(DEADLINE, client.prune_images(request)).await?);
    args.output.list(&gone.images)?;
    gone.tell_problems();
    Notes::stderr().say(&format!("{} freed", gone.freed()));
    if gone.problems.is_empty() {
        return Ok(Done::Yes);
    }
    Ok(Done::Unhealthy)
}

/// What has gone, or would.
struct Gone {
    images: Vec<Image>,
    problems: Vec<PruneProblem>,
}

impl Gone {
    fn of(answer: PruneImagesResponse) -> Self {
        Self {
            images: answer.images.into_iter().map(Image::from).collect(),
            problems: answer.problems,
        }
    }

    fn freed(&self) -> String {
        size(self.images.iter().map(|image| image.size).sum())
    }

    fn tell_problems(&self) {
        for problem in &self.problems {
            let image = problem.fingerprint.get(..12).unwrap_or_default();
            let what = format!("{} {image}", problem.target);
            let message = plain(&problem.message);
            say(&format!("warning: {}: {message}", what.trim_end()));
        }
    }
}
