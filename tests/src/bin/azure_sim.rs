//! The simulator, to be.

fn main() {}
