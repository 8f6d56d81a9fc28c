//! What an agent proves itself with: its key, and the three files that `config.sh` would write.
//!
//! Pure: nothing here calls Azure, touches a guest or reads a clock. The private key of a
//! registration exists only here and, as a file, in that agent's guest.

mod files;
mod key;
mod stock;

pub use self::files::{BundleError, BundleFile, bundle};
pub use self::key::{AgentKey, KeyError};
pub use self::stock::KeyStock;
