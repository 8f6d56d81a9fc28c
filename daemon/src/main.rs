//! The daemon, to be.

fn main() {}
