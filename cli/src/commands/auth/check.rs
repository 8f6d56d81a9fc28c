//! `auth check`.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use iap_common::v1::CheckAuthRequest;

use crate::args::ListOutputArgs;
use crate::commands::{Context, Done, patient_call};
use crate::error::CliError;
use crate::rows::auth::Ability;
use crate::{complete, output};

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
    let mut client = context.daemon().await?;
    let request = CheckAuthRequest {
        pool: args.pool.unwrap_or_default(),
    };
    let answer = patient_call(DEADLINE, client.check_auth(request)).await?;
    let abilities: Vec<Ability> = answer.abilities.into_iter().map(Ability::from).collect();
    args.output.list(&abilities)?;
    let fixes: Vec<String> = abilities.iter().filter_map(Ability::fix).collect();
    if args.output.answer.is_text() && !fixes.is_empty() {
        output::line(&format!("\n{}", fixes.join("\n")))?;
    }
    Ok(if abilities.iter().any(Ability::is_missing) {
        Done::Unhealthy
    } else {
        Done::Yes
    })
}
