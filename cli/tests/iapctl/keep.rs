//! `agents keep` and `agents release`, and how kept agents are shown.

use iap_common::v1::{Agent, AgentState, Job, Keep};
use insta::assert_snapshot;
use tonic::Status;

use super::data::{agent, ago, answers, busy, draining, say};
use super::fake::{Answers, Fake};
use super::run::iapctl;

const BUSY: &str = "linux-h1-k3v9x";
const KEPT: &str = "linux-h1-zz1da";

/// For an hour yet. Tests show times of day as `[clock]`.
fn kept() -> Agent {
    Agent {
        azure_agent_id: 0,
        azure_status: String::new(),
        keep: Some(Keep {
            until: ago(-3600),
            reason: "job-failed".to_owned(),
            user: String::new(),
            since: ago(300),
        }),
        job: Some(Job {
            request_id: 881,
            pipeline: "nightly".to_owned(),
            name: "Test".to_owned(),
            ..Job::default()
        }),
        ..agent(KEPT, AgentState::Kept)
    }
}

fn with(agent: Agent) -> Answers {
    Answers {
        agents: vec![agent],
        ..answers()
    }
}

/// Takes out the times of day after `until`.
fn clocks(text: &str) -> String {
    let mut parts = text.split("until ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out = format!("{out}until [clock]{}", &part["15:02".len()..]);
    }
    out
}

#[test]
fn a_kept_agent_is_listed_with_the_time_when_it_goes() {
    let fake = Fake::start(with(kept()));
    assert_snapshot!(clocks(&iapctl(&fake, "agents ls")), @"
    AGENT           POOL   STATE               AGE  JOB           RUN  IMAGE
    linux-h1-zz1da  linux  kept (until [clock])   2m  nightly Test    -  9fd8d5c0ffee
    ");
}

#[test]
fn a_kept_agent_is_shown_with_why_and_the_way_in() {
    let fake = Fake::start(with(kept()));
    assert_snapshot!(clocks(&iapctl(&fake, &format!("agents show {KEPT}"))), @"
    agent     linux-h1-zz1da
    pool      linux
    state     kept
    kept      until [clock]: job-failed, as the pool is configured
    get in    incus exec linux-h1-zz1da --project default -- su - agent
    let go    iapctl agents release linux-h1-zz1da
    age       2m
    job       nightly Test, which has ended
    image     9fd8d5c0ffee
    instance  Running, project default
    azure     not registered
    ");
}

#[test]
fn one_that_is_stopped_is_started_on_the_way_in() {
    let stopped = Agent {
        instance_status: "Stopped".to_owned(),
        project: "ci".to_owned(),
        ..kept()
    };
    let fake = Fake::start(with(stopped));
    let shown = iapctl(&fake, &format!("agents show {KEPT}"));
    let way = shown.lines().find(|line| line.starts_with("get in"));
    assert_snapshot!(way.unwrap_or_default(), @"get in    incus start linux-h1-zz1da --project ci && incus exec linux-h1-zz1da --project ci -- su - agent");
}

#[test]
fn one_that_is_kept_for_a_while_says_until_when_and_the_way_in() {
    let fake = Fake::start(answers());
    let effect = iapctl(&fake, &format!("agents keep {BUSY} --for 2h -m flaky"));
    assert_snapshot!(clocks(&effect), @r#"
    linux-h1-k3v9x: kept until [clock] by ana "flaky", once its job has ended
    --- stderr
    note: get in: incus exec linux-h1-k3v9x --project default -- su - agent
    note: let it go: iapctl agents release linux-h1-k3v9x
    "#);
    assert_snapshot!(fake.calls(), @r#"KeepAgentRequest { name: "linux-h1-k3v9x", until: Some(Timestamp { seconds: 120, nanos: 0 }), reason: "flaky" }"#);
}

#[test]
fn one_that_is_on_its_way_is_refused_in_the_daemons_words() {
    let mut answers = answers();
    let refusal = Status::failed_precondition("agent a cannot be kept: it is creating");
    answers.errors.insert("KeepAgent", refusal);
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, "agents keep a"), @"
    --- stderr
    error: agent a cannot be kept: it is creating
    --- exit 5
    ");
}

#[test]
fn one_that_is_released_is_gone_or_goes_with_its_job() {
    let fake = Fake::start(Answers {
        agents: vec![kept(), busy(BUSY)],
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, &format!("agents release {KEPT}")), @"linux-h1-zz1da: released: its instance is gone");
    assert_snapshot!(iapctl(&fake, &format!("agents release {BUSY}")), @"linux-h1-k3v9x: is not kept: it goes when its job ends");
}

#[test]
fn a_drain_waits_for_nobody_who_is_kept_and_counts_them() {
    let other = draining(busy(BUSY));
    let fake = Fake::start(Answers {
        agent_changes: vec![say([vec![kept(), other], vec![kept()]])],
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "drain -m kernel"), @"
    drained: 1/1, 0 jobs killed, 1 kept.   undo: iapctl resume
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    [time]  linux-h1-k3v9x  gone  instance and registration removed
    ");
}

#[test]
fn a_dry_run_says_that_kept_ones_stay() {
    let fake = Fake::start(with(kept()));
    assert_snapshot!(iapctl(&fake, "drain --dry-run"), @"
    AGENT           STATE  WOULD                           JOB           FOR
    linux-h1-zz1da  kept   stay: it is kept for debugging  nightly Test  -
    --- stderr
    note: a dry run: nothing was done
    ");
}
