//! Whether the host has room for one more agent. Pure: what is left goes in, words come out. Asked
//! before anything is made, since a host without memory or disk takes down the jobs that run.

use super::host_limit::HostLimit;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What btrfs has set aside for its own books, Incus tells as free: a pool of 2 GiB without a byte
/// left for files was told to have 256 MiB, and larger ones set more aside.
const METADATA: u64 = 512 * MIB;

/// What is left of something, and how much there is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    /// What is left.
    pub free: u64,
    /// What there is.
    pub total: u64,
}

/// What is left of the host. What is not known is taken for enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Room {
    /// Memory that is free or can be made free, as the kernel estimates it.
    pub memory: Option<Amount>,
    /// The storage pool of the agents' root disks, and its space.
    pub storage: Option<(String, Amount)>,
}

/// Why no agent is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// What is short.
    pub limit: HostLimit,
    /// How much is left, and how much it would take.
    pub words: String,
}

impl Room {
    /// Returns what is short, if anything is.
    pub fn shortage(&self) -> Option<Shortage> {
        let memory = self.memory.and_then(|memory| {
            // A twentieth, but not more than an agent needs to boot well.
            let least = (memory.total / 20).clamp(256 * MIB, 2 * GIB);
            (memory.free < least).then(|| Shortage {
                limit: HostLimit::Memory,
                words: format!(
                    "the host has {} of memory left, and no agent is made below {}",
                    size(memory.free),
                    size(least)
                ),
            })
        });
        memory.or_else(|| {
            let (name, space) = self.storage.as_ref()?;
            let least = METADATA + (space.total / 20).min(5 * GIB);
            (space.total > 0 && space.free < least).then(|| Shortage {
                limit: HostLimit::Storage,
                words: format!(
                    "storage pool {name} has {} left, and no agent is made below {}",
                    size(space.free),
                    size(least)
                ),
            })
        })
    }
}

/// Reads what the kernel tells in `/proc/meminfo`.
pub fn memory(meminfo: &str) -> Option<Amount> {
    let bytes = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    };
    Some(Amount {
        free: bytes("MemAvailable:")?,
        total: bytes("MemTotal:")?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn size(bytes: u64) -> String {
    if bytes < GIB {
        format!("{} MiB", bytes / MIB)
    } else {
        format!("{:.1} GiB", bytes as f64 / GIB as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(memory: (u64, u64), storage: (u64, u64)) -> Room {
        let amount = |(free, total)| Amount { free, total };
        Room {
            memory: Some(amount(memory)),
            storage: Some(("default".into(), amount(storage))),
        }
    }

    #[test]
    fn a_twentieth_is_left_to_those_that_run() {
        use HostLimit::{Memory, Storage};
        let plenty = (GIB * 100, GIB * 100);
        let cases = [
            (room(plenty, plenty), None),
            (Room::default(), None),
            (room((GIB - 1, 20 * GIB), plenty), Some(Memory)),
            (room((GIB, 20 * GIB), plenty), None),
            // Small and large hosts.
            (room((255 * MIB, GIB), plenty), Some(Memory)),
            (room((2 * GIB, 1024 * GIB), plenty), None),
            (room(plenty, (GIB + METADATA - 1, 20 * GIB)), Some(Storage)),
            (room(plenty, (GIB + METADATA, 20 * GIB)), None),
            (room(plenty, (6 * GIB, 4096 * GIB)), None),
            // Some drivers do not know.
            (room(plenty, (0, 0)), None),
        ];
        for (room, limit) in cases {
            let shortage = room.shortage();
            assert_eq!(shortage.map(|shortage| shortage.limit), limit, "{room:?}");
        }
    }

    #[test]
    fn a_shortage_is_told_with_figures() {
        let shortage = room((100 * MIB, 24 * GIB), (GIB, GIB)).shortage().unwrap();
        assert_eq!(
            shortage.words,
            "the host has 100 MiB of memory left, and no agent is made below 1.2 GiB"
        );
    }

    #[test]
    fn the_kernel_tells_memory_in_kibibytes() {
        let text = "MemTotal:       24576000 kB\nMemFree: 1 kB\nMemAvailable:   2048 kB\n";
        let amount = memory(text).unwrap();
        assert_eq!((amount.free, amount.total), (2 * MIB, 24_576_000 * 1024));
        assert_eq!(memory("MemTotal: 5 kB\n"), None);
    }
}
