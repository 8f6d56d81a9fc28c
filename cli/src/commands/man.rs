//! `man`: the manual pages that the package ships, a page for each command. Hidden: packagers call
//! it.

use std::path::PathBuf;
use std::{fs, io};

use clap::Args;
use clap::builder::Resettable;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::Done;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  iapctl man target/package/man --date 2026-11-25";

/// Write the manual pages into a directory
#[derive(Args)]
#[command(hide = true, after_long_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// Where to write them
    directory: PathBuf,
    /// Date of the pages: YYYY-MM-DD
    #[arg(long, default_value = "")]
    date: String,
}

pub(super) fn run(args: &ManArgs) -> Result<Done, CliError> {
    fs::create_dir_all(&args.directory).map_err(CliError::Output)?;
    let mut command = crate::command();
    // Gives each command the whole name that it is called by.
    command.build();
    write(&command, args)?;
    Ok(Done::Yes)
}

fn write(command: &clap::Command, args: &ManArgs) -> Result<(), CliError> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name());
    let notes = command
        .get_after_long_help()
        .or_else(|| command.get_after_help())
        .map(ToString::to_string);
    // clap_mangen would flow the lines of examples and tables together.
    let described = command
        .clone()
        .name(name.to_owned())
        .after_help(Resettable::Reset)
        .after_long_help(Resettable::Reset);
    let mut page = Vec::new();
    Man::new(described)
        .title(name.to_uppercase())
        .date(args.date.as_str())
        .source(concat!("iapd ", env!("CARGO_PKG_VERSION")))
        .manual("iapd")
        .render(&mut page)
        .and_then(|()| render_notes(notes.as_deref(), &mut page))
        .and_then(|()| fs::write(args.directory.join(format!("{name}.1")), page))
        .map_err(CliError::Output)?;
    for verb in command.get_subcommands() {
        if !verb.is_hide_set() && verb.get_name() != "help" {
            write(verb, args)?;
        }
    }
    Ok(())
}

/// Lines as they are.
fn render_notes(notes: Option<&str>, page: &mut Vec<u8>) -> io::Result<()> {
    let Some(notes) = notes else {
        return Ok(());
    };
    let mut section = Roff::new();
    section
        .control("SH", ["NOTES"])
        .control("nf", [])
        .text([roman(notes)])
        .control("fi", [])
        .to_writer(page)
}
