//! How a btrfs file system keeps its quotas, read from sysfs: the file system itself is mounted
//! where only incusd sees it. <https://btrfs.readthedocs.io/en/latest/ch-sysfs.html>

use std::fs;
use std::path::{Path, PathBuf};

/// How quotas are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Quotas {
    /// Not at all.
    Off,
    /// By the first owner of each extent: cheap.
    Simple,
    /// By who shares which extent: expensive to delete under.
    Classic,
    /// Cannot be told from here, and why.
    Unknown(String),
}

/// Looks at the file system behind a storage pool's source: a file, a device, its UUID, or a
/// folder of a file system of the host.
pub(super) fn look(source: Option<&Path>) -> Quotas {
    look_in(Path::new("/sys"), source)
}

fn look_in(sys: &Path, source: Option<&Path>) -> Quotas {
    let all = file_systems(sys);
    if all.is_empty() {
        return Quotas::Unknown("no btrfs file system is visible in /sys/fs/btrfs".to_owned());
    }
    if let Some(found) = source.and_then(|source| behind(sys, &all, source)) {
        return quotas(found);
    }
    // Which one it is cannot be told; it does not matter when they are all alike.
    let mut kinds: Vec<Quotas> = all.iter().map(|path| quotas(path)).collect();
    kinds.dedup();
    match kinds.as_slice() {
        [one] => one.clone(),
        _ => Quotas::Unknown(
            "cannot tell which of the host's btrfs file systems it is on".to_owned(),
        ),
    }
}

/// Returns the folders of all mounted btrfs file systems.
fn file_systems(sys: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(sys.join("fs/btrfs")).into_iter().flatten();
    let mut all: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("devices").is_dir())
        .collect();
    all.sort();
    all
}

/// Returns the file system of a source.
fn behind<'a>(sys: &Path, all: &'a [PathBuf], source: &Path) -> Option<&'a PathBuf> {
    let by_uuid = |uuid: &Path| all.iter().find(|path| path.file_name() == uuid.file_name());
    if let Some(found) = by_uuid(source) {
        return Some(found);
    }
    let device = source.canonicalize().ok();
    let device = device.as_deref().and_then(Path::file_name);
    all.iter().find(|path| {
        let devices = fs::read_dir(path.join("devices")).into_iter().flatten();
        devices.flatten().any(|entry| {
            let name = entry.file_name();
            let backing = sys
                .join("class/block")
                .join(&name)
                .join("loop/backing_file");
            let file = fs::read_to_string(backing).unwrap_or_default();
            Path::new(file.trim_end()) == source || Some(name.as_os_str()) == device
        })
    })
}

fn quotas(file_system: &Path) -> Quotas {
    let folder = file_system.join("qgroups");
    // The folder is there while quotas are on. `enabled` is younger than it (Linux 6.1), and so is
    // `mode` (6.7): without it there are no others than classic ones.
    let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
    let text = |name: &str| read(name).map(|text| text.trim().to_owned());
    if !folder.is_dir() || text("enabled").as_deref() == Some("0") {
        return Quotas::Off;
    }
    match text("mode").as_deref() {
        Some("squota") => Quotas::Simple,
        Some("qgroup") | None => Quotas::Classic,
        Some(other) => Quotas::Unknown(format!("the kernel calls the quotas {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaa-0000-0000-0000-000000000001";
    const B: &str = "bbbbbbbb-0000-0000-0000-000000000002";

    /// Makes a file system on a loop device of `/disks/<device>.img`.
    fn add(sys: &Path, uuid: &str, device: &str, files: &[(&str, &str)]) {
        let folder = sys.join("fs/btrfs").join(uuid);
        fs::create_dir_all(folder.join("devices").join(device)).unwrap();
        let block = sys.join("class/block").join(device).join("loop");
        fs::create_dir_all(&block).unwrap();
        fs::write(block.join("backing_file"), format!("/disks/{device}.img\n")).unwrap();
        for (name, content) in files {
            fs::create_dir_all(folder.join("qgroups")).unwrap();
            fs::write(folder.join("qgroups").join(name), content).unwrap();
        }
    }

    #[test]
    fn the_kind_of_quotas_is_read_as_old_and_new_kernels_tell_it() {
        let cases: [(&[(&str, &str)], Quotas); 5] = [
            (&[], Quotas::Off),
            (&[("enabled", "0\n"), ("mode", "qgroup\n")], Quotas::Off),
            (&[("enabled", "1\n"), ("mode", "squota\n")], Quotas::Simple),
            (&[("enabled", "1\n"), ("mode", "qgroup\n")], Quotas::Classic),
            (&[("enabled", "1\n")], Quotas::Classic),
        ];
        for (files, expected) in cases {
            let sys = tempfile::tempdir().unwrap();
            fs::create_dir_all(sys.path().join("fs/btrfs/features")).unwrap();
            add(sys.path(), A, "loop0", files);
            assert_eq!(look_in(sys.path(), None), expected, "{files:?}");
        }
    }

    #[test]
    fn the_file_system_is_found_by_its_file_or_uuid_and_never_guessed() {
        let sys = tempfile::tempdir().unwrap();
        let look = |source: Option<&str>| look_in(sys.path(), source.map(Path::new));
        assert!(matches!(look(None), Quotas::Unknown(_)));
        add(sys.path(), A, "loop0", &[("mode", "squota\n")]);
        add(sys.path(), B, "loop1", &[("mode", "qgroup\n")]);
        assert_eq!(look(Some("/disks/loop0.img")), Quotas::Simple);
        assert_eq!(look(Some("/disks/loop1.img")), Quotas::Classic);
        assert_eq!(
            look(Some(&format!("/dev/disk/by-uuid/{B}"))),
            Quotas::Classic
        );
        assert!(matches!(look(Some("/elsewhere")), Quotas::Unknown(_)));
        assert!(matches!(look(None), Quotas::Unknown(_)));
    }
}
