//! `pools`: what is wanted, what is there, and why it differs.

use clap::Subcommand;

use super::{Context, Done};
use crate::error::CliError;

mod drain;
mod ls;
mod pause;
mod recycle;
mod retry;
mod scale;
mod show;

#[derive(Subcommand)]
pub(crate) enum Pools {
    #[command(alias = "list")]
    Ls(ls::LsArgs),
    Show(show::ShowArgs),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    Drain(drain::DrainArgs),
    Scale(scale::ScaleArgs),
    Recycle(recycle::RecycleArgs),
    Retry(retry::RetryArgs),
}

impl Pools {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Ls(args) => ls::run(context, args).await,
            Self::Show(args) => show::run(context, args).await,
            Self::Pause(args) => pause::run(context, args).await,
            Self::Resume(args) => pause::resume(context, args).await,
            Self::Drain(args) => Box::pin(drain::run(context, args)).await,
            Self::Scale(args) => scale::run(context, args).await,
            Self::Recycle(args) => recycle::run(context, args).await,
            Self::Retry(args) => retry::run(context, args).await,
        }
    }
}
