//! `jobs`, `audit`, and agents that have ended.

use iap_common::v1::*;
use insta::assert_snapshot;
use prost_types::Timestamp;

use super::data::{ago, answers};
use super::fake::{Answers, Beat, Fake};
use super::run::iapctl;

fn job(request_id: i64, name: &str, ended: Option<Timestamp>, seconds: i64) -> Option<Job> {
    // From the same moment, so that the difference does not change.
    let before = |seconds| {
        ended.map(|at| Timestamp {
            seconds: at.seconds - seconds,
            ..at
        })
    };
    Some(Job {
        request_id,
        name: name.to_owned(),
        pipeline: "webshop-ci".to_owned(),
        run: "20261123.7".to_owned(),
        requested_for: "Ana Lima".to_owned(),
        queued_at: before(seconds + 75),
        assigned_at: before(seconds + 5),
        received_at: before(seconds),
    })
}

pub(crate) fn history() -> Answers {
    let (failed, succeeded) = (ago(62), ago(7200));
    Answers {
        ended: vec![
            EndedAgent {
                name: "linux-h1-aaaaa".to_owned(),
                pool: "linux".to_owned(),
                reason: "job-failed".to_owned(),
                detail: "its disk was full".to_owned(),
                created_at: ago(900),
                online_at: ago(899),
                ended_at: ago(60),
                exit_status: Some(0),
                azure_agent_id: 41,
                image_fingerprint: "9fd8d5c0ffee00112233".to_owned(),
                project: "default".to_owned(),
                job: job(7001, "Test", failed, 638),
                job_result: "failed".to_owned(),
                job_finished_at: failed,
            },
            EndedAgent {
                name: "linux-h1-bbbbb".to_owned(),
                pool: "linux".to_owned(),
                reason: "job-succeeded".to_owned(),
                ended_at: succeeded,
                job: job(7000, "Build", succeeded, 100),
                job_result: "succeeded".to_owned(),
                ..EndedAgent::default()
            },
            EndedAgent {
                name: "linux-h1-ccccc".to_owned(),
                pool: "linux".to_owned(),
                reason: "never-online".to_owned(),
                ended_at: ago(9000),
                ..EndedAgent::default()
            },
        ],
        evidence: vec![
            EvidenceFile {
                name: "agent.log".to_owned(),
                size: 1_234_567,
            },
            EvidenceFile {
                name: "console.log".to_owned(),
                size: 99,
            },
        ],
        audit: vec![
            AuditEntry {
                at: ago(60),
                uid: Some(1000),
                user: "ana".to_owned(),
                command: "agents drain".to_owned(),
                target: "linux-h1-aaaaa".to_owned(),
                outcome: "ok".to_owned(),
            },
            AuditEntry {
                at: ago(90),
                uid: Some(4711),
                command: "agents reap".to_owned(),
                target: "linux-h1-bbbbb".to_owned(),
                outcome: "agent linux-h1-bbbbb has a job".to_owned(),
                ..AuditEntry::default()
            },
        ],
        ..answers()
    }
}

