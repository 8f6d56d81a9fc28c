//! `agents drain`: asks agents to go and waits until they are gone. Others take their places.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;

use crate::args::UntilArgs;
use crate::commands::drain::{DrainOptions, Target, drain};
use crate::commands::{Context, Done};
use crate::complete;
use crate::error::CliError;

/// Let agents finish their jobs, then remove them
///
/// The agents are disabled in Azure, so that no new job comes; busy ones finish theirs, idle ones
/// go at once. Fresh agents take their places, unless the pool is paused. There is no time limit
/// unless --deadline sets one: a job cannot be moved to another agent. Waits until instances and
/// registrations are gone; Ctrl-C stops only the waiting.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl agents drain linux-h1-k3v9x --reason 'kernel update'
  iapctl agents drain --pool linux --deadline 2h
  iapctl agents drain --watch                  wait for all that are on their way out")]
pub(crate) struct DrainArgs {
    /// Names of the agents
    #[arg(
        value_name = "AGENT",
        required_unless_present_any = ["watch", "pool", "all"],
        add = ArgValueCompleter::new(complete::agents)
    )]
    names: Vec<String>,
    /// All agents of this pool
    #[arg(
        long,
        value_name = "POOL",
        conflicts_with = "names",
        add = ArgValueCompleter::new(complete::pools)
    )]
    pool: Option<String>,
    /// All agents of this host
    #[arg(long, conflicts_with_all = ["names", "pool"])]
    all: bool,
    #[command(flatten)]
    options: DrainOptions,
}

pub(super) async fn run(context: &Context, args: DrainArgs) -> Result<Done, CliError> {
    let target = match args.pool {
        Some(pool) => Target::AgentsOf(pool),
        None if args.all => Target::AllAgents,
        None => Target::Agents(args.names.into_iter().collect()),
    };
    Box::pin(drain(context, target, &args.options, &UntilArgs::default())).await
}
