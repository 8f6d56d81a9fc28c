//! `pools`.

use insta::assert_snapshot;

use super::data::{answers, pools};
use super::fake::{Answers, Fake};
use super::run::iapctl;

#[test]
fn pools_are_listed_with_what_is_wrong() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools ls"), @"
    POOL      STATE     BUSY  IDLE  START  WANT  QUEUED  WAIT-P95  IMAGE               OUTDATED  LAST-ERROR
    linux     ok           6     2      0     8       3     6m10s  linux@9fd8d5c0ffee       1/8  -
    linux-vm  degraded     1     0      2     4       -         -  linux-vm (missing)         0  12s ago  storage pool full: no space left on device (breaker: retry in 47s) (+1 more)
    ");
}

#[test]
fn the_wide_list_has_more_columns_and_absolute_times() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools ls -o wide --no-headers"), @"
    linux     ok        6  2  0  8  3  6m10s  linux@9fd8d5c0ffee  1/8  0  1  0  0  default  container        Linux builders  4.275.0  [time]  [time]  -
    linux-vm  degraded  1  0  2  4  -      -  linux-vm (missing)    0  0  0  0  0  -        virtual-machine  -               -        -                     -                     12s ago  storage pool full: no space left on device (breaker: retry in 47s) (+1 more)
    ");
}

#[test]
fn nouns_and_verbs_have_a_second_spelling() {
    let fake = Fake::start(answers());
    assert_eq!(iapctl(&fake, "pool list"), iapctl(&fake, "pools ls"));
}

#[test]
fn names_are_for_xargs() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools ls --format name"), @"
    linux
    linux-vm
    ");
}

#[test]
fn json_has_a_version_and_the_names_of_the_interface() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools ls -o json"), @r#"
    {
      "api_version": "iap.v1",
      "pools": [
        {
          "name": "linux",
          "state": "ok",
          "counts": {
            "busy": 6,
            "idle": 2,
            "starting": 0,
            "leaving": 0,
            "troubled": 0,
            "outdated": 1,
            "kept": 0,
            "spare": 1
          },
          "agent_count": 8,
          "problems": [],
          "image": {
            "alias": "linux",
            "fingerprint": "9fd8d5c0ffee00112233",
            "agent_version": "4.275.0",
            "created_at": "[time]"
          },
          "incus_breaker": {
            "state": "closed",
            "last_error": null,
            "last_error_at": null,
            "next_try_at": null,
            "consecutive_failures": 0
          },
          "azure_breaker": {
            "state": "closed",
            "last_error": null,
            "last_error_at": null,
            "next_try_at": null,
            "consecutive_failures": 0
          },
          "azure": {
            "url": "https://dev.azure.com/acme",
            "pool_name": "Linux builders",
            "pool_id": 12,
            "snapshot_age_seconds": 4.0
          },
          "last_pass": {
            "number": 812,
            "trigger": "timer",
            "ended_at": "[time]",
            "took_seconds": 0.012,
            "started": 0,
            "in_flight": 0,
            "failed": 0
          },
          "project": "default",
          "instance_type": "container",
          "profiles": [
            "default"
          ],
          "spec_hash": "1f2e3d",
          "queued_jobs": 3,
          "pause": null,
          "count_override": null,
          "wanted": 8,
          "wait_reasons": [
            "at capacity: all 8 agents are busy"
          ],
          "job_waits": {
            "p95_seconds": 370.0,
            "jobs": 42
          },
          "spares": 1,
          "members": []
        },
        {
          "name": "linux-vm",
          "state": "degraded",
          "counts": {
            "busy": 1,
            "idle": 0,
            "starting": 2,
            "leaving": 0,
            "troubled": 0,
            "outdated": 0,
            "kept": 0,
            "spare": 0
          },
          "agent_count": 4,
          "problems": [
            "storage pool full:\nno space left on device",
            "image is 40 days old"
          ],
          "image": {
            "alias": "linux-vm",
            "fingerprint": null,
            "agent_version": null,
            "created_at": null
          },
          "incus_breaker": {
            "state": "open",
            "last_error": "create instance: no space left on device",
            "last_error_at": "[time]",
            "next_try_at": "[time]",
            "consecutive_failures": 5
          },
          "azure_breaker": {
            "state": "closed",
            "last_error": null,
            "last_error_at": null,
            "next_try_at": null,
            "consecutive_failures": 0
          },
          "azure": null,
          "last_pass": null,
          "project": null,
          "instance_type": "virtual-machine",
          "profiles": [],
          "spec_hash": null,
          "queued_jobs": null,
          "pause": null,
          "count_override": null,
          "wanted": 4,
          "wait_reasons": [],
          "job_waits": null,
          "spares": 0,
          "members": []
        }
      ]
    }
    "#);
}

