//! Benchmarks, to be.

fn main() {}
