//! Figures as a table, and the machine that they are of.

use std::fmt::Write as _;
use std::fs::read_to_string;

use super::candidate::Candidate;

/// What was measured of each candidate.
#[derive(Clone, Debug)]
pub struct Row {
    figure: String,
    goal: Goal,
    values: Vec<(Candidate, f64)>,
}

/// What idlewatch is to reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// No more.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
    /// Told for comparison; less is better.
    None,
}

impl Row {
    /// Nothing measured yet.
    pub fn new(figure: impl Into<String>, goal: Goal) -> Self {
        Self { figure: figure.into(), goal, values: Vec::new() }
    }

    /// One more candidate.
    pub fn add(&mut self, candidate: Candidate, value: f64) {
        eprintln!("  {}: {} = {}", self.figure, candidate.name(), number(value));
        self.values.push((candidate, value));
    }

    fn of(&self, wanted: Candidate) -> Option<f64> {
        self.values.iter().find(|(candidate, _)| *candidate == wanted).map(|(_, value)| *value)
    }

    fn best_peer(&self) -> Option<(Candidate, f64)> {
        let peers = self.values.iter().copied().filter(|(candidate, _)| candidate.is_peer());
        match self.goal {
            Goal::AtLeast(_) => peers.max_by(|a, b| a.1.total_cmp(&b.1)),
            _ => peers.min_by(|a, b| a.1.total_cmp(&b.1)),
        }
    }

    fn ratio(&self) -> Option<f64> {
        let (floor, ours) = (self.of(Candidate::Floor)?, self.of(Candidate::Idlewatch)?);
        (floor > 0.0).then(|| ours / floor)
    }

    fn is_met(&self) -> Option<bool> {
        let ours = self.of(Candidate::Idlewatch)?;
        match self.goal {
            Goal::AtMost(most) => Some(ours <= most),
            Goal::AtLeast(least) => Some(ours >= least),
            Goal::None => None,
        }
    }

    fn line(&self) -> String {
        let peer = self.best_peer().map(|(peer, value)| format!("{} ({})", number(value), peer.name()));
        let goal = match self.goal {
            Goal::AtMost(most) => format!("<= {}", number(most)),
            Goal::AtLeast(least) => format!(">= {}", number(least)),
            Goal::None => String::new(),
        };
        let met = self.is_met().map_or("", |met| if met { "yes" } else { "no" });
        let shown = |value: Option<f64>| value.map_or_else(String::new, number);
        let (floor, ours) = (shown(self.of(Candidate::Floor)), shown(self.of(Candidate::Idlewatch)));
        let (peer, ratio) = (peer.unwrap_or_default(), shown(self.ratio()));
        format!("| {} | {floor} | {ours} | {peer} | {ratio} | {goal} | {met} |\n", self.figure)
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The table in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        "| figure | floor | idlewatch | best peer | idlewatch/floor | to reach | met? |\n".to_owned();
    text.push_str("| --- | --- | --- | --- | --- | --- | --- |\n");
    text.extend(rows.iter().map(Row::line));
    text
}

/// All of it as a document.
pub fn document(rows: &[Row], scale: f64) -> String {
    let mut text =
        "# Results\n\nWritten by `bench/run`; [README.md](README.md) says how each figure is measured.\n"
            .to_owned();
    let _ = writeln!(text, "Scale {scale}. {}", machine());
    if scale < 1.0 {
        text.push_str("What is to be reached is meant for the full load: this is a rehearsal.\n");
    }
    text.push('\n');
    text + &table(rows)
}

/// What the figures depend on.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!(
        "Client, server and driver share {cores} cores of {}, Linux {}.",
        model.map_or("an unknown processor", |(_, model)| model),
        kernel.trim()
    )
}
