//! `agents drain`.

use iap_common::v1::{AgentState, EndedAgent};
use insta::assert_snapshot;

use super::data::{agent, answers, busy, draining, say};
use super::fake::{Answers, Beat, Fake, Scripts, not_found, stopping};
use super::run::{iapctl, interrupted};

const BUSY: &str = "linux-h1-k3v9x";
const IDLE: &str = "linux-h1-p07qa";

fn with_changes(agent_changes: Scripts<Vec<iap_common::v1::Agent>>) -> Fake {
    Fake::start(Answers {
        agent_changes,
        ..answers()
    })
}

/// Both agents leave: the idle one at once, the busy one through all states.
fn all_leave() -> Vec<Vec<iap_common::v1::Agent>> {
    let idle = draining(agent(IDLE, AgentState::Idle));
    let gone = draining(agent(BUSY, AgentState::Deregistering));
    vec![
        vec![draining(busy(BUSY)), idle],
        vec![
            draining(busy(BUSY)),
            draining(agent(IDLE, AgentState::Stopping)),
        ],
        vec![draining(busy(BUSY))],
        vec![draining(agent(BUSY, AgentState::Finishing))],
        vec![gone],
        vec![],
    ]
}

#[test]
fn drained_is_said_when_the_last_agent_is_gone() {
    let fake = with_changes(vec![say(all_leave())]);
    let effect = iapctl(
        &fake,
        &format!("agents drain {BUSY} {IDLE} --reason upgrade"),
    );
    assert_snapshot!(effect, @"
    drained: 2/2, 0 jobs killed
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    [time]  linux-h1-p07qa  idle  waiting for Azure to say that it has no job
    [time]  linux-h1-p07qa  stopping  its instance is being removed
    [time]  linux-h1-p07qa  gone  instance and registration removed
    [time]  linux-h1-k3v9x  finishing  its instance is being removed
    [time]  linux-h1-k3v9x  deregistering  its registration is being removed
    [time]  linux-h1-k3v9x  gone  instance and registration removed
    ");
    assert_snapshot!(fake.calls(), @r#"DrainAgentsRequest { names: ["linux-h1-k3v9x", "linux-h1-p07qa"], reason: "upgrade", force: false, deadline: None, pool: "", all: false }"#);
}

/// Returns the record of an agent that was removed while it had a job.
fn ended(name: &str, reason: &str, result: &str) -> EndedAgent {
    EndedAgent {
        name: name.to_owned(),
        pool: "linux".to_owned(),
        reason: reason.to_owned(),
        job: busy(name).job,
        job_result: result.to_owned(),
        ..EndedAgent::default()
    }
}

#[test]
fn jobs_that_were_killed_are_counted_and_those_that_ended_are_not() {
    let names = ["a", "b", "c", "d", "e"];
    let crowd = names.map(|name| draining(busy(name)));
    let fake = Fake::start(Answers {
        agents: crowd.to_vec(),
        agent_changes: vec![say([crowd.into(), vec![]])],
        ended: vec![
            ended("a", "forced", ""),
            ended("b", "deadline", "abandoned"),
            ended("c", "deadline", "succeeded"),
            ended("d", "job-failed", "failed"),
            EndedAgent {
                job: None,
                ..ended("e", "forced", "")
            },
            ended("another", "forced", ""),
        ],
        ..answers()
    });
    let arguments = "agents drain a b c d e --deadline 1s --progress none";
    assert_snapshot!(iapctl(&fake, arguments), @"drained: 5/5, 2 jobs killed");
}

#[test]
fn without_history_it_is_not_said_that_no_job_was_killed() {
    let mut answers = answers();
    answers.agent_changes = vec![say([vec![draining(busy(BUSY))], vec![]])];
    let off = tonic::Status::failed_precondition("history is off");
    answers.errors.insert("ListEndedAgents", off);
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, &format!("agents drain {BUSY} --progress none")), @"drained: 1/1, how many jobs were killed is not known");
}

