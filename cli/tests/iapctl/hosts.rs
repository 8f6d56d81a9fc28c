//! `--host`: other daemons over ssh, and several at once. `ssh` is a script here that runs the
//! program on this machine; the real one is in the system tests.

use std::os::unix::fs::symlink;
use std::process::Command;

use iap_common::v1::{AgentState, Event, Pool};
use insta::assert_snapshot;

use super::data::{agent, ago, answers, say};
use super::fake::{Answers, Beat, Fake};
use super::run::{Watching, command, effect, make};

mod changes;
mod failures;

/// What plays ssh: the last word is the command, the one before it the host. Each host has a
/// socket of its name.
const SSH: &str = r#"
mkdir bin config config/iapd
cat > bin/ssh <<'END'
#!/bin/sh
for word; do host=$command; command=$word; done
dir=${0%/bin/ssh}
echo "$*" >> "$dir/ssh.log"
case $host in
    down) echo "ssh: connect to host down port 22: Connection refused" >&2; exit 255 ;;
    bare) echo "sh: 1: iapctl: not found" >&2; exit 127 ;;
    old) echo "error: unrecognized subcommand 'dial-stdio'" >&2; exit 2 ;;
    mute) exit 255 ;;
    *) IAPD_SOCKET=$dir/$host.sock; export IAPD_SOCKET ;;
esac
unset IAPCTL_HOST
PATH=$dir/bin exec /bin/sh -c "$command"
END
chmod +x bin/ssh
cat > config/iapd/hosts.yaml <<'END'
hosts:
  db: ssh://ana@build-2:2222
