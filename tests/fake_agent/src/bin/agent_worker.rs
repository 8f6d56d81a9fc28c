//! The worker, to be.

fn main() {}
