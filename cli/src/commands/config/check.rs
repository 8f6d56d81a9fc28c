//! `config check`: by the daemon, else by the daemon's program.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use iap_common::v1::{CheckConfigRequest, ReloadConfigRequest};
use serde::Serialize;
use tokio::process::Command;

use super::path_in_force;
use crate::args::OutputArgs;
use crate::commands::{Context, Done, call};
use crate::error::CliError;
use crate::progress::Notes;
use crate::rows::status::Problem;

/// Reading a file and thinking about it takes milliseconds.
const CHECK_DEADLINE: Duration = Duration::from_secs(30);

/// Check a configuration file
///
/// Prints all mistakes as FILE:LINE:COLUMN: KEY: MESSAGE and exits 1 when there are any. Without
/// FILE the daemon checks the file it was started with. When the daemon cannot be reached, the
/// program iapd does it.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  iapctl config check                         the daemon's own file
  iapctl config check new.yaml && install new.yaml /etc/iapd/config.yaml")]
pub(crate) struct CheckArgs {
    /// The file; - for standard input
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Serialize)]
struct Checked {
    valid: bool,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

pub(super) async fn run(context: &Context, args: CheckArgs) -> Result<Done, CliError> {
    let content = args.file.as_deref().map(read).transpose()?;
    let mut client = match context.daemon().await {
        Ok(client) => client,
        Err(error @ CliError::Connect(_)) => return without_daemon(&args, error).await,
        Err(error) => return Err(error),
    };
    let (file, problems, warnings) = match (&args.file, content) {
        (Some(file), Some(content)) => {
            let answer = call(client.check_config(CheckConfigRequest { content })).await?;
            (
                file.to_string_lossy().into_owned(),
                answer.problems,
                answer.warnings,
            )
        }
        // The daemon's own file need not be readable for this user.
        _ => {
            let request = ReloadConfigRequest { dry_run: true };
            let answer = call(client.reload_config(request)).await?;
            (
                path_in_force(&mut client).await?,
                answer.problems,
                answer.warnings,
            )
        }
    };
    let checked = Checked {
        valid: problems.is_empty(),
        problems: problems.into_iter().map(Problem::from).collect(),
        warnings: warnings.into_iter().map(Problem::from).collect(),
    };
    let mut text = String::new();
    for (list, kind) in [(&checked.problems, ""), (&checked.warnings, "warning: ")] {
        for problem in list {
            text.push_str(&problem.text(&file, kind));
            text.push('\n');
        }
    }
    if checked.valid {
        text.push_str(&file);
        text.push_str(": valid\n");
    }
    args.output.answer(&file, &text, &checked)?;
    Ok(if checked.valid {
        Done::Yes
    } else {
        Done::Unhealthy
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let content = if path == Path::new("-") {
        let mut content = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut content)
            .map(|_| content)
    } else {
        std::fs::read(path)
    };
    content.map_err(|source| CliError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Lets the program `iapd` check the file; its words are the answer.
async fn without_daemon(args: &CheckArgs, error: CliError) -> Result<Done, CliError> {
    let notes = Notes::stderr();
    if !args.output.is_text() || args.file.as_deref() == Some(Path::new("-")) {
        notes.say("the program iapd could check a named file, with -o table");
        return Err(error);
    }
    let Some(program) = find_iapd() else {
        notes.say("the program iapd, which could check the file too, is not installed here");
        return Err(error);
    };
    notes.say(&format!(
        "the daemon cannot be reached; {} checks the file",
        program.display()
    ));
    let mut command = Command::new(&program);
    command.kill_on_drop(true);
    command.arg("--check-config");
    if let Some(file) = &args.file {
        command.arg("--config").arg(file);
    }
    let status = tokio::time::timeout(CHECK_DEADLINE, command.status())
        .await
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|source| CliError::Run { program, source })?;
    Ok(if status.success() {
        Done::Yes
    } else {
        Done::Unhealthy
    })
}

/// Returns the `iapd` beside this program, else the first one in `PATH`.
fn find_iapd() -> Option<PathBuf> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Daemons live in sbin, which is not in everybody's PATH.
    let places = beside
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin".into()]);
    places
        .map(|directory| directory.join("iapd"))
        .find(|program| program.is_file())
}
