//! `auth`: what iapd proves itself to Azure with.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod check;

#[derive(Subcommand)]
pub(crate) enum Auth {
    Check(check::CheckArgs),
}

impl Auth {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Check(args) => check::run(context, args).await,
        }
    }
}
