//! `jobs ls`.

use std::cmp::Reverse;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::ListEndedAgentsRequest;

use crate::args::{DurationArg, ListOutputArgs};
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::rows::fleet::OnHost;
use crate::rows::history::EndedAgent;
use crate::rows::time::ago;
use crate::{complete, fleet};

/// List jobs that have ended, the newest first
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl jobs ls --since 24h --failed
  iapctl jobs ls --pool linux -o wide")]
pub(crate) struct LsArgs {
    /// Only those that ended this long ago or less, such as 30m or 24h
    #[arg(long, value_name = "DURATION")]
    since: Option<DurationArg>,
    /// Only those that did not succeed
    #[arg(long)]
    failed: bool,
    /// Only this pool's
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// Agents that ended without a job, too
    #[arg(long, conflicts_with = "failed")]
    all: bool,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: LsArgs) -> Result<Done, CliError> {
    let request = ListEndedAgentsRequest {
        since: args.since.map(|since| ago(since.0)),
        pool: args.pool.unwrap_or_default(),
        with_job: !args.all,
        failed: args.failed,
        limit: args.limit,
    };
    let newest_first = |rows: &mut Vec<OnHost<EndedAgent>>| {
        rows.sort_by_key(|row| Reverse(row.what.ended_at()));
    };
    let ask = async |context: &Context| {
        let mut client = context.history().await?;
        let answer = call(client.list_ended_agents(request.clone())).await?;
        Ok(answer.agents.into_iter().map(EndedAgent::from).collect())
    };
    fleet::list_sorted(context, &args.output, newest_first, ask).await
}
