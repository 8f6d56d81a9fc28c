//! `images ls`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::ListImagesRequest;

use crate::args::ListOutputArgs;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::rows::image::Image;
use crate::{complete, fleet};

/// List the images of targets, the newest first, and who uses them
///
/// Those that provision jobs made, and those that pools' aliases point at, whoever made them. A
/// star marks the image that a target's alias points at: agents start from it.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl images ls
  iapctl images ls linux -o wide               fingerprints, jobs, scripts
  iapctl images ls --project ci")]
pub(crate) struct LsArgs {
    /// Only images of this target
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(complete::targets))]
    target: Option<String>,
    /// Only in this Incus project, be it a pool's or not; may be repeated
    #[arg(long = "project", value_name = "PROJECT")]
    projects: Vec<String>,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: LsArgs) -> Result<Done, CliError> {
    let request = ListImagesRequest {
        projects: args.projects,
        target: args.target.unwrap_or_default(),
    };
    fleet::list(context, &args.output, async |context: &Context| {
        let mut client = context.images().await?;
        let answer = call(client.list_images(request.clone())).await?;
        Ok(answer.images.into_iter().map(Image::from).collect())
    })
    .await
}
