//! Kernel limits that all containers of a host share, against the number of agents and spares.
//!
//! The root of every container is the same user of the host, and the counters are hierarchical, so
//! no map of user ids keeps guests apart. Beyond a limit guests boot, fail and vanish without any
//! error from Incus.

use crate::pool::spec::{InstanceKind, PoolSpec};

use super::check::{Check, Topic};
use super::count;

const INOTIFY: Topic = Topic {
    id: "kernel-inotify",
    title: "inotify limit",
    why: "each guest's systemd watches files; at the limit guests fail while they boot and vanish \
          without an error from Incus",
};
const KEYS: Topic = Topic {
    id: "kernel-keys",
    title: "kernel keys",
    why: "each service of each guest has a keyring, and each container that a job starts; at the \
          limit guests fail while they boot and vanish without an error from Incus",
};
const KEY_BYTES: Topic = Topic {
    id: "kernel-key-bytes",
    title: "kernel key bytes",
    why: KEYS.why,
};
const PIDS: Topic = Topic {
    id: "kernel-pids",
    title: "process ids",
    why: "all processes and threads of all guests are numbered by the host; without a free number \
          nothing can be started, on the host neither",
};

/// Where what is said here survives a restart.
const KEEP_IN: &str = "/etc/sysctl.d/60-iapd.conf";

/// A limit: what a guest needs of it, and what to raise it to at least.
struct Limit {
    topic: Topic,
    name: &'static str,
    /// Counted on Debian 12 guests with an idle agent, and rounded up.
    per_guest: u64,
    raised: u64,
}

const LIMITS: [Limit; 3] = [
    Limit {
        topic: INOTIFY,
        name: "fs.inotify.max_user_instances",
        per_guest: 7,
        raised: 8192,
    },
    Limit {
        topic: KEYS,
        name: "kernel.keys.maxkeys",
        per_guest: 10,
        raised: 20_000,
    },
    Limit {
        topic: KEY_BYTES,
        name: "kernel.keys.maxbytes",
        per_guest: 200,
        raised: 2_000_000,
    },
];

/// Processes and threads that a build tends to have; a guess, so it only warns.
const THREADS_PER_AGENT: u64 = 500;
/// The host's own.
const THREADS_OF_HOST: u64 = 2000;
/// The most that a 64-bit kernel takes.
const MOST_PIDS: u64 = 4_194_304;

/// The kernel's limits; `None` where it does not say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    inotify: Option<u64>,
    keys: Option<u64>,
    key_bytes: Option<u64>,
    pids: Option<u64>,
}

impl Limits {
    /// Reads them.
    pub(super) fn read() -> Self {
        let read = |path: &str| {
            let text = std::fs::read_to_string(path).ok()?;
            text.trim().parse().ok()
        };
        Self {
            inotify: read("/proc/sys/fs/inotify/max_user_instances"),
            keys: read("/proc/sys/kernel/keys/maxkeys"),
            key_bytes: read("/proc/sys/kernel/keys/maxbytes"),
            pids: read("/proc/sys/kernel/pid_max"),
        }
    }
}

/// Returns the checks, not made.
pub(super) fn skipped(reason: &str) -> Vec<Check> {
    [&INOTIFY, &KEYS, &KEY_BYTES, &PIDS]
        .map(|topic| topic.skipped(reason))
        .to_vec()
}

/// Judges the limits for the configured agents. Virtual machines have a kernel of their own.
pub(super) fn judge(limits: &Limits, pools: &[PoolSpec]) -> Vec<Check> {
    let agents = pools
        .iter()
        .filter(|pool| pool.instance.kind == InstanceKind::Container)
        .map(|pool| u64::from(pool.guests()))
        .sum();
    let values = [limits.inotify, limits.keys, limits.key_bytes];
    let mut checks: Vec<Check> = LIMITS
        .iter()
        .zip(values)
        .map(|(limit, value)| judge_limit(limit, value, agents))
        .collect();
    checks.push(judge_pids(limits.pids, agents));
    checks
}

