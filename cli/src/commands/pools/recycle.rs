//! `pools recycle`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::{ListAgentsRequest, RecyclePoolRequest, RecycleScope};
use serde::Serialize;

use crate::args::{ListOutputArgs, SeveralArgs};
use crate::commands::drain::view;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::progress::Notes;
use crate::rows::agent::Agent;
use crate::{complete, fleet};

/// Replace a pool's agents: idle ones a few at a time, busy ones when their jobs end
///
/// Returns when the wish is noted; iapctl agents ls -w shows the turnover.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl pools recycle linux --outdated --dry-run
  iapctl pools recycle linux --outdated        after a new image
  iapctl pools recycle linux")]
pub(crate) struct RecycleArgs {
    /// Name of the pool
    #[arg(value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    name: String,
    /// Only agents built from another image or configuration than the pool's present one
    #[arg(long)]
    outdated: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    several: SeveralArgs,
    #[command(flatten)]
    output: ListOutputArgs,
}

/// What is replaced, for programs.
#[derive(Serialize)]
struct Recycled<'a> {
    pool: &'a str,
    agents: Vec<&'a str>,
}

pub(super) async fn run(context: &Context, args: RecycleArgs) -> Result<Done, CliError> {
    if args.dry_run {
        let ask = async |context: &Context| Ok(view::replacements(meant(context, &args).await?));
        let done = fleet::list(context, &args.output, ask).await?;
        Notes::stderr().say("a dry run: nothing was done");
        return Ok(done);
    }
    let what = format!("recycle pool {}", args.name);
    let act = async |context: &Context| recycle(context, &args).await;
    fleet::change(context, &what, args.several.yes, act).await
}

/// Returns the agents that are replaced.
async fn meant(context: &Context, args: &RecycleArgs) -> Result<Vec<Agent>, CliError> {
    let request = ListAgentsRequest {
        pool: args.name.clone(),
    };
    let answer = call(context.agents().await?.list_agents(request)).await?;
    let agents = answer.agents.into_iter().map(Agent::from);
    Ok(agents
        .filter(|agent| !agent.is_foreign() && (agent.outdated || !args.outdated))
        .collect())
}

async fn recycle(context: &Context, args: &RecycleArgs) -> Result<Done, CliError> {
    let meant = meant(context, args).await?;
    let scope = if args.outdated {
        RecycleScope::Outdated
    } else {
        RecycleScope::All
    };
    let request = RecyclePoolRequest {
        name: args.name.clone(),
        scope: scope.into(),
    };
    call(context.pools().await?.recycle_pool(request)).await?;
    let text = format!("{}: {} agents are replaced\n", args.name, meant.len());
    let recycled = Recycled {
        pool: &args.name,
        agents: meant.iter().map(|agent| agent.name.as_str()).collect(),
    };
    args.output.answer.answer(&args.name, &text, &recycled)?;
    Ok(Done::Yes)
}
