//! `pools retry`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::RetryPoolRequest;

use crate::args::SeveralArgs;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::{complete, fleet, output};

/// Try again now what is failing, instead of at its next turn
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl pools retry linux                    what was wrong is mended")]
pub(crate) struct RetryArgs {
    /// Name of the pool
    #[arg(value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    name: String,
    #[command(flatten)]
    several: SeveralArgs,
}

pub(super) async fn run(context: &Context, args: RetryArgs) -> Result<Done, CliError> {
    let name = args.name;
    let act = async |context: &Context| {
        let request = RetryPoolRequest { name: name.clone() };
        call(context.pools().await?.retry_pool(request)).await?;
        output::line(&format!("{name}: trying again now"))?;
        Ok(Done::Yes)
    };
    let what = format!("retry pool {name}");
    fleet::change(context, &what, args.several.yes, act).await
}
