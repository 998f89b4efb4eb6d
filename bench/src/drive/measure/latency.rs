//! From the server's write of EXISTS to the line that the driver reads.

use super::Plan;
use crate::clock;
use crate::drive::candidate::{Candidate, Run, Work};
use crate::drive::load::Load;
use crate::drive::report::{Goal, Row};
use crate::drive::{Result, settle};

const FAR: u32 = 50;

pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let near = |goal| Case { state_in_memory: true, round_trip: 0, notify: false, name: "", goal };
    let mut rows = near(Some((0.48, 2.0))).rows(plan)?;
    let on_disk = Case { state_in_memory: false, name: ", state on disk", ..near(None) };
    rows.extend(on_disk.rows(plan)?);
    let far = Case { round_trip: FAR, ..near(None) };
    rows.push(far.round_trips(plan, "by IDLE", 1.0)?);
    rows.push(Case { notify: true, ..far }.round_trips(plan, "by NOTIFY", 0.0)?);
    Ok(rows)
}

#[derive(Clone, Copy)]
struct Case {
    state_in_memory: bool,
    round_trip: u32,
    notify: bool,
    name: &'static str,
    goal: Option<(f64, f64)>,
}

impl Case {
    fn rows(self, plan: &Plan) -> Result<Vec<Row>> {
        let goal = |of: fn((f64, f64)) -> f64| self.goal.map_or(Goal::None, |goal| Goal::AtMost(of(goal)));
        let mut p50 = Row::new(format!("EXISTS to line{}, p50, ms", self.name), goal(|goal| goal.0));
        let mut p99 = Row::new(format!("EXISTS to line{}, p99, ms", self.name), goal(|goal| goal.1));
        // Only idlewatch has a state.
        for candidate in plan.candidates(|who| self.state_in_memory || who == Candidate::Idlewatch) {
            let latencies = self.latencies(plan, candidate)?;
            p50.add(candidate, percentile(&latencies, 50));
            p99.add(candidate, percentile(&latencies, 99));
        }
        Ok(vec![p50, p99])
    }

    /// The median as round trips, to the nearest half: less is the work of the machine.
    fn round_trips(self, plan: &Plan, how: &str, goal: f64) -> Result<Row> {
        let mut row =
            Row::new(format!("round trips of {FAR} ms from EXISTS to line, {how}"), Goal::AtMost(goal));
        // The others know IDLE only.
        for candidate in plan.candidates(|who| !self.notify || who == Candidate::Idlewatch) {
            let median = percentile(&self.latencies(plan, candidate)?, 50);
            row.add(candidate, (median / f64::from(FAR) * 2.0).round() / 2.0);
        }
        Ok(row)
    }

    fn latencies(self, plan: &Plan, candidate: Candidate) -> Result<Vec<f64>> {
        let users = candidate.share(plan.scaled(1_000));
        let load = Load { users, round_trip: self.round_trip, notify: self.notify, fill: 0 };
        let work = Work { state_in_memory: self.state_in_memory, ..Work::new(users) };
        let mut run = candidate.run(&plan.places, &load, &work)?;
        run.wait_for_rest(users)?;
        // The first message of each mailbox warms up.
        deliver(&mut run, users)?;
        let warm = run.seen().len();
        run.server.told()?;
        deliver(&mut run, users)?;
        deliver(&mut run, users)?;
        join(&mut run, warm)
    }
}

/// One message for each user, a hundred a second.
fn deliver(run: &mut Run, users: u32) -> Result<()> {
    let count = run.count()? + u64::from(users);
    run.server.act(&format!("deliver 1 1..{users} over {}", f64::from(users) / 100.0))?;
    run.wait_for_lines(count, 30)?;
    settle(0.2);
    Ok(())
}

/// Milliseconds of each message, low to high.
fn join(run: &mut Run, warm: usize) -> Result<Vec<f64>> {
    let told = run.server.told()?;
    let seen = run.seen();
    let seen = seen.iter().skip(warm);
    let latencies = seen.filter_map(|seen| Some(clock::millis(*told.get(&seen.message)?, seen.at)));
    let mut latencies: Vec<f64> = latencies.collect();
    if latencies.len() != told.len() {
        return Err(format!("{} messages, and {} lines", told.len(), latencies.len()).into());
    }
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

pub(super) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}
