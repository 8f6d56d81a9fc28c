//! `status`: one screen that says whether all is well.

use clap::Args;
use iap_common::v1::GetStatusRequest;
use jiff::Timestamp;

use super::{Context, Done, call};
use crate::args::ListOutputArgs;
use crate::error::CliError;
use crate::rows::fleet::{OnHost, Summary};
use crate::rows::status::Status;
use crate::{fleet, output, style};

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
    if context.is_named() {
        return run_several(context, &args.output).await;
    }
    let status = ask(context).await?;
    let now = Timestamp::now();
    let coloured = style::on_stdout();
    let mut text = output::labelled(&status.lines(now), coloured);
    text.push('\n');
    text.push_str(&args.output.table(&status.pools, now, coloured));
    if !status.members.is_empty() {
        text.push('\n');
        text.push_str(&args.output.table(&status.members, now, coloured));
    }
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

async fn ask(context: &Context) -> Result<Status, CliError> {
    let mut client = context.daemon().await?;
    Ok(call(client.get_status(GetStatusRequest {})).await?.into())
}

/// Shows a line for each host, all their pools, and what each warns of.
async fn run_several(context: &Context, output: &ListOutputArgs) -> Result<Done, CliError> {
    let answers = fleet::gather(context, ask).await;
    let healthy = answers.found.iter().all(|(_, status)| status.healthy);
    let text = |found: &[(String, Status)]| {
        let now = Timestamp::now();
        let coloured = style::on_stdout();
        let hosts: Vec<_> = found
            .iter()
            .map(|(host, status)| OnHost::new(host, Summary::of(status, now)))
            .collect();
        let pools: Vec<_> = found
            .iter()
            .flat_map(|(host, status)| status.pools.iter().map(move |pool| (host, pool.clone())))
            .map(|(host, pool)| OnHost::new(host, pool))
            .collect();
        let warnings: Vec<String> = found
            .iter()
            .flat_map(|(host, status)| status.warnings().into_iter().map(move |text| (host, text)))
            .map(|(host, text)| format!("{host}: {text}\n"))
            .collect();
        let mut text = output.table(&hosts, now, coloured);
        text.push('\n');
        text.push_str(&output.table(&pools, now, coloured));
        let members: Vec<_> = found
            .iter()
            .flat_map(|(host, status)| status.members.iter().map(move |member| (host, member)))
            .map(|(host, member)| OnHost::new(host, member.clone()))
            .collect();
        if !members.is_empty() {
            text.push('\n');
            text.push_str(&output.table(&members, now, coloured));
        }
        if !warnings.is_empty() {
            text.push('\n');
        }
        text + &warnings.concat()
    };
    let done = if healthy { Done::Yes } else { Done::Unhealthy };
    answers.show(&output.answer, done, text, |host, _| vec![host.to_owned()])
}