#[test]
fn an_empty_list_is_its_heads_and_no_error() {
    let fake = Fake::start(Answers::default());
    assert_snapshot!(iapctl(&fake, "pools ls"), @"
    POOL  STATE  BUSY  IDLE  START  WANT  QUEUED  WAIT-P95  IMAGE  OUTDATED  LAST-ERROR
    --- stderr
    No pools.
    ");
}

#[test]
fn an_empty_list_is_an_empty_list_in_json() {
    let fake = Fake::start(Answers::default());
    assert_snapshot!(iapctl(&fake, "pools ls -o json"), @r#"
    {
      "api_version": "iap.v1",
      "pools": []
    }
    "#);
}

#[test]
fn a_pool_is_shown_with_all_that_is_known() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools show linux"), @"
    pool         linux
    state        ok
    agents       8 wanted: 6 busy, 2 idle, 0 starting, 0 leaving, 0 troubled; 1 outdated, 0 kept
    spares       1 of 1, unknown to Azure
    queued       3 jobs wait for an agent
                 at capacity: all 8 agents are busy
    waits        95 % of the jobs 6m10s or less; 42 jobs, of the last hour and waiting now
    image        linux@9fd8d5c0ffee, agent 4.275.0, made 3d ago
    instances    container, project default, profiles default
    azure        https://dev.azure.com/acme, pool Linux builders (12)
    incus calls  ok
    azure calls  ok
    last pass    #812 (timer) 3s ago, took 12 ms: 0 started, 0 in flight, 0 failed
    spec         1f2e3d
    ");
}

#[test]
fn a_pool_in_trouble_is_shown_with_its_problems() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools show linux-vm"), @"
    pool         linux-vm
    state        degraded
    agents       4 wanted: 1 busy, 0 idle, 2 starting, 0 leaving, 0 troubled; 0 outdated, 0 kept
    image        linux-vm (missing)
    instances    virtual-machine, project default
    incus calls  open after 5 failures: create instance: no space left on device (breaker: retry in 47s)
    azure calls  ok
    spec         -
    problems     storage pool full: no space left on device
                 image is 40 days old
    ");
}

#[test]
fn a_pool_in_yaml_has_the_same_fields() {
    let mut linux = pools().remove(0);
    linux.last_pass = None;
    let fake = Fake::start(Answers {
        pools: vec![linux],
        ..Answers::default()
    });
    assert_snapshot!(iapctl(&fake, "pools show linux -o yaml"), @"
    api_version: iap.v1
    name: linux
    state: ok
    counts:
      busy: 6
      idle: 2
      starting: 0
      leaving: 0
      troubled: 0
      outdated: 1
      kept: 0
      spare: 1
    agent_count: 8
    problems: []
    image:
      alias: linux
      fingerprint: 9fd8d5c0ffee00112233
      agent_version: 4.275.0
      created_at: [time]
    incus_breaker:
      state: closed
      last_error: null
      last_error_at: null
      next_try_at: null
      consecutive_failures: 0
    azure_breaker:
      state: closed
      last_error: null
      last_error_at: null
      next_try_at: null
      consecutive_failures: 0
    azure:
      url: https://dev.azure.com/acme
      pool_name: Linux builders
      pool_id: 12
      snapshot_age_seconds: 4.0
    last_pass: null
    project: default
    instance_type: container
    profiles:
    - default
    spec_hash: 1f2e3d
    queued_jobs: 3
    pause: null
    count_override: null
    wanted: 8
    wait_reasons:
    - 'at capacity: all 8 agents are busy'
    job_waits:
      p95_seconds: 370.0
      jobs: 42
    spares: 1
    members: []
    ");
}

#[test]
fn an_unknown_pool_is_not_found_and_the_daemon_says_which_was_meant() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools show linx"), @"
    --- stderr
    error: no pool linx
    hint: did you mean linux?
    --- exit 4
    ");
}

#[test]
fn a_failing_pool_is_tried_again_at_once() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools retry linux-vm"), @"linux-vm: trying again now");
    assert_snapshot!(fake.calls(), @r#"RetryPoolRequest { name: "linux-vm" }"#);
}
