//! Asks before several hosts are changed at once.

use crate::commands::Context;
use crate::commands::confirm::{ask_whether, can_ask};
use crate::error::CliError;
use crate::hosts::Host;

/// Shows which hosts are meant and has it confirmed, unless `yes`.
pub(super) fn confirm(what: &str, hosts: &[(Host, Context)], yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    let names: Vec<&str> = hosts.iter().map(|(host, _)| host.name.as_str()).collect();
    let what = format!("{what} on {} hosts: {}", names.len(), names.join(", "));
    if !can_ask() {
        return Err(CliError::usage(
            format!("{what}: nobody can be asked here"),
            "pass --yes",
        ));
    }
    ask_whether(&format!("{what}\nGo on?"))
}
