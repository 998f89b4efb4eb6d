//! A million messages wait in a hundred mailboxes, and all are to be told: how fast, and at what memory.

use std::time::Duration;
use std::{sync::mpsc, thread};

use super::Plan;
use crate::clock;
use crate::drive::candidate::{Candidate, Work};
use crate::drive::load::Load;
use crate::drive::report::{Goal, Row};
use crate::drive::{Result, proc};

const ACCOUNTS: u32 = 100;

pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let each = plan.scaled(10_000);
    let name = format!("catch-up of {} messages, messages/s", each * ACCOUNTS);
    let mut speed = Row::new(name, Goal::AtLeast(20_000.0));
    let mut flat = Row::new("catch-up: most memory of the second half / of the first", Goal::AtMost(1.1));
    let mut most = Row::new("catch-up: most memory, MiB", Goal::None);
    for candidate in plan.candidates(|who| !who.is_peer()) {
        let caught_up = catch_up(plan, candidate, each)?;
        speed.add(candidate, caught_up.speed);
        flat.add(candidate, caught_up.growth);
        most.add(candidate, caught_up.most_mib);
    }
    Ok(vec![speed, flat, most])
}

struct CaughtUp {
    speed: f64,
    growth: f64,
    most_mib: f64,
}

fn catch_up(plan: &Plan, candidate: Candidate, each: u32) -> Result<CaughtUp> {
    let total = u64::from(each) * u64::from(ACCOUNTS);
    let load = Load { users: ACCOUNTS, fill: each, ..Load::default() };
    let work = Work { all: true, to_file: true, ..Work::new(ACCOUNTS) };
    let mut run = candidate.run(&plan.places, &load, &work)?;
    let samples = Samples::start(run.pid());
    run.wait_for_lines(total, 600)?;
    let seconds = clock::millis(run.server.stat("first_login_at")?, clock::nanos()) / 1000.0;
    let samples = samples.end();
    let (first, second) = samples.split_at(samples.len() / 2);
    let most = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
    if run.count()? != total {
        return Err(format!("{} lines of {total} messages", run.count()?).into());
    }
    // Too short for a sample: nothing grew.
    let growth = if most(first) > 0.0 { most(second) / most(first) } else { 1.0 };
    Ok(CaughtUp { speed: total as f64 / seconds, growth, most_mib: most(&samples) / 1024.0 })
}

/// Private memory, ten times a second.
struct Samples {
    end: mpsc::Sender<()>,
    taken: thread::JoinHandle<Vec<f64>>,
}

impl Samples {
    fn start(pid: u32) -> Self {
        let (end, ended) = mpsc::channel();
        let taken = thread::spawn(move || {
            let mut samples = Vec::new();
            while ended.recv_timeout(Duration::from_millis(100)) == Err(mpsc::RecvTimeoutError::Timeout) {
                samples.extend(proc::private_kib(pid));
            }
            samples
        });
        Self { end, taken }
    }

    fn end(self) -> Vec<f64> {
        drop(self.end);
        self.taken.join().unwrap_or_default()
    }
}
