//! `doctor`: what is wrong or will be, why it matters, and how to mend it.

use std::time::Duration;

use clap::Args;
use iap_common::v1::DiagnoseRequest;
use jiff::Timestamp;

use super::{Context, Done, quiet_call};
use crate::args::OutputArgs;
use crate::error::CliError;
use crate::fleet::{self, Answers};
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
    let mode = Mode::of(context.progress);
    let mut silence = Silence::default();
    let mut wait = Wait::new(None)?;
    let asked = Box::pin(fleet::gather(context, ask));
    let waited = wait.on(asked, || {
        if mode != Mode::Silent && silence.is_too_long(Timestamp::now()) {
            say("still looking: Incus or Azure is slow to answer");
        }
    });
    let answers = match waited.await {
        Waited::For(answers) => answers,
        Waited::Interrupted | Waited::TimedOut => return Ok(Done::Detached),
    };
    if context.is_named() {
        return show_several(&args, &answers);
    }
    let diagnosis = answers.only()?;
    let names = diagnosis.names();
    if args.output.is_names() {
        output::names(names.lines())?;
    } else {
        let text = diagnosis.text(args.all);
        args.output.answer("", &text, &diagnosis)?;
    }
    Ok(if diagnosis.healthy {
        Done::Yes
    } else {
        Done::Unhealthy
    })
}

async fn ask(context: &Context) -> Result<Diagnosis, CliError> {
    let mut client = context.daemon().await?;
    let answer = quiet_call(DEADLINE, client.diagnose(DiagnoseRequest {})).await?;
    Ok(answer.into())
}

/// Shows the hosts one after the other, below their names.
fn show_several(args: &DoctorArgs, answers: &Answers<Diagnosis>) -> Result<Done, CliError> {
    let healthy = answers.found.iter().all(|(_, diagnosis)| diagnosis.healthy);
    let text = |found: &[(String, Diagnosis)]| {
        let blocks = found.iter().map(|(host, diagnosis)| {
            let lines = diagnosis.text(args.all);
            let lines = lines.lines().map(|line| format!("  {line}"));
            let lines: Vec<String> = lines.map(|line| line.trim_end().to_owned()).collect();
            format!("{host}:\n{}\n", lines.join("\n"))
        });
        blocks.collect::<Vec<String>>().join("\n")
    };
    let names = |host: &str, diagnosis: &Diagnosis| {
        let names = diagnosis.names();
        names.lines().map(|id| format!("{host}/{id}")).collect()
    };
    let done = if healthy { Done::Yes } else { Done::Unhealthy };
    answers.show(&args.output, done, text, names)
}
