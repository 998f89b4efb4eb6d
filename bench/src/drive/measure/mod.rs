//! The measures, one file each.

mod latency;
mod memory;

use super::Result;
use super::candidate::{Candidate, Places};
use super::report::Row;

/// What is measured, on whom, and how large.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything is.
    pub places: Places,
    /// Who.
    pub candidates: Vec<Candidate>,
    /// 1 is the full size.
    pub scale: f64,
}

impl Plan {
    /// A full number, scaled; never nothing.
    fn scaled(&self, full: u32) -> u32 {
        ((f64::from(full) * self.scale) as u32).max(10)
    }

    /// Those of the candidates that `wanted` says.
    fn candidates(&self, wanted: impl Fn(Candidate) -> bool) -> impl Iterator<Item = Candidate> {
        self.candidates.iter().copied().filter(move |&candidate| wanted(candidate))
    }
}

/// One measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Memory and set-up CPU per account, with and without TLS.
    Memory,
    /// From EXISTS to the line, with the state in memory and on disk, near and far.
    Latency,
}

impl Measure {
    /// In the order in which they run.
    pub const ALL: &[Self] = &[Self::Memory, Self::Latency];

    /// Measures.
    ///
    /// # Errors
    /// When anything goes wrong.
    pub fn run(self, plan: &Plan) -> Result<Vec<Row>> {
        eprintln!("{self:?}");
        match self {
            Self::Memory => memory::measure(plan),
            Self::Latency => latency::measure(plan),
        }
    }
}
