//! `provision`.

use iap_common::v1::JobState;
use iap_common::v1::watch_provision_job_response::Event;
use insta::assert_snapshot;

use super::data::{answers, job_failed, job_running, job_succeeded, output, say};
use super::fake::{Answers, Beat, Fake, Scripts, stopping};
use super::run::{iapctl, interrupted};

fn with_events(job_events: Scripts<Event>) -> Fake {
    let fake = Fake::start(Answers {
        job_events,
        ..answers()
    });
    std::fs::write(
        fake.directory().join("tools.sh"),
        "apt-get install -y nodejs\n",
    )
    .unwrap();
    std::fs::write(fake.directory().join("agent.tar.gz"), vec![0; 600_000]).unwrap();
    fake
}

#[test]
fn a_job_is_started_and_its_name_is_the_answer() {
    let fake = with_events(vec![]);
    let arguments = "provision --base images:ubuntu/24.04 --target linux --script tools.sh \
                     --scripts tools.sh --vm --project ci --profile default --no-docker \
                     --keep-on-failure --agent-version 4.275.0 --sha256 ABCDEF";
    assert_snapshot!(iapctl(&fake, arguments), @"
    91c2e0
    --- stderr
    note: watch it: iapctl provision watch 91c2e0
    ");
    assert_snapshot!(fake.calls(), @r#"
    CreateProvisionJobRequest {
        base: "images:ubuntu/24.04",
        target: "linux",
        scripts: [
            ProvisionScript {
                name: "tools.sh of 26 bytes",
                content: [],
            },
            ProvisionScript {
                name: "tools.sh of 26 bytes",
                content: [],
            },
        ],
        vm: true,
        project: "ci",
        no_docker: true,
        keep_on_failure: true,
        agent_package: Some(
            AgentPackage {
                sha256: "abcdef",
                pool: "",
                source: Some(
                    Version(
                        "4.275.0",
                    ),
                ),
            },
        ),
        profiles: [
            "default",
        ],
    }
    "#);
}

#[test]
fn an_agent_package_is_handed_over_first() {
    let fake = with_events(vec![]);
    let arguments = "provision --base b --target linux --agent-package agent.tar.gz -o name";
    assert_snapshot!(iapctl(&fake, arguments), @"
    91c2e0
    --- stderr
    upload agent.tar.gz  0.3/0.6 MB
    upload agent.tar.gz  0.5/0.6 MB
    upload agent.tar.gz  0.6/0.6 MB
    note: watch it: iapctl provision watch 91c2e0
    ");
    assert_snapshot!(fake.calls(), @r#"
    UploadAgentPackage 600000 bytes
    CreateProvisionJobRequest {
        base: "b",
        target: "linux",
        scripts: [],
        vm: false,
        project: "",
        no_docker: false,
        keep_on_failure: false,
        agent_package: Some(
            AgentPackage {
                sha256: "",
                pool: "",
                source: Some(
                    UploadedSha256(
                        "5ca1ab1e",
                    ),
                ),
            },
        ),
        profiles: [],
    }
    "#);
}

#[test]
fn a_script_that_is_not_there_stops_it_before_anything_is_done() {
    let fake = with_events(vec![]);
    let arguments = "provision --base b --target linux --script no-such.sh";
    assert_snapshot!(iapctl(&fake, arguments), @"
    --- stderr
    error: cannot read no-such.sh: No such file or directory (os error 2)
    --- exit 1
    ");
    assert_eq!(fake.calls(), "");
}

#[test]
fn base_and_target_are_needed() {
    let fake = with_events(vec![]);
    assert_snapshot!(iapctl(&fake, "provision --base b"), @"
    --- stderr
    error: the following required arguments were not provided:
      --target <ALIAS>

    Usage: iapctl provision --base <IMAGE> --target <ALIAS> [OPTIONS]
           iapctl provision <COMMAND>

    For more information, try '--help'.
    --- exit 2
    ");
}

#[test]
fn a_watched_job_shows_each_step_with_its_lines() {
    let events = [
        Event::Job(job_running()),
        output("Setting up nodejs (22.12.0-1) ..."),
        output("done"),
        Event::Job(job_succeeded()),
    ];
    let fake = with_events(vec![say(events)]);
    let arguments = "provision --base b --target linux --script tools.sh --watch";
    assert_snapshot!(iapctl(&fake, arguments), @"
    provisioned linux: image 41ba0c5eed11, agent 4.275.0 (1m42s)
    --- stderr
    #1 [1/4] resolve base
    #1 DONE 12.0s
    #2 [2/4] agent 4.275.0 linux-x64
    #2 DONE 30.0s  sha256 ok
    #3 [3/4] script tools.sh
    #3 12.1 Setting up nodejs (22.12.0-1) ...
    #3 12.1 done
    #3 DONE 40.0s
    #4 [4/4] publish
    #4 DONE 20.0s
    ");
}

#[test]
fn a_failed_job_says_where_why_and_where_the_log_is() {
    let events = [Event::Job(job_running()), output("npm error code E404")];
    let fake = with_events(vec![say(events
        .into_iter()
        .chain([Event::Job(job_failed())]))]);
    assert_snapshot!(iapctl(&fake, "provision watch 91c2e0"), @"
    --- stderr
    #1 [1/4] resolve base
    #1 DONE 12.0s
    #2 [2/4] agent 4.275.0 linux-x64
    #2 DONE 30.0s  sha256 ok
    #3 [3/4] script tools.sh
    #3 12.1 npm error code E404
    #3 ERROR 1m00s
    error: provision job 91c2e0 failed after 1m42s in step 3/4 (script tools.sh): script tools.sh exited with 3
    hint: the full log: /var/lib/iapd/provision/91c2e0.log, or: iapctl provision logs 91c2e0
    hint: look into the builder: incus exec iapd-build-91c2e0 --project default -- bash
    hint: then remove it: incus delete --force iapd-build-91c2e0 --project default
    --- exit 1
    ");
}

#[test]
fn a_job_that_failed_before_shows_its_last_lines() {
    let fake = with_events(vec![say([Event::Job(job_failed())])]);
    assert_snapshot!(iapctl(&fake, "provision watch 91c2e0 --progress none"), @"
    --- stderr
    + npm ci
    npm error code E404
    error: provision job 91c2e0 failed after 1m42s in step 3/4 (script tools.sh): script tools.sh exited with 3
    hint: the full log: /var/lib/iapd/provision/91c2e0.log, or: iapctl provision logs 91c2e0
    hint: look into the builder: incus exec iapd-build-91c2e0 --project default -- bash
    hint: then remove it: incus delete --force iapd-build-91c2e0 --project default
    --- exit 1
    ");
}

#[test]
fn a_watched_job_in_json_is_an_object_for_each_event() {
    let mut before = job_running();
    before.steps.truncate(1);
    let events = [
        Event::Job(before),
        Event::Job(job_running()),
        output("npm ci"),
    ];
    let fake = with_events(vec![say(events
        .into_iter()
        .chain([Event::Job(job_succeeded())]))]);
    assert_snapshot!(iapctl(&fake, "provision watch 91c2e0 --progress json"), @r#"
    provisioned linux: image 41ba0c5eed11, agent 4.275.0 (1m42s)
    --- stderr
    {"op":"91c2e0","step":null,"total":1,"name":null,"state":"running","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":1,"total":1,"name":"resolve base","state":"done","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":1,"total":4,"name":"resolve base","state":"done","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":2,"total":4,"name":"agent 4.275.0 linux-x64","state":"done","bytes":142100000,"total_bytes":142100000,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":3,"total":4,"name":"script tools.sh","state":"running","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":4,"total":4,"name":"publish","state":"pending","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":3,"total":4,"name":"script tools.sh","state":"running","bytes":0,"total_bytes":0,"line":"npm ci","ts":"[time]"}
    {"op":"91c2e0","step":null,"total":4,"name":null,"state":"succeeded","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":1,"total":4,"name":"resolve base","state":"done","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":2,"total":4,"name":"agent 4.275.0 linux-x64","state":"done","bytes":142100000,"total_bytes":142100000,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":3,"total":4,"name":"script tools.sh","state":"done","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":4,"total":4,"name":"publish","state":"done","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    "#);
}

#[test]
fn a_queued_job_in_json_is_told_at_once_and_every_ten_seconds() {
    let mut queued = job_running();
    queued.state = JobState::Queued.into();
    queued.steps.clear();
    let script = vec![
        Beat::Say(Event::Job(queued)),
        Beat::Pause(11_500),
        Beat::Say(Event::Job(job_succeeded())),
    ];
    let fake = with_events(vec![script]);
    let effect = iapctl(&fake, "provision watch 91c2e0 --progress json");
    let states: Vec<&str> = effect
        .lines()
        .filter(|line| line.contains("\"step\":null"))
        .collect();
    assert_snapshot!(states.join("\n"), @r#"
    {"op":"91c2e0","step":null,"total":0,"name":null,"state":"queued","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":null,"total":0,"name":null,"state":"queued","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    {"op":"91c2e0","step":null,"total":4,"name":null,"state":"succeeded","bytes":0,"total_bytes":0,"line":null,"ts":"[time]"}
    "#);
}

#[test]
fn global_options_may_stand_before_a_verb_and_those_of_a_new_job_may_not() {
    let events = [Event::Job(job_succeeded())];
    let fake = with_events(vec![say(events)]);
    assert_snapshot!(iapctl(&fake, "provision --progress none watch 91c2e0"), @"provisioned linux: image 41ba0c5eed11, agent 4.275.0 (1m42s)");
    assert_snapshot!(iapctl(&fake, "provision --base b watch 91c2e0"), @"
    --- stderr
    error: '--base <IMAGE>' cannot be used with 'watch', or belongs behind it
    --- exit 2
    ");
    assert_snapshot!(iapctl(&fake, "provision -o json watch 91c2e0"), @"
    --- stderr
    error: '--output <FORMAT>' cannot be used with 'watch', or belongs behind it
    --- exit 2
    ");
}

#[test]
fn ctrl_c_detaches_from_the_job() {
    let fake = with_events(vec![vec![Beat::Say(Event::Job(job_running())), Beat::Hang]]);
    let effect = interrupted(&fake, "provision watch 91c2e0", "script tools.sh");
    assert_snapshot!(effect, @"
    --- stderr
    #1 [1/4] resolve base
    #1 DONE 12.0s
    #2 [2/4] agent 4.275.0 linux-x64
    #2 DONE 30.0s  sha256 ok
    #3 [3/4] script tools.sh
    detached: the job goes on
    still running: iapctl provision watch 91c2e0
    --- exit 130
    ");
}

#[test]
fn the_watch_goes_on_when_the_daemon_restarts() {
    let gone = Beat::Fail(stopping());
    let first = vec![Beat::Say(Event::Job(job_running())), gone];
    let fake = with_events(vec![first, say([Event::Job(job_succeeded())])]);
    assert_snapshot!(iapctl(&fake, "provision watch 91c2e0"), @"
    provisioned linux: image 41ba0c5eed11, agent 4.275.0 (1m42s)
    --- stderr
    #1 [1/4] resolve base
    #1 DONE 12.0s
    #2 [2/4] agent 4.275.0 linux-x64
    #2 DONE 30.0s  sha256 ok
    #3 [3/4] script tools.sh
    note: the daemon went away, trying again
    note: the daemon is back
    #3 DONE 40.0s
    #4 [4/4] publish
    #4 DONE 20.0s
    ");
}

#[test]
fn jobs_are_listed() {
    let jobs = vec![job_running(), job_succeeded(), job_failed()];
    let fake = Fake::start(Answers { jobs, ..answers() });
    assert_snapshot!(iapctl(&fake, "provision ls"), @"
    JOB     TARGET  STATE      STEP                 AGE   TOOK  BASE                 IMAGE
    91c2e0  linux   running    3/4 script tools.sh   1m  1m42s  images:ubuntu/24.04  -
    91c2e0  linux   succeeded  -                     1m  1m42s  images:ubuntu/24.04  41ba0c5eed11
    91c2e0  linux   failed     3/4 script tools.sh   1m  1m42s  images:ubuntu/24.04  -
    ");
}

#[test]
fn a_job_is_shown_with_its_steps() {
    let fake = Fake::start(Answers {
        jobs: vec![job_failed()],
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "provision show 91c2e0"), @"
    job           91c2e0
    state         failed
    base          images:ubuntu/24.04
    target        linux in project default, container
    created       1m ago
    took          1m42s
    steps         done        12.0s  resolve base
                  done        30.0s  agent 4.275.0 linux-x64  sha256 ok
                  failed      1m00s  script tools.sh
                  pending            publish
    error         script tools.sh exited with 3
    last lines    + npm ci
                  npm error code E404
    log           /var/lib/iapd/provision/91c2e0.log
    kept builder  iapd-build-91c2e0
    ");
}

#[test]
fn an_unknown_job_is_not_found() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "provision show 000000"), @"
    --- stderr
    error: no provision job 000000
    hint: list them: iapctl provision ls
    --- exit 4
    ");
}

#[test]
fn the_log_of_a_job_is_printed_whole() {
    let job_log = vec![say(["one\n", "two\n"])];
    let fake = Fake::start(Answers {
        job_log,
        ..answers()
    });
    assert_snapshot!(iapctl(&fake, "provision logs 91c2e0"), @"
    one
    two
    ");
}

#[test]
fn a_job_is_cancelled() {
    let fake = Fake::start(answers());
    assert_snapshot!(iapctl(&fake, "provision cancel 91c2e0"), @"91c2e0: being cancelled");
    assert_snapshot!(fake.calls(), @r#"CancelProvisionJobRequest { id: "91c2e0" }"#);
}
