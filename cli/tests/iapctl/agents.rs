//! `agents`, but for `drain`.

use iap_common::v1::{Agent, AgentState};
use insta::assert_snapshot;
use tonic::Status;

use super::data::{agent, answers};
use super::fake::{Answers, Beat, Fake, stopping};
use super::run::iapctl;

#[test]
fn agents_are_listed_with_their_jobs() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents ls"), @"
    AGENT              POOL      STATE     AGE  JOB                           RUN  IMAGE
    linux-h1-k3v9x     linux     busy      14m  webshop-ci #20261123.7 Build  11m  9fd8d5c0ffee (outdated)
    linux-h1-p07qa     linux     idle       2m  -                               -  9fd8d5c0ffee
    linux-h1-r2d2x     linux     unknown    2m  -                               -  9fd8d5c0ffee
    linux-vm-h1-b7q1z  linux-vm  creating   8s  -                               -  -
    ");
}

#[test]
fn the_wide_list_has_ids_states_and_details() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents ls --pool linux -o wide"), @"
    AGENT           POOL   STATE    CREATED               JOB                           RUNNING-SINCE         IMAGE                    AZURE-ID  INSTANCE  AZURE    PROJECT  MEMBER  DETAIL
    linux-h1-k3v9x  linux  busy     [time]  webshop-ci #20261123.7 Build  [time]  9fd8d5c0ffee (outdated)  41        Running   online   default  -       -
    linux-h1-p07qa  linux  idle     [time]  -                             -                     9fd8d5c0ffee             41        Running   online   default  -       -
    linux-h1-r2d2x  linux  unknown  [time]  -                             -                     9fd8d5c0ffee             41        Running   offline  default  -       offline for 40s of 5m
    ");
}

#[test]
fn an_agent_is_shown_with_its_job() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agent show linux-h1-k3v9x"), @"
    agent          linux-h1-k3v9x
    pool           linux
    state          busy
    age            14m
    job            webshop-ci #20261123.7 Build (11m)
    requested for  Ana Lima
    image          9fd8d5c0ffee (outdated)
    instance       Running, project default
    azure          online, id 41
    ");
}

