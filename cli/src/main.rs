//! The operator's command line for `iapd`; see the library for all of it.

use std::process::ExitCode;

fn main() -> ExitCode {
    iapctl::run(std::env::args_os())
}
