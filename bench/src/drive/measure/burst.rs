//! CPU per message when many come at once, and what a burst leaves in memory.

use super::Plan;
use crate::drive::candidate::{Candidate, Run, Work};
use crate::drive::load::Load;
use crate::drive::report::{Goal, Row};
use crate::drive::{Result, settle};

/// Bursts that are counted.
const ROUNDS: u32 = 10;

pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let mut ones = Row::new("CPU per message, bursts of one a mailbox, ms", Goal::AtMost(0.1));
    let mut tens = Row::new("CPU per message, bursts of ten a mailbox, ms", Goal::None);
    let mut memory = Row::new("memory after bursts / before", Goal::AtMost(1.1));
    for candidate in plan.candidates(|_| true) {
        ones.add(candidate, bursts(plan, candidate, 1)?.0);
        let (cpu, ratio) = bursts(plan, candidate, 10)?;
        tens.add(candidate, cpu);
        memory.add(candidate, ratio);
    }
    Ok(vec![ones, tens, memory])
}

/// Milliseconds of CPU per message, and how the memory grew.
fn bursts(plan: &Plan, candidate: Candidate, size: u32) -> Result<(f64, f64)> {
    let users = candidate.share(plan.scaled(1_000));
    let load = Load { users, ..Load::default() };
    let mut run = candidate.run(&plan.places, &load, &Work { to_file: true, ..Work::new(users) })?;
    run.wait_for_rest(users)?;
    settle(2.0);
    let memory = run.private_kib()?;
    // The first one warms up.
    burst(&mut run, users, size)?;
    let (cpu, count) = (run.cpu_millis()?, run.count()?);
    for _ in 0..ROUNDS {
        burst(&mut run, users, size)?;
    }
    let per_message = (run.cpu_millis()? - cpu) / (run.count()? - count) as f64;
    settle(3.0);
    Ok((per_message, run.private_kib()? / memory))
}

/// Until all is told, and all that follows is done.
fn burst(run: &mut Run, users: u32, size: u32) -> Result<()> {
    let count = run.count()? + u64::from(users * size);
    run.server.act(&format!("burst {size}"))?;
    run.wait_for_lines(count, 60)?;
    settle(0.3);
    run.wait_for_rest(users)
}
