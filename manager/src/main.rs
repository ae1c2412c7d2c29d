//! The manager daemon and command line.
fn main() {}
