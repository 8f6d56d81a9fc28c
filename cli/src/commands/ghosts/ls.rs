//! `ghosts ls`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::ListGhostsRequest;

use crate::args::ListOutputArgs;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::progress::Notes;
use crate::rows::ghost::Ghost;
use crate::rows::plain;
use crate::{complete, fleet};

/// List registrations in Azure that have no instance here, and whose they are
///
/// In the Azure pools that this host's pools use: what other hosts with an iapd have there, alive
/// or not, and what this host left behind. SINCE is how long this daemon has seen AZURE and JOB as
/// they are, without a gap. A host sweeps its own ghosts by itself. Those of a host that is gone
/// for good stay until somebody adopts them.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl ghosts ls
  iapctl ghosts ls --pool linux -o json | jq -r '.ghosts[] | select(.online | not).owner' | sort -u")]
pub(crate) struct LsArgs {
    /// Only in the Azure pool that this pool uses
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: LsArgs) -> Result<Done, CliError> {
    let pool = args.pool.unwrap_or_default();
    fleet::list(context, &args.output, async |context: &Context| {
        let mut client = context.agents().await?;
        let request = ListGhostsRequest { pool: pool.clone() };
        let answer = call(client.list_ghosts(request)).await?;
        for warning in &answer.warnings {
            Notes::stderr().say(&format!("some may be missing: {}", plain(warning)));
        }
        Ok(answer.ghosts.into_iter().map(Ghost::from).collect())
    })
    .await
}
