//! Tests of the configuration as a whole; those of single steps stand beside them.

use std::time::Duration;

use crate::pool::spec::{CredentialSpec, IncusSpec, InstanceKind, PoolSpec, Secret};

use super::*;

mod bad;
mod files;
mod output;

pub(super) fn env() -> Environment {
    Environment {
        config_file: "config.yaml".into(),
        config_dir: "/etc/iapd".into(),
        host_name: "build1.example.com".into(),
        credentials_dir: None,
        state_dir: "/var/lib/iapd".into(),
        incus_socket: "/var/lib/incus/unix.socket".into(),
        identity_endpoint: "http://169.254.169.254".into(),
    }
}

#[track_caller]
pub(super) fn good(text: &str) -> Loaded {
    match parse(text.as_bytes(), &env()) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{}", lines(&problems)),
    }
}

/// A pool with its required keys; `more` are keys of the pool, `incus` keys of its instances.
pub(super) fn pool_with(more: &str, incus: &str) -> String {
    format!(
        "pools:\n- name: linux\n  agentCount: 2\n  {more}\n  azure: {{url: https://dev.azure.com/org, \
         pat: s3cret}}\n  incus: {{image: runner, {incus}}}\n"
    )
}

fn pool(text: &str) -> PoolSpec {
    good(text).spec.pools.remove(0)
}

/// The example of the Go tool's README, as it stands there.
const README_EXAMPLE: &str = "\
---
metricsPort: 9922
pools:
  - name: myAgentPool
    agentCount: 8
    azure:
      pat: myVerySecretPatHere
      url: https://dev.azure.com/<my-organization>
    incus:
      projectName: azure-pipelines
      image: my-runner-image
      maxCores: 8
      maxRamInGb: 4
      tmpfsSizeInGb: 12
";

#[test]
fn the_go_tools_readme_example_works_as_it_stands() {
    let loaded = good(README_EXAMPLE);
    assert_eq!(loaded.spec.metrics, Some("127.0.0.1:9922".parse().unwrap()));
    let pool = &loaded.spec.pools[0];
    assert_eq!((pool.name.as_str(), pool.agent_count), ("myAgentPool", 8));
    assert_eq!(pool.agent_prefix, "build1.example.com");
    assert_eq!(pool.azure.url, "https://dev.azure.com/<my-organization>");
    assert_eq!(pool.azure.pool, "myAgentPool");
    assert_eq!(
        pool.azure.credential,
        CredentialSpec::Pat(Secret::new("myVerySecretPatHere"))
    );
    let instance = &pool.instance;
    assert_eq!(instance.kind, InstanceKind::Container);
    assert_eq!(instance.project, "azure-pipelines");
    assert_eq!(instance.image, "my-runner-image");
    assert_eq!(
        (instance.max_cores, instance.max_ram_gib),
        (Some(8), Some(4))
    );
    assert_eq!((instance.tmpfs_gib, instance.disk_gib), (Some(12), None));
    let warnings = lines(&loaded.warnings);
    insta::assert_snapshot!(warnings, @"config.yaml:8:12: pools[0].azure.url: still has a placeholder in it");
}