fn judge_limit(limit: &Limit, value: Option<u64>, agents: u64) -> Check {
    let (topic, name) = (&limit.topic, limit.name);
    let Some(value) = value else {
        return topic.skipped(format!("the kernel does not tell {name}"));
    };
    let carries = value / limit.per_guest;
    let guests = count(usize::try_from(carries).unwrap_or(usize::MAX), "container");
    let finding = format!("{name} is {value}, enough for about {guests}; {agents} configured");
    let fix = raise(name, limit.raised.max(agents * limit.per_guest * 4));
    if carries < agents {
        topic.error(finding, fix)
    } else if carries < agents * 2 {
        // Successors boot while the last jobs end, images are made, and jobs want some, too.
        topic.warning(finding, fix)
    } else {
        topic.ok(finding)
    }
}

fn judge_pids(value: Option<u64>, agents: u64) -> Check {
    let Some(value) = value else {
        return PIDS.skipped("the kernel does not tell kernel.pid_max");
    };
    let carries = value.saturating_sub(THREADS_OF_HOST) / THREADS_PER_AGENT;
    let finding = format!(
        "kernel.pid_max is {value}, enough for about {carries} builds of {THREADS_PER_AGENT} \
         threads; {agents} configured"
    );
    if carries < agents {
        PIDS.warning(finding, raise("kernel.pid_max", MOST_PIDS))
    } else {
        PIDS.ok(finding)
    }
}

/// Returns the commands that raise a limit now and for good.
fn raise(name: &str, value: u64) -> String {
    format!("sysctl -w {name}={value}\necho '{name} = {value}' >> {KEEP_IN}")
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::tests::{pool, severities};
    use super::*;

    fn pools(containers: u32, vms: u32) -> Vec<PoolSpec> {
        let mut container = pool("c");
        // One in four is a spare.
        container.spares = containers / 4;
        container.agent_count = containers - container.spares;
        let mut vm = pool("vm");
        vm.agent_count = vms;
        vm.instance.kind = InstanceKind::VirtualMachine;
        vec![container, vm]
    }

    #[test]
    fn debians_defaults_carry_few_agents_and_virtual_machines_do_not_count() {
        use Severity::{Error, Ok, Warning};
        let debian = Limits {
            inotify: Some(128),
            keys: Some(200),
            key_bytes: Some(20_000),
            pids: Some(32_768),
        };
        let raised = Limits {
            inotify: Some(8192),
            keys: Some(20_000),
            key_bytes: Some(2_000_000),
            pids: Some(4_194_304),
        };
        let cases = [
            (debian, 4, 100, [Ok, Ok, Ok, Ok]),
            (debian, 12, 0, [Warning, Warning, Ok, Ok]),
            (debian, 32, 0, [Error, Error, Ok, Ok]),
            (debian, 100, 0, [Error, Error, Warning, Warning]),
            (raised, 100, 0, [Ok, Ok, Ok, Ok]),
            (Limits::default(), 1, 0, [Severity::Skipped; 4]),
        ];
        for (limits, containers, vms, expected) in cases {
            let checks = judge(&limits, &pools(containers, vms));
            assert_eq!(severities(&checks), expected, "{limits:?} {containers}");
        }
    }

    #[test]
    fn the_fix_is_a_line_for_now_and_one_for_good() {
        let limits = Limits {
            inotify: Some(128),
            ..Limits::default()
        };
        let checks = judge(&limits, &pools(32, 0));
        assert_eq!(
            checks[0].finding,
            "fs.inotify.max_user_instances is 128, enough for about 18 containers; 32 configured"
        );
        assert_eq!(
            checks[0].fix,
            "sysctl -w fs.inotify.max_user_instances=8192\n\
             echo 'fs.inotify.max_user_instances = 8192' >> /etc/sysctl.d/60-iapd.conf"
        );
        let many = judge(&limits, &pools(1000, 0));
        assert!(many[0].fix.contains("=28000\n"), "{}", many[0].fix);
    }
}
