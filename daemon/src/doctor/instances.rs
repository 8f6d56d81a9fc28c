//! What a pool's instances are made of: profiles with a root disk and a way out, and an image.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::incus::{Devices, Image, Incus, IncusError, Project, Restrictions};
use crate::pool::apply::launch::AGENT_VERSION_PROPERTY;
use crate::pool::spec::{InstanceKind, PoolSpec};

use super::check::{Check, Topic};
use super::{Deadline, Failure};

const PROFILES: Topic = Topic {
    id: "profiles",
    title: "profiles",
    why: "Incus refuses to make an instance with a profile that does not exist",
};
const ROOT_DISK: Topic = Topic {
    id: "root-disk",
    title: "root disk",
    why: "an instance takes its root disk from its profiles, or from the pool's storagePool",
};
const NETWORK: Topic = Topic {
    id: "network",
    title: "network",
    why: "an agent that cannot reach Azure never comes online and is replaced again and again",
};
const IMAGE: Topic = Topic {
    id: "image",
    title: "image",
    why: "agents are made from it: its tools age, and Azure asks for ever newer agents",
};

const RESTRICTIONS: Topic = Topic {
    id: "restrictions",
    title: "project",
    why: "Incus refuses to make an instance with what its project forbids",
};

/// An image without this month's security updates is worth a word.
const OLD_IMAGE_DAYS: i64 = 30;

/// Returns the checks that need Incus, not made.
pub(super) fn skipped(reason: &str) -> Vec<Check> {
    [&PROFILES, &ROOT_DISK, &NETWORK, &IMAGE, &RESTRICTIONS]
        .map(|topic| topic.skipped(reason))
        .to_vec()
}

/// Looks at a pool's profiles and image; also returns the storage pool of its root disks.
pub(super) async fn examine(
    incus: &Incus,
    pool: &PoolSpec,
    deadline: Deadline,
) -> (Vec<Check>, Option<String>) {
    let project = incus.project(&pool.instance.project);
    let names = &pool.instance.profiles;
    let profiles = futures_util::future::join_all(
        names
            .iter()
            .map(|name| deadline.call(project.profile(name))),
    );
    let (profiles, image, restrictions) = tokio::join!(
        profiles,
        deadline.call(find_image(&project, pool)),
        deadline.call(project.restrictions()),
    );
    let profiles: Result<Vec<Option<Devices>>, _> = profiles
        .into_iter()
        .map(|answer| answer.map(|profile| profile.map(|profile| profile.devices)))
        .collect();
    let mut storage = None;
    let mut checks = match profiles {
        Ok(profiles) => {
            let (checks, storage_pool) = judge_profiles(pool, &profiles);
            storage = storage_pool;
            checks
        }
        Err(failure) => {
            let reason = format!("cannot ask for the profiles: {}", failure.text());
            vec![PROFILES.skipped(reason)]
        }
    };
    checks.push(judge_image(pool, &image, Timestamp::now()));
    checks.push(match restrictions {
        Ok(restrictions) => judge_restrictions(pool, &restrictions),
        Err(failure) => {
            RESTRICTIONS.skipped(format!("cannot ask for the project: {}", failure.text()))
        }
    });
    for check in &mut checks {
        check.subject.clone_from(&pool.name);
    }
    (checks, storage)
}

/// Judges whether the pool's instances may be made in their project.
fn judge_restrictions(pool: &PoolSpec, restrictions: &Restrictions) -> Check {
    let instance = &pool.instance;
    let project = &instance.project;
    let container = instance.kind == InstanceKind::Container;
    let mut forbidden = Vec::new();
    let mut fix = Vec::new();
    let mut check = |wanted: bool, what: &str, key: &str, instead: &str| {
        if wanted && restrictions.forbid(key) {
            forbidden.push(what.to_owned());
            fix.push(format!(
                "incus project set {project} {key}=allow    # or {instead}"
            ));
        }
    };
    check(
        container && instance.nesting,
        "nesting",
        "restricted.containers.nesting",
        "set incus.nesting: false, and jobs cannot use docker",
    );
    check(
        instance.tmpfs_gib.is_some(),
        "a tmpfs",
        "restricted.devices.disk",
        "leave incus.tmpfsSizeInGb out",
    );
    if !forbidden.is_empty() {
        let finding = format!("{project} forbids {}", forbidden.join(" and "));
        return RESTRICTIONS.error(finding, fix.join("\n"));
    }
    if instance.nesting {
        RESTRICTIONS.ok(format!("{project} forbids nothing that the pool needs"))
    } else {
        RESTRICTIONS.ok("jobs cannot use docker: incus.nesting is false")
    }
}

async fn find_image(project: &Project, pool: &PoolSpec) -> Result<Option<Image>, IncusError> {
    match project.alias(&pool.instance.image).await? {
        Some(fingerprint) => project.image(&fingerprint).await,
        None => Ok(None),
    }
}

