//! `members`: the hosts of the Incus cluster.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod drain;
mod ls;
mod resume;

#[derive(Subcommand)]
pub(crate) enum Members {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Drain(drain::DrainArgs),
    Resume(resume::ResumeArgs),
}

impl Members {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Ls(args) => ls::run(context, args).await,
            Self::Drain(args) => drain::run(context, args).await,
            Self::Resume(args) => resume::run(context, args).await,
        }
    }
}
