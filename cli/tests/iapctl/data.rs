//! What the fake daemon has: two pools, one of them in trouble, agents in several states, and
//! provision jobs. Times are relative to now, so that ages do not change.

use std::time::{SystemTime, UNIX_EPOCH};

use iap_common::v1::*;
use prost_types::Timestamp;

use super::fake::{Answers, Beat};

/// Returns the time so many seconds ago. Half a second keeps the age from changing meanwhile.
pub(crate) fn ago(seconds: i64) -> Option<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let half_ago = Timestamp {
        seconds: now.as_secs() as i64,
        nanos: now.subsec_nanos() as i32,
    };
    let nanos = half_ago.nanos + 500_000_000;
    let seconds = half_ago.seconds - seconds - 1 + i64::from(nanos / 1_000_000_000);
    Some(Timestamp {
        seconds,
        nanos: nanos % 1_000_000_000,
    })
}

pub(crate) fn answers() -> Answers {
    Answers {
        status: status(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: GetConfigResponse {
            yaml: "pools:\n  - name: linux\n    azure: { pat: \"***\" }\n".to_owned(),
            path: "/etc/iapd/config.yaml".to_owned(),
        },
        pools: pools(),
        agents: agents(),
        jobs: vec![job_running()],
        ..Answers::default()
    }
}

pub(crate) fn pools() -> Vec<Pool> {
    let closed = Breaker {
        state: BreakerState::Closed.into(),
        ..Breaker::default()
    };
    let linux = Pool {
        name: "linux".to_owned(),
        state: PoolState::Ok.into(),
        counts: Some(AgentCounts {
            busy: 6,
            idle: 2,
            outdated: 1,
            spare: 1,
            ..AgentCounts::default()
        }),
        agent_count: 8,
        spares: 1,
        wanted: 8,
        image: Some(PoolImage {
            alias: "linux".to_owned(),
            fingerprint: "9fd8d5c0ffee00112233".to_owned(),
            agent_version: "4.275.0".to_owned(),
            created_at: ago(3 * 86_400),
        }),
        incus_breaker: Some(closed.clone()),
        azure_breaker: Some(closed.clone()),
        azure: Some(AzurePool {
            url: "https://dev.azure.com/acme".to_owned(),
            pool_name: "Linux builders".to_owned(),
            pool_id: 12,
            snapshot_age: Some(prost_types::Duration {
                seconds: 4,
                nanos: 0,
            }),
        }),
        last_pass: Some(PassReport {
            number: 812,
            trigger: "timer".to_owned(),
            ended_at: ago(3),
            took: Some(prost_types::Duration {
                seconds: 0,
                nanos: 12_000_000,
            }),
            ..PassReport::default()
        }),
        project: "default".to_owned(),
        instance_type: "container".to_owned(),
        profiles: vec!["default".to_owned()],
        spec_hash: "1f2e3d".to_owned(),
        queued_jobs: Some(3),
        wait_reasons: vec!["at capacity: all 8 agents are busy".to_owned()],
        job_waits: Some(JobWaits {
            p95: Some(prost_types::Duration {
                seconds: 370,
                nanos: 0,
            }),
            jobs: 42,
        }),
        ..Pool::default()
    };
    let vm = Pool {
        name: "linux-vm".to_owned(),
        state: PoolState::Degraded.into(),
        counts: Some(AgentCounts {
            busy: 1,
            starting: 2,
            ..AgentCounts::default()
        }),
        agent_count: 4,
        wanted: 4,
        problems: vec![
            "storage pool full:\nno space left on device".to_owned(),
            "image is 40 days old".to_owned(),
        ],
        image: Some(PoolImage {
            alias: "linux-vm".to_owned(),
            ..PoolImage::default()
        }),
        incus_breaker: Some(Breaker {
            state: BreakerState::Open.into(),
            last_error: "create instance: no space left on device".to_owned(),
            last_error_at: ago(12),
            next_try_at: ago(-48),
            consecutive_failures: 5,
        }),
        azure_breaker: Some(closed),
        instance_type: "virtual-machine".to_owned(),
        ..Pool::default()
    };
    vec![linux, vm]
}

pub(crate) fn agent(name: &str, state: AgentState) -> Agent {
    Agent {
        name: name.to_owned(),
        pool: "linux".to_owned(),
        state: state.into(),
        created_at: ago(120),
        azure_agent_id: 41,
        image_fingerprint: "9fd8d5c0ffee00112233".to_owned(),
        instance_status: "Running".to_owned(),
        azure_status: "online".to_owned(),
        azure_enabled: true,
        project: "default".to_owned(),
        ..Agent::default()
    }
}

pub(crate) fn busy(name: &str) -> Agent {
    Agent {
        created_at: ago(14 * 60),
        job: Some(Job {
            request_id: 7001,
            name: "Build".to_owned(),
            pipeline: "webshop-ci".to_owned(),
            run: "20261123.7".to_owned(),
            requested_for: "Ana Lima".to_owned(),
            queued_at: ago(12 * 60),
            assigned_at: ago(11 * 60 + 5),
            received_at: ago(11 * 60),
        }),
        outdated: true,
        ..agent(name, AgentState::Busy)
    }
}

pub(crate) fn draining(mut agent: Agent) -> Agent {
    agent.draining = true;
    agent.azure_enabled = false;
    agent
}

pub(crate) fn agents() -> Vec<Agent> {
    let unknown = Agent {
        azure_status: "offline".to_owned(),
        detail: "offline for 40s of 5m".to_owned(),
        ..agent("linux-h1-r2d2x", AgentState::Unknown)
    };
    let new = Agent {
        name: "linux-vm-h1-b7q1z".to_owned(),
        pool: "linux-vm".to_owned(),
        state: AgentState::Creating.into(),
        created_at: ago(8),
        ..Agent::default()
    };
    vec![
        busy("linux-h1-k3v9x"),
        agent("linux-h1-p07qa", AgentState::Idle),
        unknown,
        new,
    ]
}

pub(crate) fn status() -> GetStatusResponse {
    GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: ago(3 * 3600 + 12 * 60),
        owner: "5f2c9a".to_owned(),
        hostname: "h1".to_owned(),
        config_path: "/etc/iapd/config.yaml".to_owned(),
        config_loaded_at: ago(3600),
        config_problems: vec![],
        incus: Some(IncusStatus {
            reachable: true,
            socket: "/var/lib/incus/unix.socket".to_owned(),
            server_version: "6.0.4".to_owned(),
            storage_driver: "btrfs".to_owned(),
            error: String::new(),
            events_connected: true,
        }),
        azure: vec![AzureStatus {
            url: "https://dev.azure.com/acme".to_owned(),
            pools: vec!["linux".to_owned(), "linux-vm".to_owned()],
            credential: CredentialState::Accepted.into(),
            breaker: None,
            snapshot_age: Some(prost_types::Duration {
                seconds: 4,
                nanos: 0,
            }),
            credential_kind: CredentialKind::Pat.into(),
            credential_source: "token in /etc/iapd/azure-pat".to_owned(),
            ..AzureStatus::default()
        }],
        pools: pools().into_iter().take(1).collect(),
        warnings: vec![],
        metrics_address: "127.0.0.1:9464".to_owned(),
        resident_bytes: 15_000_000,
        members: vec![],
    }
}

