//! Writes a specification as a configuration file again: every key with the value that holds.

use std::path::Path;
use std::time::Duration;

use serde_yaml::Value;

use crate::pool::spec::{CredentialSpec, DaemonSpec, IncusSpec, InstanceKind, PoolSpec, ProofSpec};

use super::duration::format;
use super::file::{
    Azure, Daemon, DurationText, File, History, Incus, Instance, Keep, KeepWhenTexts, Listener,
    ManagedIdentity, Pool, Remote, ServicePrincipal, Shutdown, Socket, Texts, WorkloadIdentity,
};
use super::secrets::names_a_secret;

/// Returns the file that says all of `spec`. Secrets, and variables named like secrets, are masked.
pub(super) fn value(spec: &DaemonSpec) -> Value {
    let intervals = spec.pools.first();
    let file = File {
        pools: Some(spec.pools.iter().map(pool).collect()),
        daemon: Some(Daemon {
            reconcile_interval: intervals.map(|pool| duration(pool.reconcile_interval)),
            reaper_interval: intervals.map(|pool| duration(pool.reaper_interval)),
            member_grace_period: intervals.map(|pool| duration(pool.member_grace)),
            listener: Some(Listener {
                retry_delay: Some(duration(spec.listener_retry.first)),
                max_retry_delay: Some(duration(spec.listener_retry.longest)),
            }),
        }),
        incus: Some(incus(&spec.incus)),
        metrics_port: Some(spec.metrics.map_or(0, |address| address.port())),
        metrics_address: spec.metrics.map(|address| address.ip().to_string()),
        socket: Some(Socket {
            path: Some(path(&spec.socket.path)),
            mode: Some(format!("{:04o}", spec.socket.mode)),
            group: Some(spec.socket.group.clone()),
            view_group: Some(spec.socket.view_group.clone()),
        }),
        owner: spec.owner.clone(),
        state_dir: Some(path(&spec.state_dir)),
        history: Some(History {
            keep_for: Some(duration(spec.retention.age)),
            evidence_size_in_gb: u32::try_from(spec.retention.evidence_bytes >> 30).ok(),
        }),
        shutdown: spec.shutdown_wait.map(|wait| Shutdown {
            wait_for_jobs: Some(duration(wait)),
        }),
    };
    const INFALLIBLE: &str = "texts, numbers and lists can be written as YAML";
    let mut value = serde_yaml::to_value(&file).expect(INFALLIBLE);
    drop_absent(&mut value);
    value
}

fn incus(spec: &IncusSpec) -> Incus {
    match spec {
        IncusSpec::Socket(socket) => Incus {
            socket: Some(path(socket)),
            remote: None,
        },
        IncusSpec::Remote(remote) => Incus {
            socket: None,
            remote: Some(Remote {
                url: Some(Texts(remote.urls.clone())),
                client_cert: Some(path(&remote.client_cert)),
                client_key: Some(path(&remote.client_key)),
                server_cert: Some(path(&remote.server_cert)),
            }),
        },
    }
}

fn drop_absent(value: &mut Value) {
    match value {
        Value::Mapping(mapping) => {
            mapping.retain(|_, item| !item.is_null());
            mapping.values_mut().for_each(drop_absent);
        }
        Value::Sequence(items) => items.iter_mut().for_each(drop_absent),
        _ => {}
    }
}

fn pool(spec: &PoolSpec) -> Pool {
    let instance = &spec.instance;
    let masked = |name: &str, value: &str| {
        (
            name.to_owned(),
            if names_a_secret(name) { "***" } else { value }.to_owned(),
        )
    };
    Pool {
        name: Some(spec.name.clone()),
        agent_count: Some(spec.agent_count),
        spares: Some(spec.spares),
        agent_prefix: Some(spec.agent_prefix.clone()),
        offline_grace_period: Some(duration(spec.offline_grace)),
        env: Some(
            spec.env
                .iter()
                .map(|(name, value)| masked(name, value))
                .collect(),
        ),
        keep: spec.keep.as_ref().map(|keep| Keep {
            when: Some(KeepWhenTexts(
                keep.when
                    .iter()
                    .map(|when| when.as_str().to_owned())
                    .collect(),
            )),
            ttl: Some(duration(keep.ttl)),
            max: Some(keep.max),
        }),
        azure: Some(Azure {
            url: Some(spec.azure.url.clone()),
            pool: Some(spec.azure.pool.clone()),
            poll_interval: Some(duration(spec.azure.poll_interval)),
            ca_file: spec.azure.ca_file.as_deref().map(path),
            ..credential(&spec.azure.credential)
        }),
        incus: Some(Instance {
            image: Some(instance.image.clone()),
            project_name: Some(instance.project.clone()),
            profiles: Some(instance.profiles.clone()),
            vm: Some(instance.kind == InstanceKind::VirtualMachine),
            max_cores: instance.max_cores,
            max_ram_in_gb: instance.max_ram_gib,
            max_processes: instance.max_processes,
            tmpfs_size_in_gb: instance.tmpfs_gib,
            nesting: (instance.kind == InstanceKind::Container).then_some(instance.nesting),
            disk_size_in_gb: instance.disk_gib,
            storage_pool: instance.storage_pool.clone(),
            target: instance.target.clone(),
            startup_grace_period: Some(duration(spec.startup_grace)),
        }),
    }
}

/// Returns the keys that say what a credential is.
fn credential(spec: &CredentialSpec) -> Azure {
    let mut azure = Azure::default();
    match spec {
        CredentialSpec::Pat(secret) => azure.pat = Some(secret.to_string()),
        CredentialSpec::PatFile(file) => azure.pat_file = Some(path(file)),
        CredentialSpec::ManagedIdentity { client_id, .. } => {
            azure.managed_identity = Some(ManagedIdentity {
                client_id: client_id.clone(),
            });
        }
        CredentialSpec::Application(application) => {
            let file = Some(path(application.proof.file()));
            let tenant_id = Some(application.tenant_id.clone());
            let client_id = Some(application.client_id.clone());
            azure.authority_host = Some(application.authority_host.clone());
            if let ProofSpec::FederatedToken(_) = application.proof {
                azure.workload_identity = Some(WorkloadIdentity {
                    tenant_id,
                    client_id,
                    token_file: file,
                });
            } else {
                let is_secret = matches!(application.proof, ProofSpec::ClientSecret(_));
                azure.service_principal = Some(ServicePrincipal {
                    tenant_id,
                    client_id,
                    client_secret_file: file.clone().filter(|_| is_secret),
                    certificate_file: file.filter(|_| !is_secret),
                });
            }
        }
    }
    azure
}

fn duration(value: Duration) -> DurationText {
    DurationText(format(value))
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
