//! Tells from an error that the host, and not the pool, is what keeps agents from starting. Pure:
//! the servers' and the kernel's own words in, ours out. Only told to people; `iapctl doctor`
//! measures what is guessed here.

/// What of the host is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostLimit {
    /// The storage pool of the instances.
    Storage,
    /// Memory.
    Memory,
    /// Limits that all containers share; beyond them guests boot and vanish.
    Kernel,
    /// Process ids.
    Processes,
    /// Limits of the Incus project.
    Project,
}

/// Fragments of errors in lower case. The first that is found counts.
const WORDS: [(&str, HostLimit); 17] = [
    // Keyrings are full with the words of disks.
    ("keyring", HostLimit::Kernel),
    ("keyctl", HostLimit::Kernel),
    ("inotify", HostLimit::Kernel),
    ("too many open files", HostLimit::Kernel),
    ("vanished before", HostLimit::Kernel),
    ("no space left on device", HostLimit::Storage),
    ("disk quota exceeded", HostLimit::Storage),
    ("out of space", HostLimit::Storage),
    ("not enough space", HostLimit::Storage),
    ("insufficient free space", HostLimit::Storage),
    (
        "insufficient suitable allocatable extents",
        HostLimit::Storage,
    ),
    ("cannot allocate memory", HostLimit::Memory),
    ("out of memory", HostLimit::Memory),
    ("set up guest memory", HostLimit::Memory),
    ("resource temporarily unavailable", HostLimit::Processes),
    ("reached maximum number of instances", HostLimit::Project),
    ("reached maximum aggregate value", HostLimit::Project),
];

impl HostLimit {
    /// Returns the limit that an error speaks of, if it does.
    pub fn of(error: &str) -> Option<Self> {
        let error = error.to_lowercase();
        let found = WORDS.iter().find(|(word, _)| error.contains(word));
        found.map(|(_, limit)| *limit)
    }

    /// Returns what is wrong in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Storage => "the storage pool of the instances is full",
            Self::Memory => "the host has no memory left",
            Self::Kernel => "limits of the host's kernel are likely too low for so many guests",
            Self::Processes => "the host has no process ids left",
            Self::Project => "a limit of the Incus project is reached",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::apply::ApplyError;

    #[test]
    fn errors_of_the_host_are_told_from_others() {
        use HostLimit::{Kernel, Memory, Processes, Project, Storage};
        let vanished = ApplyError::Vanished.to_string();
        for (error, limit) in [
            (
                "create: write /rootfs/usr: no space left on device",
                Some(Storage),
            ),
            (
                "Failed to run: zfs clone: cannot create: out of space",
                Some(Storage),
            ),
            (
                "btrfs subvolume snapshot: Disk quota exceeded",
                Some(Storage),
            ),
            ("join session keyring: disk quota exceeded", Some(Kernel)),
            (
                "Failed to allocate manager object: Too many open files",
                Some(Kernel),
            ),
            (vanished.as_str(), Some(Kernel)),
            (
                "fork/exec /usr/bin/incusd: cannot allocate memory",
                Some(Memory),
            ),
            ("qemu: cannot set up guest memory 'mem0'", Some(Memory)),
            (
                "fork/exec: Resource temporarily unavailable",
                Some(Processes),
            ),
            (
                "Reached maximum number of instances of type \"container\" in project \"ci\"",
                Some(Project),
            ),
            ("Image not provided for instance creation", None),
            ("no answer within 30s", None),
        ] {
            assert_eq!(HostLimit::of(error), limit, "{error}");
        }
    }
}
