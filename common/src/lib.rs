//! What `iapd` and `iapctl` share: the generated `iap.v1` interface, where the socket is, how to
//! connect to it, the types of events, and how an error chain is written. Nothing here does work of its own.

pub mod client;
pub mod error;
pub mod events;
pub mod socket;
pub mod v1;
