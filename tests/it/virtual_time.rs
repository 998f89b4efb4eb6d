//! A session through a whole day, in an instant: the clock is virtual, the server and the connection are in memory.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use idlewatch::account::milestone::{Milestone, Outcome};
use idlewatch::account::outlet::Delivers;
use idlewatch::account::pump::pump;
use idlewatch::event::{MailboxKey, MailboxName};
use idlewatch::imap::command::{Credentials, Proof};
use idlewatch::imap::conversation::{Delivery, Finding, Goal, Plan, Security, Until, Watch};
use idlewatch::imap::summary::Wanted;
use idlewatch::journal::sqlite::SqliteJournal;
use idlewatch::journal::{Entry, Journal, Receipt};
use idlewatch::memory::Memory;
use idlewatch::messages::{Batch, Checkpoint, Undelivered};
use idlewatch::wire::link::Link;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, timeout_at};

use crate::support::scripted::message;

const HOUR: Duration = Duration::from_secs(3600);

/// What the server saw, and when.
#[derive(Default)]
struct Seen {
    commands: Vec<(Duration, String)>,
    told: Vec<(Duration, u32)>,
}

struct InMemory {
    journal: RefCell<SqliteJournal>,
    seen: Rc<RefCell<Seen>>,
    start: Instant,
}

impl Delivers for InMemory {
    fn deliver(&self, delivery: Delivery) -> LocalBoxFuture<'static, Result<Receipt, Undelivered>> {
        for finding in &delivery.findings {
            if let Finding::Message(message) = finding {
                self.seen.borrow_mut().told.push((self.start.elapsed(), message.uid));
            }
        }
        let key = MailboxKey { account: "a".into(), mailbox: "INBOX".into() };
        let checkpoint = Some(Checkpoint { key, cursor: delivery.cursor, replaces: delivery.before.into() });
        let entry = Entry::new(Batch { checkpoint, ..Batch::default() });
        let receipt = self.journal.borrow_mut().commit(&[entry], &[]).unwrap().remove(0).unwrap();
        futures::future::ready(Ok(receipt)).boxed_local()
    }

    fn recall(&self, _: &MailboxName) -> LocalBoxFuture<'static, Result<Memory, Undelivered>> {
        futures::future::ready(Ok(Memory::default())).boxed_local()
    }
}

fn plan() -> Plan {
    Plan {
        goal: Goal::Watch(Box::new(Watch {
            mailbox: "INBOX".into(),
            checkpoint: None,
            told_from: None,
            caution: 0,
            search: None,
            changes: Default::default(),
            until: Until::Stopped,
        })),
        security: Security::Plain,
        allow_preauth: false,
        credentials: Credentials { user: "bob".to_owned(), proof: Proof::Password("pw".into()) },
        sasl_ir: true,
        pipelining: true,
        idle_refresh: Duration::from_secs(540),
        poll_interval: Duration::from_secs(60),
        greeting_timeout: Duration::from_secs(10),
        command_timeout: Duration::from_secs(30),
        tag_prefix: "t".into(),
        wanted: Arc::new(Wanted { attachments: false, ..Wanted::default() }),
    }
}

/// Delivers a message at each of `arrivals`, and falls silent for good at `dies`.
async fn serve(
    stream: DuplexStream,
    seen: Rc<RefCell<Seen>>,
    start: Instant,
    arrivals: Vec<Duration>,
    dies: Duration,
) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut lines = BufReader::new(reader).lines();
    let mut say = async |text: String| drop(writer.write_all(text.as_bytes()).await);
    say("* OK [CAPABILITY IMAP4rev1 IDLE] ready\r\n".to_owned()).await;
    let (mut uid, mut idle, mut arrivals) = (0, String::new(), arrivals.into_iter().peekable());
    loop {
        let next = arrivals.peek().copied().unwrap_or(100 * HOUR);
        let line = match timeout_at(start + next, lines.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(_) => return,
            Err(_) => {
                uid += 1;
                arrivals.next();
                if !idle.is_empty() {
                    say(format!("* {uid} EXISTS\r\n")).await;
                }
                continue;
            }
        };
        if start.elapsed() >= dies {
            sleep(100 * HOUR).await;
        }
        let (tag, command) = line.split_once(' ').unwrap_or((&idle, &line));
        seen.borrow_mut().commands.push((start.elapsed(), command.to_owned()));
        let done = format!("{tag} OK done\r\n");
        let answer = match command.split(' ').next().unwrap() {
            "EXAMINE" => {
                format!("* {uid} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT {}] x\r\n{done}", uid + 1)
            }
            "UID" => format!("{}{done}", if uid > 0 { message(uid) } else { String::new() }),
            "IDLE" => "+ idling\r\n".to_owned(),
            _ => done,
        };
        idle = if command == "IDLE" { tag.to_owned() } else { String::new() };
        say(answer).await;
    }
}

