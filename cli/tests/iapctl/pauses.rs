//! `pools pause`, `resume`, `scale`, `recycle` and `drain`; `drain` and `resume` of the host.

use iap_common::v1::{AgentState, CountOverride, Pool, PoolState};
use insta::assert_snapshot;
use tonic::{Code, Status};

use super::data::{agent, ago, answers, busy, draining, pools, say};
use super::fake::{Answers, Beat, Fake, pause};
use super::run::{iapctl, interrupted, run};

const BUSY: &str = "linux-h1-k3v9x";
const IDLE: &str = "linux-h1-p07qa";

fn paused(host_wide: bool) -> Answers {
    let mut answers = answers();
    for pool in answers.pools.iter_mut().take(1) {
        pause_pool(pool, host_wide);
    }
    answers
}

fn pause_pool(pool: &mut Pool, host_wide: bool) {
    let mut why = pause("cert swap", None);
    why.host_wide = host_wide;
    pool.pause = Some(why);
    pool.state = PoolState::Paused.into();
    pool.wanted = 0;
}

#[test]
fn a_pool_is_paused_for_a_while_with_a_reason() {
    let fake = Fake::start(answers());
    let effect = run(&fake, &["pools", "pause", "linux", "-m", "cert swap"]);
    assert_snapshot!(effect, @r#"
    linux: paused by ana "cert swap"
    --- stderr
    note: undo: iapctl pools resume linux
    "#);
    let effect = iapctl(&fake, "pools pause linux -m swap --for 30m");
    assert!(
        effect.contains("linux: paused by ana \"swap\" until "),
        "{effect}"
    );
    assert_snapshot!(fake.calls(), @r#"
    PausePoolRequest { name: "linux", reason: "cert swap", until: None }
    PausePoolRequest { name: "linux", reason: "swap", until: Some(Timestamp { seconds: 30, nanos: 0 }) }
    "#);
}

#[test]
fn a_pause_wants_a_reason_and_a_time_ahead() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools pause linux"), @"
    --- stderr
    error: the following required arguments were not provided:
      --reason <TEXT>

    Usage: iapctl pools pause --reason <TEXT> --socket <PATH> <POOL>

    For more information, try '--help'.
    --- exit 2
    ");
    assert_snapshot!(iapctl(&fake, "pools pause linux -m swap --until soon"), @"
    --- stderr
    error: invalid value 'soon' for '--until <TIME>': not a time such as 18:00, 2026-11-25T18:00 or 2026-11-25T18:00Z

    For more information, try '--help'.
    --- exit 2
    ");
    assert_snapshot!(iapctl(&fake, "pools pause linux -m swap --for 0s"), @"
    --- stderr
    error: that time is not ahead
    hint: name a later one, or how long with --for
    --- exit 2
    ");
    assert_snapshot!(iapctl(&fake, "pools pause linux -m swap --for 1m --until 18:00"), @"
    --- stderr
    error: the argument '--for <DURATION>' cannot be used with '--until <TIME>'

    Usage: iapctl pools pause --reason <TEXT> --for <DURATION> --socket <PATH> <POOL>

    For more information, try '--help'.
    --- exit 2
    ");
    assert_snapshot!(iapctl(&fake, "pools pause linx -m swap"), @"
    --- stderr
    error: no pool linx
    hint: did you mean linux?
    --- exit 4
    ");
    assert_eq!(fake.calls(), "");
}

#[test]
fn a_daemon_that_must_not_write_refuses_a_pause() {
    let mut answers = answers();
    let refusal = Status::new(Code::FailedPrecondition, "intents.json is of a newer iapd");
    answers.errors.insert("PausePool", refusal);
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, "pools pause linux -m swap"), @"
    --- stderr
    error: intents.json is of a newer iapd
    --- exit 5
    ");
}

#[test]
fn a_paused_pool_shows_by_whom_and_why() {
    let fake = Fake::start(paused(false));
    assert_snapshot!(iapctl(&fake, "pools ls"), @r#"
    POOL      STATE     BUSY  IDLE  START  WANT  QUEUED  WAIT-P95  IMAGE               OUTDATED  LAST-ERROR
    linux     paused       6     2      0     0       3     6m10s  linux@9fd8d5c0ffee       1/8  paused by ana "cert swap"
    linux-vm  degraded     1     0      2     4       -         -  linux-vm (missing)         0  12s ago  storage pool full: no space left on device (breaker: retry in 47s) (+1 more)
    "#);
    assert_snapshot!(iapctl(&fake, "pools show linux"), @r#"
    pool         linux
    state        paused
    why          paused by ana "cert swap"
    agents       0 wanted: 6 busy, 2 idle, 0 starting, 0 leaving, 0 troubled; 1 outdated, 0 kept
    spares       1 of 1, unknown to Azure
    queued       3 jobs wait for an agent
                 paused by ana "cert swap"
                 at capacity: all 8 agents are busy
    waits        95 % of the jobs 6m10s or less; 42 jobs, of the last hour and waiting now
    image        linux@9fd8d5c0ffee, agent 4.275.0, made 3d ago
    instances    container, project default, profiles default
    azure        https://dev.azure.com/acme, pool Linux builders (12)
    incus calls  ok
    azure calls  ok
    last pass    #812 (timer) 3s ago, took 12 ms: 0 started, 0 in flight, 0 failed
    spec         1f2e3d
    "#);
    let until = Fake::start(Answers {
        pools: vec![Pool {
            pause: Some(pause("swap", ago(-90_000))),
            ..pools().remove(0)
        }],
        ..Answers::default()
    });
    let effect = iapctl(&until, "pools show linux");
    assert!(
        effect.contains("paused by ana \"swap\" until 20"),
        "{effect}"
    );
}

#[test]
fn a_pool_is_resumed() {
    let fake = Fake::start(paused(false));
    assert_snapshot!(iapctl(&fake, "pools resume linux"), @"linux: resumed");
    assert_snapshot!(iapctl(&fake, "pools resume linux-vm"), @"linux-vm: was not paused");
    assert_snapshot!(fake.calls(), @r#"
    ResumePoolRequest { name: "linux" }
    ResumePoolRequest { name: "linux-vm" }
    "#);
}

#[test]
fn a_pool_stays_paused_while_its_host_is() {
    let fake = Fake::start(paused(true));
    assert_snapshot!(iapctl(&fake, "pools resume linux"), @r#"
    --- stderr
    error: linux stays paused by ana "cert swap" (whole host)
    hint: end the pause of the whole host: iapctl resume
    --- exit 5
    "#);
}

#[test]
fn another_count_is_kept_and_taken_back() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools scale linux --count 12"), @"linux: 12 agents, 8 are configured");
    assert_snapshot!(iapctl(&fake, "pools scale linux --reset"), @"linux: 8 agents, as configured");
    let effect = iapctl(&fake, "pools scale linux -n 2 --for 2h");
    assert!(effect.contains("linux: 2 agents until "), "{effect}");
    assert_snapshot!(fake.calls(), @r#"
    ScalePoolRequest { name: "linux", until: None, change: Some(Count(12)) }
    ScalePoolRequest { name: "linux", until: None, change: Some(Reset(ResetCount)) }
    ScalePoolRequest { name: "linux", until: Some(Timestamp { seconds: 120, nanos: 0 }), change: Some(Count(2)) }
    "#);
}

#[test]
fn a_count_has_bounds_and_is_not_reset_at_once() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools scale linux --count 1001"), @"
    --- stderr
    error: invalid value '1001' for '--count <N>': 1001 is not in 0..=1000

    For more information, try '--help'.
    --- exit 2
    ");
    assert_snapshot!(iapctl(&fake, "pools scale linux"), @"
    --- stderr
    error: the following required arguments were not provided:
      --count <N>

    Usage: iapctl pools scale --socket <PATH> --count <N> <POOL>

    For more information, try '--help'.
    --- exit 2
    ");
    assert_snapshot!(iapctl(&fake, "pools scale linux --count 3 --reset"), @"
    --- stderr
    error: the argument '--count <N>' cannot be used with '--reset'

    Usage: iapctl pools scale --count <N> --socket <PATH> <POOL>

    For more information, try '--help'.
    --- exit 2
    ");
}

#[test]
fn another_count_is_shown() {
    let mut pool = pools().remove(0);
    pool.wanted = 12;
    pool.count_override = Some(CountOverride {
        count: 12,
        who: pause("", None).who,
        ..CountOverride::default()
    });
    let fake = Fake::start(Answers {
        pools: vec![pool],
        ..Answers::default()
    });
    assert_snapshot!(iapctl(&fake, "pools show linux"), @"
    pool         linux
    state        ok
    agents       12 wanted: 6 busy, 2 idle, 0 starting, 0 leaving, 0 troubled; 1 outdated, 0 kept
    spares       1 of 1, unknown to Azure
    count        12 agents by ana, 8 are configured
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
fn agents_are_recycled() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools recycle linux --dry-run"), @"
    AGENT           STATE    WOULD                            JOB                                 FOR
    linux-h1-k3v9x  busy     be replaced when its job ends    webshop-ci #20261123.7 Build (11m)  Ana Lima
    linux-h1-p07qa  idle     be replaced when its turn comes  -                                   -
    linux-h1-r2d2x  unknown  go on as it is                   -                                   -
    --- stderr
    note: a dry run: nothing was done
    ");
    assert_eq!(fake.calls(), "");
    assert_snapshot!(iapctl(&fake, "pools recycle linux"), @"linux: 3 agents are replaced");
    assert_snapshot!(iapctl(&fake, "pools recycle linux --outdated -o json"), @r#"
    {
      "api_version": "iap.v1",
      "pool": "linux",
      "agents": [
        "linux-h1-k3v9x"
      ]
    }
    "#);
    assert_snapshot!(fake.calls(), @r#"
    RecyclePoolRequest { name: "linux", scope: All }
    RecyclePoolRequest { name: "linux", scope: Outdated }
    "#);
}

#[test]
fn a_pool_is_drained_when_nothing_of_it_is_left_whoever_came_meanwhile() {
    let late = draining(agent("linux-h1-zzzzz", AgentState::Starting));
    let mut answers = answers();
    answers.agent_changes = vec![say([
        vec![
            draining(busy(BUSY)),
            draining(agent(IDLE, AgentState::Idle)),
        ],
        vec![draining(busy(BUSY)), late.clone()],
        vec![late],
        vec![],
    ])];
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, "pools drain linux -m storage"), @"
    drained: 3/3, 0 jobs killed.   undo: iapctl pools resume linux
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    [time]  linux-h1-p07qa  idle  waiting for Azure to say that it has no job
    [time]  linux-h1-p07qa  gone  instance and registration removed
    [time]  linux-h1-zzzzz  starting  waiting for Azure to say that it has no job
    [time]  linux-h1-k3v9x  gone  instance and registration removed
    [time]  linux-h1-zzzzz  gone  instance and registration removed
    ");
    assert_snapshot!(fake.calls(), @r#"PausePoolRequest { name: "linux", reason: "storage", until: None }"#);
}

#[test]
fn a_host_is_drained_and_says_how_to_undo_it() {
    let mut answers = answers();
    answers.agent_changes = vec![say([vec![draining(busy(BUSY))], vec![]])];
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, "drain -m kernel --deadline 2h"), @"
    drained: 1/1, 0 jobs killed.   undo: iapctl resume
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    [time]  linux-h1-k3v9x  gone  instance and registration removed
    ");
    assert_snapshot!(fake.calls(), @r#"
    PauseHostRequest { reason: "kernel", until: None }
    DrainAgentsRequest { names: [], reason: "kernel", force: false, deadline: Some(Duration { seconds: 7200, nanos: 0 }), pool: "", all: true }
    "#);
}

#[test]
fn a_drain_of_a_host_can_be_left_and_taken_up_again() {
    let mut answers = paused(true);
    answers.pools.truncate(1);
    answers.agent_changes = vec![
        vec![Beat::Say(vec![draining(busy(BUSY))]), Beat::Hang],
        say([vec![draining(busy(BUSY))], vec![]]),
    ];
    let fake = Fake::start(answers);
    assert_snapshot!(interrupted(&fake, "drain", "waiting: webshop"), @"
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    detached: the drain goes on
    still running: iapctl drain --watch
    --- exit 130
    ");
    assert_snapshot!(iapctl(&fake, "drain --watch"), @"
    drained: 1/1, 0 jobs killed.   undo: iapctl resume
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    [time]  linux-h1-k3v9x  gone  instance and registration removed
    ");
}

#[test]
fn what_is_not_paused_is_not_waited_for() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "drain --watch"), @"
    --- stderr
    error: this host is not paused, so it does not drain
    hint: that is without --watch
    --- exit 5
    ");
    assert_snapshot!(iapctl(&fake, "pools drain linux --watch"), @"
    --- stderr
    error: linux is not paused, so it does not drain
    hint: that is without --watch
    --- exit 5
    ");
}

#[test]
fn a_drain_of_a_pool_times_out_and_goes_on() {
    let mut answers = answers();
    answers.agent_changes = vec![vec![Beat::Say(vec![draining(busy(BUSY))]), Beat::Hang]];
    let fake = Fake::start(answers);
    assert_snapshot!(iapctl(&fake, "pools drain linux --timeout 1s"), @"
    --- stderr
    [time]  linux-h1-k3v9x  busy  waiting: webshop-ci #20261123.7 Build (11m) for Ana Lima
    error: 1 of 1 agents are still there after 1s; the drain goes on
    hint: wait again: iapctl pools drain linux --watch
    --- exit 3
    ");
}

#[test]
fn a_dry_run_of_a_drain_names_the_blockers() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "drain --dry-run"), @"
    AGENT              STATE     WOULD                               JOB                                 FOR
    linux-h1-k3v9x     busy      finish its job, then go             webshop-ci #20261123.7 Build (11m)  Ana Lima
    linux-h1-p07qa     idle      go at once                          -                                   -
    linux-h1-r2d2x     unknown   go when it is known to have no job  -                                   -
    linux-vm-h1-b7q1z  creating  go at once                          -                                   -
    --- stderr
    note: a dry run: nothing was done
    ");
    assert_snapshot!(iapctl(&fake, "pools drain linux --dry-run --force"), @"
    AGENT           STATE    WOULD                      JOB                                 FOR
    linux-h1-k3v9x  busy     be stopped, its job fails  webshop-ci #20261123.7 Build (11m)  Ana Lima
    linux-h1-p07qa  idle     go at once                 -                                   -
    linux-h1-r2d2x  unknown  go at once                 -                                   -
    --- stderr
    note: a dry run: nothing was done
    ");
    assert_eq!(fake.calls(), "");
}

#[test]
fn a_forced_drain_of_a_pool_wants_a_confirmation() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "pools drain linux --force"), @"
    --- stderr
    linux-h1-k3v9x  loses its job: webshop-ci #20261123.7 Build (11m) for Ana Lima
    error: jobs would fail, and nobody can be asked here
    hint: pass --yes
    --- exit 2
    ");
    assert_eq!(fake.calls(), "");
    assert_snapshot!(iapctl(&fake, "pools drain linux --force --yes --detach -o name"), @"
    linux-h1-k3v9x
    linux-h1-p07qa
    linux-h1-r2d2x
    --- stderr
    linux-h1-k3v9x  loses its job: webshop-ci #20261123.7 Build (11m) for Ana Lima
    note: wait for them: iapctl pools drain linux --watch
    note: undo: iapctl pools resume linux
    ");
    assert_snapshot!(fake.calls(), @r#"
    PausePoolRequest { name: "linux", reason: "drain", until: None }
    DrainAgentsRequest { names: [], reason: "", force: true, deadline: None, pool: "linux", all: false }
    "#);
}

#[test]
fn all_agents_of_a_pool_or_of_the_host_are_drained_and_replaced() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "agents drain --pool linux --deadline 90 --detach -o name"), @"
    linux-h1-k3v9x
    linux-h1-p07qa
    linux-h1-r2d2x
    --- stderr
    note: wait for them: iapctl agents drain --watch linux-h1-k3v9x linux-h1-p07qa linux-h1-r2d2x
    ");
    assert_snapshot!(iapctl(&fake, "agents drain --all --detach -o name"), @"
    linux-h1-k3v9x
    linux-h1-p07qa
    linux-h1-r2d2x
    linux-vm-h1-b7q1z
    --- stderr
    note: wait for them: iapctl agents drain --watch linux-h1-k3v9x linux-h1-p07qa linux-h1-r2d2x linux-vm-h1-b7q1z
    ");
    assert_snapshot!(iapctl(&fake, "agents drain --all --pool linux"), @"
    --- stderr
    error: the argument '--all' cannot be used with '--pool <POOL>'

    Usage: iapctl agents drain --all --socket <PATH> [AGENT]...

    For more information, try '--help'.
    --- exit 2
    ");
    assert_snapshot!(fake.calls(), @r#"
    DrainAgentsRequest { names: [], reason: "", force: false, deadline: Some(Duration { seconds: 90, nanos: 0 }), pool: "linux", all: false }
    DrainAgentsRequest { names: [], reason: "", force: false, deadline: None, pool: "", all: true }
    "#);
}

#[test]
fn a_host_is_resumed_and_pools_that_stay_paused_are_named() {
    let fake = Fake::start(paused(false));
    assert_snapshot!(iapctl(&fake, "resume"), @r#"
    this host: resumed
    --- stderr
    note: linux stays paused by ana "cert swap"
    "#);
    assert_snapshot!(fake.calls(), @"ResumeHostRequest");
}
