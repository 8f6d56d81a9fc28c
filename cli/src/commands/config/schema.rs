//! `config schema`.

use crate::commands::Done;
use crate::error::CliError;
use crate::output;

/// Generated from the daemon's types; CI checks that it is current.
const SCHEMA: &str = include_str!("../../../../packaging/config.schema.json");

pub(super) fn run() -> Result<Done, CliError> {
    output::line(SCHEMA.trim_end())?;
    Ok(Done::Yes)
}
