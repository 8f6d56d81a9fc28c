//! `provision`: makes the images that agents are started from. The work is a job in the daemon;
//! without a verb this starts one.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Subcommand};

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
    override_usage = "iapctl provision --base <IMAGE> --target <ALIAS> [OPTIONS]\n       iapctl provision <COMMAND>",
    subcommand_negates_reqs = true,
    arg_required_else_help = true,
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

/// Refuses an option for a new job before a verb, where it would mean nothing. clap can do that,
/// but then it refuses the global options there as well.
pub(crate) fn check_place(
    command: &clap::Command,
    matches: &ArgMatches,
) -> Result<(), clap::Error> {
    let Some(("provision", matches)) = matches.subcommand() else {
        return Ok(());
    };
    let (Some(verb), Some(command)) = (
        matches.subcommand_name(),
        command.find_subcommand("provision"),
    ) else {
        return Ok(());
    };
    let given =
        |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let mut own = command.get_arguments().filter(|arg| !arg.is_global_set());
    match own.find(given) {
        None => Ok(()),
        Some(arg) => {
            let what = format!("'{arg}' cannot be used with '{verb}', or belongs behind it\n");
            Err(clap::Error::raw(ErrorKind::ArgumentConflict, what).with_cmd(command))
        }
    }
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
