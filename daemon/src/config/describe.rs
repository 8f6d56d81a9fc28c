//! What a configuration comes to, for `iapd --check-config`.

use std::fmt::Write;

use crate::pool::names::{agent_name_stem, new_agent_name};
use crate::pool::spec::{
    CredentialSpec, DaemonSpec, InstanceKind, InstanceSpec, KeepSpec, PoolSpec, ProofSpec,
};

use super::duration::format as duration;

/// Returns lines that say what the daemon would do. No secrets are among them.
pub fn describe(spec: &DaemonSpec) -> String {
    let agents: u32 = spec.pools.iter().map(|pool| pool.agent_count).sum();
    let mut text = format!(
        "{}, {}\n",
        count(spec.pools.len(), "pool"),
        count(agents, "agent")
    );
    let mut line = |indent: &str, name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{indent}{name:<12}{value}");
    };
    line("", "incus", spec.incus.to_string());
    let socket = &spec.socket;
    let path = socket.path.display();
    line(
        "",
        "socket",
        format!("{path}, mode {:04o}, group {}", socket.mode, socket.group),
    );
    let view = iap_common::socket::view_path(&socket.path);
    let view = view.display();
    line("", "view", format!("{view}, group {}", socket.view_group));
    let metrics = spec
        .metrics
        .map(|address| format!("http://{address}/metrics"));
    line("", "metrics", metrics.unwrap_or_else(|| "off".to_owned()));
    line("", "state", spec.state_dir.display().to_string());
    line(
        "",
        "owner",
        spec.owner
            .clone()
            .unwrap_or_else(|| "derived from the machine".to_owned()),
    );
    for pool in &spec.pools {
        line("", "pool", pool.name.clone());
        for (name, value) in pool_lines(pool) {
            line("  ", name, value);
        }
    }
    text
}

fn pool_lines(pool: &PoolSpec) -> Vec<(&'static str, String)> {
    let stem = agent_name_stem(&pool.name, &pool.agent_prefix);
    // Any id will do; the same one each time keeps the output stable.
    let example = new_agent_name(&stem, &mut fastrand::Rng::with_seed(1));
    let azure = &pool.azure;
    let credential = credential(&azure.credential);
    let instance = &pool.instance;
    let kind = match instance.kind {
        InstanceKind::Container => "containers",
        InstanceKind::VirtualMachine => "virtual machines",
    };
    let profiles = match &*instance.profiles {
        [] => "no profiles".to_owned(),
        [one] => format!("profile {one}"),
        many => format!("profiles {}", many.join(", ")),
    };
    let place = instance.target.as_ref();
    let place = place.map_or_else(String::new, |target| format!(", on {target}"));
    let variables: Vec<&str> = pool.env.keys().map(String::as_str).collect();
    let variables = if variables.is_empty() {
        "none".to_owned()
    } else {
        variables.join(", ")
    };
    let spares = match pool.spares {
        0 => String::new(),
        spares => format!(" and {}", count(spares, "spare")),
    };
    let startup = duration(pool.startup_grace);
    let offline = duration(pool.offline_grace);
    let mut lines = vec![
        (
            "agents",
            format!(
                "{}{spares}, named {stem}-..., such as {example}",
                pool.agent_count
            ),
        ),
        (
            "azure",
            format!("pool {:?} at {}, {credential}", azure.pool, azure.url),
        ),
        (
            "instances",
            format!("{kind} in project {}, {profiles}{place}", instance.project),
        ),
        ("image", instance.image.clone()),
        ("limits", limits(instance)),
        ("env", variables),
        (
            "graces",
            format!("{startup} to come online, {offline} offline"),
        ),
    ];
    lines.extend(pool.keep.as_ref().map(|keep| ("keeps", kept(keep))));
    lines
}

/// Says which agents are kept for debugging: `job-failed, for 2h, at most 1`.
pub(super) fn kept(keep: &KeepSpec) -> String {
    let when: Vec<&str> = keep.when.iter().map(|when| when.as_str()).collect();
    let (when, ttl) = (when.join(" and "), duration(keep.ttl));
    format!("{when}, for {ttl}, at most {}", keep.max)
}

/// Says what a credential is and where, in a few words.
pub fn credential(spec: &CredentialSpec) -> String {
    match spec {
        CredentialSpec::Pat(_) => "token in the configuration".to_owned(),
        CredentialSpec::PatFile(file) => format!("token in {}", file.display()),
        CredentialSpec::Application(application) => {
            let file = application.proof.file().display();
            let (what, proof) = match &application.proof {
                ProofSpec::ClientSecret(_) => ("service principal", "secret"),
                ProofSpec::Certificate(_) => ("service principal", "certificate"),
                ProofSpec::FederatedToken(_) => ("workload identity", "token"),
            };
            format!("{what} {}, {proof} in {file}", application.client_id)
        }
        CredentialSpec::ManagedIdentity { client_id, .. } => match client_id {
            Some(id) => format!("managed identity {id}"),
            None => "the machine's managed identity".to_owned(),
        },
    }
}

fn limits(instance: &InstanceSpec) -> String {
    let storage = instance.storage_pool.as_ref();
    let limits: Vec<String> = [
        instance.max_cores.map(|cores| count(cores, "core")),
        instance
            .max_ram_gib
            .map(|size| format!("{size} GiB memory")),
        instance
            .tmpfs_gib
            .map(|size| format!("{size} GiB tmpfs on /tmp")),
        instance.disk_gib.map(|size| format!("{size} GiB disk")),
        storage.map(|pool| format!("disk in storage pool {pool}")),
        instance
            .max_processes
            .map(|processes| format!("{processes} processes")),
        (!instance.nesting).then(|| "no nesting".to_owned()),
    ]
    .into_iter()
    .flatten()
    .collect();
    if limits.is_empty() {
        "none".to_owned()
    } else {
        limits.join(", ")
    }
}

/// Writes a number with its noun.
pub(super) fn count(number: impl TryInto<u64>, noun: &str) -> String {
    let number: u64 = number.try_into().unwrap_or(u64::MAX);
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
