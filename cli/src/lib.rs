//! `iapctl`: how a person operates `iapd`.
//!
//! ```text
//! args ─► commands/<noun>/<verb> ─► gRPC (iap.v1)      one call, or a feed that reconnects
//!                │                 over the socket here, or through ssh: hosts
//!                ├─► fleet              the same on several hosts
//!                ├─► rows ─► output     the answer: tables, JSON, YAML, names; on stdout
//!                ├─► progress           what goes on meanwhile; on stderr
//!                └─► error              what went wrong and what to do; on stderr, exit code
//! ```
//!
//! Nothing is decided here: the daemon says what exists, what is refused and which name was meant.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use clap_complete::CompleteEnv;

use crate::args::Cli;
use crate::commands::{Context, Done};
use crate::error::CliError;

mod args;
mod commands;
mod complete;
mod error;
mod feed;
mod fleet;
mod hosts;
mod output;
mod progress;
mod rows;
mod style;
mod wait;

/// Returns the definition of the command line, for help, man pages and completion.
pub fn command() -> clap::Command {
    // `iapctl help pools ls` is enough: no verb `help` beside the verbs of each noun.
    Cli::command().mut_subcommands(|noun| noun.disable_help_subcommand(true))
}

/// Runs the command line `args`, the program's name first, and returns its exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let completion = CompleteEnv::with_factory(command)
        .bin("iapctl")
        .completer("iapctl");
    match completion.try_complete(args.clone(), None) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return usage(&error),
    }
    match parse(args) {
        Ok(cli) => execute(cli),
        Err(error) => usage(&error),
    }
}

fn parse(args: Vec<OsString>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(args)?;
    commands::check_place(&command, &matches)?;
    Cli::from_arg_matches_mut(&mut matches)
}

/// Prints what clap has to say: help, the version or a usage error.
fn usage(error: &clap::Error) -> ExitCode {
    // A reader that has gone away is no reason to fail.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

fn execute(cli: Cli) -> ExitCode {
    let result = match cli.command.run_alone(&cli.global.socket) {
        Some(result) => result,
        None => with_daemon(cli),
    };
    match result {
        Ok(Done::Yes) => ExitCode::SUCCESS,
        Ok(Done::Unhealthy) => ExitCode::from(error::FAILED),
        Ok(Done::Detached) => ExitCode::from(error::DETACHED),
        Ok(Done::Failed(code)) => ExitCode::from(code),
        Err(error) => error::report(&error),
    }
}

fn with_daemon(cli: Cli) -> Result<Done, CliError> {
    let context = Context::new(&cli.global)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    runtime.block_on(cli.command.run(&context))
}
