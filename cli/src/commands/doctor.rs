//! `doctor`: what is wrong or will be, why it matters, and how to mend it.

use std::time::Duration;

use clap::Args;
use iap_common::v1::DiagnoseRequest;
use jiff::Timestamp;

use super::{Context, Done, quiet_call};
use crate::args::OutputArgs;
use crate::error::CliError;
use crate::output;
use crate::progress::{Mode, Silence, say};
use crate::rows::doctor::Diagnosis;
use crate::wait::{Wait, Waited};

/// Longer than the daemon gives itself for all its calls.
const DEADLINE: Duration = Duration::from_secs(40);

/// Check the host, Incus and Azure, and say how to mend what is wrong
///
/// Prints a line for each check, the worst first, each with why it matters and what to do. Changes
/// nothing. Exits 1 when there is an error; warnings and notices do not count.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl doctor
  iapctl doctor --all -o json")]
pub(crate) struct DoctorArgs {
    /// Also tell in full what is as it should be
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub(super) async fn run(context: &Context, args: DoctorArgs) -> Result<Done, CliError> {
    let mut client = context.daemon().await?;
    let mode = Mode::of(context.progress);
    let mut silence = Silence::default();
    let mut wait = Wait::new(None)?;
    let asked = quiet_call(DEADLINE, client.diagnose(DiagnoseRequest {}));
    let waited = wait.on(asked, || {
        if mode != Mode::Silent && silence.is_too_long(Timestamp::now()) {
            say("still looking: Incus or Azure is slow to answer");
        }
    });
    let diagnosis = match waited.await {
        Waited::For(answer) => Diagnosis::from(answer?),
        Waited::Interrupted | Waited::TimedOut => return Ok(Done::Detached),
    };
    let names = diagnosis.names();
    let text = diagnosis.text(args.all);
    if args.output.is_names() {
        output::write(|out| names.lines().try_for_each(|name| writeln!(out, "{name}")))?;
    } else {
        args.output.answer("", &text, &diagnosis)?;
    }
    Ok(if diagnosis.healthy {
        Done::Yes
    } else {
        Done::Unhealthy
    })
}
