//! `audit ls`.

use std::cmp::Reverse;

use clap::Args;
use iap_common::v1::ListAuditEntriesRequest;

use crate::args::{DurationArg, ListOutputArgs};
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::fleet;
use crate::rows::fleet::OnHost;
use crate::rows::history::AuditEntry;
use crate::rows::time::ago;

/// List what was asked for through the socket, the newest first
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl audit ls --since 24h")]
pub(crate) struct LsArgs {
    /// Only this long ago or less, such as 30m or 24h
    #[arg(long, value_name = "DURATION")]
    since: Option<DurationArg>,
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: LsArgs) -> Result<Done, CliError> {
    let request = ListAuditEntriesRequest {
        since: args.since.map(|since| ago(since.0)),
        limit: args.limit,
    };
    let newest_first = |rows: &mut Vec<OnHost<AuditEntry>>| {
        rows.sort_by_key(|row| Reverse(row.what.at()));
    };
    let ask = async |context: &Context| {
        let mut client = context.history().await?;
        let answer = call(client.list_audit_entries(request)).await?;
        Ok(answer.entries.into_iter().map(AuditEntry::from).collect())
    };
    fleet::list_sorted(context, &args.output, newest_first, ask).await
}
