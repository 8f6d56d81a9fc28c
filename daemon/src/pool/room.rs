//! Whether the host has room for one more agent, or which members of a cluster have. Pure: what is
//! left goes in, words come out. Asked before anything is made, since a host without memory or disk
//! takes down the jobs that run.

use crate::members::{Amount, HostRoom, Member, Members};

use super::host_limit::HostLimit;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// What btrfs has set aside for its own books, Incus tells as free: a pool of 2 GiB without a byte
/// left for files was told to have 256 MiB, and larger ones set more aside.
const METADATA: u64 = 512 * MIB;

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
    /// Returns what of a member is left for a pool with its root disks in `storage`.
    fn of_member(room: &HostRoom, storage: Option<&str>) -> Self {
        let space = |name: &str| Some((name.to_owned(), *room.storage.get(name)?));
        Self {
            memory: room.memory,
            storage: storage.and_then(space),
        }
    }

    /// Returns what is short, if anything is. `member` says whose room this is in a cluster.
    pub fn shortage(&self, member: Option<&str>) -> Option<Shortage> {
        let memory = self.memory.and_then(|memory| {
            // A twentieth, but not more than an agent needs to boot well.
            let least = (memory.total / 20).clamp(256 * MIB, 2 * GIB);
            (memory.free < least).then(|| Shortage {
                limit: HostLimit::Memory,
                words: format!(
                    "{} has {} of memory left, and no agent is made below {}",
                    member.unwrap_or("the host"),
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
                    "storage pool {name}{} has {} left, and no agent is made below {}",
                    member.map_or_else(String::new, |member| format!(" on {member}")),
                    size(space.free),
                    size(least)
                ),
            })
        })
    }
}

/// Returns why a member of a cluster has no room for an agent with its root disk in `storage`.
/// That of one that says nothing is taken for enough.
pub fn member_shortage(members: &Members, name: &str, storage: Option<&str>) -> Option<Shortage> {
    let room = members.rooms.get(name)?;
    Room::of_member(room, storage).shortage(Some(name))
}

/// Returns why no member has room among those that take an agent; `None` where there is no such
/// member, which is not for want of room.
pub fn cluster_shortage<'a>(
    members: &'a Members,
    takes: impl Fn(&Member) -> bool,
    storage: Option<&str>,
) -> Option<Shortage> {
    let open = members.all.values().filter(|member| takes(member));
    let shortages: Option<Vec<Shortage>> = open
        .map(|member: &'a Member| member_shortage(members, &member.name, storage))
        .collect();
    let shortages = shortages.filter(|all| !all.is_empty())?;
    let words: Vec<&str> = shortages.iter().map(|short| &*short.words).collect();
    Some(Shortage {
        limit: shortages.first()?.limit,
        words: format!("no member of the cluster has room: {}", words.join("; ")),
    })
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
    use crate::incus::ClusterMember;

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
            let shortage = room.shortage(None);
            assert_eq!(shortage.map(|shortage| shortage.limit), limit, "{room:?}");
        }
    }

    #[test]
    fn a_shortage_is_told_with_figures() {
        let shortage = room((100 * MIB, 24 * GIB), (GIB, GIB))
            .shortage(None)
            .unwrap();
        assert_eq!(
            shortage.words,
            "the host has 100 MiB of memory left, and no agent is made below 1.2 GiB"
        );
    }

    #[test]
    fn each_member_is_judged_by_itself_and_full_ones_are_named() {
        let list = ["a", "b", "c"].map(|name| ClusterMember {
            name: name.into(),
            status: "Online".into(),
            ..ClusterMember::default()
        });
        let mut members = Members::of(list.into());
        let amount = |free| Amount {
            free,
            total: 20 * GIB,
        };
        let room = |memory, space| HostRoom {
            memory: Some(amount(memory)),
            storage: [("fast".into(), amount(space)), ("slow".into(), amount(0))].into(),
        };
        members.rooms = [
            ("a".into(), room(9 * GIB, MIB)),
            ("b".into(), room(MIB, 9 * GIB)),
        ]
        .into();
        let short = |member: &str, storage| member_shortage(&members, member, storage);
        let limit = |member, storage| short(member, storage).map(|short| short.limit);
        assert_eq!(limit("a", Some("fast")), Some(HostLimit::Storage));
        assert_eq!(limit("a", None), None, "no storage pool is known");
        assert_eq!(limit("b", Some("fast")), Some(HostLimit::Memory));
        assert_eq!(limit("c", Some("fast")), None, "it says nothing");
        let all = |takes: &[&str]| {
            let takes = |member: &Member| takes.contains(&&*member.name);
            cluster_shortage(&members, takes, Some("fast")).map(|short| short.words)
        };
        assert_eq!(all(&["a", "b", "c"]), None);
        assert_eq!(all(&[]), None);
        assert_eq!(
            all(&["a", "b"]).unwrap(),
            "no member of the cluster has room: storage pool fast on a has 1 MiB left, and no \
             agent is made below 1.5 GiB; b has 1 MiB of memory left, and no agent is made below \
             1.0 GiB"
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
