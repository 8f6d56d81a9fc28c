//! The Incus client against a real Incus, and against one behind a proxy that makes faults.
//!
//! `IAPD_TEST_INCUS_SOCKET` and `IAPD_TEST_PROJECT` say where; the project has the image alias
//! `debian-min` and a profile `default` with a root disk.

#[path = "incus_client/bed.rs"]
mod bed;
#[path = "incus_client/exec.rs"]
mod exec;
#[path = "incus_client/faults.rs"]
mod faults;
#[path = "incus_client/files.rs"]
mod files;
#[path = "incus_client/images.rs"]
mod images;
#[path = "incus_client/instances.rs"]
mod instances;
