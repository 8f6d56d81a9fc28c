//! `config`: the daemon's configuration file.

use clap::Subcommand;
use iap_common::v1::GetConfigRequest;
use iap_common::v1::daemon_service_client::DaemonServiceClient;
use tonic::transport::Channel;

use super::{Context, Done, call};
use crate::error::CliError;

mod check;
mod reload;
mod schema;
mod show;

#[derive(Subcommand)]
pub(crate) enum Config {
    Check(check::CheckArgs),
    Show(show::ShowArgs),
    Reload(reload::ReloadArgs),
    /// Print the JSON Schema of the configuration file
    #[command(after_long_help = "\
Examples:
  iapctl config schema > iapd.schema.json      for editors")]
    Schema,
}

impl Config {
    pub(super) async fn run(self, context: &Context) -> Result<Done, CliError> {
        match self {
            Self::Check(args) => check::run(context, args).await,
            Self::Show(args) => show::run(context, args).await,
            Self::Reload(args) => reload::run(context, args).await,
            Self::Schema => schema::run(),
        }
    }
}

/// Returns the path of the daemon's own file.
async fn path_in_force(client: &mut DaemonServiceClient<Channel>) -> Result<String, CliError> {
    Ok(call(client.get_config(GetConfigRequest {})).await?.path)
}
