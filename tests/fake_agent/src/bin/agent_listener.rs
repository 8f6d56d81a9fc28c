//! The listener, to be.

fn main() {}
