//! What the system tests are made of.

pub mod azure_sim;
pub mod fault_proxy;
