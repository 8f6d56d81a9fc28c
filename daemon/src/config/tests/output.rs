//! What is written about a configuration: its description, its effective form, its changes.

use super::*;

const TWO_POOLS: &str = "\
owner: blue
pools:
- name: linux
  agentCount: 2
  env: {LANG: C.UTF-8, NPM_TOKEN: t0ken}
  keep: {when: job-failed, ttl: 30m}
  azure: {url: https://dev.azure.com/org, pat: s3cret, pool: Linux builds}
  incus: {image: runner, projectName: ci, maxCores: 4, maxRamInGb: 8, tmpfsSizeInGb: 2}
- name: big
  agentCount: 1
  spares: 1
  agentPrefix: b
  offlineGracePeriod: 90s
  azure: {url: https://dev.azure.com/org, patFile: pat}
  incus: {image: vm-runner, vm: true, diskSizeInGb: 50, storagePool: fast, profiles: [a, b]}
";

fn without_origins(effective: &str) -> String {
    let lines = effective.lines().map(|line| line.split("  #").next());
    lines
        .flatten()
        .fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

fn effective(loaded: &Loaded) -> String {
    effective_yaml(&loaded.spec, &loaded.lines)
}

#[test]
fn the_description_shows_what_would_be_made() {
    insta::assert_snapshot!(describe(&good(TWO_POOLS).spec), @r#"
    2 pools, 3 agents
    incus       /var/lib/incus/unix.socket
    socket      /run/iapd/iapd.sock, mode 0660, group iapd
    view        /run/iapd/iapd-view.sock, group iapd-view
    metrics     http://127.0.0.1:9922/metrics
    state       /var/lib/iapd
    owner       blue
    pool        linux
      agents      2, named linux-build1-example-com-..., such as linux-build1-example-com-rti2a
      azure       pool "Linux builds" at https://dev.azure.com/org, token in the configuration
      instances   containers in project ci, profile default
      image       runner
      limits      4 cores, 8 GiB memory, 2 GiB tmpfs on /tmp
      env         LANG, NPM_TOKEN
      graces      1m to come online, 5m offline
      keeps       job-failed, for 30m, at most 1
    pool        big
      agents      1 and 1 spare, named big-b-..., such as big-b-rti2a
      azure       pool "big" at https://dev.azure.com/org, token in /etc/iapd/pat
      instances   virtual machines in project default, profiles a, b
      image       vm-runner
      limits      50 GiB disk, disk in storage pool fast
      env         none
      graces      5m to come online, 1m30s offline
    "#);
}

#[test]
fn a_remote_incus_is_written_in_place_of_a_socket() {
    let loaded = good(
        "pools: []\nincus:\n  remote: {url: [https://a:8443, https://b], clientCert: c.crt, \
         clientKey: /k, serverCert: s.crt}\nshutdown: {waitForJobs: 1h}\n",
    );
    assert_eq!(loaded.spec.incus.to_string(), "https://a:8443, https://b");
    assert_eq!(loaded.spec.shutdown_wait, None);
    insta::assert_snapshot!(lines(&loaded.warnings), @"config.yaml:4:25: shutdown.waitForJobs: is of no use with `incus.remote`: jobs run elsewhere and go on");
    let effective = without_origins(&effective(&loaded));
    let incus = effective.split("incus:").nth(1).unwrap();
    insta::assert_snapshot!(incus.split("metricsPort").next().unwrap(), @"
    remote:
      url:
      - https://a:8443
      - https://b
      clientCert: /etc/iapd/c.crt
      clientKey: /k
      serverCert: /etc/iapd/s.crt
    ");
}

#[test]
fn the_effective_configuration_has_every_default_and_no_secret() {
    let loaded = good(TWO_POOLS);
    let effective = effective(&loaded);
    assert!(!effective.contains("s3cret"));
    assert!(!effective.contains("t0ken"));
    assert!(!format!("{loaded:?}").contains("s3cret"));
    insta::assert_snapshot!(effective, @"
    pools:
    - name: linux                                 # line 3
      agentCount: 2                               # line 4
      spares: 0                                   # default
      agentPrefix: build1.example.com             # default
      offlineGracePeriod: 5m                      # default
      env:
        LANG: C.UTF-8                             # line 5
        NPM_TOKEN: '***'                          # line 5
      keep:
        when:                                     # line 6
        - job-failed
        ttl: 30m                                  # line 6
        max: 1                                    # default
      azure:
        url: https://dev.azure.com/org            # line 7
        pat: '***'                                # line 7
        pool: Linux builds                        # line 7
        pollInterval: 10s                         # default
      incus:
        image: runner                             # line 8
        projectName: ci                           # line 8
        profiles:                                 # default
        - default
        vm: false                                 # default
        maxCores: 4                               # line 8
        maxRamInGb: 8                             # line 8
        tmpfsSizeInGb: 2                          # line 8
        nesting: true                             # default
        startupGracePeriod: 1m                    # default
    - name: big                                   # line 9
      agentCount: 1                               # line 10
      spares: 1                                   # line 11
      agentPrefix: b                              # line 12
      offlineGracePeriod: 1m30s                   # line 13
      env: {}                                     # default
      azure:
        url: https://dev.azure.com/org            # line 14
        patFile: /etc/iapd/pat                    # line 14
        pool: big                                 # default
        pollInterval: 10s                         # default
      incus:
        image: vm-runner                          # line 15
        projectName: default                      # default
        profiles:                                 # line 15
        - a
        - b
        vm: true                                  # line 15
        diskSizeInGb: 50                          # line 15
        storagePool: fast                         # line 15
        startupGracePeriod: 5m                    # default
    daemon:
      reconcileInterval: 5s                       # default
      reaperInterval: 30s                         # default
      memberGracePeriod: 2m                       # default
      listener:
        retryDelay: 1s                            # default
        maxRetryDelay: 1m                         # default
    incus:
      socket: /var/lib/incus/unix.socket          # default
    metricsPort: 9922                             # default
    metricsAddress: 127.0.0.1                     # default
    socket:
      path: /run/iapd/iapd.sock                   # default
      mode: '0660'                                # default
      group: iapd                                 # default
      viewGroup: iapd-view                        # default
    owner: blue                                   # line 1
    stateDir: /var/lib/iapd                       # default
    history:
      keepFor: 720h                               # default
      evidenceSizeInGb: 1                         # default
    ");
}

#[test]
fn the_effective_configuration_means_the_same() {
    let mut first = good(TWO_POOLS).spec;
    let mut second = good(&effective(&good(TWO_POOLS))).spec;
    for spec in [&mut first, &mut second] {
        spec.pools[0].env.remove("NPM_TOKEN");
        spec.pools[0].azure.credential = CredentialSpec::Pat(Secret::new("masked"));
    }
    assert_eq!(first, second);
}

#[test]
fn principals_are_described_and_written_again_as_they_were_given() {
    let mut said = Vec::new();
    for keys in [
        "servicePrincipal: {tenantId: t, clientId: c, clientSecretFile: secret}",
        "servicePrincipal: {tenantId: t, clientId: c, certificateFile: /etc/c.pem}",
        "managedIdentity: {}",
        "managedIdentity: {clientId: c}",
        "workloadIdentity: {tenantId: t, clientId: c, tokenFile: /run/t}, \
         authorityHost: https://login.example.com/",
    ] {
        let loaded = good(&pool_with("", "").replace("pat: s3cret", keys));
        assert_eq!(lines(&loaded.warnings), "", "{keys}");
        let effective = without_origins(&effective(&loaded));
        assert_eq!(good(&effective).spec, loaded.spec, "{keys}");
        let keys = effective.split_once("org\n").unwrap().1;
        let keys = keys.split_once("  incus:").unwrap().0;
        let known = ["    pool: linux\n", "    pollInterval: 10s\n"];
        said.push(
            known
                .iter()
                .fold(keys.to_owned(), |keys, key| keys.replace(key, "")),
        );
        said.push(describe_credential(&loaded.spec.pools[0].azure.credential));
    }
    insta::assert_snapshot!(said.join("\n"), @"
        servicePrincipal:
          tenantId: t
          clientId: c
          clientSecretFile: /etc/iapd/secret
        authorityHost: https://login.microsoftonline.com

    service principal c, secret in /etc/iapd/secret
        servicePrincipal:
          tenantId: t
          clientId: c
          certificateFile: /etc/c.pem
        authorityHost: https://login.microsoftonline.com

    service principal c, certificate in /etc/c.pem
        managedIdentity: {}

    the machine's managed identity
        managedIdentity:
          clientId: c

    managed identity c
        workloadIdentity:
          tenantId: t
          clientId: c
          tokenFile: /run/t
        authorityHost: https://login.example.com

    workload identity c, token in /run/t
    ");
}

#[test]
fn defaults_in_the_schema_are_those_of_the_program() {
    let effective = effective(&good(&pool_with("keep: {when: [job-failed]}", "")));
    let value: serde_json::Value = serde_yaml::from_str(&effective).unwrap();
    let mut checked = 0;
    compare(file::schema().as_value(), &value, &mut checked);
    assert!(checked >= 15, "only {checked} defaults were compared");
}

fn compare(schema: &serde_json::Value, value: &serde_json::Value, checked: &mut usize) {
    if let Some(default) = schema.get("default") {
        assert_eq!(value, default);
        *checked += 1;
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        compare(property, &value[name], checked);
    }
    if schema["items"]["properties"].is_object() {
        compare(&schema["items"], &value[0], checked);
    }
}

#[test]
fn a_reload_says_what_it_changes() {
    let old = good(TWO_POOLS).spec;
    assert_eq!(diff(&old, &old), Vec::<String>::new());
    let new = TWO_POOLS
        .replace("agentCount: 2", "agentCount: 4\n  spares: 2")
        .replace("image: runner", "image: newer")
        .replace("when: job-failed", "when: [never-online, job-failed]")
        .replace("s3cret", "n3w")
        .replace("name: big", "name: huge")
        .replace("owner: blue", "owner: green\ndaemon: {reaperInterval: 1m}");
    insta::assert_snapshot!(diff(&old, &good(&new).spec).join("\n"), @"
    pool linux: agents 2 → 4
    pool linux: spares 0 → 2
    pool linux: reaper interval 30s → 1m
    pool linux: kept for debugging: job-failed, for 30m, at most 1 → job-failed and never-online, for 30m, at most 1
    pool linux: what agents are made of changed; idle agents are replaced, busy ones finish
    pool linux: the credential or its CA file changed
    pool big: removed; it is drained
    pool huge: added, with 1 agent
    owner: changed; takes effect when the daemon is restarted
    ");
}
