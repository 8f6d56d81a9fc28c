//! `pools retry`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::RetryPoolRequest;

use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::{complete, output};

/// Try again now what is failing, instead of at its next turn
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl pools retry linux                    what was wrong is mended")]
pub(crate) struct RetryArgs {
    /// Name of the pool
    #[arg(value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    name: String,
}

pub(super) async fn run(context: &Context, args: RetryArgs) -> Result<Done, CliError> {
    let mut client = context.pools().await?;
    call(client.retry_pool(RetryPoolRequest {
        name: args.name.clone(),
    }))
    .await?;
    output::line(&format!("{}: trying again now", args.name))?;
    Ok(Done::Yes)
}
