//! `-w` of the lists, in a pipe.

use iap_common::v1::AgentState;
use insta::assert_snapshot;

use super::data::{agent, answers, busy, job_running, pools};
use super::fake::{Answers, Beat, Fake, stopping};
use super::run::Watching;

/// Watches until there are so many lines.
fn watched(fake: &Fake, arguments: &str, lines: usize) -> String {
    Watching::start(fake, arguments)
        .lines(lines)
        .interrupt(fake)
}

fn agents_come_and_go() -> Fake {
    let idle = agent("linux-h1-p07qa", AgentState::Idle);
    let busy = busy("linux-h1-k3v9x");
    let script = vec![
        Beat::Say(vec![idle.clone()]),
        Beat::Say(vec![idle, busy.clone()]),
        Beat::Say(vec![busy]),
        Beat::Hang,
    ];
    Fake::start(Answers {
        agent_changes: vec![script],
        ..answers()
    })
}

#[test]
fn a_watched_list_prints_what_changed() {
    assert_snapshot!(watched(&agents_come_and_go(), "agents ls -w", 4), @"
    AGENT           POOL   STATE  AGE  JOB  RUN  IMAGE
    linux-h1-p07qa  linux  idle    2m  -      -  9fd8d5c0ffee
    linux-h1-k3v9x  linux  busy   14m  webshop-ci #20261123.7 Build  11m  9fd8d5c0ffee (outdated)
    linux-h1-p07qa  linux  gone    2m  -                               -  9fd8d5c0ffee
    --- exit 130
    ");
}

#[test]
fn a_watched_list_in_json_is_an_object_a_line() {
    let effect = watched(&agents_come_and_go(), "agents ls -w -o json", 3);
    assert_snapshot!(effect, @r#"
    {"api_version":"iap.v1","event":"added","agent":{"name":"linux-h1-p07qa","pool":"linux","state":"idle","detail":null,"draining":false,"created_at":"[time]","azure_agent_id":41,"job":null,"image_fingerprint":"9fd8d5c0ffee00112233","outdated":false,"instance_status":"Running","azure_status":"online","azure_enabled":true,"project":"default","location":null,"drain_deadline":null,"keep":null}}
    {"api_version":"iap.v1","event":"added","agent":{"name":"linux-h1-k3v9x","pool":"linux","state":"busy","detail":null,"draining":false,"created_at":"[time]","azure_agent_id":41,"job":{"request_id":7001,"name":"Build","pipeline":"webshop-ci","run":"20261123.7","requested_for":"Ana Lima","queued_at":"[time]","assigned_at":"[time]","received_at":"[time]"},"image_fingerprint":"9fd8d5c0ffee00112233","outdated":true,"instance_status":"Running","azure_status":"online","azure_enabled":true,"project":"default","location":null,"drain_deadline":null,"keep":null}}
    {"api_version":"iap.v1","event":"removed","agent":{"name":"linux-h1-p07qa","pool":"linux","state":"idle","detail":null,"draining":false,"created_at":"[time]","azure_agent_id":41,"job":null,"image_fingerprint":"9fd8d5c0ffee00112233","outdated":false,"instance_status":"Running","azure_status":"online","azure_enabled":true,"project":"default","location":null,"drain_deadline":null,"keep":null}}
    --- exit 130
    "#);
}

#[test]
fn a_watch_of_pools_goes_on_when_the_daemon_restarts() {
    let mut changed = pools();
    changed[0].counts.as_mut().unwrap().busy = 7;
    let gone = Beat::Fail(stopping());
    let pool_changes = vec![
        vec![Beat::Say(pools()), gone],
        vec![Beat::Say(changed), Beat::Hang],
    ];
    let fake = Fake::start(Answers {
        pool_changes,
        ..answers()
    });
    assert_snapshot!(watched(&fake, "pools ls -w", 4), @"
    POOL      STATE     BUSY  IDLE  START  WANT  QUEUED  WAIT-P95  IMAGE               OUTDATED  LAST-ERROR
    linux     ok           6     2      0     8       3     6m10s  linux@9fd8d5c0ffee       1/8  -
    linux-vm  degraded     1     0      2     4       -         -  linux-vm (missing)         0  12s ago  storage pool full: no space left on device (breaker: retry in 47s) (+1 more)
    linux     ok           7     2      0     8       3     6m10s  linux@9fd8d5c0ffee       1/9  -
    --- stderr
    note: the daemon went away, trying again
    note: the daemon is back
    --- exit 130
    ");
}

#[test]
fn a_list_of_jobs_can_be_watched_too() {
    let fake = Fake::start(Answers {
        jobs: vec![job_running()],
        ..answers()
    });
    assert_snapshot!(watched(&fake, "provision ls -w --no-headers", 1), @"
    91c2e0  linux  running  3/4 script tools.sh  1m  1m42s  images:ubuntu/24.04  -
    --- exit 130
    ");
}

#[test]
fn a_watch_goes_on_when_the_daemon_crashes() {
    let script = |name| vec![Beat::Say(vec![agent(name, AgentState::Idle)]), Beat::Hang];
    let agent_changes = vec![script("before"), script("after")];
    let mut fake = Fake::start(Answers {
        agent_changes,
        ..answers()
    });
    let watching = Watching::start(&fake, "agents ls -w -o name").lines(1);
    fake.crash();
    assert_snapshot!(watching.lines(1).interrupt(&fake), @"
    before
    after
    --- stderr
    note: the daemon went away, trying again
    note: the daemon is back
    --- exit 130
    ");
}
