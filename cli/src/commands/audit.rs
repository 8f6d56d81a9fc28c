//! `audit`: who asked for what.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod ls;

#[derive(Subcommand)]
pub(crate) enum Audit {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
}

impl Audit {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Ls(args) => ls::run(context, args).await,
        }
    }
}
