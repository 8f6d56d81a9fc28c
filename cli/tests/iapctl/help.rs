//! All help texts in one place: the reference of the command line.

use std::fmt::Write as _;

use insta::assert_snapshot;

#[test]
fn help_of_all_commands() {
    let mut text = String::new();
    let mut command = iapctl::command().term_width(100);
    command.build();
    write_help(&mut command, &mut text);
    assert_snapshot!("help", text);
}

fn write_help(command: &mut clap::Command, text: &mut String) {
    let help = command.clone().term_width(100).render_long_help();
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .replace('-', " ");
    let _ = writeln!(text, "# {name}\n\n{help}\n");
    for verb in command.get_subcommands_mut() {
        write_help(verb, text);
    }
}