#[test]
fn a_drain_in_json_keeps_progress_and_answer_apart() {
    let fake = with_changes(vec![say(all_leave().into_iter().skip(4))]);
    let effect = iapctl(
        &fake,
        &format!("agents drain {BUSY} --progress json -o json"),
    );
    assert_snapshot!(effect, @r#"
    {
      "api_version": "iap.v1",
      "state": "drained",
      "agents": [
        "linux-h1-k3v9x"
      ],
      "kept": 0,
      "jobs_killed": 0
    }
    --- stderr
    {"ts":"[time]","agent":"linux-h1-k3v9x","state":"deregistering","detail":"its registration is being removed","gone":0,"total":1}
    {"ts":"[time]","agent":"linux-h1-k3v9x","state":"gone","detail":"instance and registration removed","gone":1,"total":1}
    "#);
}

#[test]
fn a_wait_that_times_out_exits_3_and_the_drain_goes_on() {
    let fake = with_changes(vec![vec![
        Beat::Say(vec![draining(busy(BUSY))]),
        Beat::Hang,
    ]]);
    assert_snapshot!(iapctl(&fake, &format!("agents drain {BUSY} --timeout 1s")), @"
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    error: 1 of 1 agents are still there after 1s; the drain goes on
    hint: wait again: iapctl agents drain --watch linux-h1-k3v9x
    --- exit 3
    ");
}

#[test]
fn ctrl_c_detaches_and_says_how_to_come_back() {
    let fake = with_changes(vec![vec![
        Beat::Say(vec![draining(busy(BUSY))]),
        Beat::Hang,
    ]]);
    let effect = interrupted(
        &fake,
        &format!("agents drain {BUSY} {IDLE}"),
        "waiting: webshop",
    );
    assert_snapshot!(effect, @"
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    [time]  linux-h1-p07qa  gone  is not there: gone already
    detached: the drain goes on
    still running: iapctl agents drain --watch linux-h1-k3v9x
    --- exit 130
    ");
}

#[test]
fn a_wait_is_never_silent_for_long() {
    let mut script = vec![Beat::Say(vec![draining(busy(BUSY))]), Beat::Pause(11_500)];
    script.push(Beat::Say(vec![]));
    let fake = with_changes(vec![script]);
    assert_snapshot!(iapctl(&fake, &format!("agents drain {BUSY}")), @"
    drained: 1/1, 0 jobs killed
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    [time]  waiting: 0 of 1 gone, 1 busy; longest: webshop-ci #20261123.7 Build (11m)
    [time]  linux-h1-k3v9x  gone  instance and registration removed
    ");
}

#[test]
fn the_wait_goes_on_when_the_daemon_restarts() {
    let gone = Beat::Fail(stopping());
    let first = vec![Beat::Say(vec![draining(busy(BUSY))]), gone];
    let fake = with_changes(vec![first, say([vec![]])]);
    assert_snapshot!(iapctl(&fake, &format!("agents drain {BUSY}")), @"
    drained: 1/1, 0 jobs killed
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    note: the daemon went away, trying again
    note: the daemon is back
    [time]  linux-h1-k3v9x  gone  instance and registration removed
    ");
}

#[test]
fn a_daemon_that_stops_in_good_order_is_waited_for_too() {
    let fake = with_changes(vec![
        vec![
            Beat::Say(vec![draining(busy(BUSY))]),
            Beat::Fail(stopping()),
        ],
        say([vec![]]),
    ]);
    assert_snapshot!(iapctl(&fake, &format!("agents drain {BUSY}")), @"
    drained: 1/1, 0 jobs killed
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    note: the daemon went away, trying again
    note: the daemon is back
    [time]  linux-h1-k3v9x  gone  instance and registration removed
    ");
}

#[test]
fn a_wait_can_be_taken_up_again_for_all_that_drain() {
    let mut answers = answers();
    answers.agents[0].draining = true;
    answers.agent_changes = vec![say([vec![draining(busy(BUSY))], vec![]])];
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, "agents drain --watch"), @"
    drained: 1/1, 0 jobs killed
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    [time]  linux-h1-k3v9x  gone  instance and registration removed
    ");
    assert_eq!(fake.calls(), "");
}

#[test]
fn nothing_to_wait_for_is_said() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents drain --watch"), @"
    drained: 0/0, 0 jobs killed
    --- stderr
    note: no agent is draining
    ");
}

#[test]
fn a_detached_drain_returns_at_once() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, &format!("agents drain {BUSY} --detach -o name")), @"
    linux-h1-k3v9x
    --- stderr
    note: wait for them: iapctl agents drain --watch linux-h1-k3v9x
    ");
}

#[test]
fn a_dry_run_says_what_would_happen() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, &format!("agents drain {BUSY} {IDLE} --dry-run")), @"
    AGENT           STATE  WOULD                    JOB                                 FOR
    linux-h1-k3v9x  busy   finish its job, then go  webshop-ci #20261123.7 Build (11m)  Ana Lima
    linux-h1-p07qa  idle   go at once               -                                   -
    --- stderr
    note: a dry run: nothing was done
    ");
    assert_eq!(fake.calls(), "");
}

#[test]
fn force_on_busy_agents_wants_a_confirmation() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, &format!("agents drain {BUSY} {IDLE} --force")), @"
    --- stderr
    linux-h1-k3v9x  loses its job: webshop-ci #20261123.7 Build (11m) for Ana Lima
    error: jobs would fail, and nobody can be asked here
    hint: pass --yes
    --- exit 2
    ");
    assert_eq!(fake.calls(), "");
}

#[test]
fn an_unknown_agent_fails_the_whole_drain() {
    let mut answers = answers();
    let hint = "did you mean linux-h1-k3v9x?";
    answers
        .errors
        .insert("DrainAgents", not_found("no agent linux-h1-k3v9", hint));
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, "agents drain linux-h1-k3v9"), @"
    --- stderr
    error: no agent linux-h1-k3v9
    hint: did you mean linux-h1-k3v9x?
    --- exit 4
    ");
}

#[test]
fn a_drain_of_nothing_is_a_usage_error() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents drain"), @"
    --- stderr
    error: the following required arguments were not provided:
      <AGENT>...

    Usage: iapctl agents drain --socket <PATH> <AGENT>...

    For more information, try '--help'.
    --- exit 2
    ");
}
