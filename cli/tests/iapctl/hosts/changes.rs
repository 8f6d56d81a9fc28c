//! What is done on several hosts, and what is refused for more than one.

use insta::assert_snapshot;

use super::super::data::{answers, say};
use super::super::fake::{Answers, not_found};
use super::{Fleet, fleet};

#[test]
fn a_change_of_several_hosts_wants_a_word_and_then_happens_on_each() {
    let fleet = fleet();
    assert_snapshot!(fleet.run("--host @linux pools pause linux -m swap"), @"
    --- stderr
    error: pause pool linux on 2 hosts: build-1, build-2: nobody can be asked here
    hint: pass --yes
    --- exit 2
    ");
    assert_eq!(fleet.one.calls(), "");
    let said = fleet.run("--host @linux pools retry linux --yes");
    assert_snapshot!(sorted(&said), @"
    build-1: linux: trying again now
    build-2: linux: trying again now
    --- stderr

    --- exit
    ");
    assert_eq!(fleet.one.calls(), fleet.two.calls());
    let said = fleet.run("--host @linux --host down drain -m swap --detach -y --no-headers");
    assert_snapshot!(sorted(&said), @"
    build-1: linux-h1-k3v9x  linux  busy  14m  webshop-ci #20261123.7 Build  11m  9fd8d5c0ffee (outdated)
    build-1: linux-h1-p07qa  linux  idle   2m  -                               -  9fd8d5c0ffee
    build-2: linux-h2-aaaaa  linux  idle  2m  -  -  9fd8d5c0ffee
    --- stderr
    build-1: note: undo: iapctl --host build-1 resume
    build-1: note: wait for them: iapctl --host build-1 drain --watch
    build-2: note: undo: iapctl --host ssh://build-2 resume
    build-2: note: wait for them: iapctl --host ssh://build-2 drain --watch
    error: cannot reach down: ssh: connect to host down port 22: Connection refused
    hint: does this work? [dir]/bin/ssh down iapctl version
    --- exit 1
    ");
}

#[test]
fn what_is_done_on_each_host_says_so_in_json_too() {
    let fleet = fleet();
    let said = fleet.run("--host @linux pools recycle linux --yes -o json");
    let documents = serde_json::Deserializer::from_str(&said).into_iter();
    let mut hosts: Vec<String> = documents
        .map(|document: Result<serde_json::Value, _>| document.unwrap()["host"].to_string())
        .collect();
    hosts.sort();
    assert_eq!(hosts, [r#""build-1""#, r#""build-2""#]);
}

#[test]
fn a_drain_of_several_hosts_ends_when_all_are_drained() {
    let none = || Answers {
        agent_changes: vec![say([vec![]])],
        ..answers()
    };
    let fleet = Fleet::start(none(), none());
    let said = fleet.run("--host @linux drain -m swap --yes");
    assert_snapshot!(sorted(&said), @"
    build-1: drained: 0/0, 0 jobs killed.   undo: iapctl --host build-1 resume
    build-2: drained: 0/0, 0 jobs killed.   undo: iapctl --host ssh://build-2 resume
    --- stderr

    --- exit
    ");
    let said = fleet.run("--host @linux drain --dry-run");
    assert!(said.starts_with("HOST "), "{said}");
}

#[test]
fn what_fails_on_one_host_does_not_keep_the_others_from_it() {
    let mut two = answers();
    let refusal = not_found("there is no pool linux", "see: iapctl pools ls");
    two.errors.insert("RetryPool", refusal);
    let fleet = Fleet::start(answers(), two);
    let said = fleet.run("--host @linux pools retry linux --yes");
    assert_snapshot!(sorted(&said), @"
    build-1: linux: trying again now
    --- stderr
    error: build-2: there is no pool linux
    hint: see: iapctl --host ssh://build-2 pools ls
    --- exit 1
    ");
}

#[test]
fn what_is_one_hosts_own_is_refused_for_several() {
    let fleet = fleet();
    for arguments in [
        "agents show linux-h1-k3v9x",
        "agents drain linux-h1-k3v9x --force --yes",
        "agents keep linux-h1-k3v9x",
        "provision --base local:x --target y",
        "config reload",
        "pools show linux",
    ] {
        let said = fleet.run(&format!("--host @linux {arguments}"));
        let refusal =
            "error: this works with one host at a time, and 2 are meant: build-1, build-2";
        assert!(said.contains(refusal), "{said}");
        assert!(said.ends_with("--- exit 2\n"), "{said}");
    }
    assert_eq!(fleet.one.calls(), "");
}

/// Returns lines that come from several hosts at the same time, in an order that is always the
/// same.
fn sorted(said: &str) -> String {
    let (stdout, rest) = said.split_once("--- stderr\n").unwrap_or((said, ""));
    let (stderr, exit) = rest.split_once("--- exit").unwrap_or((rest, ""));
    let sort = |text: &str| {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    format!(
        "{}\n--- stderr\n{}\n--- exit{exit}",
        sort(stdout),
        sort(stderr)
    )
}
