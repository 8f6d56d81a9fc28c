use serde_json::json;

use super::*;
use crate::agent::tag;
use crate::config::{self, Environment};

const URL: &str = "https://dev.azure.com/acme";

fn key(name: &str, project: &str) -> PoolKey {
    PoolKey {
        name: name.into(),
        project: project.into(),
        azure_url: URL.into(),
        azure_pool: "linux".into(),
    }
}

fn keys(all: &[(&str, &str)]) -> BTreeSet<PoolKey> {
    all.iter()
        .map(|(name, project)| key(name, project))
        .collect()
}

fn instance(owner: &str, pool: &str, project: &str) -> Instance {
    let config = json!({
        key::OWNER: owner, key::POOL: pool, key::AZURE_URL: URL, key::AZURE_POOL: "linux",
    });
    let instance = json!({"name": "a", "project": project, "status_code": 103, "config": config});
    serde_json::from_value(instance).unwrap()
}

fn registrations(all: &[&[(&str, &str)]]) -> BTreeMap<String, Agent> {
    let agent = |tags: &[(&str, &str)]| Agent {
        id: 1,
        name: "a".into(),
        version: String::new(),
        enabled: true,
        online: false,
        assigned: None,
        last_completed: None,
        capabilities: tags
            .iter()
            .map(|(tag, value)| ((*tag).into(), (*value).into()))
            .collect(),
        created_on: None,
        status_changed_on: None,
    };
    let agents = all.iter().enumerate();
    agents
        .map(|(n, tags)| (n.to_string(), agent(tags)))
        .collect()
}

#[test]
fn only_instances_of_ours_lead_to_pools() {
    let instances = [
        instance("us", "linux", "default"),
        instance("us", "linux", "default"),
        instance("us", "linux", "ci"),
        instance("them", "theirs", "default"),
    ];
    assert_eq!(
        pools_of_instances(&instances, "us"),
        keys(&[("linux", "default"), ("linux", "ci")])
    );
}

#[test]
fn registrations_lead_to_pools_that_nobody_takes_care_of() {
    let known = keys(&[("linux", "ci")]);
    let found = |tags: &[&[(&str, &str)]]| {
        let agents = registrations(tags);
        pools_of_registrations(&agents, "us", (URL, "linux"), "some", &known)
    };
    let us = (tag::OWNER, "us");
    assert!(found(&[&[us, (tag::POOL, "linux"), (tag::PROJECT, "ci")]]).is_empty());
    assert!(found(&[&[us, (tag::POOL, "linux")]]).is_empty());
    assert!(found(&[&[(tag::OWNER, "them"), (tag::POOL, "gone")]]).is_empty());
    assert!(found(&[&[(tag::POOL, "gone")], &[us], &[]]).is_empty());
    let moved = [us, (tag::POOL, "linux"), (tag::PROJECT, "former")];
    let gone = [us, (tag::POOL, "gone")];
    assert_eq!(
        found(&[&moved, &gone, &gone]),
        keys(&[("linux", "former"), ("gone", "some")])
    );
    // The same name in another Azure pool is another pool.
    let agents = registrations(&[&[us, (tag::POOL, "linux"), (tag::PROJECT, "ci")]]);
    let there = pools_of_registrations(&agents, "us", (URL, "windows"), "some", &known);
    assert_eq!(there.len(), 1);
}

#[test]
fn a_removed_pool_is_served_by_its_own_credential_while_that_is_there_and_then_by_another() {
    let text = "pools:\n\
                - {name: a, agentCount: 1, incus: {image: i}, \
                   azure: {url: 'https://dev.azure.com/other', pool: linux, pat: p}}\n\
                - {name: b, agentCount: 1, incus: {image: i}, \
                   azure: {url: 'https://dev.azure.com/acme', pool: windows, pat: q}}\n\
                - {name: c, agentCount: 1, incus: {image: i}, \
                   azure: {url: 'https://dev.azure.com/acme', pool: linux, pat: r}}\n";
    let pools = config::parse(text.as_bytes(), &Environment::detect())
        .unwrap()
        .spec
        .pools;
    let serving = |key: &PoolKey, credential: Option<&CredentialSpec>| {
        serving(&pools, key, credential).map(|pool| pool.name.as_str())
    };
    let gone = key("gone", "default");
    let own = &pools[1].azure.credential;
    assert_eq!(serving(&gone, Some(own)), Some("b"));
    assert_eq!(serving(&gone, None), Some("c"), "of its Azure pool");
    let elsewhere = PoolKey {
        azure_url: "https://dev.azure.com/nobody".into(),
        ..gone
    };
    assert_eq!(serving(&elsewhere, None), None);
}
