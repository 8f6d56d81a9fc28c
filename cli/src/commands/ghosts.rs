//! `ghosts`: registrations in Azure without an instance here.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod adopt;
mod ls;

#[derive(Subcommand)]
pub(crate) enum Ghosts {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Adopt(adopt::AdoptArgs),
}

impl Ghosts {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Ls(args) => ls::run(context, args).await,
            Self::Adopt(args) => Box::pin(adopt::run(context, args)).await,
        }
    }
}
