//! Two daemons never share a state directory.

use std::fs::{File, OpenOptions};
use std::path::Path;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Locks the state directory for as long as the returned value lives.
pub(super) fn take(state_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = state_dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err((_, Errno::EWOULDBLOCK)) => bail!(
            "another iapd uses the state directory {}: stop it, or set stateDir",
            state_dir.display()
        ),
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
