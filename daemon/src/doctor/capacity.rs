//! The host's memory and cores against what all agents and spares may take together.

use crate::pool::spec::PoolSpec;

use super::check::{Check, Topic};

const MEMORY: Topic = Topic {
    id: "memory",
    title: "memory",
    why: "when all agents use what they may, the kernel kills processes, of the host's too",
};
const CORES: Topic = Topic {
    id: "cores",
    title: "cores",
    why: "when all agents are busy they slow each other down, and jobs with time limits fail",
};

/// What the host has; `None` where it does not say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    memory_bytes: Option<u64>,
    cores: Option<u64>,
}

impl Size {
    /// Asks the host.
    pub(super) fn read() -> Self {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            memory_bytes: total_memory(&text),
            cores: std::thread::available_parallelism()
                .ok()
                .and_then(|cores| u64::try_from(cores.get()).ok()),
        }
    }
}

/// Reads `MemTotal:       24576000 kB`.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// Returns the checks, not made.
pub(super) fn skipped(reason: &str) -> Vec<Check> {
    [&MEMORY, &CORES]
        .map(|topic| topic.skipped(reason))
        .to_vec()
}

/// Judges what the pools may take.
pub(super) fn judge(size: &Size, pools: &[PoolSpec]) -> Vec<Check> {
    vec![judge_memory(size, pools), judge_cores(size, pools)]
}

fn judge_memory(size: &Size, pools: &[PoolSpec]) -> Check {
    let Some(bytes) = size.memory_bytes else {
        return MEMORY.skipped("/proc/meminfo does not tell how much there is");
    };
    let (wanted, unlimited) = sum(pools, |pool| pool.instance.max_ram_gib);
    let has = bytes as f64 / f64::from(1 << 30);
    let terms = terms(pools, |pool| pool.instance.max_ram_gib, "GiB");
    let finding = format!("agents may take {terms} of {has:.1} GiB");
    let fix = "lower agentCount, spares or maxRamInGb, then: iapctl config reload";
    // What is left for the host: a tenth.
    if wanted as f64 > has {
        MEMORY.warning(finding, fix)
    } else if !unlimited.is_empty() {
        let names = unlimited.join(", ");
        MEMORY.notice(
            format!("agents of {names} may take all of the host's {has:.1} GiB each"),
            "set maxRamInGb for the pool, then: iapctl config reload",
        )
    } else if wanted as f64 > has * 0.9 {
        MEMORY.notice(finding + ", which leaves the host little", fix)
    } else {
        MEMORY.ok(finding)
    }
}

fn judge_cores(size: &Size, pools: &[PoolSpec]) -> Check {
    let Some(has) = size.cores else {
        return CORES.skipped("the host does not tell how many it has");
    };
    let (wanted, unlimited) = sum(pools, |pool| pool.instance.max_cores);
    let terms = terms(pools, |pool| pool.instance.max_cores, "cores");
    let finding = format!("agents may take {terms} of {has}");
    let fix = "nothing, if agents are seldom busy all at once; else lower agentCount or maxCores";
    if wanted > has {
        CORES.notice(finding, fix)
    } else if unlimited.is_empty() {
        CORES.ok(finding)
    } else {
        let names = unlimited.join(", ");
        CORES.ok(format!("agents of {names} may take all {has} each"))
    }
}

/// Returns what limited pools may take together, and the names of those without a limit.
fn sum(pools: &[PoolSpec], limit: fn(&PoolSpec) -> Option<u32>) -> (u64, Vec<&str>) {
    let at_work = || pools.iter().filter(|pool| pool.guests() > 0);
    let wanted = at_work()
        .filter_map(|pool| Some(u64::from(limit(pool)?) * u64::from(pool.guests())))
        .sum();
    let unlimited = at_work()
        .filter(|pool| limit(pool).is_none())
        .map(|pool| pool.name.as_str())
        .collect();
    (wanted, unlimited)
}

/// Returns the sum with its terms: `48 GiB (linux 4 x 8, big 1 x 16)`.
fn terms(pools: &[PoolSpec], limit: fn(&PoolSpec) -> Option<u32>, unit: &str) -> String {
    let (wanted, _) = sum(pools, limit);
    let terms: Vec<String> = pools
        .iter()
        .filter(|pool| pool.guests() > 0)
        .filter_map(|pool| {
            let guests = match pool.spares {
                0 => pool.agent_count.to_string(),
                spares => format!("({} + {spares} spare)", pool.agent_count),
            };
            Some(format!("{} {guests} x {}", pool.name, limit(pool)?))
        })
        .collect();
    match terms.as_slice() {
        [] => format!("{wanted} {unit}"),
        terms => format!("{wanted} {unit} ({})", terms.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::super::tests::pool;
    use super::*;

    fn of(count: u32, limit: Option<u32>) -> PoolSpec {
        let mut pool = pool("linux");
        pool.agent_count = count;
        pool.instance.max_ram_gib = limit;
        pool.instance.max_cores = limit;
        pool
    }

    #[test]
    fn the_sum_of_all_agents_is_held_against_the_host() {
        use Severity::{Notice, Ok, Warning};
        let size = Size {
            memory_bytes: Some(32 << 30),
            cores: Some(8),
        };
        let cases = [
            (of(4, Some(2)), Ok, Ok),
            (of(4, Some(4)), Ok, Notice),
            (of(4, Some(8)), Notice, Notice),
            (of(5, Some(8)), Warning, Notice),
            (of(4, None), Notice, Ok),
            (of(0, None), Ok, Ok),
        ];
        for (pool, memory, cores) in cases {
            let checks = judge(&size, std::slice::from_ref(&pool));
            let found = (checks[0].severity, checks[1].severity);
            assert_eq!(
                found,
                (memory, cores),
                "{} of {:?}",
                pool.agent_count,
                pool.instance
            );
        }
        let both = judge_memory(&size, &[of(4, Some(8)), of(1, Some(16))]);
        assert_eq!(
            both.finding,
            "agents may take 48 GiB (linux 4 x 8, linux 1 x 16) of 32.0 GiB"
        );
        let mut with_spare = of(3, Some(8));
        with_spare.spares = 1;
        let judged = judge_memory(&size, &[with_spare]);
        assert_eq!(judged.severity, Notice);
        assert!(
            judged.finding.contains("32 GiB (linux (3 + 1 spare) x 8)"),
            "{}",
            judged.finding
        );
    }

    #[test]
    fn a_host_that_does_not_tell_is_not_judged() {
        let checks = judge(&Size::default(), &[]);
        assert!(
            checks
                .iter()
                .all(|check| check.severity == Severity::Skipped)
        );
        assert_eq!(
            total_memory("MemTotal:   24576 kB\nMemFree: 1 kB\n"),
            Some(24576 * 1024)
        );
        assert_eq!(total_memory(""), None);
    }
}
