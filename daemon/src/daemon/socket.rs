//! The gRPC sockets, for operators and for viewers: handed over by systemd, or bound here with
//! their modes and groups.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use iap_common::socket::view_path;
use listenfd::ListenFd;
use nix::unistd::{Group, chown};
use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, info, warn};

use crate::grpc::Listeners;
use crate::pool::spec::SocketSpec;

/// A daemon that lives answers a connect at once.
const PROBE: Duration = Duration::from_secs(2);
/// Viewers connect, and nobody else: connecting takes the right to write.
const VIEW_MODE: u32 = 0o660;

/// The sockets' files that were made here.
#[derive(Default)]
pub(super) struct Bound(Vec<PathBuf>);

/// Returns the listening sockets. With any from systemd there are only those.
pub(super) async fn listen(spec: &SocketSpec) -> anyhow::Result<(Listeners, Bound)> {
    let mut handed_over = ListenFd::from_env();
    if handed_over.len() > 0 {
        return Ok((take_over(&mut handed_over)?, Bound::default()));
    }
    let mut bound = Bound::default();
    let operators = bind_for_operators(spec).await?;
    bound.0.push(spec.path.clone());
    let path = view_path(&spec.path);
    let viewers = match bind_for_viewers(&path, &spec.view_group).await {
        Ok(listener) => listener,
        Err(error) => {
            let error = format!("{error:#}");
            warn!(socket = %path.display(), error, "no socket for viewers");
            None
        }
    };
    if viewers.is_some() {
        bound.0.push(path);
    }
    let listeners = Listeners {
        operators: Some(operators),
        viewers,
    };
    Ok((listeners, bound))
}

/// Takes the sockets that systemd made.
fn take_over(handed_over: &mut ListenFd) -> anyhow::Result<Listeners> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let places = Places::of(&names, handed_over.len())?;
    let mut take = |place: Option<usize>| -> anyhow::Result<Option<UnixListener>> {
        let Some(place) = place else {
            return Ok(None);
        };
        let taken = handed_over.take_unix_listener(place);
        let Some(listener) = taken.context("systemd handed over something else than a socket")?
        else {
            return Ok(None);
        };
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener).context("cannot use systemd's socket")?;
        Ok(Some(listener))
    };
    let listeners = Listeners {
        operators: take(places.operators)?,
        viewers: take(places.viewers)?,
    };
    info!(
        operators = listeners.operators.is_some(),
        viewers = listeners.viewers.is_some(),
        "sockets handed over by systemd"
    );
    Ok(listeners)
}

/// Which of the sockets that systemd handed over is which.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    operators: Option<usize>,
    viewers: Option<usize>,
}

impl Places {
    /// Goes by the units' `FileDescriptorName=`. Without names the first is the operators' and the
    /// second the viewers'.
    fn of(names: &str, count: usize) -> anyhow::Result<Self> {
        let named = |name| names.split(':').position(|given| given == name);
        let places = Self {
            operators: named("api"),
            viewers: named("view"),
        };
        if places.operators.is_some() || places.viewers.is_some() {
            return Ok(places);
        }
        // What a socket unit without a name of its own gives is the unit's name, and units come in
        // no order: a guess could open to viewers what is for operators.
        let has_names = names.split(':').any(|name| !matches!(name, "" | "unknown"));
        if count > 1 && has_names {
            bail!(
                "systemd handed over {count} sockets named {names}: set FileDescriptorName=api in \
                 the socket unit for operators, and FileDescriptorName=view in that for viewers"
            );
        }
        Ok(Self {
            operators: Some(0),
            viewers: (count > 1).then_some(1),
        })
    }
}

async fn bind_for_operators(spec: &SocketSpec) -> anyhow::Result<UnixListener> {
    let path = &spec.path;
    clear(path).await?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let listener = bind_closed(path)?;
    // Closed while its group is set, then opened as far as it shall be.
    let given = find_group(&spec.group).and_then(|group| give_to_group(path, &group));
    let mode = match given {
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
    open(path, mode)?;
    Ok(listener)
}

/// Returns nothing where there are no viewers.
async fn bind_for_viewers(path: &Path, group: &str) -> anyhow::Result<Option<UnixListener>> {
    let group = match find_group(group) {
        Ok(group) => group,
        Err(why) => {
            debug!("{why}: no socket for viewers");
            return Ok(None);
        }
    };
    clear(path).await?;
    let listener = bind_closed(path)?;
    if let Err(why) = give_to_group(path, &group) {
        let _ = std::fs::remove_file(path);
        bail!(why);
    }
    open(path, VIEW_MODE)?;
    Ok(Some(listener))
}

fn open(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
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

fn find_group(name: &str) -> Result<Group, String> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group),
        Ok(None) => Err(format!("there is no group {name}")),
        Err(error) => Err(format!("cannot look up group {name}: {error}")),
    }
}

fn give_to_group(path: &Path, group: &Group) -> Result<(), String> {
    let name = &group.name;
    chown(path, None, Some(group.gid))
        .map_err(|error| format!("cannot give the socket to group {name}: {error}"))
}

/// Removes the sockets that were bound here. Those from systemd are systemd's.
pub(super) fn remove(bound: &Bound) {
    for path in &bound.0 {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(names: &str, count: usize) -> (Option<usize>, Option<usize>) {
        let places = Places::of(names, count).unwrap();
        (places.operators, places.viewers)
    }

    #[test]
    fn sockets_from_systemd_are_told_by_name_then_by_place() {
        assert_eq!(places("api:view", 2), (Some(0), Some(1)));
        assert_eq!(places("view:api", 2), (Some(1), Some(0)));
        assert_eq!(places("view", 1), (None, Some(0)));
        assert_eq!(places("api", 1), (Some(0), None));
        assert_eq!(places("iapd.socket", 1), (Some(0), None));
        assert_eq!(places("", 1), (Some(0), None));
        assert_eq!(places("", 2), (Some(0), Some(1)));
        assert_eq!(places("unknown:unknown", 2), (Some(0), Some(1)));
    }

    #[test]
    fn of_several_sockets_none_is_taken_for_the_operators_by_guessing() {
        let error = Places::of("iapd-view.socket:iapd.socket", 2).unwrap_err();
        assert!(error.to_string().contains("FileDescriptorName=api"));
        assert_eq!(places("view:iapd.socket", 2), (None, Some(0)));
    }
}
