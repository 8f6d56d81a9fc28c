//! `pools ls`.

use clap::Args;
use iap_common::v1::pool_service_client::PoolServiceClient;
use iap_common::v1::{ListPoolsRequest, WatchPoolsRequest};

use crate::args::ListOutputArgs;
use crate::commands::watch::watch_list;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::fleet;
use crate::rows::pool::Pool;

/// List pools with their agents and what is wrong
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl pools ls
  iapctl pools ls --watch
  iapctl pools ls -o wide")]
pub(crate) struct LsArgs {
    /// Go on showing what changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: LsArgs) -> Result<Done, CliError> {
    if args.watch {
        let open = async |channel| {
            PoolServiceClient::new(channel)
                .watch_pools(WatchPoolsRequest {})
                .await
        };
        let rows = |message: iap_common::v1::WatchPoolsResponse| {
            message.pools.into_iter().map(Pool::from).collect()
        };
        return watch_list(context, &args.output, open, rows).await;
    }
    let ask = async |context: &Context| {
        let answer = call(context.pools().await?.list_pools(ListPoolsRequest {})).await?;
        Ok(answer.pools.into_iter().map(Pool::from).collect())
    };
    fleet::list(context, &args.output, ask).await
}
