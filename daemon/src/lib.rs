//! `iapd` keeps pools of single-use Azure Pipelines agents alive in Incus system containers.

pub mod azure;
pub mod calls;
pub mod config;
pub mod incus;
pub mod pool;
pub mod provision;
pub mod registration;
