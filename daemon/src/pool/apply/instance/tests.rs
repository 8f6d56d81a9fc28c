use super::*;
use crate::pool::spec_hash::tests::spec;

fn full(kind: InstanceKind) -> PoolSpec {
    let mut pool = spec();
    pool.instance.kind = kind;
    pool.instance.max_cores = Some(4);
    pool.instance.max_ram_gib = Some(8);
    pool.instance.max_processes = Some(4096);
    pool.instance.tmpfs_gib = Some(2);
    pool.instance.disk_gib = Some(50);
    pool
}

fn made(pool: &PoolSpec, sized_tmpfs: bool) -> NewInstance {
    let made = Made {
        root_pool: Some("fast".to_owned()),
        sized_tmpfs,
        restrictions: Restrictions::default(),
    };
    build("owner", pool, "hash", "linux-a", &made)
}

/// What is set, without what marks the instance as ours.
fn settings(instance: &NewInstance) -> Vec<String> {
    let config = instance.config.iter();
    config
        .filter(|(key, _)| !key.starts_with("user."))
        .map(|(key, value)| format!("{key}={value}"))
        .collect()
}

#[test]
fn a_virtual_machine_is_asked_for_without_what_only_containers_have() {
    let pool = full(InstanceKind::VirtualMachine);
    for sized_tmpfs in [false, true] {
        let vm = made(&pool, sized_tmpfs);
        assert_eq!(vm.kind, "virtual-machine");
        assert_eq!(
            settings(&vm),
            [
                "boot.autostart=false",
                "boot.host_shutdown_action=force-stop",
                "limits.cpu=4",
                "limits.memory=8GiB",
            ]
        );
        assert_eq!(vm.devices.keys().collect::<Vec<_>>(), ["root"]);
        let root = &vm.devices["root"];
        assert_eq!(root["size"], "50GiB");
        assert_eq!(root["pool"], "fast");
        assert_eq!(root["path"], "/");
        assert!(vm.ephemeral && vm.start);
    }
}

#[test]
fn a_container_gets_all_of_it() {
    let pool = full(InstanceKind::Container);
    let old = made(&pool, false);
    assert_eq!(
        settings(&old),
        [
            "boot.autostart=false",
            "boot.host_shutdown_action=force-stop",
            "limits.cpu=4",
            "limits.memory=8GiB",
            "limits.processes=4096",
            "raw.lxc=lxc.mount.entry = tmpfs tmp tmpfs rw,nosuid,nodev,size=2g,mode=1777,create=dir \
             0 0",
            "security.nesting=true",
        ]
    );
    assert_eq!(old.devices.keys().collect::<Vec<_>>(), ["root"]);
    let new = made(&pool, true);
    assert!(!new.config.contains_key("raw.lxc"));
    assert_eq!(new.devices["tmpfs"]["size"], "2GiB");
}

#[test]
fn without_a_size_the_root_disk_is_the_profiles() {
    let mut pool = full(InstanceKind::VirtualMachine);
    pool.instance.disk_gib = None;
    assert_eq!(made(&pool, true).devices.len(), 0);
    pool.instance.storage_pool = Some("own".to_owned());
    let root = &made(&pool, true).devices["root"];
    assert_eq!(root["pool"], "own");
    assert!(!root.contains_key("size"));
}
