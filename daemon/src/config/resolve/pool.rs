//! What one pool of the file means.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::config::Environment;
use crate::config::file::{Azure, Instance, Keep, Pool};
use crate::config::problem::Report;
use crate::config::secrets::names_a_secret;
use crate::pool::names::{MAX_POOL_NAME, agent_name_stem};
use crate::pool::spec::{
    AzureSpec, InstanceKind, InstanceSpec, KEEP_TTL, KeepSpec, KeepWhen, PoolSpec,
};

use super::credential::{credential, no_credential};
use super::url::organisation;
use super::{duration, required, text};

const OFFLINE_GRACE: Duration = Duration::from_secs(5 * 60);
const CONTAINER_STARTUP_GRACE: Duration = Duration::from_secs(60);
const VM_STARTUP_GRACE: Duration = Duration::from_secs(5 * 60);
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// Each takes the room of an agent.
const MAX_KEPT: u32 = 1;
const LONGEST_KEEP: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Shorter would judge agents by a single look, and would press Azure's rate limits.
const SHORTEST: Duration = Duration::from_secs(1);

pub(super) fn resolve(
    pool: Pool,
    key: &str,
    env: &Environment,
    report: &mut Report<'_>,
) -> PoolSpec {
    let name = required(&format!("{key}.name"), pool.name, report);
    check_pool_name(&name, &format!("{key}.name"), report);
    let prefix_key = format!("{key}.agentPrefix");
    let given_prefix = text(&prefix_key, pool.agent_prefix, report);
    if given_prefix
        .as_ref()
        .is_some_and(|prefix| agent_name_stem("p", prefix) == "p")
    {
        report.error(&prefix_key, "must hold an ASCII letter or digit");
    }
    let variables = pool.env.unwrap_or_default();
    check_env(&variables, &format!("{key}.env"), report);
    let offline_key = format!("{key}.offlineGracePeriod");
    let offline_grace = pool.offline_grace_period;
    let (instance, startup_grace) = instance(
        pool.incus.unwrap_or_default(),
        &format!("{key}.incus"),
        report,
    );
    let keep = pool
        .keep
        .map(|keep| self::keep(keep, &format!("{key}.keep"), report));
    PoolSpec {
        keep,
        agent_count: pool.agent_count.unwrap_or_default(),
        spares: pool.spares.unwrap_or_default(),
        agent_prefix: given_prefix.unwrap_or_else(|| env.host_name.clone()),
        offline_grace: duration(&offline_key, offline_grace, OFFLINE_GRACE, SHORTEST, report),
        startup_grace,
        env: variables,
        azure: azure(pool.azure, &name, &format!("{key}.azure"), env, report),
        instance,
        name,
        // The file has these once for all pools; the caller fills them in.
        reconcile_interval: Duration::ZERO,
        reaper_interval: Duration::ZERO,
        member_grace: Duration::ZERO,
    }
}

fn keep(keep: Keep, key: &str, report: &mut Report<'_>) -> KeepSpec {
    let ttl_key = format!("{key}.ttl");
    let ttl = duration(&ttl_key, keep.ttl, KEEP_TTL, SHORTEST, report);
    if ttl > LONGEST_KEEP {
        report.error(&ttl_key, "must not be longer than 8760h, a year");
    }
    // When it is missing or wrong, that has been reported.
    let words = keep.when.map(|when| when.0).unwrap_or_default();
    let when_key = format!("{key}.when");
    if words.is_empty() && !report.has_error(&when_key) {
        report.error(&when_key, "must not be empty");
    }
    let known = KeepWhen::ALL.into_iter();
    KeepSpec {
        when: known
            .filter(|w| words.iter().any(|word| word == w.as_str()))
            .collect(),
        ttl,
        max: keep.max.unwrap_or(MAX_KEPT),
    }
}

fn check_pool_name(name: &str, key: &str, report: &mut Report<'_>) {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() {
        return;
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic())
        || !name.ends_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(fits)
    {
        report.error(
            key,
            "must be letters, digits, `-`, `_` or `.`, beginning with a letter and ending with a \
             letter or digit (if the pool has another name in Azure, that goes to `azure.pool`)",
        );
    } else if name.len() > MAX_POOL_NAME {
        report.error(
            key,
            format!("must not be longer than {MAX_POOL_NAME} characters"),
        );
    }
}