/// Judges profiles, given the devices of each, or that it does not exist.
fn judge_profiles(pool: &PoolSpec, profiles: &[Option<Devices>]) -> (Vec<Check>, Option<String>) {
    let project = &pool.instance.project;
    let names = &pool.instance.profiles;
    let missing: Vec<&str> = names
        .iter()
        .zip(profiles)
        .filter(|(_, devices)| devices.is_none())
        .map(|(name, _)| name.as_str())
        .collect();
    if !missing.is_empty() {
        let finding = format!("project {project} has no profile {}", missing.join(", "));
        let fix: Vec<String> = missing
            .iter()
            .map(|name| format!("incus profile create {name} --project {project}"))
            .collect();
        return (vec![PROFILES.error(finding, fix.join("\n"))], None);
    }
    // As Incus does: a later profile's device replaces an earlier one of the same name.
    let devices: Devices = profiles
        .iter()
        .flatten()
        .flatten()
        .map(|(name, device)| (name.clone(), device.clone()))
        .collect();
    let (root, storage) = judge_root(pool, &devices);
    let there = match names.as_slice() {
        [] => "none configured".to_owned(),
        names => names.join(", "),
    };
    let checks = vec![PROFILES.ok(there), root, judge_network(pool, &devices)];
    (checks, storage)
}

fn judge_root(pool: &PoolSpec, devices: &Devices) -> (Check, Option<String>) {
    if let Some(storage) = &pool.instance.storage_pool {
        let check = ROOT_DISK.ok(format!("on storage pool {storage}, by storagePool"));
        return (check, Some(storage.clone()));
    }
    let is_root =
        |device: &&BTreeMap<String, String>| is(device, "type", "disk") && is(device, "path", "/");
    match devices
        .values()
        .find(is_root)
        .and_then(|root| root.get("pool"))
    {
        Some(storage) => (
            ROOT_DISK.ok(format!("on storage pool {storage}")),
            Some(storage.clone()),
        ),
        None => {
            let profile = pool.instance.profiles.first().map_or("default", |p| p);
            let finding = format!(
                "no root disk in the profiles {}",
                pool.instance.profiles.join(", ")
            );
            let fix = format!(
                "incus profile device add {profile} root disk path=/ pool=POOL --project {}\n\
                 incus storage list    # names the pools",
                pool.instance.project
            );
            (ROOT_DISK.error(finding, fix), None)
        }
    }
}

fn judge_network(pool: &PoolSpec, devices: &Devices) -> Check {
    let named = |wanted: &dyn Fn(&BTreeMap<String, String>) -> bool| -> Vec<&str> {
        let found = devices.iter().filter(|(_, device)| wanted(device));
        found.map(|(name, _)| name.as_str()).collect()
    };
    let nics = named(&|device| is(device, "type", "nic"));
    if !nics.is_empty() {
        return NETWORK.ok(nics.join(", "));
    }
    let other_ways = named(&|device| {
        is(device, "type", "proxy") || is(device, "type", "disk") && device.contains_key("source")
    });
    let add = format!(
        "incus profile device add {} eth0 nic network=incusbr0 --project {}\n\
         incus network list    # names the networks",
        pool.instance.profiles.first().map_or("default", |p| p),
        pool.instance.project
    );
    if other_ways.is_empty() {
        NETWORK.warning("no profile gives the guests a network card", add)
    } else {
        let ways = other_ways.join(", ");
        NETWORK.notice(
            format!(
                "no network card: guests have to reach Azure through the host, by device {ways}"
            ),
            format!("nothing, if that is meant; else:\n{add}"),
        )
    }
}

fn is(device: &BTreeMap<String, String>, key: &str, value: &str) -> bool {
    device.get(key).is_some_and(|found| found == value)
}

fn judge_image(
    pool: &PoolSpec,
    image: &Result<Option<Image>, Failure<IncusError>>,
    now: Timestamp,
) -> Check {
    let alias = &pool.instance.image;
    let make = provision(pool);
    let image = match image {
        Ok(Some(image)) => image,
        Ok(None) => {
            let project = &pool.instance.project;
            let finding = format!("no image {alias} in project {project}");
            return IMAGE.error(finding, make);
        }
        Err(failure) => {
            return IMAGE.skipped(format!("cannot ask for {alias}: {}", failure.text()));
        }
    };
    if !image.kind.is_empty() && image.kind != pool.instance.kind.api_name() {
        let finding = format!(
            "{alias} is an image for a {}, and the pool makes a {}",
            words(&image.kind),
            words(pool.instance.kind.api_name())
        );
        return IMAGE.error(finding, make);
    }
    let agent = match image.properties.get(AGENT_VERSION_PROPERTY) {
        Some(version) => format!("agent {version}"),
        None => "agent version not recorded in it".to_owned(),
    };
    let days = image
        .created_at
        .map(|made| now.duration_since(made).as_hours() / 24);
    match days {
        Some(days) if days > OLD_IMAGE_DAYS => {
            IMAGE.notice(format!("{alias} is {days} days old, {agent}"), make)
        }
        Some(0) => IMAGE.ok(format!("{alias}, made today, {agent}")),
        Some(days) => IMAGE.ok(format!(
            "{alias}, {} old, {agent}",
            super::count(usize::try_from(days).unwrap_or(0), "day")
        )),
        None => IMAGE.ok(format!("{alias}, of unknown age, {agent}")),
    }
}

fn words(kind: &str) -> &str {
    match kind {
        "virtual-machine" => "virtual machine",
        other => other,
    }
}

/// Returns the command that makes the pool's image.
fn provision(pool: &PoolSpec) -> String {
    let mut command = format!(
        "iapctl provision --base images:ubuntu/24.04 --target {}",
        pool.instance.image
    );
    if pool.instance.kind == InstanceKind::VirtualMachine {
        command.push_str(" --vm");
    }
    if pool.instance.project != "default" {
        command.push_str(" --project ");
        command.push_str(&pool.instance.project);
    }
    command + " --watch    # and its --script files"
}

#[cfg(test)]
mod tests;
