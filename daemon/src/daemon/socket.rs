//! The gRPC socket: handed over by systemd, or bound here with its mode and group.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use listenfd::ListenFd;
use nix::unistd::{Group, chown};
use tokio::net::{UnixListener, UnixStream};
use tracing::{info, warn};

use crate::pool::spec::SocketSpec;

/// A daemon that lives answers a connect at once.
const PROBE: Duration = Duration::from_secs(2);

/// Returns the listening socket.
pub(super) async fn listen(spec: &SocketSpec) -> anyhow::Result<UnixListener> {
    if let Some(listener) = ListenFd::from_env().take_unix_listener(0)? {
        listener.set_nonblocking(true)?;
        info!("socket handed over by systemd");
        return UnixListener::from_std(listener).context("cannot use systemd's socket");
    }
    let path = &spec.path;
    clear(path).await?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let listener = bind_closed(path)?;
    // Closed while its group is set, then opened as far as it shall be.
    let mode = match give_to_group(path, &spec.group) {
        Ok(()) => spec.mode,
        Err(why) => {
            warn!(
                socket = %path.display(),
                "{why}: only root and this user can use the socket. \
                 Make the group with: groupadd --system {}",
                spec.group
            );
            spec.mode & 0o600
        }
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))?;
    Ok(listener)
}

fn bind_closed(path: &Path) -> anyhow::Result<UnixListener> {
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    nix::sys::stat::umask(umask);
    bound.with_context(|| format!("cannot listen on {}", path.display()))
}

/// Removes what a dead daemon left; refuses when a live one answers.
async fn clear(path: &Path) -> anyhow::Result<()> {
    let Ok(found) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !found.file_type().is_socket() {
        bail!(
            "{} is there and is no socket: remove it, or set socket.path",
            path.display()
        );
    }
    match tokio::time::timeout(PROBE, UnixStream::connect(path)).await {
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            info!(socket = %path.display(), "removing the socket of a daemon that is gone");
            std::fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))
        }
        Ok(Err(error)) => Err(error).with_context(|| format!("cannot probe {}", path.display())),
        Ok(Ok(_)) | Err(_) => {
            bail!(
                "another iapd answers on {}: stop it, or set socket.path",
                path.display()
            )
        }
    }
}

fn give_to_group(path: &Path, name: &str) -> Result<(), String> {
    let group = match Group::from_name(name) {
        Ok(Some(group)) => group,
        Ok(None) => return Err(format!("there is no group {name}")),
        Err(error) => return Err(format!("cannot look up group {name}: {error}")),
    };
    chown(path, None, Some(group.gid))
        .map_err(|error| format!("cannot give the socket to group {name}: {error}"))
}

/// Removes the socket that was bound here. One from systemd stays: it is systemd's.
pub(super) fn remove(spec: &SocketSpec) {
    if std::env::var_os("LISTEN_FDS").is_none() {
        let _ = std::fs::remove_file(&spec.path);
    }
}