#[test]
fn a_spare_is_listed_as_one_and_azure_does_not_know_it() {
    let spare = Agent {
        azure_agent_id: 0,
        azure_status: String::new(),
        detail: "becomes an agent when one ends".to_owned(),
        ..agent("linux-h1-s9a1e", AgentState::Spare)
    };
    let fake = Fake::start(Answers {
        agents: vec![spare],
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "agents ls"), @"
    AGENT           POOL   STATE  AGE  JOB  RUN  IMAGE
    linux-h1-s9a1e  linux  spare   2m  -      -  9fd8d5c0ffee
    ");
    assert_snapshot!(iapctl(&fake, "agents show linux-h1-s9a1e"), @"
    agent     linux-h1-s9a1e
    pool      linux
    state     spare
    detail    becomes an agent when one ends
    age       2m
    image     9fd8d5c0ffee
    instance  Running, project default
    azure     not registered
    ");
    assert_snapshot!(iapctl(&fake, "pools recycle linux --dry-run"), @"
    AGENT           STATE  WOULD                 JOB  FOR
    linux-h1-s9a1e  spare  be made anew at once  -    -
    --- stderr
    note: a dry run: nothing was done
    ");
}

#[test]
fn an_agent_in_json_has_its_job_as_an_object() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents show linux-h1-k3v9x -o json"), @r#"
    {
      "api_version": "iap.v1",
      "name": "linux-h1-k3v9x",
      "pool": "linux",
      "state": "busy",
      "detail": null,
      "draining": false,
      "created_at": "[time]",
      "azure_agent_id": 41,
      "job": {
        "request_id": 7001,
        "name": "Build",
        "pipeline": "webshop-ci",
        "run": "20261123.7",
        "requested_for": "Ana Lima",
        "queued_at": "[time]",
        "assigned_at": "[time]",
        "received_at": "[time]"
      },
      "image_fingerprint": "9fd8d5c0ffee00112233",
      "outdated": true,
      "instance_status": "Running",
      "azure_status": "online",
      "azure_enabled": true,
      "project": "default",
      "location": null,
      "drain_deadline": null,
      "keep": null
    }
    "#);
}

#[test]
fn an_unknown_agent_is_not_found() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents show nobody"), @"
    --- stderr
    error: no agent nobody
    hint: list them: iapctl agents ls
    --- exit 4
    ");
}

fn with_log(scripts: Vec<Vec<Beat<&'static str>>>) -> Fake {
    Fake::start(Answers {
        agent_log: scripts,
        ..answers()
    })
}

#[test]
fn a_log_is_copied_as_it_is() {
    let fake = with_log(vec![vec![
        Beat::Say("one\n\x1b[1mtwo\x1b[0m\nthr"),
        Beat::Say("ee\n"),
    ]]);
    assert_snapshot!(iapctl(&fake, "agents logs a"), @"
    one
    [1mtwo[0m
    three
    ");
}

#[test]
fn the_tail_of_a_log_is_its_last_lines() {
    let fake = with_log(vec![vec![Beat::Say("one\ntwo\nthr"), Beat::Say("ee\n")]]);
    assert_snapshot!(iapctl(&fake, "agents logs a --tail 2"), @"
    two
    three
    ");
}

#[test]
fn a_followed_tail_goes_on_with_what_is_new() {
    let old = Beat::Say("one\ntwo\nthree\n");
    let fake = with_log(vec![vec![old, Beat::Pause(600), Beat::Say("four\n")]]);
    assert_snapshot!(iapctl(&fake, "agents logs a --tail 1 -f"), @"
    three
    four
    ");
}

#[test]
fn a_followed_log_goes_on_where_it_stopped_when_the_daemon_restarts() {
    let gone = Beat::Fail(stopping());
    let first = vec![Beat::Say("one\ntw"), gone];
    let second = vec![Beat::Say("one\ntwo\nth"), Beat::Say("ree\n")];
    let fake = with_log(vec![first, second]);
    assert_snapshot!(iapctl(&fake, "agents logs a -f"), @"
    one
    two
    three
    --- stderr
    note: the daemon went away, trying again
    note: the daemon is back
    ");
}

#[test]
fn an_idle_agent_is_removed_without_a_question() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents reap linux-h1-p07qa"), @"linux-h1-p07qa: removed");
    assert_snapshot!(fake.calls(), @r#"ReapAgentRequest { name: "linux-h1-p07qa", force: false }"#);
}

#[test]
fn a_busy_agent_is_removed_only_by_force() {
    let mut answers = answers();
    let refusal = Status::failed_precondition("linux-h1-k3v9x is busy");
    answers.errors.insert("ReapAgent", refusal);
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, "agents reap linux-h1-k3v9x"), @"
    --- stderr
    error: linux-h1-k3v9x is busy
    --- exit 5
    ");
}

#[test]
fn force_on_a_busy_agent_wants_a_confirmation() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents reap linux-h1-k3v9x --force"), @"
    --- stderr
    linux-h1-k3v9x  loses its job: webshop-ci #20261123.7 Build (11m) for Ana Lima
    error: jobs would fail, and nobody can be asked here
    hint: pass --yes
    --- exit 2
    ");
    assert_eq!(fake.calls(), "");
}

#[test]
fn force_and_yes_remove_a_busy_agent() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents reap linux-h1-k3v9x --force --yes"), @"
    linux-h1-k3v9x: removed
    --- stderr
    linux-h1-k3v9x  loses its job: webshop-ci #20261123.7 Build (11m) for Ana Lima
    ");
    assert_snapshot!(fake.calls(), @r#"ReapAgentRequest { name: "linux-h1-k3v9x", force: true }"#);
}
