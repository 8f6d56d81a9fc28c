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

/// Returns the commands below `command`; what `help` has below it are the same again.
fn verbs(command: &mut clap::Command) -> impl Iterator<Item = &mut clap::Command> {
    let all = command.get_subcommands_mut();
    all.filter(|verb| verb.get_name() != "help")
}

#[test]
fn every_command_has_an_example_that_is_understood() {
    let mut command = iapctl::command();
    command.build();
    check_examples(&mut command);
}

fn check_examples(command: &mut clap::Command) {
    if command.has_subcommands() {
        verbs(command).for_each(check_examples);
        return;
    }
    let name = command.get_name().to_owned();
    let help = command.clone().render_long_help().to_string();
    let (_, examples) = help
        .split_once("Examples:")
        .unwrap_or_else(|| panic!("{name}: {help}"));
    for line in examples
        .lines()
        .filter(|line| line.trim_start().starts_with("iapctl "))
    {
        // Up to the remark, the pipe or the redirection.
        let ends = ["   ", " |", " &&", " >", " 2>"];
        let line = ends.iter().fold(line.trim(), |line, end| {
            line.split(end).next().unwrap_or(line)
        });
        let quoted = line.split('\'').enumerate();
        let words = quoted.flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().collect::<Vec<_>>(),
            _ => vec![part],
        });
        if let Err(error) = iapctl::command().try_get_matches_from(words) {
            panic!("{line}: {error}");
        }
    }
}

fn write_help(command: &mut clap::Command, text: &mut String) {
    let help = command.clone().term_width(100).render_long_help();
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .replace('-', " ");
    let _ = writeln!(text, "# {name}\n\n{help}\n");
    for verb in verbs(command) {
        write_help(verb, text);
    }
}
