//! `pools show`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::GetPoolRequest;

use crate::args::OutputArgs;
use crate::commands::{Context, Done, call, missing};
use crate::complete;
use crate::error::CliError;
use crate::rows::pool::Pool;

/// Show all that is known about a pool
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl pools show linux                     why do jobs wait?
  iapctl pools show linux -o yaml")]
pub(crate) struct ShowArgs {
    /// Name of the pool
    #[arg(value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: ShowArgs) -> Result<Done, CliError> {
    let mut client = context.pools().await?;
    let answer = call(client.get_pool(GetPoolRequest { name: args.name })).await?;
    args.output
        .show(&Pool::from(answer.pool.ok_or_else(missing)?))?;
    Ok(Done::Yes)
}
