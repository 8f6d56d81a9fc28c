//! `images`.

use std::process::{Command, Stdio};

use iap_common::v1::*;
use insta::assert_snapshot;
use tonic::Status;

use super::data::{ago, answers};
use super::fake::{Answers, Fake, not_found};
use super::run::{iapctl, run};

fn image(fingerprint: &str, version: &str, days: i64) -> Image {
    Image {
        fingerprint: fingerprint.to_owned(),
        project: "default".to_owned(),
        target: "linux".to_owned(),
        origin: ImageOrigin::Provisioned.into(),
        instance_type: "container".to_owned(),
        agent_version: version.to_owned(),
        base: "images:ubuntu/24.04".to_owned(),
        base_fingerprint: "ba5e".repeat(16),
        scripts: vec![format!("tools.sh:{}", "1f2e".repeat(16))],
        job: "91c2e0".to_owned(),
        created_at: ago(days * 86_400),
        size: 412_300_000,
        ..Image::default()
    }
}

fn newest() -> Image {
    Image {
        current: true,
        pools: vec!["linux".to_owned(), "linux-big".to_owned()],
        agents: 3,
        instances: 4,
        ..image("41ba0c5eed1122334455", "4.276.0", 1)
    }
}

fn older() -> Image {
    image("9fd8d5c0ffee00112233", "4.275.0", 3)
}

fn oldest() -> Image {
    image("0ddba11ca5cade667788", "4.274.0", 9)
}

fn foreign() -> Image {
    Image {
        fingerprint: "f0e16e00f0e16e00f0e1".to_owned(),
        project: "ci".to_owned(),
        target: "legacy".to_owned(),
        current: true,
        origin: ImageOrigin::Foreign.into(),
        instance_type: "container".to_owned(),
        created_at: ago(40 * 86_400),
        size: 900_000,
        pools: vec!["old".to_owned()],
        ..Image::default()
    }
}

/// Three images of `linux` and one that somebody else made; two can go.
pub(crate) fn images() -> Answers {
    Answers {
        images: vec![foreign(), newest(), older(), oldest()],
        rolled_back: RollbackImageResponse {
            from: Some(newest()),
            to: Some(older()),
            pools: vec!["linux".to_owned(), "linux-big".to_owned()],
            idle_agents: 2,
            busy_agents: 1,
        },
        pruned: PruneImagesResponse {
            images: vec![older(), oldest()],
            problems: Vec::new(),
        },
        ..answers()
    }
}

