//! One look at every account, and the end.

pub mod outcome;
