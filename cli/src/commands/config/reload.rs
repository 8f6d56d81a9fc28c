//! `config reload`.

use clap::Args;
use iap_common::v1::ReloadConfigRequest;
use serde::Serialize;

use super::path_in_force;
use crate::args::OutputArgs;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::progress::{Notes, say};
use crate::rows::status::Problem;

/// Make the daemon read its configuration file again
///
/// The file is applied whole, or not at all when anything in it is wrong. Prints what changes.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl config reload --dry-run
  iapctl config reload")]
pub(crate) struct ReloadArgs {
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Reload {
    applied: bool,
    changes: Vec<String>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

pub(super) async fn run(context: &Context, args: ReloadArgs) -> Result<Done, CliError> {
    let mut client = context.daemon().await?;
    let answer = call(client.reload_config(ReloadConfigRequest {
        dry_run: args.dry_run,
    }))
    .await?;
    let reload = Reload {
        applied: !args.dry_run && answer.problems.is_empty(),
        changes: answer.changes,
        problems: answer.problems.into_iter().map(Problem::from).collect(),
        warnings: answer.warnings.into_iter().map(Problem::from).collect(),
    };
    let file = path_in_force(&mut client).await?;
    for warning in &reload.warnings {
        say(&warning.text(&file, "warning: "));
    }
    for problem in &reload.problems {
        say(&problem.text(&file, ""));
    }
    let mut text: String = reload
        .changes
        .iter()
        .map(|change| format!("{change}\n"))
        .collect();
    if reload.problems.is_empty() && text.is_empty() {
        text.push_str("nothing changes\n");
    }
    args.output.answer(&file, &text, &reload)?;
    if !reload.problems.is_empty() {
        return Err(CliError::Failed {
            what: "the configuration has mistakes; the one in force stays".to_owned(),
            hints: vec!["correct them, then: iapctl config reload --dry-run".to_owned()],
        });
    }
    if args.dry_run {
        Notes::stderr().say("a dry run: nothing was applied");
    }
    Ok(Done::Yes)
}