groups:
  linux: [build-1, ssh://build-2]
  one: [build-1]
END
"#;

/// Two hosts with a daemon each.
struct Fleet {
    one: Fake,
    two: Fake,
}

impl Fleet {
    fn start(one: Answers, two: Answers) -> Self {
        let (one, two) = (Fake::start(one), Fake::start(two));
        let directory = one.directory();
        make(&one, SSH);
        symlink(one.socket(), directory.join("build-1.sock")).unwrap();
        symlink(two.socket(), directory.join("build-2.sock")).unwrap();
        symlink(env!("CARGO_BIN_EXE_iapctl"), directory.join("bin/iapctl")).unwrap();
        Self { one, two }
    }

    fn command(&self, arguments: &str) -> Command {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let mut command = command(&self.one, &words);
        self.equip(&mut command);
        command
    }

    fn equip(&self, command: &mut Command) {
        let directory = self.one.directory();
        command
            .env("IAPCTL_SSH", directory.join("bin/ssh"))
            .env("XDG_CONFIG_HOME", directory.join("config"));
    }

    fn run(&self, arguments: &str) -> String {
        let output = self.command(arguments).output().unwrap();
        effect(&self.one, &output)
    }

    /// Returns how ssh was called.
    fn dialled(&self) -> String {
        std::fs::read_to_string(self.one.directory().join("ssh.log")).unwrap()
    }
}

/// Two hosts with the same pools; the second has an agent of its own.
fn fleet() -> Fleet {
    let mut one = answers();
    // One that is younger looks older on a busy machine.
    one.agents.truncate(2);
    let two = Answers {
        agents: vec![agent("linux-h2-aaaaa", AgentState::Idle)],
        ..answers()
    };
    Fleet::start(one, two)
}

fn names(pools: &[&str]) -> Vec<Pool> {
    let pool = |name: &&str| Pool {
        name: (*name).to_owned(),
        ..Pool::default()
    };
    pools.iter().map(pool).collect()
}

#[test]
fn a_command_for_one_other_host_is_as_usual() {
    let fleet = fleet();
    assert_snapshot!(fleet.run("--host ssh://ana@build-2:2222 agents ls"), @"
    AGENT           POOL   STATE  AGE  JOB  RUN  IMAGE
    linux-h2-aaaaa  linux  idle    2m  -      -  9fd8d5c0ffee
    ");
    assert_snapshot!(fleet.dialled(), @"-T -x -a -oBatchMode=yes -oConnectTimeout=10 -oClearAllForwardings=yes -oRemoteCommand=none -l ana -p 2222 -- build-2 iapctl dial-stdio");
    assert_snapshot!(fleet.run("pools retry linux --host db"), @"linux: trying again now");
    assert_snapshot!(fleet.two.calls(), @r#"RetryPoolRequest { name: "linux" }"#);
    assert_eq!(fleet.one.calls(), "");
    let local = format!("unix://{} agents ls -o name", fleet.two.socket().display());
    assert_snapshot!(fleet.run(&format!("--host {local}")), @"linux-h2-aaaaa");
}

#[test]
fn hints_name_the_host_that_they_are_about() {
    let fleet = fleet();
    assert_snapshot!(fleet.run("--host db pools pause linux -m swap"), @r#"
    linux: paused by ana "swap"
    --- stderr
    note: undo: iapctl --host db pools resume linux
    "#);
    assert_snapshot!(fleet.run("--host db pools show linx"), @"
    --- stderr
    error: no pool linx
    hint: did you mean linux?
    --- exit 4
    ");
}

#[test]
fn lists_of_several_hosts_are_one_with_a_column_for_the_host() {
    let fleet = fleet();
    assert_snapshot!(fleet.run("--host @linux agents ls"), @"
    HOST     AGENT           POOL   STATE  AGE  JOB                           RUN  IMAGE
    build-1  linux-h1-k3v9x  linux  busy   14m  webshop-ci #20261123.7 Build  11m  9fd8d5c0ffee (outdated)
    build-1  linux-h1-p07qa  linux  idle    2m  -                               -  9fd8d5c0ffee
    build-2  linux-h2-aaaaa  linux  idle    2m  -                               -  9fd8d5c0ffee
    ");
    assert_snapshot!(fleet.run("--host build-2 --host local agents ls -o name"), @"
    build-2/linux-h2-aaaaa
    local/linux-h1-k3v9x
    local/linux-h1-p07qa
    ");
    assert_snapshot!(fleet.run("pools ls -o name --host build-1,build-2"), @"
    build-1/linux
    build-1/linux-vm
    build-2/linux
    build-2/linux-vm
    ");
}

#[test]
fn in_json_each_thing_has_its_host_and_errors_are_beside_them() {
    let (one, two) = (names(&["linux"]), names(&["linux", "mac"]));
    let with = |pools| Answers {
        pools,
        ..Answers::default()
    };
    let fleet = Fleet::start(with(one), with(two));
    let said = fleet.run("--host @linux --host down pools ls -o json");
    let json = said.split("--- exit").next().unwrap();
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    let pools = value["pools"].as_array().unwrap().iter();
    let pools: Vec<String> = pools
        .map(|pool| format!("{} {}", pool["host"], pool["name"]))
        .collect();
    assert_eq!(
        pools,
        [
            r#""build-1" "linux""#,
            r#""build-2" "linux""#,
            r#""build-2" "mac""#
        ]
    );
    assert_snapshot!(value["errors"].to_string(), @r#"[{"error":"cannot reach down: ssh: connect to host down port 22: Connection refused","exit_code":7,"host":"down"}]"#);
    assert!(said.ends_with("--- exit 1\n"), "{said}");
    // A group has as many hosts as it has: the shape does not depend on that.
    let said = fleet.run("--host @one pools ls -o yaml");
    assert!(said.contains("- host: build-1\n"), "{said}");
    assert!(said.ends_with("errors: []\n"), "{said}");
}

#[test]
fn the_status_of_several_hosts_is_a_line_for_each_and_their_pools() {
    let mut two = answers();
    two.status.incus.as_mut().unwrap().reachable = false;
    two.status.warnings = vec!["the disk is nearly full".to_owned()];
    let fleet = Fleet::start(answers(), two);
    assert_snapshot!(fleet.run("--host @linux --host mute status"), @"
    HOST     STATE  IAPD      UP  INCUS        AZURE  POOLS  WARNINGS
    build-1  ok     [version]  3h12m  ok           ok         1         0
    build-2  WRONG  [version]  3h12m  UNREACHABLE  ok         1         1

    HOST     POOL   STATE  BUSY  IDLE  START  WANT  QUEUED  WAIT-P95  IMAGE               OUTDATED  LAST-ERROR
    build-1  linux  ok        6     2      0     8       3     6m10s  linux@9fd8d5c0ffee       1/8  -
    build-2  linux  ok        6     2      0     8       3     6m10s  linux@9fd8d5c0ffee       1/8  -

    build-2: warning: the disk is nearly full
    --- stderr
    error: cannot reach mute: ssh ended and said nothing
    hint: does this work? [dir]/bin/ssh mute iapctl version
    --- exit 1
    ");
    let said = fleet.run("--host @linux status -o json");
    let json = said.split("--- exit").next().unwrap();
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    assert_eq!(value["hosts"][1]["host"], "build-2");
    assert_eq!(value["hosts"][1]["healthy"], false);
    assert_eq!(value["errors"].as_array().unwrap().len(), 0);
}

#[test]
fn the_doctor_goes_from_host_to_host() {
    let with = |checks| Answers {
        checks,
        ..Answers::default()
    };
    let fleet = Fleet::start(with(super::doctor::troubled()), with(vec![]));
    let said = fleet.run("--host @linux doctor");
    assert!(said.starts_with("build-1:\n  ERROR "), "{said}");
    assert!(said.contains("\n\nbuild-2:\n"), "{said}");
    let said = fleet.run("--host @linux doctor -o name");
    assert!(said.starts_with("build-1/"), "{said}");
}

#[test]
fn events_and_records_of_several_hosts_are_in_the_order_of_time() {
    let fleet = Fleet::start(super::history::history(), super::history::history());
    assert_snapshot!(fleet.run("--host @linux audit ls -o name"), @"
    build-2/linux-h1-aaaaa
    build-1/linux-h1-aaaaa
    build-2/linux-h1-bbbbb
    build-1/linux-h1-bbbbb
    ");
    assert_snapshot!(fleet.run("--host @linux jobs ls -o name"), @"
    build-2/linux-h1-aaaaa
    build-1/linux-h1-aaaaa
    build-2/linux-h1-bbbbb
    build-1/linux-h1-bbbbb
    ");
    let happened = |seconds, agent: &str| Event {
        at: ago(seconds),
        agent: agent.to_owned(),
        r#type: "agent-ended".to_owned(),
        ..Event::default()
    };
    let with = |events: [Event; 2]| Answers {
        events: vec![say(events)],
        ..Answers::default()
    };
    let one = with([happened(80, "a"), happened(40, "c")]);
    let two = with([happened(60, "b"), happened(20, "d")]);
    let fleet = Fleet::start(one, two);
    assert_snapshot!(fleet.run("--host @linux events -o name"), @"
    build-1/a
    build-2/b
    build-1/c
    build-2/d
    ");
    let said = fleet.run("--host @linux events --follow -o json");
    let line = said.lines().find(|line| line.contains("\"b\"")).unwrap();
    assert!(
        line.starts_with(r#"{"api_version":"iap.v1","host":"build-2","#),
        "{said}"
    );
}

#[test]
fn a_watch_shows_the_changes_of_all_hosts() {
    let changes = |lists: [&[&str]; 1]| {
        let mut script = say(lists.map(names));
        script.push(Beat::Hang);
        Answers {
            pool_changes: vec![script],
            ..Answers::default()
        }
    };
    let fleet = Fleet::start(changes([&["linux"]]), changes([&["mac"]]));
    let arguments = "--host @linux --host down pools ls --watch -o json";
    let mut command = self::command(&fleet.one, &arguments.split(' ').collect::<Vec<_>>());
    fleet.equip(&mut command);
    let said = Watching::of(command).lines(2).interrupt(&fleet.one);
    let mut lines: Vec<String> = Vec::new();
    for line in said.lines().filter(|line| line.starts_with('{')) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        lines.push(format!(
            "{} {}",
            value["pool"]["host"], value["pool"]["name"]
        ));
    }
    lines.sort();
    assert_eq!(lines, [r#""build-1" "linux""#, r#""build-2" "mac""#]);
    assert!(said.contains("error: cannot reach down: ssh: "), "{said}");
    assert!(said.ends_with("--- exit 130\n"), "{said}");
}

#[test]
fn the_environment_names_hosts_and_what_needs_no_daemon_does_not_care() {
    let fleet = fleet();
    let with = |arguments: &str, hosts: &str| {
        let output = fleet
            .command(arguments)
            .env("IAPCTL_HOST", hosts)
            .output()
            .unwrap();
        effect(&fleet.one, &output)
    };
    let both = with("pools ls -o name", "build-1,build-2");
    assert_eq!(both, fleet.run("--host @linux pools ls -o name"));
    assert_eq!(with("pools ls", "build-1").lines().count(), 3);
    assert!(with("completions bash", "@nobody").contains("iapctl"));
    assert!(with("config schema", "@linux").contains("$schema"));
}

#[test]
fn tab_completes_hosts_and_what_is_on_them() {
    let fleet = fleet();
    let tab = |words: &[&str]| {
        let mut command = fleet.command("--");
        command
            .args(words)
            .env("COMPLETE", "bash")
            .env("_CLAP_IFS", "\n")
            .env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string())
            .env("_CLAP_COMPLETE_COMP_TYPE", "9")
            .env("_CLAP_COMPLETE_SPACE", "false");
        let output = command.output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(tab(&["iapctl", "--host", "@"]), "@linux\n@one");
    assert_eq!(tab(&["iapctl", "status", "--host", "d"]), "db");
    let names = tab(&["iapctl", "--host", "db", "agents", "show", "linux-h"]);
    assert_eq!(names, "linux-h2-aaaaa");
    let names = tab(&["iapctl", "--host=@linux", "pools", "show", "l"]);
    assert_eq!(names, "linux\nlinux-vm");
}