/// systemd hands the variables over in the guest, so its rules hold.
fn check_env(variables: &BTreeMap<String, String>, key: &str, report: &mut Report<'_>) {
    for (name, value) in variables {
        let key = format!("{key}.{name}");
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || name.starts_with(|c: char| c.is_ascii_digit())
            || !name.chars().all(fits)
        {
            let message = "is no name for a variable: letters, digits and `_`, first no digit";
            report.error_in_key(&key, message);
        } else if value.contains('\0') {
            report.error(&key, "must not hold a NUL character");
        } else if names_a_secret(name) {
            report.warning(
                &key,
                "looks like a secret: Azure publishes an agent's environment as its capabilities",
            );
        }
    }
}

fn azure(
    mut azure: Option<Azure>,
    pool_name: &str,
    key: &str,
    env: &Environment,
    report: &mut Report<'_>,
) -> AzureSpec {
    // When the section is missing or was dropped as a whole, that has been reported.
    let credential = match &mut azure {
        Some(azure) => credential(azure, key, env, report),
        None => no_credential(),
    };
    let azure = azure.unwrap_or_default();
    let poll_key = format!("{key}.pollInterval");
    let ca_file = text(&format!("{key}.caFile"), azure.ca_file, report);
    AzureSpec {
        url: organisation(azure.url, &format!("{key}.url"), report),
        pool: text(&format!("{key}.pool"), azure.pool, report)
            .unwrap_or_else(|| pool_name.to_owned()),
        credential,
        poll_interval: duration(
            &poll_key,
            azure.poll_interval,
            POLL_INTERVAL,
            SHORTEST,
            report,
        ),
        ca_file: ca_file.map(|path| env.config_dir.join(path)),
    }
}

fn instance(instance: Instance, key: &str, report: &mut Report<'_>) -> (InstanceSpec, Duration) {
    let vm = instance.vm.unwrap_or(false);
    let cap = |limit: Option<u32>| limit.filter(|limit| *limit > 0);
    let mut tmpfs_gib = cap(instance.tmpfs_size_in_gb);
    let mut max_processes = cap(instance.max_processes);
    if vm {
        // Incus has neither for virtual machines; the Go tool warned about the first, too.
        for (name, limit) in [
            ("tmpfsSizeInGb", &mut tmpfs_gib),
            ("maxProcesses", &mut max_processes),
        ] {
            if limit.take().is_some() {
                report.warning(&format!("{key}.{name}"), "is ignored for virtual machines");
            }
        }
        if instance.nesting.is_some() {
            report.warning(&format!("{key}.nesting"), "is ignored for virtual machines");
        }
    }
    let default_grace = if vm {
        VM_STARTUP_GRACE
    } else {
        CONTAINER_STARTUP_GRACE
    };
    let grace_key = format!("{key}.startupGracePeriod");
    let startup_grace = duration(
        &grace_key,
        instance.startup_grace_period,
        default_grace,
        SHORTEST,
        report,
    );
    let spec = InstanceSpec {
        kind: if vm {
            InstanceKind::VirtualMachine
        } else {
            InstanceKind::Container
        },
        project: text(&format!("{key}.projectName"), instance.project_name, report)
            .unwrap_or_else(|| "default".to_owned()),
        image: required(&format!("{key}.image"), instance.image, report),
        profiles: profiles(instance.profiles, &format!("{key}.profiles"), report),
        max_cores: cap(instance.max_cores),
        max_ram_gib: cap(instance.max_ram_in_gb),
        tmpfs_gib,
        disk_gib: cap(instance.disk_size_in_gb),
        storage_pool: text(&format!("{key}.storagePool"), instance.storage_pool, report),
        max_processes,
        nesting: instance.nesting.unwrap_or(true) || vm,
        target: text(&format!("{key}.target"), instance.target, report),
    };
    (spec, startup_grace)
}

fn profiles(given: Option<Vec<String>>, key: &str, report: &mut Report<'_>) -> Vec<String> {
    let Some(given) = given else {
        return vec!["default".to_owned()];
    };
    let mut seen = HashSet::new();
    for (number, profile) in given.iter().enumerate() {
        let key = format!("{key}[{number}]");
        if profile.trim().is_empty() {
            report.error(&key, "must not be empty");
        } else if !seen.insert(profile) {
            report.error(&key, "is listed twice");
        }
    }
    given
}
