//! `pools drain`: pauses a pool and waits until nothing of it is left.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use crate::args::UntilArgs;
use crate::commands::drain::{DrainOptions, Target, drain};
use crate::commands::{Context, Done};
use crate::complete;
use crate::error::CliError;

/// Pause a pool and wait until no agent of it is left
///
/// No new agents start, idle ones leave, busy ones finish their jobs. There is no time limit
/// unless --deadline sets one: a job cannot be moved to another agent. Says "drained" when all
/// instances and registrations are gone. While a pool has no agent anywhere, Azure fails new jobs
/// for it at once.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl pools drain linux -m 'new storage' --deadline 2h
  iapctl pools drain linux --watch             wait again
  iapctl pools resume linux")]
pub(crate) struct DrainArgs {
    /// Name of the pool
    #[arg(value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    name: String,
    #[command(flatten)]
    options: DrainOptions,
    #[command(flatten)]
    until: UntilArgs,
}

pub(super) async fn run(context: &Context, args: DrainArgs) -> Result<Done, CliError> {
    let target = Target::Pool(args.name);
    Box::pin(drain(context, target, &args.options, &args.until)).await
}
