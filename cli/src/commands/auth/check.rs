//! `auth check`.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::CheckAuthRequest;

use crate::args::ListOutputArgs;
use crate::commands::{Context, Done, patient_call};
use crate::error::CliError;
use crate::rows::auth::Ability;
use crate::{complete, fleet, output};

/// The daemon asks Azure several questions and waits for each answer within bounds of its own.
const DEADLINE: Duration = Duration::from_secs(180);

/// Ask Azure what each credential can and cannot do, and say how to mend it
///
/// Gets a token, signs in, finds each pool, lists its agents, and has a change refused to see
/// whether changes are allowed. Changes nothing. Exits 1 when something is missing.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl auth check
  iapctl auth check --pool linux")]
pub(crate) struct CheckArgs {
    /// Only the credential of this pool, and that pool
    #[arg(long, value_name = "POOL", add = ArgValueCompleter::new(complete::pools))]
    pool: Option<String>,
    #[command(flatten)]
    output: ListOutputArgs,
}

pub(super) async fn run(context: &Context, args: CheckArgs) -> Result<Done, CliError> {
    let request = CheckAuthRequest {
        pool: args.pool.unwrap_or_default(),
    };
    let ask = async |context: &Context| {
        let mut client = context.daemon().await?;
        let answer = patient_call(DEADLINE, client.check_auth(request.clone())).await?;
        let abilities = answer.abilities.into_iter().map(Ability::from);
        Ok(abilities.collect::<Vec<_>>())
    };
    let answers = fleet::gather(context, ask).await;
    let mut fixes = Vec::new();
    let mut missing = false;
    for (host, abilities) in &answers.found {
        missing |= abilities.iter().any(Ability::is_missing);
        let about = if context.is_named() {
            format!("{host}: ")
        } else {
            String::new()
        };
        let host_fixes = abilities.iter().filter_map(Ability::fix);
        fixes.extend(host_fixes.map(|fix| format!("{about}{fix}")));
    }
    let done = if context.is_named() {
        answers.list(&args.output, |_| {})?
    } else {
        args.output.list(&answers.only()?)?;
        Done::Yes
    };
    if args.output.answer.is_text() && !fixes.is_empty() {
        output::line(&format!("\n{}", fixes.join("\n")))?;
    }
    Ok(match done {
        Done::Yes if missing => Done::Unhealthy,
        done => done,
    })
}
