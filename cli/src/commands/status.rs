//! `status`: one screen that says whether all is well.

use clap::Args;
use iap_common::v1::GetStatusRequest;
use jiff::Timestamp;

use super::{Context, Done, call};
use crate::args::ListOutputArgs;
use crate::error::CliError;
use crate::output;
use crate::rows::status::Status;
use crate::style;

/// Show the daemon, Incus, Azure and the pools on one screen
///
/// Exits 1 when something is wrong: Incus is unreachable, Azure fails or rejects the credential,
/// a pool is degraded, or the last reload of the configuration was refused.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl status
  iapctl status -o json | jq '.pools[] | {name, state, queued_jobs}'
  iapctl status > /dev/null || echo 'something is wrong'")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: StatusArgs) -> Result<Done, CliError> {
    let mut client = context.daemon().await?;
    let status = Status::from(call(client.get_status(GetStatusRequest {})).await?);
    let now = Timestamp::now();
    let coloured = style::on_stdout();
    let mut text = output::labelled(&status.lines(now), coloured);
    text.push('\n');
    text.push_str(&args.output.table(&status.pools, now, coloured));
    let warnings = status.warnings();
    if !warnings.is_empty() {
        text.push('\n');
    }
    for warning in warnings {
        text.push_str(&warning);
        text.push('\n');
    }
    args.output
        .answer
        .answer(&status.hostname, &text, &status)?;
    Ok(if status.healthy {
        Done::Yes
    } else {
        Done::Unhealthy
    })
}