/// Runs `iapctl` on a terminal, types `answer` ahead, and returns what stands there then. Where
/// the answer itself stands depends on who is quicker.
pub(crate) fn typed(fake: &Fake, arguments: &str, answer: &str) -> String {
    let line = format!("{} {arguments}; echo exit $?", env!("CARGO_BIN_EXE_iapctl"));
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", &line, "/dev/null"])
        .env("IAPD_SOCKET", fake.socket())
        .env("TERM", "dumb")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = terminal.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, format!("{answer}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    String::from_utf8(output.stdout).unwrap().replace('\r', "")
}

#[test]
fn images_are_listed_with_who_uses_them() {
    let fake = Fake::start(images());
    assert_snapshot!(iapctl(&fake, "images ls"), @"
    TARGET  IMAGE         CURRENT  AGENT    BASE                 AGE      SIZE  USED BY
    legacy  f0e16e00f0e1  *        -        not made by iapd     40d  900.0 kB  old
    linux   41ba0c5eed11  *        4.276.0  images:ubuntu/24.04   1d  412.3 MB  linux, linux-big, 3 agents, 1 other instance
    linux   9fd8d5c0ffee  -        4.275.0  images:ubuntu/24.04   3d  412.3 MB  -
    linux   0ddba11ca5ca  -        4.274.0  images:ubuntu/24.04   9d  412.3 MB  -
    ");
    assert_snapshot!(iapctl(&fake, "images ls legacy --no-headers"), @"legacy  f0e16e00f0e1  *  -  not made by iapd  40d  900.0 kB  old");
}

#[test]
fn the_wide_list_has_fingerprints_projects_jobs_and_scripts() {
    let fake = Fake::start(images());
    assert_snapshot!(iapctl(&fake, "image list -o wide"), @"
    TARGET  IMAGE                 CURRENT  AGENT    BASE                 CREATED                   SIZE  USED BY                                       PROJECT  TYPE       JOB     SCRIPTS
    legacy  f0e16e00f0e16e00f0e1  *        -        not made by iapd     [time]  900.0 kB  old                                           ci       container  -       -
    linux   41ba0c5eed1122334455  *        4.276.0  images:ubuntu/24.04  [time]  412.3 MB  linux, linux-big, 3 agents, 1 other instance  default  container  91c2e0  tools.sh:1f2e1f2e1f2e
    linux   9fd8d5c0ffee00112233  -        4.275.0  images:ubuntu/24.04  [time]  412.3 MB  -                                             default  container  91c2e0  tools.sh:1f2e1f2e1f2e
    linux   0ddba11ca5cade667788  -        4.274.0  images:ubuntu/24.04  [time]  412.3 MB  -                                             default  container  91c2e0  tools.sh:1f2e1f2e1f2e
    ");
}

#[test]
fn images_are_had_as_json_and_by_name() {
    let fake = Fake::start(Answers {
        images: vec![newest()],
        ..answers()
    });
    let json = iapctl(&fake, "images ls -o json");
    assert_snapshot!(json, @r#"
    {
      "api_version": "iap.v1",
      "images": [
        {
          "fingerprint": "41ba0c5eed1122334455",
          "project": "default",
          "target": "linux",
          "current": true,
          "origin": "provisioned",
          "instance_type": "container",
          "agent_version": "4.276.0",
          "base": "images:ubuntu/24.04",
          "base_fingerprint": "ba5eba5eba5eba5eba5eba5eba5eba5eba5eba5eba5eba5eba5eba5eba5eba5e",
          "scripts": [
            "tools.sh:1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e1f2e"
          ],
          "job": "91c2e0",
          "created_at": "[time]",
          "size": 412300000,
          "pools": [
            "linux",
            "linux-big"
          ],
          "agents": 3,
          "instances": 4
        }
      ]
    }
    "#);
    assert_snapshot!(iapctl(&fake, "images ls -o name"), @"41ba0c5eed1122334455");
}

#[test]
fn an_unknown_target_is_not_found() {
    let mut answers = images();
    let error = not_found("no such target: linus", "did you mean linux?");
    answers.errors.insert("ListImages", error);
    assert_snapshot!(iapctl(&Fake::start(answers), "images ls linus"), @"
    --- stderr
    error: no such target: linus
    hint: did you mean linux?
    --- exit 4
    ");
}

#[test]
fn a_rollback_says_what_changes_and_carries_out_what_it_said() {
    let fake = Fake::start(images());
    let arguments = ["images", "rollback", "linux", "-m", "node is broken", "-y"];
    assert_snapshot!(run(&fake, &arguments), @"
    linux: rolled back to image 9fd8d5c0ffee
    --- stderr
    target  linux in project default
    image   41ba0c5eed11 -> 9fd8d5c0ffee
    agent   4.276.0 -> 4.275.0
    base    images:ubuntu/24.04
    made    1d ago -> 3d ago
    pools   linux, linux-big
    agents  2 idle ones are replaced, 1 busy one finishes its job first
    ");
    assert_snapshot!(fake.calls(), @r#"
    RollbackImageRequest { target: "linux", project: "", to: "", expected: "", reason: "node is broken", dry_run: true }
    RollbackImageRequest { target: "linux", project: "default", to: "9fd8d5c0ffee00112233", expected: "41ba0c5eed1122334455", reason: "node is broken", dry_run: false }
    "#);
}

#[test]
fn a_rollback_is_asked_for_on_a_terminal() {
    let fake = Fake::start(images());
    let said = typed(&fake, "images rollback linux", "n");
    assert!(
        said.contains("image   41ba0c5eed11 -> 9fd8d5c0ffee\n"),
        "{said}"
    );
    assert!(said.contains("Roll linux back? [y/N]"), "{said}");
    assert!(
        said.ends_with("hint: answer y, or pass --yes\nexit 2\n"),
        "{said}"
    );
    assert!(!fake.calls().contains("dry_run: false"));
    let said = typed(&fake, "images rollback linux", "y");
    assert!(
        said.ends_with("linux: rolled back to image 9fd8d5c0ffee\nexit 0\n"),
        "{said}"
    );
    assert!(fake.calls().contains("dry_run: false"));
}

#[test]
fn without_a_terminal_a_rollback_needs_yes() {
    let fake = Fake::start(images());
    assert_snapshot!(iapctl(&fake, "images rollback linux --to 9fd8"), @"
    --- stderr
    target  linux in project default
    image   41ba0c5eed11 -> 9fd8d5c0ffee
    agent   4.276.0 -> 4.275.0
    base    images:ubuntu/24.04
    made    1d ago -> 3d ago
    pools   linux, linux-big
    agents  2 idle ones are replaced, 1 busy one finishes its job first
    error: nothing was done: nobody can be asked here
    hint: pass --yes
    --- exit 2
    ");
    assert!(!fake.calls().contains("dry_run: false"), "{}", fake.calls());
}

#[test]
fn a_dry_run_of_a_rollback_changes_nothing() {
    let fake = Fake::start(images());
    assert_snapshot!(iapctl(&fake, "images rollback linux --dry-run"), @"
    target  linux in project default
    image   41ba0c5eed11 -> 9fd8d5c0ffee
    agent   4.276.0 -> 4.275.0
    base    images:ubuntu/24.04
    made    1d ago -> 3d ago
    pools   linux, linux-big
    agents  2 idle ones are replaced, 1 busy one finishes its job first
    --- stderr
    note: a dry run: nothing was done
    ");
    let json = iapctl(&fake, "images rollback linux --dry-run -o json");
    assert!(json.contains("\"idle_agents\": 2"), "{json}");
    assert!(!fake.calls().contains("dry_run: false"), "{}", fake.calls());
}

#[test]
fn a_rollback_without_an_older_image_is_refused_in_the_daemons_words() {
    let mut answers = images();
    let refusal = "linux has no image older than the present one, 41ba0c5eed11";
    let refusal = Status::failed_precondition(refusal);
    answers.errors.insert("RollbackImage", refusal);
    assert_snapshot!(iapctl(&Fake::start(answers), "images rollback linux --yes"), @"
    --- stderr
    error: linux has no image older than the present one, 41ba0c5eed11
    --- exit 5
    ");
}

#[test]
fn a_prune_removes_what_it_has_listed() {
    let fake = Fake::start(images());
    assert_snapshot!(iapctl(&fake, "images prune linux --keep 1 --newer --yes"), @"
    TARGET  IMAGE         CURRENT  AGENT    BASE                 AGE      SIZE  USED BY
    linux   9fd8d5c0ffee  -        4.275.0  images:ubuntu/24.04   3d  412.3 MB  -
    linux   0ddba11ca5ca  -        4.274.0  images:ubuntu/24.04   9d  412.3 MB  -
    --- stderr
    note: 824.6 MB freed
    ");
    assert_snapshot!(fake.calls(), @r#"
    PruneImagesRequest { target: "linux", projects: [], keep: Some(1), newer: Remove, only: [], dry_run: true }
    PruneImagesRequest { target: "linux", projects: [], keep: Some(1), newer: Remove, only: ["9fd8d5c0ffee00112233", "0ddba11ca5cade667788"], dry_run: false }
    "#);
}

#[test]
fn a_dry_run_of_a_prune_says_what_would_be_freed() {
    let fake = Fake::start(images());
    assert_snapshot!(iapctl(&fake, "images prune --dry-run"), @"
    TARGET  IMAGE         CURRENT  AGENT    BASE                 AGE      SIZE  USED BY
    linux   9fd8d5c0ffee  -        4.275.0  images:ubuntu/24.04   3d  412.3 MB  -
    linux   0ddba11ca5ca  -        4.274.0  images:ubuntu/24.04   9d  412.3 MB  -
    --- stderr
    note: a dry run: nothing was done; 824.6 MB would be freed
    ");
    assert!(!fake.calls().contains("dry_run: false"), "{}", fake.calls());
}

#[test]
fn a_prune_is_asked_for_on_a_terminal_and_needs_yes_elsewhere() {
    let fake = Fake::start(images());
    assert_snapshot!(iapctl(&fake, "images prune"), @"
    --- stderr
    TARGET  IMAGE         CURRENT  AGENT    BASE                 AGE      SIZE  USED BY
    linux   9fd8d5c0ffee  -        4.275.0  images:ubuntu/24.04   3d  412.3 MB  -
    linux   0ddba11ca5ca  -        4.274.0  images:ubuntu/24.04   9d  412.3 MB  -
    error: nothing was done: nobody can be asked here
    hint: pass --yes
    --- exit 2
    ");
    assert!(!fake.calls().contains("dry_run: false"), "{}", fake.calls());
    let said = typed(&fake, "images prune", "");
    assert!(said.contains("Remove 2 images, 824.6 MB? [y/N]"), "{said}");
    assert!(said.ends_with("exit 2\n"), "{said}");
}

#[test]
fn a_prune_with_nothing_to_remove_does_not_ask() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "images prune -o name"), @"");
}

#[test]
fn what_cannot_be_removed_is_told_and_the_exit_code_says_so() {
    let problem = |target: &str, fingerprint: &str, message: &str| PruneProblem {
        project: "default".to_owned(),
        target: target.to_owned(),
        fingerprint: fingerprint.to_owned(),
        message: message.to_owned(),
    };
    let mut answers = images();
    answers.pruned.images.pop();
    answers.pruned.problems = vec![
        problem("linux", &oldest().fingerprint, "delete image: disk is full"),
        problem("vm", "", "provision job 91c2e0 for vm is running"),
    ];
    assert_snapshot!(iapctl(&Fake::start(answers), "images prune --yes"), @"
    TARGET  IMAGE         CURRENT  AGENT    BASE                 AGE      SIZE  USED BY
    linux   9fd8d5c0ffee  -        4.275.0  images:ubuntu/24.04   3d  412.3 MB  -
    --- stderr
    warning: linux 0ddba11ca5ca: delete image: disk is full
    warning: vm: provision job 91c2e0 for vm is running
    note: 412.3 MB freed
    --- exit 1
    ");
}
