//! What it costs to do nothing: no IDLE is issued anew in this minute.

use super::Plan;
use crate::drive::candidate::Work;
use crate::drive::load::Load;
use crate::drive::report::{Goal, Row};
use crate::drive::{Result, settle};

const SECONDS: f64 = 60.0;

pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let users = plan.scaled(10_000);
    let mut row = Row::new(format!("CPU of {users} idle accounts a minute, ms"), Goal::AtMost(5.0));
    for candidate in plan.candidates(|who| !who.is_peer()) {
        let load = Load { users, ..Load::default() };
        let mut run = candidate.run(&plan.places, &load, &Work::new(users))?;
        run.wait_for_rest(users)?;
        // A minute after they were set up it is written down which accounts there are.
        settle(75.0);
        let before = run.fine_cpu_millis()?;
        let seconds = (SECONDS * plan.scale).clamp(5.0, SECONDS);
        settle(seconds);
        row.add(candidate, (run.fine_cpu_millis()? - before) * SECONDS / seconds);
    }
    Ok(vec![row])
}
