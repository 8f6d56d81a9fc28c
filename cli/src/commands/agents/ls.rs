//! `agents ls`.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::{ListAgentsRequest, WatchAgentsRequest, WatchAgentsResponse};

use crate::args::ListOutputArgs;
use crate::commands::watch::watch_list;
use crate::commands::{Context, Done, call};
use crate::complete;
use crate::error::CliError;
use crate::rows::agent::Agent;

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
    let mut client = context.agents().await?;
    let pool = args.pool.unwrap_or_default();
    if args.watch {
        let open = async || {
            let request = WatchAgentsRequest {
                pool: pool.clone(),
                names: vec![],
            };
            client.watch_agents(request).await
        };
        let rows =
            |message: WatchAgentsResponse| message.agents.into_iter().map(Agent::from).collect();
        return watch_list(&args.output, open, rows).await;
    }
    let answer = call(client.list_agents(ListAgentsRequest { pool })).await?;
    let agents: Vec<Agent> = answer.agents.into_iter().map(Agent::from).collect();
    args.output.list(&agents)?;
    Ok(Done::Yes)
}
