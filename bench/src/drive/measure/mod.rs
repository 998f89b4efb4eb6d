//! The measures, one file each.

mod burst;
mod catch_up;
mod idle;
mod latency;
mod memory;
mod recovery;
mod soak;
mod start;

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
    /// How long the soak is.
    pub minutes: f64,
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
    #[value(alias = "setup")]
    Memory,
    /// From EXISTS to the line, with the state in memory and on disk, near and far.
    Latency,
    /// CPU per message in bursts, and the memory after them.
    Burst,
    /// CPU of a minute in which nothing happens.
    Idle,
    /// All connections are cut at once.
    Recovery,
    /// A million messages that wait.
    CatchUp,
    /// The binary, a large configuration, the way to the first login.
    Start,
    /// Many accounts for a long time, under steady mail and storms; not among `all`.
    Soak,
}

impl Measure {
    /// In the order in which they run.
    pub const ALL: &[Self] =
        &[Self::Memory, Self::Latency, Self::Burst, Self::Idle, Self::Recovery, Self::CatchUp, Self::Start];

    /// Measures.
    ///
    /// # Errors
    /// When anything goes wrong.
    pub fn run(self, plan: &Plan) -> Result<Vec<Row>> {
        eprintln!("{self:?}");
        match self {
            Self::Memory => memory::measure(plan),
            Self::Latency => latency::measure(plan),
            Self::Burst => burst::measure(plan),
            Self::Idle => idle::measure(plan),
            Self::Recovery => recovery::measure(plan),
            Self::CatchUp => catch_up::measure(plan),
            Self::Start => start::measure(plan),
            Self::Soak => soak::measure(plan),
        }
    }
}
