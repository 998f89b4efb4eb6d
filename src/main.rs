//! The binary: arguments, logger, app, exit code.

fn main() {}
