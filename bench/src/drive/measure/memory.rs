//! Private memory per idle account, as the slope between two sizes, and the CPU that it took to get there.

use super::Plan;
use crate::drive::candidate::{Candidate, Work};
use crate::drive::load::Load;
use crate::drive::report::{Goal, Row};
use crate::drive::{Result, settle};

pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let mut secure = Row::new("memory per idle TLS account, KiB", Goal::AtMost(16.0));
    let mut plain = Row::new("memory per idle plain account, KiB", Goal::AtMost(7.0));
    let mut set_up = Row::new("set-up CPU per TLS account, ms", Goal::AtMost(0.45));
    for candidate in plan.candidates(|_| true) {
        let (memory, cpu) = slope(plan, candidate, true)?;
        secure.add(candidate, memory);
        set_up.add(candidate, cpu);
        plain.add(candidate, slope(plan, candidate, false)?.0);
    }
    Ok(vec![secure, plain, set_up])
}

/// KiB per account, and milliseconds of CPU per account of the larger size.
fn slope(plan: &Plan, candidate: Candidate, tls: bool) -> Result<(f64, f64)> {
    let [few, many] = [1_000, 10_000].map(|users| candidate.share(plan.scaled(users)));
    let (small, _) = idle(plan, candidate, Work { tls, ..Work::new(few) })?;
    let (large, cpu) = idle(plan, candidate, Work { tls, ..Work::new(many) })?;
    Ok(((large - small) / f64::from(many - few), cpu / f64::from(many)))
}

fn idle(plan: &Plan, candidate: Candidate, work: Work) -> Result<(f64, f64)> {
    let load = Load { users: work.users, ..Load::default() };
    let mut run = candidate.run(&plan.places, &load, &work)?;
    run.wait_for_rest(work.users)?;
    let cpu = run.cpu_millis()?;
    settle(3.0);
    Ok((run.private_kib()?, cpu))
}
