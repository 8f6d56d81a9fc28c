//! `completions`: what a shell loads so that Tab asks this program.

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use super::Done;
use crate::error::CliError;
use crate::output;

/// Print the completion script of a shell
///
/// The script asks iapctl at every Tab, so it knows the daemon's pools, agents and jobs.
///
///   bash: iapctl completions bash > ~/.local/share/bash-completion/completions/iapctl
///   zsh:  iapctl completions zsh > DIRECTORY-IN-FPATH/_iapctl
///   fish: iapctl completions fish > ~/.config/fish/completions/iapctl.fish
#[derive(Args)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  source <(iapctl completions bash)            for this shell only"
)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Last line of clap's zsh script: it only registers a function.
const ZSH_REGISTER: &str = "compdef _clap_dynamic_completer_iapctl iapctl";

/// Loaded from fpath as `_iapctl`, zsh runs the script as the completer itself; clap's would do
/// nothing on the first Tab.
const ZSH_RUN_OR_REGISTER: &str = r#"if [ "$funcstack[1]" = "_iapctl" ]; then
    _clap_dynamic_completer_iapctl "$@"
else
    compdef _clap_dynamic_completer_iapctl iapctl
fi"#;

pub(super) fn run(args: &CompletionsArgs) -> Result<Done, CliError> {
    let completer: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    completer
        .write_registration("COMPLETE", "iapctl", "iapctl", "iapctl", &mut script)
        .map_err(CliError::Output)?;
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if matches!(args.shell, Shell::Zsh) {
        script = script.replace(ZSH_REGISTER, ZSH_RUN_OR_REGISTER);
    }
    output::write(|out| out.write_all(script.as_bytes()))?;
    Ok(Done::Yes)
}
