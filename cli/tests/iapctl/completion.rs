//! The Tab key.

use std::process::Output;

use insta::assert_snapshot;

use super::data::answers;
use super::fake::Fake;
use super::run::command;

/// Presses Tab in bash at the end of `words`, and returns the candidates.
fn tab(fake: &Fake, socket: &str, words: &[&str]) -> String {
    let index = (words.len() - 1).to_string();
    let mut command = command(fake, &["--"]);
    command
        .args(words)
        .env("COMPLETE", "bash")
        .env("_CLAP_IFS", "\n");
    command
        .env("_CLAP_COMPLETE_INDEX", index)
        .env("_CLAP_COMPLETE_COMP_TYPE", "9");
    command
        .env("_CLAP_COMPLETE_SPACE", "false")
        .env("IAPD_SOCKET", socket);
    let Output {
        stdout,
        stderr,
        status,
    } = command.output().unwrap();
    assert!(status.success());
    assert_eq!(String::from_utf8_lossy(&stderr), "");
    String::from_utf8(stdout).unwrap()
}

#[test]
fn names_come_from_the_daemon() {
    let fake = Fake::start(super::history::history());
    let socket = fake.socket();
    let socket = socket.to_str().unwrap();
    assert_snapshot!(tab(&fake, socket, &["iapctl", "pools", "show", "l"]), @"
    linux
    linux-vm
    ");
    assert_snapshot!(tab(&fake, socket, &["iapctl", "agents", "drain", "linux-h1"]), @"
    linux-h1-k3v9x
    linux-h1-p07qa
    linux-h1-r2d2x
    ");
    assert_snapshot!(tab(&fake, socket, &["iapctl", "provision", "watch", "9"]), @"91c2e0");
    assert_snapshot!(tab(&fake, socket, &["iapctl", "agents", "ls", "--pool", "linux-"]), @"linux-vm");
    assert_snapshot!(tab(&fake, socket, &["iapctl", "jobs", "show", "70"]), @"
    7001
    7000
    ");
    assert_snapshot!(tab(&fake, socket, &["iapctl", "agents", "show", "linux-h1"]), @"
    linux-h1-k3v9x
    linux-h1-p07qa
    linux-h1-r2d2x
    linux-h1-aaaaa
    linux-h1-bbbbb
    linux-h1-ccccc
    ");
    assert_snapshot!(tab(&fake, socket, &["iapctl", "agents", "logs", "linux-h1-a"]), @"linux-h1-aaaaa");
}

#[test]
fn only_kept_agents_are_offered_for_release() {
    let mut answers = answers();
    answers.agents[1].keep = Some(iap_common::v1::Keep::default());
    let fake = Fake::start(answers);
    let socket = fake.socket();
    let socket = socket.to_str().unwrap();
    let names = tab(&fake, socket, &["iapctl", "agents", "release", "linux"]);
    assert_snapshot!(names, @"linux-h1-p07qa");
}

#[test]
fn targets_and_images_come_from_the_daemon() {
    let fake = Fake::start(super::images::images());
    let socket = fake.socket();
    let socket = socket.to_str().unwrap();
    assert_snapshot!(tab(&fake, socket, &["iapctl", "images", "prune", "l"]), @"
    legacy
    linux
    ");
    let to = ["iapctl", "images", "rollback", "linux", "--to", ""];
    assert_snapshot!(tab(&fake, socket, &to), @"
    9fd8d5c0ffee
    0ddba11ca5ca
    ");
}

#[test]
fn without_a_daemon_verbs_are_completed_and_names_are_not() {
    let fake = Fake::start(answers());
    assert_snapshot!(tab(&fake, "/nowhere", &["iapctl", "agents", "l"]), @"
    ls
    logs
    ");
    for words in [
        ["iapctl", "pools", "show", "l"],
        ["iapctl", "agents", "logs", "l"],
        ["iapctl", "jobs", "show", "7"],
    ] {
        assert_eq!(tab(&fake, "/nowhere", &words), "");
    }
    assert_snapshot!(tab(&fake, "/nowhere", &["iapctl", "events", "--type", "pool-"]), @"
    pool-removed
    pool-paused
    pool-resumed
    ");
}

#[test]
fn scripts_call_the_program_by_its_name() {
    let fake = Fake::start(answers());
    for shell in ["bash", "zsh", "fish"] {
        let output = command(&fake, &["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("iapctl"), "{script}");
        assert!(!script.contains("target/"), "{script}");
    }
}

#[test]
fn the_zsh_script_works_on_the_first_tab() {
    let fake = Fake::start(answers());
    let output = command(&fake, &["completions", "zsh"]).output().unwrap();
    let script = String::from_utf8(output.stdout).unwrap();
    assert!(script.starts_with("#compdef iapctl"), "{script}");
    assert!(
        script.contains(r#"if [ "$funcstack[1]" = "_iapctl" ]"#),
        "{script}"
    );
    assert_eq!(
        script
            .matches("compdef _clap_dynamic_completer_iapctl iapctl")
            .count(),
        1
    );
}

#[test]
fn owners_that_can_be_adopted_are_those_of_other_hosts() {
    let mut answers = answers();
    answers.ghosts.ghosts = super::ghosts::ghosts();
    let fake = Fake::start(answers);
    let socket = fake.socket();
    let words = ["iapctl", "ghosts", "adopt", "--owner", "h"];
    assert_snapshot!(tab(&fake, socket.to_str().unwrap(), &words), @"
    h2
    h3
    ");
}