#[test]
fn jobs_are_listed_with_their_results() {
    let fake = Fake::start(history());
    assert_snapshot!(iapctl(&fake, "jobs ls"), @"
      ID  JOB                           RESULT     ENDED   WAIT     RUN  POOL   AGENT           REASON
    7001  webshop-ci #20261123.7 Test   failed        1m  1m10s  10m38s  linux  linux-h1-aaaaa  job-failed
    7000  webshop-ci #20261123.7 Build  succeeded  2h00m  1m10s   1m40s  linux  linux-h1-bbbbb  job-succeeded
    ");
}

#[test]
fn failed_jobs_are_listed_alone_and_agents_without_a_job_on_demand() {
    let fake = Fake::start(history());
    assert_snapshot!(iapctl(&fake, "jobs ls --failed -o name"), @"linux-h1-aaaaa");
    assert_snapshot!(iapctl(&fake, "job list --all --no-headers"), @"
    7001  webshop-ci #20261123.7 Test   failed        1m  1m10s  10m38s  linux  linux-h1-aaaaa  job-failed
    7000  webshop-ci #20261123.7 Build  succeeded  2h00m  1m10s   1m40s  linux  linux-h1-bbbbb  job-succeeded
       -  -                             -          2h30m      -       -  linux  linux-h1-ccccc  never-online
    ");
}

#[test]
fn a_job_is_shown_by_its_number_with_its_agent_and_evidence() {
    let fake = Fake::start(history());
    assert_snapshot!(iapctl(&fake, "jobs show 7001"), @"
    agent          linux-h1-aaaaa
    pool           linux
    state          ended, job-failed
    detail         its disk was full
    job            webshop-ci #20261123.7 Test (id 7001)
    result         failed after 10m38s
    waited         1m10s for an agent
    requested for  Ana Lima
    created        [time] (15m ago)
    online         [time] (14m ago)
    ended          [time] (1m ago)
    exit status    0
    image          9fd8d5c0ffee
    evidence       agent.log (1.2 MB)
                   console.log (99 B)
    read it        iapctl agents logs linux-h1-aaaaa [--file NAME]
    ");
}

#[test]
fn an_unknown_job_is_not_found() {
    let fake = Fake::start(history());
    assert_snapshot!(iapctl(&fake, "jobs show 1"), @"
    --- stderr
    error: no such job
    hint: list them: iapctl jobs ls
    --- exit 4
    ");
}

#[test]
fn an_agent_that_has_ended_is_shown() {
    let fake = Fake::start(history());
    assert_snapshot!(iapctl(&fake, "agents show linux-h1-ccccc -o json"), @r#"
    {
      "api_version": "iap.v1",
      "name": "linux-h1-ccccc",
      "pool": "linux",
      "reason": "never-online",
      "detail": null,
      "created_at": null,
      "online_at": null,
      "ended_at": "[time]",
      "exit_status": null,
      "azure_agent_id": null,
      "image_fingerprint": null,
      "project": null,
      "job": null,
      "job_result": null,
      "job_finished_at": null,
      "evidence": [
        {
          "name": "agent.log",
          "size": 1234567
        },
        {
          "name": "console.log",
          "size": 99
        }
      ]
    }
    "#);
}

#[test]
fn the_log_of_an_agent_that_has_ended_is_printed() {
    let answers = Answers {
        agent_log: vec![vec![Beat::Say("Job Test completed with result: Failed\n")]],
        ..history()
    };
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, "agents logs linux-h1-aaaaa --file agent.log"), @"Job Test completed with result: Failed");
}

fn events() -> Vec<Beat<Event>> {
    let event = |id, kind: &str, agent: &str, message: &str| {
        Beat::Say(Event {
            id,
            at: ago(60 - id),
            r#type: kind.to_owned(),
            pool: "linux".to_owned(),
            agent: agent.to_owned(),
            message: message.to_owned(),
        })
    };
    vec![
        event(
            1,
            "agent-busy",
            "linux-h1-aaaaa",
            "webshop-ci 20261123.7 Test",
        ),
        event(2, "agent-ended", "linux-h1-aaaaa", "job-failed\n\x1b[2J"),
        event(3, "launches-failing", "", "storage pool full"),
    ]
}

#[test]
fn events_are_listed_and_cannot_steer_the_terminal() {
    let fake = Fake::start(Answers {
        events: vec![events()],
        ..history()
    });
    assert_snapshot!(iapctl(&fake, "events --since 1h"), @"
    AGE  TYPE              POOL   AGENT           MESSAGE
    59s  agent-busy        linux  linux-h1-aaaaa  webshop-ci 20261123.7 Test
    58s  agent-ended       linux  linux-h1-aaaaa  job-failed
    57s  launches-failing  linux  -               storage pool full
    ");
}

#[test]
fn events_that_are_followed_are_an_object_a_line_in_json() {
    let fake = Fake::start(Answers {
        events: vec![events()],
        ..history()
    });
    assert_snapshot!(iapctl(&fake, "events -f -o json"), @r#"
    {"api_version":"iap.v1","event":{"id":1,"at":"[time]","type":"agent-busy","pool":"linux","agent":"linux-h1-aaaaa","message":"webshop-ci 20261123.7 Test"}}
    {"api_version":"iap.v1","event":{"id":2,"at":"[time]","type":"agent-ended","pool":"linux","agent":"linux-h1-aaaaa","message":"job-failed\n\u001b[2J"}}
    {"api_version":"iap.v1","event":{"id":3,"at":"[time]","type":"launches-failing","pool":"linux","agent":null,"message":"storage pool full"}}
    "#);
    assert_snapshot!(iapctl(&fake, "events -f -o yaml"), @"
    --- stderr
    error: events that are followed have no YAML form
    hint: use -o json: an object a line
    --- exit 2
    ");
}

#[test]
fn who_asked_for_what_is_listed() {
    let fake = Fake::start(history());
    assert_snapshot!(iapctl(&fake, "audit ls"), @"
    AT                    USER      COMMAND       TARGET          OUTCOME
    [time]  ana       agents drain  linux-h1-aaaaa  ok
    [time]  uid 4711  agents reap   linux-h1-bbbbb  agent linux-h1-bbbbb has a job
    ");
}
