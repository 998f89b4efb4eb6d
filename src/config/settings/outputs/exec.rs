//! `type = "exec"`

use std::time::Duration;

/// A program that takes events on its standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSettings {
    /// The program and its arguments; no shell is between. At least the program is there.
    pub command: Vec<String>,
    /// What it finds in its environment, beside the few variables that every program gets.
    pub environment: Vec<(String, String)>,
    /// How many of them run at the same time.
    pub concurrency: usize,
    /// How long one may run.
    pub timeout: Duration,
}
