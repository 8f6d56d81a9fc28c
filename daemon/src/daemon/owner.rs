//! Whose instances these are: told apart from those of another host, of a clone of this host with
//! its own Incus, and of another daemon on this host. Needs no store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;

/// Characters of the owner's mark.
const LENGTH: usize = 12;

/// What the owner is made from.
pub(crate) struct Source {
    configured: Option<String>,
    machine: String,
    state_dir: PathBuf,
}

impl Source {
    /// Takes what is known before Incus answers.
    pub(crate) fn new(configured: Option<String>, state_dir: &Path) -> Self {
        let machine = std::fs::read_to_string("/etc/machine-id")
            .map(|id| id.trim().to_owned())
            .ok()
            .filter(|id| !id.is_empty())
            .unwrap_or_else(crate::reload::host_name);
        let state_dir = state_dir
            .canonicalize()
            .unwrap_or_else(|_| state_dir.to_owned());
        Self {
            configured,
            machine,
            state_dir,
        }
    }

    /// Returns the owner, given the Incus server's certificate fingerprint.
    pub(crate) fn owner(&self, server: &str) -> Arc<str> {
        if let Some(owner) = &self.configured {
            return owner.as_str().into();
        }
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [
            self.machine.as_bytes(),
            server.as_bytes(),
            self.state_dir_bytes(),
        ] {
            context.update(part);
            context.update(&[0]);
        }
        let hash = context.finish();
        let hex: String = hash
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        hex[..LENGTH].into()
    }

    /// Returns a mark that needs no server: for builders, which live no longer than a job.
    pub(crate) fn provisional(&self) -> String {
        self.owner("").to_string()
    }

    fn state_dir_bytes(&self) -> &[u8] {
        self.state_dir.as_os_str().as_encoded_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(machine: &str, state_dir: &str) -> Source {
        Source {
            configured: None,
            machine: machine.into(),
            state_dir: state_dir.into(),
        }
    }

    #[test]
    fn a_clone_with_its_own_incus_and_a_second_daemon_are_other_owners() {
        let owner = source("m", "/var/lib/iapd").owner("fingerprint");
        assert_eq!(owner.len(), LENGTH);
        assert_eq!(owner, source("m", "/var/lib/iapd").owner("fingerprint"));
        assert_ne!(owner, source("m", "/var/lib/iapd").owner("another"));
        assert_ne!(owner, source("m", "/tmp/state").owner("fingerprint"));
        assert_ne!(owner, source("n", "/var/lib/iapd").owner("fingerprint"));
    }

    #[test]
    fn a_configured_owner_is_taken_as_it_is() {
        let source = Source {
            configured: Some("host-7".into()),
            ..source("m", "/s")
        };
        assert_eq!(&*source.owner("x"), "host-7");
    }
}
