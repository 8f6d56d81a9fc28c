//! Files that are wrong, and what is said about them.

use super::*;

/// Returns what is said about a file that is wrong.
#[track_caller]
fn bad(text: &str) -> String {
    match parse(text.as_bytes(), &env()) {
        Ok(loaded) => panic!("accepted: {:?}", loaded.spec),
        Err(problems) => lines(&problems),
    }
}

/// The same for a text with one problem, without its place.
#[track_caller]
fn one(text: &str) -> String {
    let Err(problems) = parse(text.as_bytes(), &env()) else {
        panic!("accepted: {text}")
    };
    assert_eq!(problems.len(), 1, "{}", lines(&problems));
    format!("{}: {}", problems[0].key, problems[0].message)
}

#[test]
fn all_problems_are_found_at_once_each_with_its_place() {
    let text = "\
metricsPort: 99999
metricAddress: 127.0.0.1
stateDir: var/lib/iapd
x-anything: [goes, {here: !tag 1}]
socket:
  mode: 432
daemon:
  reconcileInterval: 5
  reaperInterval: soon
  listener: {retryDelay: 2m, maxRetryDelay: 1m}
x-pool: &pool
  agentCount: 2
  agentprefix: a
  azure: &azure
    url: https://someone:secret@dev.azure.com/org
    pat: s3cret
pools:
- <<: *pool
  name: linux
  name: windows
  maxCores: 4
  incus:
    image: runner
    maxCores: four
    tmpfsSizeInGb: -1
    vm: yes
    profiles: default
- just a text
- name: linux
  agentCount: 0
  offlineGracePeriod: -5m
  azure:
    <<: *azure
    url: ftp://example.com
    patFile: /etc/iapd/pat
  env:
    A-B: c
    LIST: [1]
  incus: {}
- name: my pool
  agentCount: 1001
  azure: {url: https://dev.azure.com/}
";
    insta::assert_snapshot!(bad(text), @"
    config.yaml:1:14: metricsPort: must be a whole number, 0 to 65535, not `99999`
    config.yaml:2:1: metricAddress: unknown key; did you mean `metricsAddress`?
    config.yaml:3:11: stateDir: must be an absolute path
    config.yaml:6:9: socket.mode: is 0432 in octal, which shuts the socket's own user out
    config.yaml:8:22: daemon.reconcileInterval: needs a unit after `5` (ms, s, m or h), such as `30s` or `1h30m`
    config.yaml:9:19: daemon.reaperInterval: must be a duration such as `30s`, `5m` or `1h30m`
    config.yaml:10:45: daemon.listener.maxRetryDelay: is shorter than retryDelay, 2m
    config.yaml:13:3: pools[0].agentprefix: unknown key; did you mean `agentPrefix`?
    config.yaml:15:10: pools[0].azure.url: must not hold a user name or a token; those go to `pat` or `patFile`
    config.yaml:20:3: pools[0].name: is given twice; first in line 19
    config.yaml:21:3: pools[0].maxCores: unknown key; it belongs under `incus`
    config.yaml:24:15: pools[0].incus.maxCores: must be a whole number, 0 to 8192, not the text `four`
    config.yaml:25:20: pools[0].incus.tmpfsSizeInGb: must be a whole number, 0 to 65536, not `-1`
    config.yaml:26:9: pools[0].incus.vm: must be true or false, not the text `yes`
    config.yaml:27:15: pools[0].incus.profiles: must be a list, not a single value
    config.yaml:28:3: pools[1]: must be a mapping of keys to values, not a single value
    config.yaml:29:9: pools[2].name: `linux` is the name of pools[0] already
    config.yaml:30:15: pools[2].agentCount: must be a whole number, 1 to 1000, not `0`
    config.yaml:31:23: pools[2].offlineGracePeriod: must not be negative
    config.yaml:34:10: pools[2].azure.url: must be an http or https URL such as `https://dev.azure.com/myorganization`
    config.yaml:35:14: pools[2].azure.patFile: cannot be given together with `pat`
    config.yaml:37:5: pools[2].env.A-B: is no name for a variable: letters, digits and `_`, first no digit
    config.yaml:38:5: pools[2].env.LIST: must be a text, not a list
    config.yaml:39:3: pools[2].incus.image: is missing
    config.yaml:40:3: pools[3].incus: is missing
    config.yaml:40:9: pools[3].name: must be letters, digits, `-`, `_` or `.`, beginning with a letter and ending with a letter or digit (if the pool has another name in Azure, that goes to `azure.pool`)
    config.yaml:41:15: pools[3].agentCount: must be a whole number, 1 to 1000, not `1001`
    config.yaml:42:3: pools[3].azure: has no credential: give one of `patFile`, `pat`, `servicePrincipal`, `managedIdentity` (`{}` is enough) and `workloadIdentity`
    config.yaml:42:16: pools[3].azure.url: names no organisation: `https://dev.azure.com/myorganization`
    ");
}

#[test]
fn texts_that_are_not_one_yaml_document_say_where() {
    let syntax = |text: &[u8]| lines(&parse(text, &env()).unwrap_err());
    let table: Vec<String> = [
        &b""[..],
        b"# only a comment\n",
        b"---\n",
        b"pools:\n\t- name: a\n",
        b"pools:\n  - name: [a\n",
        b"pools: []\n---\npools: []\n",
        b"pools:\n- name: caf\xe9\n",
        b"- name: linux\n",
        b"just text\n",
        b"a: *nothing\n",
        b"pools: &a [*a]\n",
        b"pools: [}\n",
        b"pools: [] []\n",
        "[".repeat(1000).as_bytes(),
        "- ".repeat(1000).as_bytes(),
    ]
    .into_iter()
    .map(syntax)
    .collect();
    insta::assert_snapshot!(table.join("\n"), @"
    config.yaml:1:1: is empty
    config.yaml:1:1: is empty
    config.yaml:1:1: is empty
    config.yaml:2:2: is not YAML: tabs disallowed within this context (block indentation)
    config.yaml:3:1: is not YAML: while parsing a flow sequence, expected ',' or ']'
    config.yaml:2:1: has a second YAML document; only one is read
    config.yaml:2:12: is not UTF-8 text here
    config.yaml:1:1: must be a mapping of keys to values, not a list
    config.yaml:1:1: must be a mapping of keys to values, not a single value
    config.yaml:1:4: is not YAML: while parsing node, found unknown anchor
    config.yaml:1:8: is not YAML: recursion limit exceeded
    config.yaml:1:9: is not YAML: while parsing a node, did not find expected node content
    config.yaml:1:11: is not YAML: while parsing a block mapping, did not find expected key
    config.yaml:1:256: is not YAML: recursion limit exceeded
    config.yaml:1:129: is nested deeper than 64 levels
    ");
}

#[test]
fn pools_whose_agents_would_have_like_names_are_refused() {
    let two = |first: &str, second: &str| {
        let pool = |keys: &str| {
            let (keys, project) = keys.split_once('/').unwrap();
            format!(
                "- {{agentCount: 1, {keys}, azure: {{url: https://a.example/b, pat: p}}, \
                 incus: {{image: i, projectName: {project}}}}}\n"
            )
        };
        format!("pools:\n{}{}", pool(first), pool(second))
    };
    let accept = |first, second| assert_eq!(good(&two(first, second)).spec.pools.len(), 2);
    accept(
        "name: a, agentPrefix: b-c/one",
        "name: a-b, agentPrefix: c/two",
    );
    accept(
        "name: a, agentPrefix: b/one",
        "name: a-b, agentPrefix: c/one",
    );
    insta::assert_snapshot!(
        one(&two("name: a, agentPrefix: b-c/one", "name: a.b, agentPrefix: C/one")), @"pools[1].name: agents would be named `a-b-C-...` like those of pools[0] (`a`) in the same Incus project; change a name or an agentPrefix");
    insta::assert_snapshot!(one(&two("name: a/one", "name: a/two")), @"pools[1].name: `a` is the name of pools[0] already");
}

fn credential(keys: &str) -> String {
    pool_with("", "").replace("pat: s3cret", keys)
}

fn remote(keys: &str) -> String {
    format!("pools: []\nincus:\n  remote: {{{keys}}}\n")
}

#[test]
fn each_wrong_value_is_explained() {
    let table: Vec<String> = [
        pool_with("agentcount: 3", ""),
        pool_with("image: x", ""),
        pool_with("zzz: 1", ""),
        pool_with("offlineGracePeriod: 10ms", ""),
        pool_with("offlineGracePeriod: 5 minutes", ""),
        pool_with("offlineGracePeriod: [5m]", ""),
        pool_with("agentPrefix: '***'", ""),
        pool_with("env: {1A: x}", ""),
        pool_with("env: text", ""),
        pool_with("env: {A: \"a\\0b\"}", ""),
        pool_with("keep: job-failed", ""),
        pool_with("keep: {ttl: 1h}", ""),
        pool_with("keep: {when: sometimes}", ""),
        pool_with("keep: {when: [job-failed, sometimes]}", ""),
        pool_with("keep: {when: []}", ""),
        pool_with("keep: {when: {job-failed: yes}}", ""),
        pool_with("keep: {when: job-failed, ttl: 10ms}", ""),
        pool_with("keep: {when: job-failed, ttl: 9000h}", ""),
        pool_with("keep: {when: job-failed, max: 0}", ""),
        pool_with("", "maxCores: 1.5"),
        pool_with("", "maxCores: '4'"),
        pool_with("", "maxCores: 99999999999999999999"),
        pool_with("", "image: again"),
        pool_with("", "profiles: [a, a]"),
        pool_with("", "profiles: [{}]"),
        pool_with("", "vm: 'true'"),
        pool_with("", "<<: 5"),
        pool_with("", "").replace("agentCount: 2", "agentCount: 0"),
        pool_with("", "").replace("agentCount: 2", "agentCount: -1"),
        pool_with("", "").replace("agentCount: 2", "agentCount: 1001"),
        pool_with("", "").replace("agentCount: 2", "agentCount:"),
        pool_with("spares: 1001", ""),
        pool_with("spares: -1", ""),
        pool_with("", "").replace("name: linux", "name: ''"),
        pool_with("", "").replace("name: linux", "name: 9to5"),
        pool_with("", "").replace("name: linux", &format!("name: {}", "x".repeat(49))),
        pool_with("", "").replace("pat: s3cret", "pat: ''"),
        pool_with("", "").replace("pat: s3cret", "pat: [s3cret]"),
        pool_with("", "").replace(", pat: s3cret", ""),
        pool_with("", "").replace("pat: s3cret", "pat: s3cret, patFile: x"),
        pool_with("", "").replace("pat: s3cret", "pat: s3cret, pollInterval: 100ms"),
        credential("servicePrincipal: s3cret"),
        credential("servicePrincipal: {tenantId: t, clientId: c}"),
        credential("servicePrincipal: {tenantId: t, clientSecretFile: f}"),
        credential("servicePrincipal: {tenantId: t, clientId: a/b, certificateFile: f}"),
        credential("servicePrincipal: {tenantId: '', clientId: c, certificateFile: f}"),
        credential("servicePrincipal: {tenantId: t, clientId: c, clientSecret: s3cret, certificateFile: f}"),
        credential("servicePrincipal: {tenantId: t, clientId: c, clientSecretFile: f, certificateFile: f}"),
        credential("servicePrincipal: {tenantId: t, clientId: c, clientSecretFile: ''}"),
        credential("workloadIdentity: {tenantId: t, clientId: c}"),
        credential("managedIdentity: {clientId: a b}"),
        credential("patFile: f, managedIdentity: {}"),
        credential("workloadIdentity: {tenantId: t, clientId: c, tokenFile: f}, authorityHost: login"),
        pool_with("", "").replace("https://dev.azure.com/org", "dev.azure.com/org"),
        pool_with("", "").replace("dev.azure.com/org", "s3cret@dev.azure.com/org"),
        pool_with("", "").replace("dev.azure.com/org", "dev.azure.com/org?x=y"),
        "pools: {}\n".to_owned(),
        "pools: []\nmetricsAddress: localhost\n".to_owned(),
        "pools: []\nsocket: {mode: '0888'}\n".to_owned(),
        "pools: []\nsocket: {mode: 0o1777}\n".to_owned(),
        "pools: []\nsocket: {path: iapd.sock}\n".to_owned(),
        format!("pools: []\nsocket: {{path: /{}}}\n", "x".repeat(107)),
        "pools: []\nowner: '  '\n".to_owned(),
        "pools: []\nincus: {socket: 5}\n".to_owned(),
        remote("url: https://a, clientCert: c, clientKey: k"),
        remote("url: http://a, clientCert: c, clientKey: k, serverCert: s"),
        remote("url: 'https://a:8443/1.0', clientCert: c, clientKey: k, serverCert: s"),
        remote("url: 'https://s3cret@a', clientCert: c, clientKey: k, serverCert: s"),
        remote("url: [], clientCert: c, clientKey: k, serverCert: s"),
        remote("url: [https://a, https://a], clientCert: c, clientKey: k, serverCert: s"),
        remote("url: https://a, clientCert: '', clientKey: k, serverCert: s"),
        format!("{}  socket: /s\n", remote("url: https://a, clientCert: c, clientKey: k, serverCert: s")),
    ]
    .iter()
    .map(|text| one(text))
    .collect();
    assert!(!table.concat().contains("s3cret"));
    insta::assert_snapshot!(table.join("\n"), @"
    pools[0].agentcount: unknown key; did you mean `agentCount`?
    pools[0].image: unknown key; it belongs under `incus`
    pools[0].zzz: unknown key; known here: agentCount, agentPrefix, azure, env, incus, keep, name, offlineGracePeriod, spares
    pools[0].offlineGracePeriod: must be at least 1s
    pools[0].offlineGracePeriod: has an unknown unit ` minutes`; use ms, s, m or h, such as `30s` or `1h30m`
    pools[0].offlineGracePeriod: must be a text, not a list
    pools[0].agentPrefix: must hold an ASCII letter or digit
    pools[0].env.1A: is no name for a variable: letters, digits and `_`, first no digit
    pools[0].env: must be a mapping of keys to values, not a single value
    pools[0].env.A: must not hold a NUL character
    pools[0].keep: must be a mapping of keys to values, not a single value
    pools[0].keep.when: is missing
    pools[0].keep.when: must be one of job-failed, never-online
    pools[0].keep.when[1]: must be one of job-failed, never-online
    pools[0].keep.when: must not be empty
    pools[0].keep.when: must be a text, not a mapping
    pools[0].keep.ttl: must be at least 1s
    pools[0].keep.ttl: must not be longer than 8760h, a year
    pools[0].keep.max: must be a whole number, 1 to 100, not `0`
    pools[0].incus.maxCores: must be a whole number, 0 to 8192, not `1.5`
    pools[0].incus.maxCores: must be a whole number, 0 to 8192, not the text `4`
    pools[0].incus.maxCores: must be a whole number, 0 to 8192, not `99999999999999999999`
    pools[0].incus.image: is given twice; first in line 6
    pools[0].incus.profiles[1]: is listed twice
    pools[0].incus.profiles[0]: must be a text, not a mapping
    pools[0].incus.vm: must be true or false, not the text `true`
    pools[0].incus.<<: must be a mapping, or a list of mappings, to merge from
    pools[0].agentCount: must be a whole number, 1 to 1000, not `0`
    pools[0].agentCount: must be a whole number, 1 to 1000, not `-1`
    pools[0].agentCount: must be a whole number, 1 to 1000, not `1001`
    pools[0].agentCount: is missing
    pools[0].spares: must be a whole number, 0 to 1000, not `1001`
    pools[0].spares: must be a whole number, 0 to 1000, not `-1`
    pools[0].name: must not be empty
    pools[0].name: must be letters, digits, `-`, `_` or `.`, beginning with a letter and ending with a letter or digit (if the pool has another name in Azure, that goes to `azure.pool`)
    pools[0].name: must not be longer than 48 characters
    pools[0].azure.pat: must not be empty
    pools[0].azure.pat: must be a text, not a list
    pools[0].azure: has no credential: give one of `patFile`, `pat`, `servicePrincipal`, `managedIdentity` (`{}` is enough) and `workloadIdentity`
    pools[0].azure.patFile: cannot be given together with `pat`
    pools[0].azure.pollInterval: must be at least 1s
    pools[0].azure.servicePrincipal: must be a mapping of keys to values, not a single value
    pools[0].azure.servicePrincipal.clientSecretFile: is missing: either `clientSecretFile` or `certificateFile` must be given
    pools[0].azure.servicePrincipal.clientId: is missing
    pools[0].azure.servicePrincipal.clientId: must be an id such as `12345678-90ab-cdef-1234-567890abcdef`
    pools[0].azure.servicePrincipal.tenantId: must not be empty
    pools[0].azure.servicePrincipal.clientSecret: unknown key; did you mean `clientSecretFile`?
    pools[0].azure.servicePrincipal.certificateFile: cannot be given together with `clientSecretFile`
    pools[0].azure.servicePrincipal.clientSecretFile: must not be empty
    pools[0].azure.workloadIdentity.tokenFile: is missing
    pools[0].azure.managedIdentity.clientId: must be an id such as `12345678-90ab-cdef-1234-567890abcdef`
    pools[0].azure.managedIdentity: cannot be given together with `patFile`
    pools[0].azure.authorityHost: must be a URL such as `https://login.microsoftonline.com`
    pools[0].azure.url: must be an http or https URL such as `https://dev.azure.com/myorganization`
    pools[0].azure.url: must not hold a user name or a token; those go to `pat` or `patFile`
    pools[0].azure.url: must not have a `?` or `#` part
    pools: must be a list, not a mapping
    metricsAddress: must be an IP address such as `127.0.0.1`, `0.0.0.0` or `::`
    socket.mode: must be three octal digits such as `0660`
    socket.mode: must be three octal digits such as `0660`
    socket.path: must be an absolute path
    socket.path: is longer than the 107 bytes a socket's path may have
    owner: must not be blank or hold control characters
    incus.socket: must be an absolute path
    incus.remote.serverCert: is missing
    incus.remote.url: must begin with https: Incus speaks TLS only
    incus.remote.url: must end with the host or the port
    incus.remote.url: must not hold a user name or a secret
    incus.remote.url: must not be empty
    incus.remote.url[1]: is listed twice
    incus.remote.clientCert: must not be empty
    incus.remote: cannot be given together with `socket`: there is one Incus
    ");
}

#[test]
fn all_that_is_wrong_with_credentials_is_said_at_once() {
    let keys = "servicePrincipal: {tenantId: t/u, clientSecretFile: f, certificateFile: g}, \
                workloadIdentity: {clientId: c}, authorityHost: 'https://a:s3cret@b'";
    insta::assert_snapshot!(bad(&credential(keys)), @"
    config.yaml:5:43: pools[0].azure.servicePrincipal.clientId: is missing
    config.yaml:5:72: pools[0].azure.servicePrincipal.tenantId: must be an id such as `12345678-90ab-cdef-1234-567890abcdef`
    config.yaml:5:115: pools[0].azure.servicePrincipal.certificateFile: cannot be given together with `clientSecretFile`
    config.yaml:5:119: pools[0].azure.workloadIdentity.tenantId: is missing
    config.yaml:5:119: pools[0].azure.workloadIdentity.tokenFile: is missing
    config.yaml:5:119: pools[0].azure.workloadIdentity: cannot be given together with `servicePrincipal`
    config.yaml:5:167: pools[0].azure.authorityHost: must not hold a user name or a secret
    ");
    let keys = "pat: s3cret, authorityHost: http://login.example.com";
    insta::assert_snapshot!(lines(&good(&credential(keys)).warnings), @"
    config.yaml:5:71: pools[0].azure.authorityHost: is of use with `servicePrincipal` and `workloadIdentity` only
    config.yaml:5:71: pools[0].azure.authorityHost: is plain http: the secret crosses the network readable
    ");
}

#[test]
fn what_is_probably_not_meant_is_warned_about() {
    let text = "\
socket: {mode: 0666}
pools:
- name: linux
  agentCount: 1
  offlineGracePeriod: 300000000000
  env: {NUGET_TOKEN: a, DB_PASSWORD: b, MY_KEY: c, KEYBOARD: d, PATH: /bin}
  azure: {pat: s3cret, url: http://tfs.example.com:8080/tfs}
  incus: {image: runner, vm: true, tmpfsSizeInGb: 4, maxProcesses: 9}
";
    let loaded = good(text);
    assert_eq!(loaded.spec.pools[0].offline_grace, Duration::from_secs(300));
    assert_eq!(loaded.spec.pools[0].instance.tmpfs_gib, None);
    insta::assert_snapshot!(lines(&loaded.warnings), @"
    config.yaml:1:16: socket.mode: lets every user of this machine control the daemon
    config.yaml:5:23: pools[0].offlineGracePeriod: is a number of nanoseconds; write `5m`
    config.yaml:6:22: pools[0].env.NUGET_TOKEN: looks like a secret: Azure publishes an agent's environment as its capabilities
    config.yaml:6:38: pools[0].env.DB_PASSWORD: looks like a secret: Azure publishes an agent's environment as its capabilities
    config.yaml:6:49: pools[0].env.MY_KEY: looks like a secret: Azure publishes an agent's environment as its capabilities
    config.yaml:7:29: pools[0].azure.url: is plain http: the token crosses the network readable
    config.yaml:8:51: pools[0].incus.tmpfsSizeInGb: is ignored for virtual machines
    config.yaml:8:68: pools[0].incus.maxProcesses: is ignored for virtual machines
    ");
}

/// Every key with every kind of value is either taken or refused, and no message shows the token.
#[test]
fn no_kind_of_value_at_any_key_is_fatal() {
    let whole = good(&pool_with(
        "env: {A: b}",
        "maxCores: 1, maxRamInGb: 1, maxProcesses: 1, tmpfsSizeInGb: 1, diskSizeInGb: 1",
    ));
    let text = effective_yaml(&whole.spec, &whole.lines).replace("'***'", "s3cret");
    let values = [
        "",
        "~",
        "1",
        "-1",
        "0",
        "1.5",
        ".nan",
        "true",
        "text",
        "s3cret",
        "[]",
        "[1, [], {}]",
        "[s3cret]",
        "{}",
        "{a: s3cret}",
        "{1: 2, true: 3, [4]: 5}",
        "!tag s3cret",
        "!tag {a: b}",
        "99999999999999999999",
        "999999999999999999999999999999999999999999",
        "'\0'",
        "&a {<<: *a}",
    ];
    let all: Vec<&str> = text.lines().collect();
    for (number, line) in all.iter().enumerate() {
        let Some((key, _)) = line.split_once(':') else {
            continue;
        };
        for value in values {
            let mut lines = all.clone();
            let changed = format!("{key}: {value}");
            lines[number] = &changed;
            let Err(problems) = parse(lines.join("\n").as_bytes(), &env()) else {
                continue;
            };
            let said = super::super::lines(&problems);
            let misplaced = value.contains("s3cret") && !key.trim().starts_with("pat");
            assert!(misplaced || !said.contains("s3cret"), "{changed}: {said}");
        }
    }
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = "x-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..20 {
        let alias = format!("*a{}", level - 1);
        let aliases = vec![alias; 9].join(", ");
        text.push_str(&["x-", &level.to_string(), ": &a", &level.to_string()].concat());
        text.push_str(&[" [", &aliases, "]\n"].concat());
    }
    insta::assert_snapshot!(bad(&text), @"config.yaml:1:1: is not YAML: repetition limit exceeded");
}
