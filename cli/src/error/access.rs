//! Why this user may not use the socket, and the one command that changes it.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use iap_common::socket;
use nix::unistd::{Gid, Group, User, getgrouplist, getgroups, getuid};

/// What is known about the socket's group and this user.
struct Access {
    /// Group of the socket; none when only root may use it.
    group: Option<String>,
    user: String,
    /// The user is a member by the group database.
    member: bool,
    /// This session has the group.
    in_session: bool,
}

/// Returns the hint for a socket that refused this user.
pub(super) fn hint(path: &Path) -> String {
    let gid = std::fs::metadata(path)
        .ok()
        .map(|meta| Gid::from_raw(meta.gid()));
    let user = User::from_uid(getuid()).ok().flatten();
    let groups: Vec<Gid> = user
        .as_ref()
        .and_then(|user| {
            let name = CString::new(user.name.as_str()).ok()?;
            getgrouplist(&name, user.gid).ok()
        })
        .unwrap_or_default();
    let group = match gid {
        Some(gid) if gid.as_raw() == 0 => None,
        Some(gid) => Group::from_gid(gid).ok().flatten().map(|group| group.name),
        // The directory itself is closed: the packaged group is the best guess.
        None => Some(socket::GROUP.to_owned()),
    };
    text(&Access {
        group,
        user: user.map_or_else(|| "$USER".to_owned(), |user| user.name),
        member: gid.is_some_and(|gid| groups.contains(&gid)),
        in_session: gid.is_some_and(|gid| getgroups().is_ok_and(|mine| mine.contains(&gid))),
    })
}

fn text(access: &Access) -> String {
    let user = &access.user;
    match &access.group {
        None => "only root may use this socket: try again with sudo".to_owned(),
        Some(group) if access.in_session => {
            format!("you are in its group {group}: check the socket's mode and its directory's")
        }
        Some(group) if access.member => format!(
            "you are in group {group}, but this session began before that: \
             log out and in again, or: newgrp {group}"
        ),
        Some(group) => format!(
            "you are not in group {group}: sudo usermod -aG {group} {user}, then log in again"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(group: Option<&str>, member: bool, in_session: bool) -> String {
        let group = group.map(str::to_owned);
        text(&Access {
            group,
            user: "ana".to_owned(),
            member,
            in_session,
        })
    }

    #[test]
    fn the_hint_names_the_group_and_what_is_missing() {
        assert_eq!(
            access(Some("iapd"), false, false),
            "you are not in group iapd: sudo usermod -aG iapd ana, then log in again"
        );
        assert!(access(Some("iapd"), true, false).ends_with("or: newgrp iapd"));
        assert!(access(Some("iapd"), true, true).contains("check the socket's mode"));
        assert_eq!(
            access(None, false, false),
            "only root may use this socket: try again with sudo"
        );
    }
}
