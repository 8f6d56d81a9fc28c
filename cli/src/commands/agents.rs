//! `agents`: look at them, make them go, and make them stay.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod drain;
mod keep;
mod logs;
mod ls;
mod reap;
mod release;
mod show;

#[derive(Subcommand)]
pub(crate) enum Agents {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Logs(logs::LogsArgs),
    Drain(drain::DrainArgs),
    Reap(reap::ReapArgs),
    Keep(keep::KeepArgs),
    Release(release::ReleaseArgs),
}

impl Agents {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Ls(args) => ls::run(context, args).await,
            Self::Show(args) => show::run(context, args).await,
            Self::Logs(args) => logs::run(context, args).await,
            Self::Drain(args) => Box::pin(drain::run(context, args)).await,
            Self::Reap(args) => reap::run(context, args).await,
            Self::Keep(args) => keep::run(context, args).await,
            Self::Release(args) => release::run(context, args).await,
        }
    }
}
