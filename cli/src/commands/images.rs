//! `images`: what agents are started from, the way back to an older one, and what takes space.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod ls;
mod prune;
mod rollback;

#[derive(Subcommand)]
pub(crate) enum Images {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Rollback(rollback::RollbackArgs),
    Prune(prune::PruneArgs),
}

impl Images {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Ls(args) => ls::run(context, args).await,
            Self::Rollback(args) => rollback::run(context, args).await,
            Self::Prune(args) => prune::run(context, args).await,
        }
    }
}
