//! What the benchmarks are made of.

pub mod fill;
pub mod floor;
pub mod plan;
pub mod replace;
pub mod report;
pub mod soak;
pub mod steady;
pub mod usage;
