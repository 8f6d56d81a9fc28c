//! The operator's command line, to be.

fn main() {}
