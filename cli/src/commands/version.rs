//! `version`: of this program and of the daemon.

use clap::Args;
use iap_common::v1::GetVersionRequest;
use serde::Serialize;

use super::{Context, Done, call};
use crate::args::OutputArgs;
use crate::error::CliError;
use crate::output;
use crate::progress::Notes;

/// Show the versions of iapctl and of the daemon
///
/// Works, and exits 0, without a daemon too.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl version
  iapctl version -o json")]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Versions {
    iapctl: &'static str,
    /// Null when the daemon is not reachable.
    iapd: Option<String>,
}

pub(super) async fn run(context: &Context, args: VersionArgs) -> Result<Done, CliError> {
    let iapctl = env!("CARGO_PKG_VERSION");
    let iapd = daemon_version(context).await.ok();
    if let Some(iapd) = iapd.as_deref().filter(|iapd| *iapd != iapctl) {
        Notes::stderr().say(&format!(
            "iapctl {iapctl} and iapd {iapd} differ; restart the daemon after an upgrade"
        ));
    }
    let daemon = iapd.clone().unwrap_or_else(|| "not reachable".to_owned());
    let text = output::labelled(&[("iapctl", iapctl.to_owned()), ("iapd", daemon)], false);
    args.output
        .answer(iapctl, &text, &Versions { iapctl, iapd })?;
    Ok(Done::Yes)
}

async fn daemon_version(context: &Context) -> Result<String, CliError> {
    let mut client = context.daemon().await?;
    Ok(call(client.get_version(GetVersionRequest {}))
        .await?
        .version)
}