fn step(id: &str, title: &str, state: StepState) -> ProvisionStep {
    ProvisionStep {
        id: id.to_owned(),
        title: title.to_owned(),
        state: state.into(),
        ..ProvisionStep::default()
    }
}

fn timed(mut step: ProvisionStep, began: i64, ended: Option<i64>) -> ProvisionStep {
    step.started_at = ago(began);
    step.ended_at = ended.and_then(ago);
    step
}

/// Returns a job whose third of four steps runs.
pub(crate) fn job_running() -> ProvisionJob {
    let mut agent = timed(
        step("agent", "agent 4.275.0 linux-x64", StepState::Done),
        90,
        Some(60),
    );
    agent.detail = "sha256 ok".to_owned();
    agent.bytes = 142_100_000;
    agent.total_bytes = 142_100_000;
    ProvisionJob {
        id: "91c2e0".to_owned(),
        state: JobState::Running.into(),
        base: "images:ubuntu/24.04".to_owned(),
        target: "linux".to_owned(),
        project: "default".to_owned(),
        steps: vec![
            timed(
                step("resolve", "resolve base", StepState::Done),
                102,
                Some(90),
            ),
            agent,
            timed(
                step("script", "script tools.sh", StepState::Running),
                60,
                None,
            ),
            step("publish", "publish", StepState::Pending),
        ],
        log_path: "/var/lib/iapd/provision/91c2e0.log".to_owned(),
        created_at: ago(103),
        started_at: ago(102),
        ..ProvisionJob::default()
    }
}

pub(crate) fn job_succeeded() -> ProvisionJob {
    let mut job = job_running();
    job.state = JobState::Succeeded.into();
    job.ended_at = ago(0);
    job.image_fingerprint = "41ba0c5eed1122334455".to_owned();
    job.agent_version = "4.275.0".to_owned();
    job.steps[2] = timed(
        step("script", "script tools.sh", StepState::Done),
        60,
        Some(20),
    );
    job.steps[3] = timed(step("publish", "publish", StepState::Done), 20, Some(0));
    job
}

pub(crate) fn job_failed() -> ProvisionJob {
    let mut job = job_running();
    job.state = JobState::Failed.into();
    job.ended_at = ago(0);
    job.steps[2] = timed(
        step("script", "script tools.sh", StepState::Failed),
        60,
        Some(0),
    );
    job.error = "script tools.sh exited with 3".to_owned();
    job.error_lines = vec!["+ npm ci".to_owned(), "npm error code E404".to_owned()];
    job.kept_builder = "iapd-build-91c2e0".to_owned();
    job
}

/// Returns an output line of the job's third step, 12.1 s after the step began.
pub(crate) fn output(text: &str) -> watch_provision_job_response::Event {
    let mut at = ago(60 - 12).unwrap();
    at.nanos += 100_000_000;
    if at.nanos >= 1_000_000_000 {
        at.nanos -= 1_000_000_000;
        at.seconds += 1;
    }
    let line = LogLine {
        step: 2,
        text: text.to_owned(),
        at: Some(at),
    };
    watch_provision_job_response::Event::Line(line)
}

pub(crate) fn say<M>(messages: impl IntoIterator<Item = M>) -> Vec<Beat<M>> {
    messages.into_iter().map(Beat::Say).collect()
}
