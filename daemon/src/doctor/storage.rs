//! The storage pools of root disks: whether they copy on write, how full they are, and whether
//! btrfs drowns in its quotas.

use std::path::PathBuf;

use crate::incus::{Incus, IncusError, StoragePool, StorageSpace};

use super::check::{Check, Topic};
use super::qgroups::{self, Quotas};
use super::{Deadline, Failure};

const DRIVER: Topic = Topic {
    id: "storage-driver",
    title: "storage driver",
    why: "every agent is a fresh copy of its image: copy-on-write makes that a matter of milliseconds",
};
const SPACE: Topic = Topic {
    id: "storage-space",
    title: "storage space",
    why: "on a full storage pool no agent can be made and jobs fail in the middle",
};
const QUOTAS: Topic = Topic {
    id: "btrfs-quotas",
    title: "btrfs quotas",
    why: "under classic quotas each deleted agent costs the kernel so much that deletions pile up \
          and a busy host slows down for good; Incus turns them on by itself",
};

/// Shares of a pool's space, in percent.
const FEW: u64 = 15;
const TOO_FEW: u64 = 5;

/// Simple quotas came with it.
const SIMPLE_SINCE: (u32, u32) = (6, 7);

/// Returns the checks that need Incus, not made.
pub(super) fn skipped(reason: &str) -> Vec<Check> {
    [&DRIVER, &SPACE, &QUOTAS]
        .map(|topic| topic.skipped(reason))
        .to_vec()
}

/// Looks at a storage pool.
pub(super) async fn examine(
    incus: &Incus,
    name: &str,
    is_remote: bool,
    deadline: Deadline,
) -> Vec<Check> {
    let (pool, space) = tokio::join!(
        deadline.call(incus.storage_pool(name)),
        deadline.call(incus.storage_space(name)),
    );
    let mut checks = match pool {
        Ok(Some(pool)) => {
            let mut checks = vec![judge_driver(&pool), judge_space(&pool, &space)];
            if pool.driver == "btrfs" && is_remote {
                checks.push(QUOTAS.skipped("only its own host shows them: iapctl doctor there"));
            } else if pool.driver == "btrfs" {
                let source = pool.config.get("source").map(PathBuf::from);
                checks.push(judge_quotas(
                    name,
                    &qgroups::look(source.as_deref()),
                    kernel(),
                ));
            }
            checks
        }
        Ok(None) => {
            let finding = format!("Incus has no storage pool {name}");
            vec![DRIVER.error(finding, format!("incus storage create {name} btrfs"))]
        }
        Err(failure) => {
            let reason = format!("cannot ask for storage pool {name}: {}", failure.text());
            vec![DRIVER.skipped(reason)]
        }
    };
    for check in &mut checks {
        name.clone_into(&mut check.subject);
    }
    checks
}

fn judge_driver(pool: &StoragePool) -> Check {
    let name = &pool.name;
    let replace = "incus storage create fast btrfs size=50GiB    # or zfs\n\
                   set incus.storagePool: fast in iapd's configuration, then: iapctl config reload";
    match pool.driver.as_str() {
        driver @ ("btrfs" | "zfs") => DRIVER.ok(format!("{driver}, copies on write")),
        "dir" => DRIVER.warning(
            format!("{name} is a plain directory: each agent is a full copy of its image"),
            replace,
        ),
        driver @ ("lvm" | "lvmcluster") => {
            let is_thick = pool
                .config
                .get("lvm.use_thinpool")
                .is_some_and(|v| v == "false");
            let how = if is_thick {
                "each agent is a full copy of its image (lvm.use_thinpool=false)"
            } else {
                "each agent is a logical volume with a file system of its own, which is more work \
                 than a subvolume"
            };
            DRIVER.warning(format!("{name} is {driver}: {how}"), replace)
        }
        other => DRIVER.notice(
            format!("{name} is {other}, with which iapd has not been tried"),
            "btrfs and zfs are known to suit it",
        ),
    }
}

fn judge_space(pool: &StoragePool, space: &Result<StorageSpace, Failure<IncusError>>) -> Check {
    let space = match space {
        Ok(space) if space.total > 0 => space,
        Ok(_) => return SPACE.skipped("Incus does not know how large it is"),
        Err(failure) => return SPACE.skipped(format!("cannot ask: {}", failure.text())),
    };
    let free = space.total.saturating_sub(space.used);
    let percent = free.saturating_mul(100) / space.total;
    let finding = format!("{} of {} free ({percent} %)", gib(free), gib(space.total));
    let is_loop = pool
        .config
        .get("source")
        .is_some_and(|source| source.ends_with(".img"));
    let mut fix =
        "incus image list --all-projects    # delete old ones: incus image delete FINGERPRINT"
            .to_owned();
    if is_loop {
        let wanted = (space.total >> 30).saturating_mul(2).max(1);
        fix = format!("incus storage set {} size={wanted}GiB\n{fix}", pool.name);
    }
    match percent {
        _ if percent < TOO_FEW => SPACE.error(finding, fix),
        _ if percent < FEW => SPACE.warning(finding, fix),
        _ => SPACE.ok(finding),
    }
}

