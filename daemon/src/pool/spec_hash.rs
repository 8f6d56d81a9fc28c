//! The fingerprint of what an agent is built from. It is kept with each instance; agents whose
//! fingerprint differs from their pool's are replaced when idle.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::spec::{InstanceKind, PoolSpec};

impl PoolSpec {
    /// Returns 12 hex digits that stand for what this pool's agents are built from. Counts, graces,
    /// intervals and credentials are not part of it.
    ///
    /// Defaults are left out, so that a daemon that knows one more key does not replace every agent.
    pub fn spec_hash(&self) -> String {
        let instance = &self.instance;
        let mut facts = BTreeMap::new();
        let mut add = |name: &'static str, value: Value, default: Value| {
            if value != default {
                facts.insert(name, value);
            }
        };
        add("kind", json!(instance.kind), json!(InstanceKind::Container));
        add("project", json!(instance.project), json!("default"));
        add("image", json!(instance.image), Value::Null);
        add("profiles", json!(instance.profiles), json!(["default"]));
        add("cores", json!(instance.max_cores), Value::Null);
        add("ram", json!(instance.max_ram_gib), Value::Null);
        add("tmpfs", json!(instance.tmpfs_gib), Value::Null);
        add("disk", json!(instance.disk_gib), Value::Null);
        add("storage", json!(instance.storage_pool), Value::Null);
        add("processes", json!(instance.max_processes), Value::Null);
        add("nesting", json!(instance.nesting), json!(true));
        add("target", json!(instance.target), Value::Null);
        add("env", json!(self.env), json!({}));
        add("azureUrl", json!(self.azure.url), Value::Null);
        add("azurePool", json!(self.azure.pool), Value::Null);
        let text = json!(facts).to_string();
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        digest
            .as_ref()
            .iter()
            .take(6)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use crate::pool::spec::{AzureSpec, CredentialSpec, InstanceSpec, Secret};

    use super::*;

    pub(in crate::pool) fn spec() -> PoolSpec {
        PoolSpec {
            name: "linux".into(),
            agent_count: 2,
            spares: 0,
            agent_prefix: "build1".into(),
            offline_grace: Duration::from_secs(300),
            startup_grace: Duration::from_secs(60),
            env: BTreeMap::new(),
            azure: AzureSpec {
                url: "https://dev.azure.com/org".into(),
                pool: "linux".into(),
                credential: CredentialSpec::Pat(Secret::new("secret")),
                poll_interval: Duration::from_secs(10),
                ca_file: None,
            },
            instance: InstanceSpec {
                kind: InstanceKind::Container,
                project: "default".into(),
                image: "runner".into(),
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
            reaper_interval: Duration::from_secs(30),
            keep: None,
        }
    }

    /// When this fails, an upgrade would replace every idle agent of every installation.
    #[test]
    fn the_hash_does_not_change_between_versions() {
        assert_eq!(spec().spec_hash(), "e837d15b1c4b");
        let mut full = spec();
        full.env = BTreeMap::from([("LANG".into(), "C.UTF-8".into()), ("A".into(), "b".into())]);
        full.instance = InstanceSpec {
            kind: InstanceKind::VirtualMachine,
            project: "ci".into(),
            image: "runner".into(),
            profiles: vec!["default".into(), "ci".into()],
            max_cores: Some(4),
            max_ram_gib: Some(8),
            tmpfs_gib: Some(2),
            disk_gib: Some(20),
            storage_pool: Some("fast".into()),
            max_processes: Some(4096),
            nesting: true,
            target: None,
        };
        assert_eq!(full.spec_hash(), "8c1d81396516");
    }

    #[test]
    fn everything_an_agent_is_built_from_changes_the_hash() {
        let changes: &[fn(&mut PoolSpec)] = &[
            |s| s.env = BTreeMap::from([("A".into(), "1".into())]),
            |s| s.azure.url = "https://dev.azure.com/other".into(),
            |s| s.azure.pool = "other".into(),
            |s| s.instance.kind = InstanceKind::VirtualMachine,
            |s| s.instance.project = "ci".into(),
            |s| s.instance.image = "other".into(),
            |s| s.instance.profiles = vec![],
            |s| s.instance.max_cores = Some(1),
            |s| s.instance.max_ram_gib = Some(1),
            |s| s.instance.tmpfs_gib = Some(1),
            |s| s.instance.disk_gib = Some(1),
            |s| s.instance.storage_pool = Some("1".into()),
            |s| s.instance.max_processes = Some(1),
            |s| s.instance.nesting = false,
            |s| s.instance.target = Some("1".into()),
        ];
        let mut seen = std::collections::HashSet::from([spec().spec_hash()]);
        for change in changes {
            let mut spec = spec();
            change(&mut spec);
            assert!(seen.insert(spec.spec_hash()), "{spec:?}");
        }
    }

    #[test]
    fn counts_graces_intervals_and_credentials_leave_the_hash_alone() {
        let mut other = spec();
        other.agent_count = 9;
        other.spares = 9;
        other.offline_grace = Duration::ZERO;
        other.startup_grace = Duration::ZERO;
        other.reconcile_interval = Duration::ZERO;
        other.reaper_interval = Duration::ZERO;
        other.member_grace = Duration::ZERO;
        other.azure.poll_interval = Duration::ZERO;
        other.azure.credential = CredentialSpec::PatFile(PathBuf::from("/pat"));
        other.azure.ca_file = Some(PathBuf::from("/ca"));
        assert_eq!(other.spec_hash(), spec().spec_hash());
    }
}
