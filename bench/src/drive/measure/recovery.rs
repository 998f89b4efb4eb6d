//! All connections are cut at once: how long until all accounts are in IDLE again, and what it leaves in memory.

use super::Plan;
use crate::clock;
use crate::drive::candidate::{Candidate, Work};
use crate::drive::load::Load;
use crate::drive::report::{Goal, Row};
use crate::drive::{Result, settle};

/// Storms after the first one, before the memory is looked at.
const FURTHER: u64 = 2;

pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let users = plan.scaled(5_000);
    let mut time = Row::new(format!("recovery of {users} TLS accounts, s"), Goal::AtMost(7.0));
    let mut memory = Row::new("memory after storms / before", Goal::AtMost(1.1));
    for candidate in plan.candidates(|who| !who.is_peer()) {
        let (seconds, ratio) = storms(plan, candidate, users)?;
        time.add(candidate, seconds);
        memory.add(candidate, ratio);
    }
    Ok(vec![time, memory])
}

/// Seconds of the first storm, and how the memory grew over all.
fn storms(plan: &Plan, candidate: Candidate, users: u32) -> Result<(f64, f64)> {
    let load = Load { users, ..Load::default() };
    let mut run = candidate.run(&plan.places, &load, &Work::new(users))?;
    run.wait_for_rest(users)?;
    settle(3.0);
    let memory = run.private_kib()?;
    let mut first = None;
    for _ in 0..=FURTHER {
        let logins = run.server.stat("logins")?;
        let cut_at = run.server.act("reset")?;
        run.wait_for_rest_after(logins + u64::from(users), users)?;
        let seconds = clock::millis(cut_at, run.server.stat("rested_at")?) / 1000.0;
        first.get_or_insert(seconds);
        settle(2.0);
    }
    Ok((first.unwrap_or_default(), run.private_kib()? / memory))
}