fn judge_quotas(name: &str, quotas: &Quotas, kernel: (u32, u32)) -> Check {
    let inside = "nsenter -t $(pidof incusd) -m btrfs";
    let path = format!("/var/lib/incus/storage-pools/{name}");
    let pending = format!("{inside} subvolume list -d {path} | wc -l    # deletions that pile up");
    let disable = format!("{inside} quota disable {path}");
    let convert = if kernel >= SIMPLE_SINCE {
        format!("{disable}\n{inside} quota enable --simple {path}    # btrfs-progs 6.7 or later")
    } else {
        format!("{disable}    # then root disks have no size limit; simple quotas need Linux 6.7")
    };
    match quotas {
        Quotas::Off => QUOTAS.ok("off"),
        Quotas::Simple => QUOTAS.ok("simple"),
        Quotas::Classic => QUOTAS.warning("classic quotas are on", format!("{convert}\n{pending}")),
        Quotas::Unknown(reason) => {
            let look = format!("{inside} qgroup show {path}    # an error: quotas are off");
            QUOTAS.skipped(reason.clone()).fix(format!(
                "look yourself: {look}\n{pending}\nif they are classic:\n{convert}"
            ))
        }
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Returns the running kernel's version; zeros when it does not say.
fn kernel() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    parse_kernel(&release)
}

fn parse_kernel(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn storage(driver: &str, config: &[(&str, &str)]) -> StoragePool {
        StoragePool {
            name: "fast".into(),
            driver: driver.into(),
            config: config
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            status: "Created".into(),
        }
    }

    #[test]
    fn drivers_that_do_not_copy_on_write_are_warned_of() {
        let cases = [
            ("btrfs", Severity::Ok),
            ("zfs", Severity::Ok),
            ("dir", Severity::Warning),
            ("lvm", Severity::Warning),
            ("ceph", Severity::Notice),
        ];
        for (driver, expected) in cases {
            assert_eq!(
                judge_driver(&storage(driver, &[])).severity,
                expected,
                "{driver}"
            );
        }
        let thick = judge_driver(&storage("lvm", &[("lvm.use_thinpool", "false")]));
        assert!(thick.finding.contains("full copy"), "{}", thick.finding);
    }

    #[test]
    fn space_is_judged_by_the_share_that_is_free() {
        let cases = [
            (0, Severity::Ok),
            (85, Severity::Ok),
            (86, Severity::Warning),
            (95, Severity::Warning),
            (96, Severity::Error),
            (120, Severity::Error),
        ];
        let file = storage("btrfs", &[("source", "/var/lib/incus/disks/fast.img")]);
        for (used, expected) in cases {
            let space = StorageSpace {
                used: used << 30,
                total: 100 << 30,
            };
            let check = judge_space(&file, &Ok(space));
            assert_eq!(check.severity, expected, "{used}");
            let grows = check.fix.starts_with("incus storage set fast size=200GiB");
            assert_eq!(grows, expected != Severity::Ok, "{}", check.fix);
        }
        let unknown = judge_space(&file, &Ok(StorageSpace::default()));
        assert_eq!(unknown.severity, Severity::Skipped);
        assert_eq!(
            judge_space(&file, &Err(Failure::Late)).severity,
            Severity::Skipped
        );
    }

    #[test]
    fn classic_quotas_come_with_the_commands_that_this_kernel_has() {
        let old = judge_quotas("fast", &Quotas::Classic, (6, 1));
        let new = judge_quotas("fast", &Quotas::Classic, (6, 12));
        assert_eq!(old.severity, Severity::Warning);
        assert!(!old.fix.contains("enable --simple"), "{}", old.fix);
        assert!(
            new.fix.starts_with(
                "nsenter -t $(pidof incusd) -m btrfs quota disable /var/lib/incus/storage-pools/fast\n\
                 nsenter -t $(pidof incusd) -m btrfs quota enable --simple /var/lib/incus/storage-pools/fast"
            ),
            "{}",
            new.fix
        );
        for quotas in [Quotas::Off, Quotas::Simple] {
            assert_eq!(
                judge_quotas("fast", &quotas, (6, 12)).severity,
                Severity::Ok
            );
        }
        let unknown = judge_quotas("fast", &Quotas::Unknown("hidden".into()), (6, 12));
        assert_eq!(unknown.severity, Severity::Skipped);
        assert!(
            unknown.fix.contains("quota enable --simple"),
            "{}",
            unknown.fix
        );
    }

    #[test]
    fn kernel_versions_are_read_whatever_follows_them() {
        let cases = [
            ("6.18.44-fc-v657\n", (6, 18)),
            ("6.7-rc1", (6, 7)),
            ("5", (5, 0)),
            ("", (0, 0)),
        ];
        for (release, expected) in cases {
            assert_eq!(parse_kernel(release), expected, "{release}");
        }
    }
}
