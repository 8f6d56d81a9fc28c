//! What an agent's instance is made of: the request body, from the pool's spec.

use std::collections::BTreeMap;

use crate::agent::key;
use crate::incus::{ImageSource, IncusError, NewInstance, Project, Restrictions, Server};

use super::super::spec::{InstanceKind, InstanceSpec, PoolSpec};
use super::{ApplyError, Context};

/// Incus can size a tmpfs device; 6.0 LTS cannot.
const TMPFS_EXTENSION: &str = "container_disk_tmpfs";

/// Builds the request for an agent's instance, or for a spare one, on a member of a cluster.
pub(super) async fn new_instance(
    context: &Context,
    name: &str,
    member: Option<&str>,
    spare: bool,
) -> Result<NewInstance, ApplyError> {
    let spec = &context.spec.instance;
    let root_pool = match root_disk_needs_pool(spec) {
        true => Some(
            root_pool(&context.project, &spec.profiles)
                .await
                .map_err(ApplyError::incus(
                    "cannot read the profile for its root disk",
                ))?
                .ok_or_else(|| ApplyError::NoRootDisk(spec.profiles.join(", ")))?,
        ),
        false => None,
    };
    let sized_tmpfs = match spec.tmpfs_gib {
        Some(_) => {
            let server = server(context).await?;
            server.has_extension(TMPFS_EXTENSION)
        }
        None => false,
    };
    let restrictions = match &context.restrictions {
        Some(restrictions) => restrictions.clone(),
        None => {
            let asked = context.project.restrictions().await;
            asked.map_err(ApplyError::incus("cannot read the project"))?
        }
    };
    let made = Made {
        root_pool,
        sized_tmpfs,
        restrictions,
    };
    let mut instance = NewInstance {
        target: member.map(str::to_owned),
        ..build(
            &context.owner,
            &context.spec,
            &context.spec_hash,
            name,
            &made,
        )
    };
    if spare {
        let mark = (key::SPARE.to_owned(), "true".to_owned());
        instance.config.extend([mark]);
    }
    Ok(instance)
}

/// What the server says about how an instance may be made.
struct Made {
    root_pool: Option<String>,
    sized_tmpfs: bool,
    restrictions: Restrictions,
}

async fn server(context: &Context) -> Result<Server, ApplyError> {
    context
        .incus
        .server()
        .await
        .map_err(ApplyError::incus("cannot ask for Incus's extensions"))
}

/// A root device override replaces the profile's whole, so it has to name a pool.
fn root_disk_needs_pool(spec: &InstanceSpec) -> bool {
    spec.disk_gib.is_some() && spec.storage_pool.is_none()
}

/// Returns the storage pool of the root disk that the profiles give, if one does.
pub(in crate::pool) async fn root_pool(
    project: &Project,
    profiles: &[String],
) -> Result<Option<String>, IncusError> {
    for name in profiles.iter().rev() {
        let profile = project.profile(name).await?;
        let root = profile.as_ref().and_then(|profile| {
            profile.devices.values().find(|device| {
                device.get("type").is_some_and(|kind| kind == "disk")
                    && device.get("path").is_some_and(|path| path == "/")
            })
        });
        if let Some(pool) = root.and_then(|device| device.get("pool")) {
            return Ok(Some(pool.clone()));
        }
    }
    Ok(None)
}

fn build(owner: &str, pool: &PoolSpec, spec_hash: &str, name: &str, made: &Made) -> NewInstance {
    let spec = &pool.instance;
    let mut config = BTreeMap::from([
        (key::OWNER.to_owned(), owner.to_owned()),
        (key::POOL.to_owned(), pool.name.clone()),
        (key::SPEC.to_owned(), spec_hash.to_owned()),
        (key::AZURE_URL.to_owned(), pool.azure.url.clone()),
        (key::AZURE_POOL.to_owned(), pool.azure.pool.clone()),
        // Incus boots again what ran when it or the host was killed: a machine without its agent.
        ("boot.autostart".to_owned(), "false".to_owned()),
    ]);
    let container = spec.kind == InstanceKind::Container;
    let low_level = match spec.kind {
        InstanceKind::Container => "restricted.containers.lowlevel",
        InstanceKind::VirtualMachine => "restricted.virtual-machines.lowlevel",
    };
    if !made.restrictions.forbid(low_level) {
        // A single-use guest has nothing to save. Where Incus may not be told so, it gives the
        // guest its time to shut down.
        config.insert(
            "boot.host_shutdown_action".to_owned(),
            "force-stop".to_owned(),
        );
    }
    if container && spec.nesting {
        // Docker inside.
        config.insert("security.nesting".to_owned(), "true".to_owned());
    }
    if let Some(cores) = spec.max_cores {
        config.insert("limits.cpu".to_owned(), cores.to_string());
    }
    if let Some(ram) = spec.max_ram_gib {
        config.insert("limits.memory".to_owned(), format!("{ram}GiB"));
    }
    if let (Some(processes), true) = (spec.max_processes, container) {
        config.insert("limits.processes".to_owned(), processes.to_string());
    }
    let mut devices = BTreeMap::new();
    if spec.disk_gib.is_some() || spec.storage_pool.is_some() {
        devices.insert(
            "root".to_owned(),
            root_disk(spec, made.root_pool.as_deref()),
        );
    }
    if let (Some(gib), true) = (spec.tmpfs_gib, container) {
        if made.sized_tmpfs {
            devices.insert("tmpfs".to_owned(), tmpfs(gib));
        } else {
            let entry = format!(
                "lxc.mount.entry = tmpfs tmp tmpfs rw,nosuid,nodev,size={gib}g,mode=1777,create=dir 0 0"
            );
            config.insert("raw.lxc".to_owned(), entry);
        }
    }
    NewInstance {
        name: name.to_owned(),
        kind: spec.kind.api_name().to_owned(),
        alias: ImageSource::Alias(spec.image.clone()),
        profiles: spec.profiles.clone(),
        config,
        devices,
        ephemeral: true,
        start: true,
        target: None,
    }
}

fn root_disk(spec: &InstanceSpec, profile_pool: Option<&str>) -> BTreeMap<String, String> {
    let pool = spec
        .storage_pool
        .as_deref()
        .or(profile_pool)
        .unwrap_or_default();
    let mut device = BTreeMap::from([
        ("type".to_owned(), "disk".to_owned()),
        ("path".to_owned(), "/".to_owned()),
        ("pool".to_owned(), pool.to_owned()),
    ]);
    if let Some(gib) = spec.disk_gib {
        device.insert("size".to_owned(), format!("{gib}GiB"));
    }
    device
}

fn tmpfs(gib: u32) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("type".to_owned(), "disk".to_owned()),
        ("source".to_owned(), "tmpfs:".to_owned()),
        ("path".to_owned(), "/tmp".to_owned()),
        ("size".to_owned(), format!("{gib}GiB")),
    ])
}

#[cfg(test)]
mod tests;
