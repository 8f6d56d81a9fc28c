//! What is wanted of a pool, and how its agents are named.

pub mod names;
pub mod spec;
mod spec_hash;
