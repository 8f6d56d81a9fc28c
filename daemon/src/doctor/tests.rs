//! What the checks' tests judge, and the doctor as a whole without an Incus.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::AgentState;
use crate::pool::breaker::BreakerStatus;
use crate::pool::spec::{
    AzureSpec, CredentialSpec, IncusSpec, InstanceKind, InstanceSpec, PoolSpec, RetrySpec, Secret,
    SocketSpec,
};
use crate::pool::status::{AgentStatus, AzureStatus, ImageStatus, PassReport};

use super::*;

pub(super) fn pool(name: &str) -> PoolSpec {
    PoolSpec {
        name: name.into(),
        agent_count: 2,
        spares: 0,
        agent_prefix: "h".into(),
        offline_grace: Duration::from_secs(300),
        startup_grace: Duration::from_secs(60),
        env: BTreeMap::new(),
        azure: AzureSpec {
            url: "https://dev.azure.com/acme".into(),
            pool: "Linux".into(),
            credential: CredentialSpec::Pat(Secret::new("pat")),
            poll_interval: Duration::from_secs(10),
            ca_file: None,
        },
        instance: InstanceSpec {
            kind: InstanceKind::Container,
            project: "default".into(),
            image: "linux-runner".into(),
            profiles: vec!["default".into()],
            max_cores: None,
            max_ram_gib: None,
            tmpfs_gib: None,
            disk_gib: None,
            storage_pool: None,
            max_processes: None,
            nesting: true,
            target: None,
        },
        member_grace: Duration::from_secs(120),
        reconcile_interval: Duration::from_secs(5),
        reaper_interval: Duration::from_secs(60),
        keep: None,
    }
}

pub(super) fn daemon(pools: Vec<PoolSpec>) -> DaemonSpec {
    DaemonSpec {
        retention: crate::store::Retention::default(),
        shutdown_wait: None,
        pools,
        incus: IncusSpec::Socket("/run/incus.socket".into()),
        metrics: None,
        socket: SocketSpec {
            path: PathBuf::from("/run/iapd/iapd.sock"),
            mode: 0o660,
            group: "iapd".into(),
            view_group: "iapd-view".into(),
        },
        owner: None,
        state_dir: PathBuf::from("/var/lib/iapd"),
        listener_retry: RetrySpec {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(60),
        },
    }
}

pub(super) fn status(name: &str) -> PoolStatus {
    PoolStatus {
        wanted: 0,
        is_paused: false,
        intents_revision: 0,
        wait_reasons: Vec::new(),
        was_seen: true,
        instances_known: true,
        spec: Arc::new(pool(name)),
        spec_hash: String::new(),
        removed: false,
        agents: vec![],
        foreign: vec![],
        looks_cloned: false,
        problems: vec![],
        incus_reachable: true,
        image: ImageStatus::default(),
        no_room: None,
        members: Vec::new(),
        launches: BreakerStatus::default(),
        azure: AzureStatus::default(),
        ghosts: crate::pool::ghosts::Seen::default(),
        adoption: None,
        last_pass: Some(PassReport {
            number: 1,
            trigger: "timer",
            ended_at: jiff::Timestamp::UNIX_EPOCH,
            took: Duration::ZERO,
            started: 0,
            in_flight: 0,
            failed: 0,
        }),
    }
}

pub(super) fn agent(name: &str, state: AgentState) -> AgentStatus {
    AgentStatus {
        leave_by: None,
        name: name.into(),
        state,
        detail: String::new(),
        draining: false,
        created_at: None,
        azure_agent_id: None,
        job: None,
        image: String::new(),
        outdated: false,
        instance_status: "Running".into(),
        online: None,
        enabled: true,
        disabled_by_others: false,
        keep: None,
        location: String::new(),
    }
}

pub(super) fn severities(checks: &[Check]) -> Vec<Severity> {
    checks.iter().map(|check| check.severity).collect()
}

/// Writes a configuration of one pool into `dir` and returns a doctor of it. Its Incus is
/// `incus.socket` in `dir`.
fn doctor(dir: &std::path::Path) -> Doctor {
    let path = dir.join("config.yaml");
    let pat = dir.join("pat");
    std::fs::write(&pat, "secret-pat").unwrap();
    std::fs::set_permissions(&pat, std::fs::Permissions::from_mode(0o644)).unwrap();
    let text = format!(
        "stateDir: {0}\nincus: {{ socket: {0}/incus.socket }}\npools:\n- name: linux\n  \
         agentCount: 1\n  azure: {{ url: 'https://dev.azure.com/acme', patFile: {1} }}\n  \
         incus: {{ image: linux-runner }}\n",
        dir.display(),
        pat.display()
    );
    std::fs::write(&path, text).unwrap();
    let reloader = Reloader::load(&path, crate::config::Environment::detect()).unwrap();
    let socket = dir.join("incus.socket");
    let (_, pools) = watch::channel(Pools::default());
    let (_, events) = watch::channel(BTreeMap::new());
    Doctor {
        reloader: Arc::new(reloader),
        pools,
        incus: Incus::new(socket, Arc::new(|_| {})),
        events,
    }
}

#[tokio::test]
async fn without_incus_the_whole_is_still_told_and_what_needs_it_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let checks = doctor(dir.path()).diagnose().await;
    let of = |id: &str| {
        let found = checks.iter().find(|check| check.id == id);
        found.unwrap_or_else(|| panic!("no check {id}")).severity
    };
    assert_eq!(of("incus-reachable"), Severity::Error);
    for id in [
        "incus-version",
        "image",
        "storage-driver",
        "azure-reachable",
        "agent-starts",
    ] {
        assert_eq!(of(id), Severity::Skipped, "{id}");
    }
    assert_eq!(of("config"), Severity::Ok);
    // The token's file was left open to everybody.
    assert_eq!(of("secret-file"), Severity::Warning);
    assert_eq!(of("state-dir"), Severity::Ok);
    for check in &checks {
        assert!(
            !check.finding.is_empty() && !check.why.is_empty(),
            "{check:?}"
        );
        let is_bad = matches!(check.severity, Severity::Warning | Severity::Error);
        assert!(!is_bad || !check.fix.is_empty(), "no fix: {check:?}");
        assert!(!format!("{check:?}").contains("secret-pat"), "{check:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_incus_that_never_answers_does_not_hold_the_doctor_up() {
    let dir = tempfile::tempdir().unwrap();
    let doctor = doctor(dir.path());
    let _silent = tokio::net::UnixListener::bind(dir.path().join("incus.socket")).unwrap();
    let began = Instant::now();
    let checks = doctor.diagnose().await;
    assert!(began.elapsed() <= TIME, "{:?}", began.elapsed());
    let incus = checks.iter().find(|check| check.id == "incus-reachable");
    let incus = incus.unwrap();
    assert_eq!(incus.severity, Severity::Error);
    assert!(
        incus.finding.contains("no answer within"),
        "{}",
        incus.finding
    );
    assert!(checks.iter().any(|check| check.id == "memory"));
}
