//! Many accounts for a long time, under steady mail and three storms: what does it cost, and is every message told once?

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Plan;
use super::latency::percentile;
use crate::clock;
use crate::drive::candidate::{Candidate, Run, Work};
use crate::drive::load::{Load, Orders};
use crate::drive::picture::{Chart, Line};
use crate::drive::report::{Goal, Row};
use crate::drive::{Result, settle};

/// Accounts of the full size.
const ACCOUNTS: u32 = 10_000;

/// Messages a second that they get.
const RATE: f64 = 50.0;

/// One order to the server, and one point of the latency's line.
const BUCKET: Duration = Duration::from_secs(10);

/// All connections are cut so often, evenly spread.
const STORMS: u32 = 3;

/// The rows, and a picture of what went on.
pub(super) fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let users = plan.scaled(ACCOUNTS);
    let load = Load { users, ..Load::default() };
    let mut run = Candidate::Idlewatch.run(&plan.places, &load, &Work::new(users))?;
    run.wait_for_rest(users)?;
    settle(3.0);
    let mut watched = Watched { before: run.private_kib()?, ..Watched::default() };
    let cpu = run.cpu_millis()?;
    let traffic = Traffic::start(run.server.more_orders()?, users, RATE * plan.scale);
    watched.watch(&mut run, users, Duration::from_secs_f64(plan.minutes * 60.0))?;
    let delivered = traffic.end()?;
    let told = Told::of(&mut run, &delivered)?;
    let cpu = (run.cpu_millis()? - cpu) / (plan.minutes * 600.0);
    run.wait_for_rest(users)?;
    settle(10.0);
    watched.after = run.private_kib()?;
    std::fs::write(&plan.places.picture, watched.picture(users, plan.minutes))?;
    if told.lost + told.twice + told.unknown > 0 {
        return Err(format!("not every message was told once: {told:?}").into());
    }
    Ok(watched.rows(users, plan.minutes, &told, cpu))
}

/// Mail that goes on whatever happens to the connections.
struct Traffic {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<std::result::Result<HashMap<u32, u32>, String>>,
}

impl Traffic {
    fn start(mut orders: Orders, users: u32, rate: f64) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        let each = ((rate * BUCKET.as_secs_f64()) as u32).clamp(1, users);
        let thread = std::thread::spawn(move || {
            let (mut delivered, mut first) = (HashMap::new(), 1);
            while !end.load(Relaxed) {
                let last = (first + each - 1).min(users);
                orders
                    .give(&format!("deliver 1 {first}..{last} over {}", BUCKET.as_secs()))
                    .map_err(|error| error.to_string())?;
                (first..=last).for_each(|user| *delivered.entry(user).or_default() += 1);
                first = if last == users { 1 } else { last + 1 };
            }
            Ok(delivered)
        });
        Self { ended, thread }
    }

    /// How many messages each user got.
    fn end(self) -> Result<HashMap<u32, u32>> {
        self.ended.store(true, Relaxed);
        Ok(self.thread.join().map_err(|_| "the traffic panicked")??)
    }
}

/// Each message that was delivered, against the lines.
#[derive(Debug)]
struct Told {
    expected: u32,
    lost: u32,
    twice: u32,
    unknown: u32,
}

impl Told {
    fn of(run: &mut Run, delivered: &HashMap<u32, u32>) -> Result<Self> {
        let expected = delivered.values().sum();
        run.wait_for_lines(u64::from(expected), 120)?;
        // What is told twice may come after what is told once.
        settle(5.0);
        let mut lines: HashMap<(u32, u32), u32> = HashMap::new();
        run.seen().iter().for_each(|seen| *lines.entry(seen.message).or_default() += 1);
        let all = delivered.iter().flat_map(|(&user, &count)| (1..=count).map(move |uid| (user, uid)));
        let mut told = Self { expected, lost: 0, twice: 0, unknown: 0 };
        for message in all {
            match lines.remove(&message) {
                None => told.lost += 1,
                Some(1) => {}
                Some(_) => told.twice += 1,
            }
        }
        told.unknown = u32::try_from(lines.len())?;
        Ok(told)
    }
}

