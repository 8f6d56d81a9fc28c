//! Where the daemon listens.

/// The socket's path unless configured otherwise.
pub const DEFAULT_PATH: &str = "/run/iapd/iapd.sock";

/// Environment variable that names another socket to `iapctl`.
pub const PATH_VARIABLE: &str = "IAPD_SOCKET";

/// Members of this group may use the socket.
pub const GROUP: &str = "iapd";