#[test]
fn every_key_of_the_go_tool_keeps_its_meaning() {
    let spec = good(
        "\
metricsPort: 8080
daemon:
  reconcileInterval: 10s
  reaperInterval: 1m0s
  listener: {retryDelay: 2s, maxRetryDelay: 1h30m}
pools:
- name: linux
  agentCount: 64
  agentPrefix: host-a
  offlineGracePeriod: 7m
  env: {LANG: C.UTF-8, LEVEL: 1.10, DEBUG: true, EMPTY: }
  azure: {pat: 123456, url: http://127.0.0.1:8080/tfs/}
  incus:
    image: runner
    projectName: ci
    vm: true
    maxCores: 4
    maxRamInGb: 8
    diskSizeInGb: 50
    storagePool: fast
    startupGracePeriod: 90s
",
    )
    .spec;
    let secs = Duration::from_secs;
    assert_eq!(spec.metrics.unwrap().port(), 8080);
    assert_eq!(
        (spec.listener_retry.first, spec.listener_retry.longest),
        (secs(2), secs(5400))
    );
    let pool = &spec.pools[0];
    assert_eq!(
        (pool.reconcile_interval, pool.reaper_interval),
        (secs(10), secs(60))
    );
    assert_eq!(
        (pool.offline_grace, pool.startup_grace),
        (secs(420), secs(90))
    );
    assert_eq!(
        (pool.agent_count, pool.agent_prefix.as_str()),
        (64, "host-a")
    );
    let env: Vec<_> = pool
        .env
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(env, ["DEBUG=true", "EMPTY=", "LANG=C.UTF-8", "LEVEL=1.10"]);
    assert_eq!(
        pool.azure.credential,
        CredentialSpec::Pat(Secret::new("123456"))
    );
    assert_eq!(pool.azure.url, "http://127.0.0.1:8080/tfs");
    assert_eq!(pool.instance.kind, InstanceKind::VirtualMachine);
    assert_eq!(pool.instance.disk_gib, Some(50));
    assert_eq!(pool.instance.storage_pool.as_deref(), Some("fast"));
}

#[test]
fn what_is_absent_empty_or_zero_has_its_default() {
    let secs = Duration::from_secs;
    for text in [
        pool_with("", ""),
        pool_with(
            "agentPrefix: ''\n  offlineGracePeriod: 0s\n  env:",
            "projectName: '', maxCores: 0, startupGracePeriod: 0, vm: ",
        ),
    ] {
        let pool = pool(&text);
        assert_eq!(pool.agent_prefix, "build1.example.com");
        assert_eq!(
            (pool.offline_grace, pool.startup_grace),
            (secs(300), secs(60))
        );
        assert_eq!(
            (pool.reconcile_interval, pool.reaper_interval),
            (secs(5), secs(30))
        );
        assert_eq!(pool.azure.poll_interval, secs(10));
        assert_eq!(pool.instance.project, "default");
        assert_eq!(pool.instance.profiles, ["default"]);
        assert_eq!(pool.instance.max_cores, None);
        assert!(pool.env.is_empty());
    }
    assert_eq!(pool(&pool_with("", "vm: true")).startup_grace, secs(300));
}

#[test]
fn new_keys_are_understood() {
    let loaded = good(
        "\
incus: {socket: /run/incus/unix.socket}
metricsAddress: '::'
metricsPort: 1
socket: {path: /tmp/iapd.sock, mode: 0600, group: ci, viewGroup: ops}
owner: blue
stateDir: /srv/iapd
shutdown: {waitForJobs: 30m}
pools:
- name: linux
  agentCount: 1
  azure:
    url: https://dev.azure.com/org
    patFile: pat
    pool: Linux builds
    pollInterval: 1m30s
    caFile: ca.pem
  incus: {image: runner, profiles: [default, ci], maxProcesses: 4096}
",
    );
    assert_eq!(lines(&loaded.warnings), "");
    let spec = loaded.spec;
    assert_eq!(
        spec.incus,
        IncusSpec::Socket("/run/incus/unix.socket".into())
    );
    assert_eq!(spec.metrics, Some("[::]:1".parse().unwrap()));
    assert_eq!(
        (spec.socket.mode, spec.socket.group.as_str()),
        (0o600, "ci")
    );
    assert_eq!(spec.socket.view_group, "ops");
    assert_eq!(spec.shutdown_wait, Some(Duration::from_secs(1800)));
    assert_eq!(spec.owner.as_deref(), Some("blue"));
    assert_eq!(spec.state_dir, Path::new("/srv/iapd"));
    let pool = &spec.pools[0];
    assert_eq!(
        pool.azure.credential,
        CredentialSpec::PatFile("/etc/iapd/pat".into())
    );
    assert_eq!(
        pool.azure.ca_file.as_deref(),
        Some(Path::new("/etc/iapd/ca.pem"))
    );
    assert_eq!(pool.azure.pool, "Linux builds");
    assert_eq!(pool.azure.poll_interval, Duration::from_secs(90));
    assert_eq!(pool.instance.profiles, ["default", "ci"]);
    assert_eq!(pool.instance.max_processes, Some(4096));
}

#[test]
fn a_relative_token_file_is_a_systemd_credential_when_there_are_any() {
    let text = pool_with("", "").replace("pat: s3cret", "patFile: azure-pat");
    let env = Environment {
        credentials_dir: Some("/run/credentials/iapd".into()),
        ..env()
    };
    let spec = parse(text.as_bytes(), &env).unwrap().spec;
    let expected = CredentialSpec::PatFile("/run/credentials/iapd/azure-pat".into());
    assert_eq!(spec.pools[0].azure.credential, expected);
}

#[test]
fn a_token_file_is_found_in_the_directory_that_the_packaged_unit_loads() {
    let dir = tempfile::tempdir().unwrap();
    let text = pool_with("", "").replace("pat: s3cret", "patFile: azure-pat");
    let found = |env: &Environment| {
        let spec = parse(text.as_bytes(), env).unwrap().spec;
        spec.pools[0].azure.credential.clone()
    };
    // As the service sees it.
    let service = Environment {
        credentials_dir: Some(dir.path().join("run")),
        ..env()
    };
    let loaded = dir.path().join("run/iapd_azure-pat");
    std::fs::create_dir(dir.path().join("run")).unwrap();
    std::fs::write(&loaded, "s3cret").unwrap();
    assert_eq!(found(&service), CredentialSpec::PatFile(loaded));
    // As a person who checks the configuration sees it.
    let person = Environment {
        config_dir: dir.path().to_owned(),
        ..env()
    };
    let source = dir.path().join("credentials/azure-pat");
    std::fs::create_dir(dir.path().join("credentials")).unwrap();
    std::fs::write(&source, "s3cret").unwrap();
    assert_eq!(found(&person), CredentialSpec::PatFile(source));
    // One of its own name goes first.
    let own = dir.path().join("run/azure-pat");
    std::fs::write(&own, "s3cret").unwrap();
    assert_eq!(found(&service), CredentialSpec::PatFile(own));
}

#[test]
fn port_zero_switches_metrics_off() {
    assert_eq!(good("metricsPort: 0\npools: []\n").spec.metrics, None);
}

#[test]
fn socket_modes_are_octal_however_they_are_written() {
    for mode in ["0660", "'0660'", "660", "0o660", "\"660\""] {
        let spec = good(&format!("pools: []\nsocket: {{mode: {mode}}}\n")).spec;
        assert_eq!(spec.socket.mode, 0o660, "{mode}");
    }
}

#[test]
fn merge_keys_and_extension_keys_work() {
    let spec = good(
        "\
x-azure: &azure {url: https://dev.azure.com/org, pat: s3cret}
x-small: &small
  agentCount: 1
  incus: {image: runner, maxCores: 1}
x-base: &base
  <<: *small
  azure: *azure
x-env:
- &named {env: {A: b}}
pools:
- <<: *base
  name: one
- <<: [*named, *base]
  name: two
  agentCount: 5
",
    )
    .spec;
    let [one, two] = &spec.pools[..] else {
        panic!("two pools")
    };
    assert_eq!((one.agent_count, two.agent_count), (1, 5));
    assert_eq!(
        (one.instance.max_cores, two.instance.max_cores),
        (Some(1), Some(1))
    );
    assert_eq!((one.env.len(), two.env.len()), (0, 1));
    assert_eq!(one.azure.url, two.azure.url);
}