/// What was seen while it went on. Times are minutes.
#[derive(Default)]
struct Watched {
    before: f64,
    after: f64,
    memory: Vec<(f64, f64)>,
    median: Vec<(f64, f64)>,
    slow: Vec<(f64, f64)>,
    latencies: Vec<f64>,
    storms: Vec<f64>,
    recoveries: Vec<f64>,
    /// Lines that were looked at.
    looked_at: usize,
    told: HashMap<(u32, u32), u64>,
}

impl Watched {
    fn watch(&mut self, run: &mut Run, users: u32, length: Duration) -> Result<()> {
        let began = Instant::now();
        let minutes = |at: Instant| at.duration_since(began).as_secs_f64() / 60.0;
        let (mut bucket, mut cut) = (began, None);
        while began.elapsed() < length {
            settle(0.5);
            let now = Instant::now();
            self.memory.push((minutes(now), run.private_kib()? / 1024.0));
            if let Some((at, logins)) = cut
                && run.server.is_nearly_at_rest(logins, users)?
            {
                self.recoveries.push(now.duration_since(at).as_secs_f64());
                cut = None;
            }
            if now.duration_since(bucket) >= BUCKET {
                bucket = now;
                self.look(run, minutes(now))?;
            }
            let due = length * (self.storms.len() as u32 + 1) / (STORMS + 1);
            if self.storms.len() < STORMS as usize && cut.is_none() && began.elapsed() >= due {
                cut = Some((now, run.server.stat("logins")? + u64::from(users)));
                run.server.act("reset")?;
                self.storms.push(minutes(now));
            }
        }
        if let Some((at, logins)) = cut {
            let left = "not all accounts came back from the last storm".to_owned();
            return run.wait_for_rest_after(logins, users).map_err(|_| format!("{left}: {at:?}").into());
        }
        Ok(())
    }

    /// The latencies of the last bucket. A message that came while its account was away has none.
    fn look(&mut self, run: &mut Run, minute: f64) -> Result<()> {
        self.told.extend(run.server.told()?);
        let seen = run.seen_after(self.looked_at);
        self.looked_at += seen.len();
        let told = &mut self.told;
        let mut latencies: Vec<f64> = seen
            .iter()
            .filter_map(|seen| Some(clock::millis(told.remove(&seen.message)?, seen.at)))
            .collect();
        latencies.sort_by(f64::total_cmp);
        if !latencies.is_empty() {
            self.median.push((minute, percentile(&latencies, 50)));
            self.slow.push((minute, percentile(&latencies, 99)));
        }
        self.latencies.extend(latencies);
        Ok(())
    }

    fn rows(mut self, users: u32, minutes: f64, told: &Told, cpu: f64) -> Vec<Row> {
        self.latencies.sort_by(f64::total_cmp);
        let slowest = self.recoveries.iter().copied().fold(0.0, f64::max);
        let most = self.memory.iter().map(|(_, mib)| *mib).fold(0.0, f64::max);
        let soak = format!("soak of {users} accounts, {minutes} minutes, {} storms", self.storms.len());
        let one = |figure: &str, goal, value| {
            let mut row = Row::new(format!("{soak}: {figure}"), goal);
            row.add(Candidate::Idlewatch, value);
            row
        };
        vec![
            one("messages, each told exactly once", Goal::None, f64::from(told.expected)),
            one("EXISTS to line, p50, ms", Goal::None, percentile(&self.latencies, 50)),
            one("EXISTS to line, p99, ms", Goal::None, percentile(&self.latencies, 99)),
            one("CPU, percent of a core", Goal::None, cpu),
            one("slowest recovery of 99 %, s", Goal::None, slowest),
            one("memory at the start, MiB", Goal::None, self.before / 1024.0),
            one("most memory, MiB", Goal::None, most),
            one("memory at the end / at the start", Goal::AtMost(1.1), self.after / self.before),
        ]
    }

    fn picture(&self, users: u32, minutes: f64) -> String {
        let memory = Chart {
            title: format!("{users} accounts with TLS: private memory, MiB"),
            lines: vec![Line { name: "memory", color: "#1f6f8b", points: &self.memory }],
            marks: &self.storms,
            minutes,
        };
        let latency = Chart {
            title: format!("EXISTS to line, ms, each {} seconds", BUCKET.as_secs()),
            lines: vec![
                Line { name: "p50", color: "#2f8f4e", points: &self.median },
                Line { name: "p99", color: "#c0562b", points: &self.slow },
            ],
            marks: &self.storms,
            minutes,
        };
        crate::drive::picture::svg(&[memory, latency])
    }
}
