//! `status`.

use iap_common::v1::{
    AzureStatus, Breaker, BreakerState, ConfigProblem, CredentialState, IncusStatus,
};
use insta::assert_snapshot;

use super::data::{ago, answers, pools, status};
use super::fake::{Answers, Fake};
use super::run::iapctl;

#[test]
fn a_healthy_daemon_fits_on_a_screen() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "status"), @"
    iapd     [version] on h1, up 3h12m, owner 5f2c9a, 14.3 MiB
    config   /etc/iapd/config.yaml, loaded 1h00m ago
    incus    ok  6.0.4, storage btrfs, /var/lib/incus/unix.socket
    azure    ok  https://dev.azure.com/acme (linux, linux-vm), seen 4s ago
    metrics  http://127.0.0.1:9464/metrics

    POOL   STATE  BUSY  IDLE  START  WANT  QUEUED  WAIT-P95  IMAGE               OUTDATED  LAST-ERROR
    linux  ok        6     2      0     8       3     6m10s  linux@9fd8d5c0ffee       1/8  -
    ");
}

#[test]
fn what_is_red_is_said_and_makes_the_exit_code_1() {
    let mut status = status();
    status.incus = Some(IncusStatus {
        reachable: false,
        socket: "/var/lib/incus/unix.socket".to_owned(),
        error: "connection refused".to_owned(),
        ..IncusStatus::default()
    });
    status.azure = vec![
        AzureStatus {
            url: "https://dev.azure.com/acme".to_owned(),
            pools: vec!["linux".to_owned()],
            credential: CredentialState::Rejected.into(),
            ..AzureStatus::default()
        },
        AzureStatus {
            url: "https://dev.azure.com/other".to_owned(),
            pools: vec!["linux-vm".to_owned()],
            credential: CredentialState::Accepted.into(),
            breaker: Some(Breaker {
                state: BreakerState::Open.into(),
                last_error: "list agents: status 503".to_owned(),
                next_try_at: ago(-30),
                ..Breaker::default()
            }),
            ..AzureStatus::default()
        },
    ];
    status.config_problems = vec![ConfigProblem {
        line: 3,
        column: 5,
        key: "pools[0].nam".to_owned(),
        message: "unknown key, did you mean name?".to_owned(),
    }];
    status.pools = pools();
    status.warnings = vec!["the agent package is older than Azure's minimum".to_owned()];
    let fake = Fake::start(Answers {
        status,
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "status"), @"
    iapd     [version] on h1, up 3h12m, owner 5f2c9a, 14.3 MiB
    config   RELOAD REFUSED  the one loaded 1h00m ago is in force
             /etc/iapd/config.yaml:3:5: pools[0].nam: unknown key, did you mean name?
    incus    UNREACHABLE  /var/lib/incus/unix.socket: connection refused
    azure    CREDENTIAL REJECTED  https://dev.azure.com/acme (linux)
    azure    FAILING  https://dev.azure.com/other (linux-vm): list agents: status 503 (breaker: retry in 29s)
    metrics  http://127.0.0.1:9464/metrics

    POOL      STATE     BUSY  IDLE  START  WANT  QUEUED  WAIT-P95  IMAGE               OUTDATED  LAST-ERROR
    linux     ok           6     2      0     8       3     6m10s  linux@9fd8d5c0ffee       1/8  -
    linux-vm  degraded     1     0      2     4       -         -  linux-vm (missing)         0  12s ago  storage pool full: no space left on device (breaker: retry in 47s) (+1 more)

    warning: the agent package is older than Azure's minimum
    --- exit 1
    ");
}

#[test]
fn an_azure_that_does_not_answer_is_slow_before_it_fails() {
    let mut status = status();
    status.azure[0].unanswered_for = Some(prost_types::Duration {
        seconds: 25,
        nanos: 0,
    });
    let fake = Fake::start(Answers {
        status,
        ..answers()
    });
    let text = iapctl(&fake, "status");
    let azure: Vec<&str> = text.lines().filter(|l| l.starts_with("azure")).collect();
    assert_snapshot!(azure.join("\n"), @"azure    slow  https://dev.azure.com/acme (linux, linux-vm), no answer for 25s, seen 4s ago");
}

#[test]
fn a_credential_says_how_long_it_lasts_and_when_it_was_rejected() {
    let mut status = status();
    status.azure[0].expires_at = ago(-13 * 86_400 + 60);
    status.azure[0].last_rejected_at = ago(200);
    status.azure.push(AzureStatus {
        expires_at: ago(90_000),
        credential: CredentialState::Rejected.into(),
        ..status.azure[0].clone()
    });
    let fake = Fake::start(Answers {
        status,
        ..answers()
    });
    let text = iapctl(&fake, "status");
    let azure: Vec<&str> = text.lines().filter(|l| l.starts_with("azure")).collect();
    assert_snapshot!(azure.join("\n"), @"
    azure    ok  https://dev.azure.com/acme (linux, linux-vm), seen 4s ago, certificate expires in 12d, last rejected 3m ago
    azure    CREDENTIAL REJECTED  https://dev.azure.com/acme (linux, linux-vm), seen 4s ago, certificate EXPIRED 1d ago, last rejected 3m ago
    ");
}

#[test]
fn the_status_in_json_says_whether_it_is_healthy() {
    let mut status = status();
    status.pools.clear();
    let fake = Fake::start(Answers {
        status,
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "status -o json"), @r#"
    {
      "api_version": "iap.v1",
      "healthy": true,
      "version": "[version]",
      "started_at": "[time]",
      "owner": "5f2c9a",
      "hostname": "h1",
      "config_path": "/etc/iapd/config.yaml",
      "config_loaded_at": "[time]",
      "config_problems": [],
      "incus": {
        "reachable": true,
        "socket": "/var/lib/incus/unix.socket",
        "server_version": "6.0.4",
        "storage_driver": "btrfs",
        "error": null,
        "events_connected": true
      },
      "azure": [
        {
          "url": "https://dev.azure.com/acme",
          "pools": [
            "linux",
            "linux-vm"
          ],
          "credential": "accepted",
          "breaker": null,
          "snapshot_age_seconds": 4.0,
          "unanswered_seconds": null,
          "credential_kind": "pat",
          "credential_source": "token in /etc/iapd/azure-pat",
          "expires_at": null,
          "token_expires_at": null,
          "last_rejected_at": null
        }
      ],
      "pools": [],
      "warnings": [],
      "metrics_address": "127.0.0.1:9464",
      "resident_bytes": 15000000,
      "members": []
    }
    "#);
}
