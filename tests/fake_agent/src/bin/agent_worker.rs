//! `bin/Agent.Worker` of the stand-in.

use std::process::ExitCode;

fn main() -> ExitCode {
    fake_agent::worker::main(&std::env::args().skip(1).collect::<Vec<_>>())
}
