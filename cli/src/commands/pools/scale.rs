//! `pools scale`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::scale_pool_request::Change;
use iap_common::v1::{ResetCount, ScalePoolRequest};
use jiff::Timestamp;

use crate::args::{SeveralArgs, UntilArgs};
use crate::commands::{Context, Done, call, missing};
use crate::error::CliError;
use crate::progress::Notes;
use crate::rows::pool::Pool;
use crate::{complete, fleet, output};

/// Keep another number of agents than the configured one
///
/// Surplus idle agents leave, busy ones finish their jobs first. Survives restarts of the daemon
/// and reloads of its configuration, until it lapses or is reset.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl pools scale linux --count 12 --until 18:00
  iapctl pools scale linux --reset")]
pub(crate) struct ScaleArgs {
    /// Name of the pool
    #[arg(value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    name: String,
    /// How many agents to keep, 0 to 1000
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=1000),
        required_unless_present = "reset"
    )]
    count: Option<u32>,
    /// Keep as many as are configured again
    #[arg(long, conflicts_with_all = ["count", "for", "until"])]
    reset: bool,
    #[command(flatten)]
    until: UntilArgs,
    #[command(flatten)]
    several: SeveralArgs,
}

pub(super) async fn run(context: &Context, args: ScaleArgs) -> Result<Done, CliError> {
    let change = args
        .count
        .map_or(Change::Reset(ResetCount {}), Change::Count);
    let what = format!("scale pool {}", args.name);
    let request = ScalePoolRequest {
        name: args.name,
        change: Some(change),
        until: args.until.at()?,
    };
    let act = async |context: &Context| scale(context, request.clone()).await;
    fleet::change(context, &what, args.several.yes, act).await
}

async fn scale(context: &Context, request: ScalePoolRequest) -> Result<Done, CliError> {
    let answer = call(context.pools().await?.scale_pool(request)).await?;
    let pool = Pool::from(answer.pool.ok_or_else(missing)?);
    let now = Timestamp::now();
    output::line(&format!("{}: {}", pool.name, pool.count_text(now)))?;
    if let Some(paused) = pool.paused(now) {
        Notes::stderr().say(&format!("{} is {paused}", pool.name));
    }
    Ok(Done::Yes)
}
