//! `version`: of this program and of the daemon.

use clap::Args;
use iap_common::v1::GetVersionRequest;
use jiff::Timestamp;
use serde::Serialize;

use super::{Context, Done, call};
use crate::args::{ListOutputArgs, OutputArgs};
use crate::error::CliError;
use crate::progress::Notes;
use crate::rows::{Column, Row, column};
use crate::{fleet, output};

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

/// The daemon of one host of several.
#[derive(Serialize, PartialEq)]
struct HostVersion {
    iapd: String,
}

impl Row for HostVersion {
    const PLURAL: &'static str = "hosts";
    const SINGULAR: &'static str = "host";

    fn columns(_: bool) -> Vec<Column> {
        vec![column("IAPD")]
    }

    fn cells(&self, _: bool, _: Timestamp) -> Vec<String> {
        vec![self.iapd.clone()]
    }

    fn name(&self) -> &str {
        &self.iapd
    }
}

pub(super) async fn run(context: &Context, args: VersionArgs) -> Result<Done, CliError> {
    if context.is_named() {
        let ask = async |context: &Context| {
            let iapd = daemon_version(context).await?;
            Ok(vec![HostVersion { iapd }])
        };
        let output = ListOutputArgs {
            answer: args.output,
            no_headers: false,
        };
        return fleet::list(context, &output, ask).await;
    }
    let iapctl = env!("CARGO_PKG_VERSION");
    let iapd = match daemon_version(context).await {
        Ok(iapd) => Some(iapd),
        Err(error) => {
            // Somebody who names a host wants to know what is wrong with it.
            if let CliError::Host { what, .. } = error {
                Notes::stderr().say(&what);
            }
            None
        }
    };
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
