//! Where the daemon listens.

use std::path::{Path, PathBuf};

/// The socket's path unless configured otherwise.
pub const DEFAULT_PATH: &str = "/run/iapd/iapd.sock";

/// Environment variable that names another socket to `iapctl`.
pub const PATH_VARIABLE: &str = "IAPD_SOCKET";

/// Members of this group may use the socket.
pub const GROUP: &str = "iapd";

/// Members of this group may look, through a socket beside that one.
pub const VIEW_GROUP: &str = "iapd-view";

/// Returns where the socket for looking is: beside the other, `-view` before the extension.
pub fn view_path(path: &Path) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("-view");
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_for_looking_is_beside_the_other() {
        let view = |path: &str| view_path(Path::new(path)).display().to_string();
        assert_eq!(view(DEFAULT_PATH), "/run/iapd/iapd-view.sock");
        assert_eq!(view("/srv/a.b/my.iapd.sock"), "/srv/a.b/my.iapd-view.sock");
        assert_eq!(view("/srv/a.b/iapd"), "/srv/a.b/iapd-view");
    }
}
