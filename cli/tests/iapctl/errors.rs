//! What is said when it does not work, and the exit codes.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

use super::data::answers;
use super::fake::{Answers, Fake, stopping};
use super::run::{command, copy_of_program, effect, iapctl};

fn failing(status: Status) -> String {
    let mut answers = answers();
    answers.errors.insert("ListPools", status);
    iapctl(&Fake::start(answers), "pools ls")
}

#[test]
fn a_daemon_that_never_started_is_pointed_out() {
    let fake = Fake::start(Answers::default());
    assert_snapshot!(iapctl(&fake, "pools ls --socket no.sock"), @"
    --- stderr
    error: no daemon socket at no.sock
    hint: is the daemon running? see: systemctl status iapd
    hint: a daemon with another socket: --socket PATH or IAPD_SOCKET
    --- exit 7
    ");
}

#[test]
fn a_socket_without_a_daemon_is_pointed_out() {
    let fake = Fake::start(Answers::default());
    drop(UnixListener::bind(fake.directory().join("stale.sock")).unwrap());
    assert_snapshot!(iapctl(&fake, "pools ls --socket stale.sock"), @"
    --- stderr
    error: nothing listens on stale.sock
    hint: start the daemon: systemctl start iapd
    --- exit 7
    ");
}

#[test]
fn a_user_without_the_group_is_told_which() {
    let fake = Fake::start(answers());
    std::fs::set_permissions(fake.socket(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(fake.directory(), open).unwrap();
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    // A copy where nobody may run it.
    let mut command = Command::new(copy_of_program(&fake));
    command
        .args(["pools", "ls"])
        .env("IAPD_SOCKET", fake.socket())
        .uid(65534)
        .gid(65534);
    let output = command.output().unwrap();
    assert_snapshot!(effect(&fake, &output), @"
    --- stderr
    error: no permission to use [dir]/iapd.sock
    hint: only root may use this socket: try again with sudo
    --- exit 6
    ");
}

#[test]
fn bad_input_is_a_usage_error() {
    assert_snapshot!(failing(Status::invalid_argument("no such thing")), @"
    --- stderr
    error: no such thing
    --- exit 2
    ");
}

#[test]
fn a_refusal_has_its_own_exit_code() {
    assert_snapshot!(failing(Status::failed_precondition("the pool is draining")), @"
    --- stderr
    error: the pool is draining
    --- exit 5
    ");
}

#[test]
fn a_missing_permission_has_its_own_exit_code() {
    assert_snapshot!(failing(Status::permission_denied("operators only")), @"
    --- stderr
    error: operators only
    --- exit 6
    ");
}

#[test]
fn a_daemon_that_shuts_down_is_unreachable() {
    assert_snapshot!(failing(stopping()), @"
    --- stderr
    error: the daemon is stopping
    hint: is the daemon running? see: systemctl status iapd
    --- exit 7
    ");
}

#[test]
fn a_daemon_that_has_just_started_says_so() {
    let details = ErrorDetails::with_error_info("STARTING", "iapd", HashMap::new());
    let message = "the daemon has just started and has not seen the agents of pool linux yet";
    let status = Status::with_error_details(tonic::Code::Unavailable, message, details);
    assert_snapshot!(failing(status), @"
    --- stderr
    error: the daemon has just started and has not seen the agents of pool linux yet
    hint: what keeps it from looking? see: iapctl status
    --- exit 7
    ");
}

#[test]
fn a_daemon_that_cannot_reach_incus_is_not_unreachable_itself() {
    let details = ErrorDetails::with_error_info("INCUS_UNREACHABLE", "iapd", HashMap::new());
    let message = "Incus cannot be reached: connection refused";
    let status = Status::with_error_details(tonic::Code::Unavailable, message, details);
    assert_snapshot!(failing(status), @"
    --- stderr
    error: Incus cannot be reached: connection refused
    --- exit 1
    ");
}

#[test]
fn an_older_daemon_is_pointed_out() {
    assert_snapshot!(failing(Status::unimplemented("")), @"
    --- stderr
    error: operation is not implemented or not supported
    hint: iapd is older than iapctl; compare: iapctl version
    --- exit 1
    ");
}

#[test]
fn a_daemon_that_breaks_fails() {
    assert_snapshot!(failing(Status::internal("list instances: no such project")), @"
    --- stderr
    error: list instances: no such project
    --- exit 1
    ");
}

#[test]
fn a_misspelt_verb_is_a_usage_error() {
    let fake = Fake::start(Answers::default());
    assert_snapshot!(iapctl(&fake, "pools lst"), @"
    --- stderr
    error: unrecognized subcommand 'lst'

      tip: some similar subcommands exist: 'ls', 'list'

    Usage: iapctl pools [OPTIONS] <COMMAND>

    For more information, try '--help'.
    --- exit 2
    ");
}

#[test]
fn a_misspelt_duration_is_a_usage_error() {
    let fake = Fake::start(Answers::default());
    assert_snapshot!(iapctl(&fake, "agents drain a --timeout soon"), @"
    --- stderr
    error: invalid value 'soon' for '--timeout <DURATION>': not a duration such as 30s, 5m or 1h30m

    For more information, try '--help'.
    --- exit 2
    ");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let fake = Fake::start(answers());
    let mut child = command(&fake, &["pools", "ls", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_snapshot!(effect(&fake, &output), @"");
}

#[test]
fn with_v_the_socket_and_each_call_are_told_with_their_times() {
    let fake = Fake::start(answers());
    let effect = iapctl(&fake, "pools retry linux -v --progress none");
    let mut text = String::new();
    for line in effect.lines() {
        // Times differ.
        text.push_str(line.split(" after ").next().unwrap_or_default());
        text.push('\n');
    }
    assert_snapshot!(text, @"
    linux: trying again now
    --- stderr
    debug: socket [dir]/iapd.sock: connected
    debug: RetryPool: ok
    ");
    let effect = iapctl(&fake, "-v pools show linx");
    assert!(
        effect.contains("debug: GetPool: NotFound after "),
        "{effect}"
    );
}

#[test]
fn a_pipe_gets_no_colours() {
    let fake = Fake::start(answers());
    for arguments in [
        "pools ls",
        "pools show linux",
        "status",
        "agents ls",
        "pools show x",
    ] {
        let effect = iapctl(&fake, arguments);
        assert!(!effect.contains('\x1b'), "{effect:?}");
    }
}

#[test]
fn colours_can_be_forced_and_forbidden() {
    let fake = Fake::start(answers());
    let with = |variables: &[(&str, &str)]| {
        let mut command = command(&fake, &["pools", "ls"]);
        command.envs(variables.iter().copied());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let forced = with(&[("CLICOLOR_FORCE", "1")]);
    assert!(forced.contains("\x1b[33mdegraded\x1b[0m"), "{forced:?}");
    let forbidden = with(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]);
    assert!(!forbidden.contains('\x1b'), "{forbidden:?}");
}

#[test]
fn help_is_a_command_too() {
    let fake = Fake::start(answers());
    let help = |arguments| iapctl(&fake, arguments);
    assert_eq!(help("help"), help("--help"));
    assert_eq!(help("help pools ls"), help("pools ls --help"));
    assert!(help("help").contains("7  the daemon cannot be reached"));
}
