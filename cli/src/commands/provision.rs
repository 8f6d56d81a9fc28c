//! `provision`: makes the images that agents are started from. The work is a job in the daemon;
//! without a verb this starts one.

use clap::{Args, Subcommand};

use super::{Context, Done};
use crate::error::CliError;

mod cancel;
mod logs;
mod ls;
mod render;
mod show;
mod start;
mod upload;
mod watch;

/// Make an image that agents are started from
///
/// The job runs in the daemon and goes on when this program ends. Its name is printed at once;
/// --watch shows what it does. When it has succeeded, the alias --target points at the new image.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_long_help = "\
Examples:
  iapctl provision --base images:ubuntu/24.04 --target linux --script tools.sh --watch
  iapctl provision ls
  iapctl provision watch 91c2e0"
)]
pub(crate) struct Provision {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    start: start::StartArgs,
}

#[derive(Subcommand)]
enum Verb {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Watch(watch::WatchArgs),
    Logs(logs::LogsArgs),
    Cancel(cancel::CancelArgs),
}

impl Provision {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self.verb {
            Some(Verb::Ls(args)) => ls::run(context, args).await,
            Some(Verb::Show(args)) => show::run(context, args).await,
            Some(Verb::Watch(args)) => watch::run(context, args).await,
            Some(Verb::Logs(args)) => logs::run(context, args).await,
            Some(Verb::Cancel(args)) => cancel::run(context, args).await,
            None => Box::pin(start::run(context, self.start)).await,
        }
    }
}
