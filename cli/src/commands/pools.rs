//! `pools`: what is wanted, what is there, and why it differs.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod ls;
mod retry;
mod show;

#[derive(Subcommand)]
pub(crate) enum Pools {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Retry(retry::RetryArgs),
}

impl Pools {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Ls(args) => ls::run(context, args).await,
            Self::Show(args) => show::run(context, args).await,
            Self::Retry(args) => retry::run(context, args).await,
        }
    }
}
