//! `agents ls`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::agent_service_client::AgentServiceClient;
use iap_common::v1::{ListAgentsRequest, WatchAgentsRequest, WatchAgentsResponse};

use crate::args::ListOutputArgs;
use crate::commands::watch::watch_list;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::rows::agent::Agent;
use crate::{complete, fleet};

/// List agents with their jobs
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl agents ls --pool linux --watch
  iapctl agents ls -o json | jq -r '.agents[] | select(.state == \"busy\").name'")]
pub(crate) struct LsArgs {
    /// Only those of this pool
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    /// Go on showing what changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: LsArgs) -> Result<Done, CliError> {
    let pool = args.pool.unwrap_or_default();
    if args.watch {
        let open = async |channel| {
            let request = WatchAgentsRequest {
                pool: pool.clone(),
                names: vec![],
            };
            AgentServiceClient::new(channel).watch_agents(request).await
        };
        let rows =
            |message: WatchAgentsResponse| message.agents.into_iter().map(Agent::from).collect();
        return watch_list(context, &args.output, open, rows).await;
    }
    let ask = async |context: &Context| {
        let request = ListAgentsRequest { pool: pool.clone() };
        let answer = call(context.agents().await?.list_agents(request)).await?;
        Ok(answer.agents.into_iter().map(Agent::from).collect())
    };
    fleet::list(context, &args.output, ask).await
}
