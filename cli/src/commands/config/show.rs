//! `config show`.

use clap::Args;
use iap_common::v1::GetConfigRequest;
use serde::Serialize;

use crate::args::OutputArgs;
use crate::commands::{Context, Done, call};
use crate::error::CliError;

/// Show the configuration in force, secrets masked
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl config show")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Effective {
    path: String,
    config: serde_yaml::Value,
}

pub(super) async fn run(context: &Context, args: ShowArgs) -> Result<Done, CliError> {
    let mut client = context.daemon().await?;
    let answer = call(client.get_config(GetConfigRequest {})).await?;
    let config = serde_yaml::from_str(&answer.yaml).map_err(|error| CliError::Failed {
        what: format!("the daemon's configuration is no YAML: {error}"),
        hints: vec![],
    })?;
    let effective = Effective {
        path: answer.path.clone(),
        config,
    };
    args.output.answer(&answer.path, &answer.yaml, &effective)?;
    Ok(Done::Yes)
}
