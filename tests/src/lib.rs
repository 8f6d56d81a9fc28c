//! What the system tests are made of: the Azure DevOps simulator, the test bed, a host to test.

pub mod azure_sim;
pub mod bench;
pub mod chaos;
pub mod cluster;
pub mod fault_proxy;
pub mod host;
pub mod private_incus;
pub mod testbed;
pub mod wait;
