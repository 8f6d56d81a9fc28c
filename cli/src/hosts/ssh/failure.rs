//! Why a daemon on another host was not reached: by ssh's exit code and by what ssh, the shell
//! there or `iapctl` there said.

use std::process::ExitStatus;
use std::time::Duration;

use super::{Target, code, program};
use crate::error::{CliError, NOT_PERMITTED, UNREACHABLE};
use crate::rows::plain;

/// What the shell there says of a program that it does not find.
const NOT_FOUND: i32 = 127;
/// How ssh itself fails.
const SSH_FAILED: i32 = 255;
/// More of ssh's lines would bury the one that counts, which is the last.
const MOST_LINES: usize = 3;

/// Returns the error for a process that ended with `status`, or was `late`, and `said` something.
pub(super) fn of(
    name: &str,
    target: &Target,
    status: Option<ExitStatus>,
    said: &str,
    late: Option<Duration>,
) -> CliError {
    explain(name, target, code(status), said, late)
}

fn explain(
    name: &str,
    target: &Target,
    code: Option<i32>,
    said: &str,
    late: Option<Duration>,
) -> CliError {
    let error = |what: String, hints: Vec<String>| CliError::Host {
        what,
        hints,
        code: UNREACHABLE,
    };
    match code {
        Some(NOT_FOUND) => error(
            format!("iapctl is not there on {name}"),
            vec![
                format!("install iapd on {name}"),
                format!("it has to be in the PATH of: {}", by_hand(target, "env")),
            ],
        ),
        Some(2) if said.contains("dial-stdio") => error(
            format!("iapctl on {name} is older than this one and cannot be dialled"),
            vec![format!("upgrade iapd on {name}")],
        ),
        Some(code) if code != SSH_FAILED && !labelled(said, "error: ").is_empty() => {
            let what = labelled(said, "error: ").join("; ");
            CliError::Host {
                what: format!("cannot reach iapd on {name}: {what}"),
                hints: labelled(said, "hint: ")
                    .into_iter()
                    // Here another socket is named otherwise.
                    .filter(|hint| !hint.contains("--socket"))
                    .map(|hint| format!("on {name}: {hint}"))
                    .collect(),
                code: if code == i32::from(NOT_PERMITTED) {
                    NOT_PERMITTED
                } else {
                    UNREACHABLE
                },
            }
        }
        _ => {
            let mut reason = words(said);
            if let Some(late) = late {
                let seconds = late.as_secs();
                reason = match reason.as_str() {
                    "" => format!("no answer within {seconds} s"),
                    said => format!("no answer within {seconds} s; ssh said: {said}"),
                };
            } else if reason.is_empty() {
                "ssh ended and said nothing".clone_into(&mut reason);
            }
            let hint = if said.contains("Host key verification failed") {
                "compare its key once by hand:"
            } else if said.contains("Permission denied") {
                "iapctl asks for no passwords: ssh needs a key, or an agent that has it; try:"
            } else {
                "does this work?"
            };
            error(
                format!("cannot reach {name}: {reason}"),
                vec![format!("{hint} {}", by_hand(target, "iapctl version"))],
            )
        }
    }
}

/// Returns the command that a person types to see for themselves.
fn by_hand(target: &Target, command: &str) -> String {
    let mut words = program();
    words.extend(target.address());
    // An operator's hand needs no guard; the host does not begin with a dash.
    words.retain(|word| word != "--");
    format!("{} {command}", words.join(" "))
}

/// Returns what stands behind `label` at the begin of lines.
fn labelled(said: &str, label: &str) -> Vec<String> {
    let lines = said.lines().map(plain);
    lines
        .filter_map(|line| Some(line.split_once(label)?.1.to_owned()))
        .collect()
}

fn words(said: &str) -> String {
    let lines: Vec<String> = said
        .lines()
        .map(plain)
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = lines.len().saturating_sub(MOST_LINES);
    lines.get(last..).unwrap_or_default().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the error's text and hints for what ended with `code` and said `said`.
    fn told(code: Option<i32>, said: &str, late: Option<u64>) -> (String, Vec<String>, u8) {
        let target = Target::parse("ana@b.example.org:2222").unwrap();
        match explain("b", &target, code, said, late.map(Duration::from_secs)) {
            CliError::Host { what, hints, code } => (what, hints, code),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_words_of_ssh_are_passed_on() {
        let (what, hints, code) = told(
            Some(255),
            "ssh: connect to host b port 22: Connection refused\r\n",
            None,
        );
        assert_eq!(
            what,
            "cannot reach b: ssh: connect to host b port 22: Connection refused"
        );
        assert_eq!(
            hints,
            ["does this work? ssh -l ana -p 2222 b.example.org iapctl version"]
        );
        assert_eq!(code, UNREACHABLE);
        let (_, hints, _) = told(Some(255), "Host key verification failed.\n", None);
        assert!(hints[0].starts_with("compare its key once by hand: ssh "));
        let (_, hints, _) = told(Some(255), "ana@b: Permission denied (publickey).\n", None);
        assert!(hints[0].contains("no passwords"));
        assert_eq!(
            told(None, "", None).0,
            "cannot reach b: ssh ended and said nothing"
        );
        assert_eq!(
            told(None, "\x1b[2Jwelcome\n", Some(20)).0,
            "cannot reach b: no answer within 20 s; ssh said: welcome"
        );
    }

    #[test]
    fn a_missing_and_an_old_iapctl_are_told_apart() {
        let (what, hints, _) = told(Some(127), "sh: 1: iapctl: not found\n", None);
        assert_eq!(what, "iapctl is not there on b");
        assert_eq!(hints[0], "install iapd on b");
        let old = "error: unrecognized subcommand 'dial-stdio'\n";
        assert!(told(Some(2), old, None).0.contains("older"));
    }

    #[test]
    fn what_iapctl_says_there_is_said_here() {
        let said = "Welcome to b\nerror: no permission to use /run/iapd/iapd.sock\nhint: you are \
                    not in group iapd: sudo usermod -aG iapd ana, then log in again\n";
        let (what, hints, code) = told(Some(6), said, None);
        assert_eq!(
            what,
            "cannot reach iapd on b: no permission to use /run/iapd/iapd.sock"
        );
        assert!(hints[0].starts_with("on b: you are not in group iapd: "));
        assert_eq!(code, NOT_PERMITTED);
    }
}
