//! Hosts that are not reached, and why.

use std::process::Stdio;

use insta::assert_snapshot;
use tonic::Status;

use super::super::data::answers;
use super::super::run::effect;
use super::{Fleet, fleet};

#[test]
fn a_host_that_is_down_is_an_error_beside_the_rows_of_the_others() {
    let fleet = fleet();
    assert_snapshot!(fleet.run("--host down --host build-2 agents ls"), @"
    HOST     AGENT           POOL   STATE  AGE  JOB  RUN  IMAGE
    build-2  linux-h2-aaaaa  linux  idle    2m  -      -  9fd8d5c0ffee
    --- stderr
    error: cannot reach down: ssh: connect to host down port 22: Connection refused
    hint: does this work? [dir]/bin/ssh down iapctl version
    --- exit 1
    ");
    assert_snapshot!(fleet.run("--host down --host bare agents ls -o name"), @"
    --- stderr
    error: cannot reach down: ssh: connect to host down port 22: Connection refused
    hint: does this work? [dir]/bin/ssh down iapctl version
    error: iapctl is not there on bare
    hint: install iapd on bare
    hint: it has to be in the PATH of: [dir]/bin/ssh bare env
    --- exit 7
    ");
}

#[test]
fn why_a_host_cannot_be_reached_is_told_in_the_words_of_who_knows() {
    let fleet = fleet();
    assert_snapshot!(fleet.run("--host down pools ls"), @"
    --- stderr
    error: cannot reach down: ssh: connect to host down port 22: Connection refused
    hint: does this work? [dir]/bin/ssh down iapctl version
    --- exit 7
    ");
    assert_snapshot!(fleet.run("--host bare pools ls"), @"
    --- stderr
    error: iapctl is not there on bare
    hint: install iapd on bare
    hint: it has to be in the PATH of: [dir]/bin/ssh bare env
    --- exit 7
    ");
    assert_snapshot!(fleet.run("--host old pools ls"), @"
    --- stderr
    error: iapctl on old is older than this one and cannot be dialled
    hint: upgrade iapd on old
    --- exit 7
    ");
    assert_snapshot!(fleet.run("--host mute pools ls"), @"
    --- stderr
    error: cannot reach mute: ssh ended and said nothing
    hint: does this work? [dir]/bin/ssh mute iapctl version
    --- exit 7
    ");
    assert_snapshot!(fleet.run("--host nobody pools ls"), @"
    --- stderr
    error: cannot reach iapd on nobody: no daemon socket at [dir]/nobody.sock
    hint: on nobody: is the daemon running? see: systemctl status iapd
    --- exit 7
    ");
    assert_snapshot!(fleet.run("--host down version"), @"
    iapctl  [version]
    iapd    not reachable
    --- stderr
    note: cannot reach down: ssh: connect to host down port 22: Connection refused
    ");
    let mut command = fleet.command("--host down pools ls");
    command.env("IAPCTL_SSH", "/nowhere/ssh -v");
    let output = command.output().unwrap();
    assert_snapshot!(effect(&fleet.one, &output), @"
    --- stderr
    error: cannot run /nowhere/ssh: No such file or directory (os error 2)
    hint: install ssh (openssh-client), or name another program in IAPCTL_SSH
    --- exit 1
    ");
}

#[test]
fn a_mistake_in_host_is_a_usage_error_before_anything_is_dialled() {
    let fleet = fleet();
    assert_snapshot!(fleet.run("--host @macs pools ls"), @"
    --- stderr
    error: there is no group @macs
    hint: the groups are @linux, @one; they are in [dir]/config/iapd/hosts.yaml or /etc/iapd/hosts.yaml
    --- exit 2
    ");
    assert_snapshot!(fleet.run("--host=-oProxyCommand=x pools ls"), @"
    --- stderr
    error: --host -oProxyCommand=x: that is no host's name
    hint: a host is ssh://[USER@]HOST[:PORT], unix:///PATH, local, or a name or @GROUP of the hosts file
    --- exit 2
    ");
    assert_snapshot!(fleet.run("--host tcp://build-1:80 pools ls"), @"
    --- stderr
    error: --host tcp://build-1:80: there is no such way to a host
    hint: a host is ssh://[USER@]HOST[:PORT], unix:///PATH, local, or a name or @GROUP of the hosts file
    --- exit 2
    ");
    assert!(!fleet.one.directory().join("ssh.log").exists());
}

#[test]
fn the_dialled_end_copies_until_the_daemon_ends_and_says_why_there_is_none() {
    let fleet = fleet();
    let mut command = fleet.command("dial-stdio");
    // A client that does not speak HTTP/2 is told so and sent away by the daemon.
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = child.stdin.as_mut().unwrap();
    std::io::Write::write_all(stdin, b"GET / HTTP/1.0\r\n\r\nno more than this\r\n").unwrap();
    // Standard input stays open: it is the daemon that ends this.
    assert!(child.wait().unwrap().success());
    // Here it is the caller, and the daemon notices.
    let output = fleet.command("dial-stdio").output().unwrap();
    assert!(output.status.success());
    let output = fleet
        .command("dial-stdio")
        .env("IAPD_SOCKET", "/nowhere/iapd.sock")
        .output()
        .unwrap();
    assert_snapshot!(effect(&fleet.one, &output), @"
    --- stderr
    error: no daemon socket at /nowhere/iapd.sock
    hint: is the daemon running? see: systemctl status iapd
    hint: a daemon with another socket: --socket PATH or IAPD_SOCKET
    --- exit 7
    ");
}

#[test]
fn a_daemon_that_refuses_a_call_over_ssh_is_not_unreachable() {
    let mut two = answers();
    two.errors.insert(
        "ListPools",
        Status::internal("list instances: no such project"),
    );
    let fleet = Fleet::start(answers(), two);
    assert_snapshot!(fleet.run("--host @linux pools ls -o name"), @"
    build-1/linux
    build-1/linux-vm
    --- stderr
    error: build-2: list instances: no such project
    --- exit 1
    ");
}
