//! What a start costs: the binary, its configuration, the way to the first login.

use super::Plan;
use crate::clock;
use crate::drive::Result;
use crate::drive::candidate::{Candidate, Folder, Work, write_configuration};
use crate::drive::child::Kept;
use crate::drive::load::{Load, Server};
use crate::drive::report::{Goal, Row};

const ATTEMPTS: usize = 5;

pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let mut first_login = Row::new("cold start to first login, ms", Goal::AtMost(50.0));
    for candidate in plan.candidates(|_| true) {
        first_login.add(candidate, median(|| to_first_login(plan, candidate))?);
    }
    let mut rows = vec![first_login];
    if plan.candidates(|who| who == Candidate::Idlewatch).next().is_some() {
        rows.extend([configuration(plan)?, binary(plan)?]);
    }
    Ok(rows)
}

fn median(mut once: impl FnMut() -> Result<f64>) -> Result<f64> {
    let mut figures = (0..ATTEMPTS).map(|_| once()).collect::<Result<Vec<_>>>()?;
    figures.sort_by(f64::total_cmp);
    Ok(figures.get(ATTEMPTS / 2).copied().unwrap_or(f64::NAN))
}

fn to_first_login(plan: &Plan, candidate: Candidate) -> Result<f64> {
    let load = Load { users: 1, ..Load::default() };
    let mut run = candidate.run(&plan.places, &load, &Work::new(1))?;
    run.wait_for_rest(1)?;
    Ok(clock::millis(run.started_at, run.server.stat("first_login_at")?))
}

/// `check --no-network`: all of the configuration is read, and every secret looked up.
fn configuration(plan: &Plan) -> Result<Row> {
    let users = plan.scaled(10_000);
    let mut row = Row::new(format!("configuration of {users} accounts, s"), Goal::AtMost(0.2));
    let folder = Folder::new(&plan.places.disk)?;
    let server = Server::start(&plan.places.programs.join("server"), folder.path(), &Load::default())?;
    let file = write_configuration(folder.path(), &server, users)?;
    let args = ["-c".to_owned(), file.display().to_string(), "check".into(), "--no-network".into()];
    let seconds = median(|| {
        let began_at = clock::nanos();
        Kept::start(&plan.places.idlewatch, &args)?.succeed()?;
        Ok(clock::millis(began_at, clock::nanos()) / 1000.0)
    })?;
    row.add(Candidate::Idlewatch, seconds);
    Ok(row)
}

fn binary(plan: &Plan) -> Result<Row> {
    let mut row = Row::new("size of the binary, MB", Goal::AtMost(15.0));
    for (candidate, program) in [
        (Candidate::Floor, plan.places.programs.join("floor")),
        (Candidate::Idlewatch, plan.places.idlewatch.clone()),
    ] {
        row.add(candidate, std::fs::metadata(program)?.len() as f64 / 1e6);
    }
    Ok(row)
}
