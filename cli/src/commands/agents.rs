//! `agents`: look at them, and make them go.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod drain;
mod logs;
mod ls;
mod reap;
mod show;

#[derive(Subcommand)]
pub(crate) enum Agents {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Logs(logs::LogsArgs),
    Drain(drain::DrainArgs),
    Reap(reap::ReapArgs),
}

impl Agents {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Ls(args) => ls::run(context, args).await,
            Self::Show(args) => show::run(context, args).await,
            Self::Logs(args) => logs::run(context, args).await,
            Self::Drain(args) => Box::pin(drain::run(context, args)).await,
            Self::Reap(args) => reap::run(context, args).await,
        }
    }
}
