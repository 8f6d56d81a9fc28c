//! `jobs`: what agents have done.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod ls;
mod show;

#[derive(Subcommand)]
pub(crate) enum Jobs {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
}

impl Jobs {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Ls(args) => ls::run(context, args).await,
            Self::Show(args) => show::run(context, args).await,
        }
    }
}
