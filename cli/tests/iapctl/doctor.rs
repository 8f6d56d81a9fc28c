//! `doctor`.

use iap_common::v1::{Check, CheckSeverity};
use insta::assert_snapshot;

use super::data::answers;
use super::fake::{Answers, Fake};
use super::run::iapctl;

fn check(severity: CheckSeverity, id: &str, subject: &str, finding: &str, fix: &str) -> Check {
    Check {
        id: id.to_owned(),
        title: id.replace('-', " "),
        severity: severity.into(),
        finding: finding.to_owned(),
        why: format!("{id} matters"),
        fix: fix.to_owned(),
        subject: subject.to_owned(),
    }
}

fn fine() -> Vec<Check> {
    vec![
        check(CheckSeverity::Ok, "incus-version", "", "6.0.4", ""),
        check(
            CheckSeverity::Ok,
            "image",
            "linux",
            "linux-runner, 3 days old",
            "",
        ),
    ]
}

pub(crate) fn troubled() -> Vec<Check> {
    let mut checks = fine();
    checks.insert(
        1,
        check(
            CheckSeverity::Notice,
            "image",
            "linux-vm",
            "linux-vm is 40 days old",
            "iapctl provision --target linux-vm",
        ),
    );
    checks.push(check(
        CheckSeverity::Skipped,
        "btrfs-quotas",
        "fast",
        "not visible from here",
        "look yourself",
    ));
    checks.push(check(
        CheckSeverity::Skipped,
        "agent-updates",
        "linux",
        "not told\x1b[2J\n by Azure",
        "",
    ));
    checks.push(check(
        CheckSeverity::Error,
        "inotify-limit",
        "",
        "128, enough for 18 containers; 32 configured",
        "sysctl -w fs.inotify.max_user_instances=8192\necho more >> /etc/sysctl.d/60-iapd.conf",
    ));
    checks.push(check(
        CheckSeverity::Warning,
        "storage-space",
        "fast",
        "2.0 GiB of 20.0 GiB free",
        "incus storage set fast size=40GiB",
    ));
    checks
}

fn doctor(checks: Vec<Check>, arguments: &str) -> String {
    let fake = Fake::start(Answers {
        checks,
        ..answers()
    });
    iapctl(&fake, &format!("doctor {arguments}"))
}

#[test]
fn a_healthy_host_is_a_line_for_each_check() {
    assert_snapshot!(doctor(fine(), ""), @"
    ok       incus version: 6.0.4
    ok       image (linux): linux-runner, 3 days old

    2 ok
    ");
}

#[test]
fn problems_come_first_with_why_and_what_to_do() {
    assert_snapshot!(doctor(troubled(), ""), @"
    ERROR    inotify limit: 128, enough for 18 containers; 32 configured
      why    inotify-limit matters
      fix    sysctl -w fs.inotify.max_user_instances=8192
             echo more >> /etc/sysctl.d/60-iapd.conf

    WARNING  storage space (fast): 2.0 GiB of 20.0 GiB free
      why    storage-space matters
      fix    incus storage set fast size=40GiB

    notice   image (linux-vm): linux-vm is 40 days old
      why    image matters
      fix    iapctl provision --target linux-vm

    skipped  btrfs quotas (fast): not visible from here
      fix    look yourself

    skipped  agent updates (linux): not told  by Azure

    ok       incus version: 6.0.4
    ok       image (linux): linux-runner, 3 days old

    1 error, 1 warning, 1 notice, 2 skipped, 2 ok
    --- exit 1
    ");
}

#[test]
fn all_tells_in_full_what_is_as_it_should_be() {
    assert_snapshot!(doctor(troubled(), "--all"), @"
    ERROR    inotify limit: 128, enough for 18 containers; 32 configured
      why    inotify-limit matters
      fix    sysctl -w fs.inotify.max_user_instances=8192
             echo more >> /etc/sysctl.d/60-iapd.conf

    WARNING  storage space (fast): 2.0 GiB of 20.0 GiB free
      why    storage-space matters
      fix    incus storage set fast size=40GiB

    notice   image (linux-vm): linux-vm is 40 days old
      why    image matters
      fix    iapctl provision --target linux-vm

    skipped  btrfs quotas (fast): not visible from here
      why    btrfs-quotas matters
      fix    look yourself

    skipped  agent updates (linux): not told  by Azure
      why    agent-updates matters

    ok       incus version: 6.0.4
      why    incus-version matters

    ok       image (linux): linux-runner, 3 days old
      why    image matters

    1 error, 1 warning, 1 notice, 2 skipped, 2 ok
    --- exit 1
    ");
}

#[test]
fn warnings_alone_are_no_failure() {
    let mut checks = troubled();
    checks.retain(|check| check.severity() == CheckSeverity::Warning);
    assert_snapshot!(doctor(checks, ""), @"
    WARNING  storage space (fast): 2.0 GiB of 20.0 GiB free
      why    storage-space matters
      fix    incus storage set fast size=40GiB

    1 warning
    ");
}

#[test]
fn the_diagnosis_in_json_is_in_the_daemons_order() {
    let mut checks = troubled();
    checks.drain(..5);
    assert_snapshot!(doctor(checks, "-o json"), @r#"
    {
      "api_version": "iap.v1",
      "healthy": false,
      "checks": [
        {
          "id": "inotify-limit",
          "title": "inotify limit",
          "severity": "error",
          "finding": "128, enough for 18 containers; 32 configured",
          "why": "inotify-limit matters",
          "fix": "sysctl -w fs.inotify.max_user_instances=8192\necho more >> /etc/sysctl.d/60-iapd.conf",
          "subject": null
        },
        {
          "id": "storage-space",
          "title": "storage space",
          "severity": "warning",
          "finding": "2.0 GiB of 20.0 GiB free",
          "why": "storage-space matters",
          "fix": "incus storage set fast size=40GiB",
          "subject": "fast"
        }
      ]
    }
    --- exit 1
    "#);
}

#[test]
fn the_names_are_those_of_what_is_not_as_it_should_be() {
    assert_snapshot!(doctor(troubled(), "-o name"), @"
    image
    inotify-limit
    storage-space
    --- exit 1
    ");
}

#[test]
fn without_a_daemon_there_is_no_doctor() {
    let fake = Fake::start(Answers::default());
    assert_snapshot!(iapctl(&fake, "doctor --socket no.sock"), @"
    --- stderr
    error: no daemon socket at no.sock
    hint: is the daemon running? see: systemctl status iapd
    hint: a daemon with another socket: --socket PATH or IAPD_SOCKET
    --- exit 7
    ");
}
