//! `bin/Agent.Listener` of the stand-in.

use std::process::ExitCode;

fn main() -> ExitCode {
    fake_agent::listener::main(&std::env::args().skip(1).collect::<Vec<_>>())
}