struct Day {
    seen: Rc<RefCell<Seen>>,
    outcome: Outcome,
    lasted: Duration,
}

async fn live(arrivals: Vec<Duration>, dies: Duration, probes: Vec<Duration>) -> Day {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            let (ours, theirs) = tokio::io::duplex(1 << 20);
            let (start, seen) = (Instant::now(), Rc::new(RefCell::new(Seen::default())));
            let journal = RefCell::new(SqliteJournal::in_memory().unwrap());
            let outlet = InMemory { journal, seen: seen.clone(), start };
            tokio::task::spawn_local(serve(theirs, seen.clone(), start, arrivals, dies));
            let (prober, probe) = watch::channel(0);
            tokio::task::spawn_local(async move {
                for at in probes {
                    tokio::time::sleep_until(start + at).await;
                    prober.send_modify(|count| *count += 1);
                }
                sleep(100 * HOUR).await;
                drop(prober);
            });
            let (_stop, stopped) = oneshot::channel();
            let secure = async |stream: DuplexStream| Ok(stream);
            let outcome =
                pump(Link::new(ours), plan(), &outlet, |_: Milestone| {}, secure, probe, stopped).await;
            Day { seen, outcome, lasted: start.elapsed() }
        })
        .await
}

fn ended(day: &Day) -> String {
    format!("{:?}", day.outcome.end)
}

/// IDLE is renewed by an absolute deadline, whatever arrives; every message is told when it comes; and a server that
/// falls silent without a word is noticed at the next renewal.
#[tokio::test(start_paused = true)]
async fn a_day_of_idle_is_renewed_on_time_and_ends_when_the_server_falls_silent() {
    // Every seven minutes and some seconds: never in step with the renewals.
    let arrivals: Vec<_> =
        (1..200).map(|n| Duration::from_secs(n * 431)).filter(|at| *at < 23 * HOUR).collect();
    let day = live(arrivals.clone(), 24 * HOUR, vec![]).await;
    let seen = day.seen.borrow();
    let examines = seen.commands.iter().filter(|(_, command)| command.starts_with("EXAMINE")).count();
    assert_eq!(examines, 1, "one connection for the whole day");
    let sweeps: Vec<_> =
        seen.commands.iter().filter(|(_, command)| command.ends_with("(UID)")).map(|(at, _)| *at).collect();
    let gaps = sweeps.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(sweeps.len() >= 158 && gaps.clone().max() < Some(Duration::from_secs(545)), "{:?}", gaps.max());
    assert_eq!(
        seen.told.iter().map(|(_, uid)| *uid).collect::<Vec<_>>(),
        (1..=arrivals.len() as u32).collect::<Vec<_>>()
    );
    for ((at, uid), arrived) in seen.told.iter().zip(&arrivals) {
        assert!(*at - *arrived < Duration::from_secs(1), "{uid}");
    }
    assert!(ended(&day).contains("TimedOut"), "{}", ended(&day));
    assert!(day.lasted < 24 * HOUR + Duration::from_secs(2 * 540 + 60), "{:?}", day.lasted);
    assert!(day.outcome.idled.is_some(), "it was cut in silence");
}

/// After a sleep of the machine nobody waits for the renewal: the connection is asked at once.
#[tokio::test(start_paused = true)]
async fn a_probe_asks_a_resting_connection_at_once_and_finds_a_dead_one() {
    let probe = Duration::from_secs(100);
    let alive = live(vec![], HOUR, vec![probe]).await;
    let done = alive.seen.borrow().commands.iter().find(|(_, command)| command == "DONE").unwrap().0;
    assert!(done >= probe && done <= probe + Duration::from_secs(6), "{done:?}");
    let dead = live(vec![], Duration::from_secs(50), vec![probe]).await;
    assert!(dead.lasted <= probe + Duration::from_secs(20), "{:?}", dead.lasted);
}
