//! `config`, `version` and what else is about the daemon itself.

use iap_common::v1::{CheckConfigResponse, ConfigProblem, ReloadConfigResponse};
use insta::assert_snapshot;

use super::data::answers;
use super::fake::{Answers, Fake};
use super::run::{command, copy_of_program, effect, iapctl, make};

fn problem() -> ConfigProblem {
    ConfigProblem {
        line: 12,
        column: 7,
        key: "pools[1].incus.maxCores".to_owned(),
        message: "must be a whole number".to_owned(),
    }
}

fn warning() -> ConfigProblem {
    ConfigProblem {
        message: "metrics are off".to_owned(),
        ..ConfigProblem::default()
    }
}

fn with_file(answers: Answers) -> Fake {
    let fake = Fake::start(answers);
    std::fs::write(fake.directory().join("new.yaml"), "pools: []\n").unwrap();
    fake
}

#[test]
fn a_valid_file_is_said_to_be_valid() {
    let checked = CheckConfigResponse {
        warnings: vec![warning()],
        ..Default::default()
    };
    let fake = with_file(Answers {
        checked,
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "config check new.yaml"), @"
    new.yaml: warning: metrics are off
    new.yaml: valid
    ");
}

#[test]
fn mistakes_are_listed_with_their_places() {
    let checked = CheckConfigResponse {
        problems: vec![problem()],
        warnings: vec![warning()],
    };
    let fake = with_file(Answers {
        checked,
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "config check new.yaml"), @"
    new.yaml:12:7: pools[1].incus.maxCores: must be a whole number
    new.yaml: warning: metrics are off
    --- exit 1
    ");
}

#[test]
fn mistakes_in_json_are_objects() {
    let checked = CheckConfigResponse {
        problems: vec![problem()],
        warnings: vec![],
    };
    let fake = with_file(Answers {
        checked,
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "config check new.yaml -o json"), @r#"
    {
      "api_version": "iap.v1",
      "valid": false,
      "problems": [
        {
          "line": 12,
          "column": 7,
          "key": "pools[1].incus.maxCores",
          "message": "must be a whole number"
        }
      ],
      "warnings": []
    }
    --- exit 1
    "#);
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let fake = with_file(answers());
    assert_snapshot!(iapctl(&fake, "config check no.yaml"), @"
    --- stderr
    error: cannot read no.yaml: No such file or directory (os error 2)
    --- exit 1
    ");
}

#[test]
fn without_a_name_the_daemon_checks_its_own_file() {
    let fake = with_file(answers());
    assert_snapshot!(iapctl(&fake, "config check"), @"/etc/iapd/config.yaml: valid");
}

#[test]
fn without_a_daemon_the_program_iapd_checks_the_file() {
    let fake = with_file(answers());
    make(
        &fake,
        r##"printf '#!/bin/sh
echo "iapd $*"
exit 2
' > iapd && chmod 755 iapd"##,
    );
    // A copy, so that no other iapd stands beside it.
    let output = std::process::Command::new(copy_of_program(&fake))
        .args([
            "--socket",
            "/nowhere/iapd.sock",
            "config",
            "check",
            "new.yaml",
        ])
        .current_dir(fake.directory())
        .output()
        .unwrap();
    assert_snapshot!(effect(&fake, &output), @"
    iapd --check-config --config new.yaml
    --- stderr
    note: the daemon cannot be reached; [dir]/iapd checks the file
    --- exit 1
    ");
}

#[test]
fn without_a_daemon_and_its_program_nobody_can_check_the_file() {
    let fake = with_file(answers());
    let output = std::process::Command::new(copy_of_program(&fake))
        .args([
            "--socket",
            "/nowhere/iapd.sock",
            "config",
            "check",
            "new.yaml",
        ])
        .current_dir(fake.directory())
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    // A machine on which iapd is installed has it in /usr/sbin.
    if !std::path::Path::new("/usr/sbin/iapd").exists() {
        assert_snapshot!(effect(&fake, &output), @"
        --- stderr
        note: the program iapd, which could check the file too, is not installed here
        error: no daemon socket at /nowhere/iapd.sock
        hint: is the daemon running? see: systemctl status iapd
        hint: a daemon with another socket: --socket PATH or IAPD_SOCKET
        --- exit 7
        ");
    }
}

#[test]
fn the_configuration_is_shown_as_the_daemon_has_it() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "config show"), @r#"
    pools:
      - name: linux
        azure: { pat: "***" }
    "#);
}

#[test]
fn the_configuration_is_shown_in_json() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "config show -o json"), @r#"
    {
      "api_version": "iap.v1",
      "path": "/etc/iapd/config.yaml",
      "config": {
        "pools": [
          {
            "name": "linux",
            "azure": {
              "pat": "***"
            }
          }
        ]
      }
    }
    "#);
}

#[test]
fn a_reload_says_what_changes() {
    let changes = vec!["pool linux: agentCount 8 -> 10".to_owned()];
    let reloaded = ReloadConfigResponse {
        changes,
        ..Default::default()
    };
    let fake = Fake::start(Answers {
        reloaded,
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "config reload"), @"pool linux: agentCount 8 -> 10");
    assert_snapshot!(iapctl(&fake, "config reload --dry-run"), @"
    pool linux: agentCount 8 -> 10
    --- stderr
    note: a dry run: nothing was applied
    ");
    assert_snapshot!(fake.calls(), @"
    ReloadConfigRequest { dry_run: false }
    ReloadConfigRequest { dry_run: true }
    ");
}

#[test]
fn a_refused_reload_lists_the_mistakes() {
    let reloaded = ReloadConfigResponse {
        problems: vec![problem()],
        ..Default::default()
    };
    let fake = Fake::start(Answers {
        reloaded,
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "config reload"), @"
    --- stderr
    /etc/iapd/config.yaml:12:7: pools[1].incus.maxCores: must be a whole number
    error: the configuration has mistakes; the one in force stays
    hint: correct them, then: iapctl config reload --dry-run
    --- exit 1
    ");
}

#[test]
fn the_schema_needs_no_daemon() {
    let fake = Fake::start(answers());
    let output = command(&fake, &["config", "schema", "--socket", "/nowhere"])
        .output()
        .unwrap();
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema.is_object());
}

#[test]
fn the_version_is_that_of_both_programs() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "version"), @"
    iapctl  [version]
    iapd    [version]
    ");
}

#[test]
fn programs_that_differ_are_pointed_out() {
    let fake = Fake::start(Answers {
        version: "9.9.9".to_owned(),
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "version"), @"
    iapctl  [version]
    iapd    9.9.9
    --- stderr
    note: iapctl [version] and iapd 9.9.9 differ; restart the daemon after an upgrade
    ");
}

#[test]
fn the_version_needs_no_daemon() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "version --socket /nowhere -o json"), @r#"
    {
      "api_version": "iap.v1",
      "iapctl": "[version]",
      "iapd": null
    }
    "#);
}
