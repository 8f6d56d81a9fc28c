//! Asks before several hosts are changed at once.

use std::io::{IsTerminal, Write};

use crate::commands::Context;
use crate::error::CliError;
use crate::hosts::Host;

/// Shows which hosts are meant and has it confirmed, unless `yes`.
pub(super) fn confirm(what: &str, hosts: &[(Host, Context)], yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    let names: Vec<&str> = hosts.iter().map(|(host, _)| host.name.as_str()).collect();
    let what = format!("{what} on {} hosts: {}", names.len(), names.join(", "));
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(CliError::usage(
            format!("{what}: nobody can be asked here"),
            "pass --yes",
        ));
    }
    let mut stderr = std::io::stderr();
    let _ = write!(stderr, "{what}\nGo on? [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|source| CliError::Read {
            path: "the answer".into(),
            source,
        })?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(CliError::usage(
        "not confirmed, nothing was done",
        "answer y, or pass --yes",
    ))
}
