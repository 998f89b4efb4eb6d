//! The promises under many faults at once, on a real Dovecot. Short in the suite; `scripts/prove` runs them long.

#![allow(clippy::print_stdout)]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::real_servers::{accounts, online, users};
use crate::support::disk::Disk;
use crate::support::dovecot::Dovecot;
use crate::support::filter::Rule;
use crate::support::monitor::{Monitor, states, told};
use crate::support::scripted::Scripted;

/// How long a proof is: from the environment, or short.
pub fn size(name: &str, short: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(short)
}

#[derive(Debug)]
enum Fault {
    KillMonitor,
    StopMonitor,
    KillServer,
    RestartServer,
    Cut,
    Stall,
}

impl Fault {
    fn random(random: &mut StdRng) -> Self {
        match random.random_range(0..10) {
            0..4 => Self::KillMonitor,
            4 => Self::StopMonitor,
            5 => Self::KillServer,
            6 => Self::RestartServer,
            7..9 => Self::Cut,
            _ => Self::Stall,
        }
    }

    fn happen(&self, monitor: &mut Monitor, server: &mut Dovecot) {
        match self {
            Self::KillMonitor => {
                monitor.kill();
                monitor.start();
            }
            Self::StopMonitor => {
                assert_eq!(monitor.stop().code(), Some(0));
                monitor.start();
            }
            Self::KillServer => server.crash(),
            Self::RestartServer => server.restart(),
            Self::Cut => drop(Rule::new(server.imaps, "reject with tcp reset")),
            Self::Stall => {
                let _rule = Rule::new(server.imaps, "drop");
                std::thread::sleep(Duration::from_millis(700));
            }
        }
    }
}

/// Monitor and server killed, network cut and stalled, at random, while mail comes: every message that the server holds
/// is in the file, and none twice.
#[test]
fn whatever_is_killed_every_message_is_told_exactly_once() {
    let users = users(size("IDLEWATCH_PROOF_ACCOUNTS", 10));
    let rounds = size("IDLEWATCH_PROOF_ROUNDS", 20);
    let seed = size("IDLEWATCH_PROOF_SEED", 1) as u64;
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Dovecot::start(users.len());
    let quick = "connect_timeout = \"3s\"\ncommand_timeout = \"3s\"\nkeepalive = { idle = \"1s\", interval = \"1s\", count = 2 }";
    let mut monitor = Monitor::new(&accounts(&server, &users, quick));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    let mut faults = 0;
    for round in 0..rounds {
        // A delivery that broke off may have reached some: the server's own list is the truth in the end.
        while server.try_deliver(&users, &format!("round {round}")).is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..150)));
        if random.random_bool(0.6) {
            let fault = Fault::random(&mut random);
            fault.happen(&mut monitor, &mut server);
            faults += 1;
        }
    }
    resume(&mut monitor);
    let held: Vec<BTreeSet<u64>> = users.iter().map(|user| server.uids(user).into_iter().collect()).collect();
    let messages = held.iter().map(BTreeSet::len).sum();
    monitor.wait_for_lines("\"action\":\"message.new\"", messages);
    monitor.stop();
    let events = monitor.events();
    for (user, held) in users.iter().zip(held) {
        let uids = told(&events, user);
        let once: BTreeSet<u64> = uids.iter().copied().collect();
        assert_eq!(once, held, "{user}: seed {seed}");
        assert_eq!(once.len(), uids.len(), "{user}: told twice, seed {seed}");
    }
    println!("seed {seed}: {messages} messages, {} accounts, {faults} faults: 0 lost, 0 twice", users.len());
}

/// A Dovecot that is killed in the middle of a login calls the password wrong, and then nobody tries for minutes: the
/// accounts are let loose by hand.
fn resume(monitor: &mut Monitor) {
    monitor.stop();
    let journal = rusqlite::Connection::open(monitor.dir.path().join("state/journal.db")).unwrap();
    journal.execute("DELETE FROM refusals", []).unwrap();
    drop(journal);
    monitor.start();
}

/// Killed at the n-th write, sync and truncation of the journal and of the file, for each n.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_loses_nothing_and_doubles_nothing() {
    let points = size("IDLEWATCH_PROOF_POINTS", 4);
    let server = server().await;
    let mut monitor = Monitor::new(&account(&server));
    monitor.start();
    monitor.wait("online", |events| !states(events, "work").is_empty());
    let (mut delivered, mut crashes) = (0, 0);
    for syscall in ["pwrite64", "write", "fdatasync", "fsync", "ftruncate", "rename", "unlink"] {
        for point in 1..=points {
            monitor.kill();
            let files = ["state/journal.db", "state/journal.db-wal", "events.jsonl"];
            let inject = format!("inject={syscall}:signal=SIGKILL:when={point}");
            let mut strace = vec!["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
            let paths: Vec<_> =
                files.iter().map(|file| monitor.dir.path().join(file).display().to_string()).collect();
            paths.iter().for_each(|path| strace.extend(["-P", path]));
            monitor.start_under(&strace);
            for _ in 0..point + 4 {
                server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\n");
                delivered += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let killed = loop {
                if let Some(status) = monitor.end() {
                    assert_eq!(status.signal(), Some(9), "{syscall} {point}: {}", monitor.log());
                    break true;
                }
                if told(&monitor.events(), "work").len() >= delivered {
                    break false;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            crashes += usize::from(killed);
            if !killed {
                // So many of them it does not do.
                monitor.kill_child();
            }
            monitor.start();
            if !killed {
                break;
            }
        }
    }
    monitor.wait("told", |events| told(events, "work").len() >= delivered);
    let (uids, all) = (told(&monitor.events(), "work"), (1..=delivered as u64).collect::<Vec<_>>());
    assert_eq!(uids, all, "each once, in order");
    assert_each_once(&monitor);
    assert!(crashes >= 12.min(3 * points), "writes and syncs at the least: {crashes}");
    println!("{crashes} crash points, {delivered} messages: 0 lost, 0 twice");
}

/// No event of any kind stands twice in the file.
fn assert_each_once(monitor: &Monitor) {
    let events = monitor.events();
    let ids: BTreeSet<_> = events.iter().map(|event| event["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len());
}

/// The very first write to a file: nothing is known of it yet, and what is in it then must be known for ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_the_first_write_doubles_nothing() {
    let server = server().await;
    for syscall in ["write", "fdatasync"] {
        let mut monitor = Monitor::new(&account(&server));
        let output = monitor.output().display().to_string();
        let inject = format!("inject={syscall}:signal=SIGKILL:when=1");
        monitor.start_under(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject, "-P", &output]);
        assert_eq!(monitor.wait_end().signal(), Some(9));
        monitor.start();
        monitor.wait("online again", is_online_again);
        // Another file: logrotate renamed the first one, and the process dies at its first write to the next.
        monitor.kill();
        std::fs::rename(monitor.output(), monitor.dir.path().join("rotated")).unwrap();
        monitor.start_under(&["strace", "-f", "-qq", "-o", "/dev/null", "-e", &inject, "-P", &output]);
        assert_eq!(monitor.wait_end().signal(), Some(9));
        monitor.start();
        monitor.wait("online again", is_online_again);
        assert_eq!(monitor.stop().code(), Some(0));
        assert_each_once(&monitor);
    }
}

/// The last process that began is online. The crashed one may have left nothing of its own: its first write can be what the
/// process before it had not yet known as taken.
fn is_online_again(events: &[serde_json::Value]) -> bool {
    let last = events.iter().rposition(|event| event["idlewatch"]["monitor"]["state"] == "started");
    last.is_some_and(|last| events.iter().skip(last).any(|event| event["event"]["action"] == "account.state"))
}

async fn server() -> Server {
    Server::start(Store::new([("bob".to_owned(), "pw".to_owned())]), Behaviour::default()).await.unwrap()
}

fn account(server: &Server) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n",
        server.addr().port()
    )
}

/// The disk of the journal and of the file loses its power under the monitor, again and again, while mail comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_power_loss_loses_nothing_and_doubles_nothing() {
    let losses = size("IDLEWATCH_PROOF_LOSSES", 3);
    let mut random = StdRng::seed_from_u64(size("IDLEWATCH_PROOF_SEED", 1) as u64);
    let server = server().await;
    let disk = Disk::new();
    let mut monitor = Monitor::in_dir(tempfile::tempdir_in(disk.mount()).unwrap(), &account(&server));
    disk.sync();
    monitor.start();
    monitor.wait("online", |events| !states(events, "work").is_empty());
    let mut delivered = 0;
    for _ in 0..losses {
        let until = Duration::from_millis(random.random_range(50..800));
        let begun = std::time::Instant::now();
        while begun.elapsed() < until {
            server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\n");
            delivered += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        disk.lose_power();
        monitor.kill_if_alive();
        disk.restart();
        monitor.start();
    }
    monitor.wait("told", |events| told(events, "work").len() >= delivered);
    let (uids, all) = (told(&monitor.events(), "work"), (1..=delivered as u64).collect::<Vec<_>>());
    assert_eq!(uids, all, "each once, in order");
    assert_each_once(&monitor);
    println!("{losses} power losses, {delivered} messages: 0 lost, 0 twice");
    monitor.kill();
}

/// All accounts of one host come back at once after its restart: paced by the gate, and all of them.
#[test]
fn a_storm_of_reconnects_ends_with_everybody_online() {
    let users = users(size("IDLEWATCH_PROOF_STORM", 60));
    let mut server = Dovecot::start(users.len());
    let mut monitor = Monitor::new(&accounts(&server, &users, ""));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    server.crash();
    let lost = |events: &[serde_json::Value], user: &str| {
        states(events, user).iter().any(|state| state == "backoff")
    };
    monitor.wait("lost", |events| users.iter().all(|user| lost(events, user)));
    let events = monitor.wait("back", |events| online(events, &users));
    for user in &users {
        assert_eq!(states(&events, user), ["online", "backoff", "online"], "{user}: one change per fault");
    }
    server.deliver(&users, "after the storm");
    monitor.wait("told", |events| users.iter().all(|user| told(events, user) == [1]));
}

fn scripted(port: u16, more: &str) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n{more}"
    )
}

/// Its log would be longer than all the mail.
fn start_quietly(monitor: &mut Monitor) {
    let mut command = monitor.command();
    command.arg("run").env("RUST_LOG", "info");
    monitor.start_by(command);
}

/// The UIDs in the order in which they are told, until there are so many; memory stays what it was after the first tenth.
fn read_uids(monitor: &Monitor, count: usize) -> Vec<u64> {
    let (mut uids, mut line, mut early) = (Vec::new(), String::new(), None);
    let mut file = BufReader::new(File::open(monitor.output()).unwrap());
    let mut progress = Instant::now();
    while uids.len() < count {
        file.read_line(&mut line).unwrap();
        if !line.ends_with('\n') {
            assert!(
                progress.elapsed() < Duration::from_secs(60),
                "{} of {count}: {}",
                uids.len(),
                monitor.log()
            );
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        uids.extend(
            event["idlewatch"]["imap"]["uid"].as_u64().filter(|_| event["event"]["action"] == "message.new"),
        );
        line.clear();
        progress = Instant::now();
        if uids.len() == count / 10 {
            early = Some(monitor.memory());
        }
    }
    let (early, late) = (early.unwrap(), monitor.memory());
    assert!(late < early + (16 << 20), "{early} bytes grew to {late}");
    println!("{count} messages told, {} MiB at most", monitor.peak_memory() >> 20);
    uids
}

/// What waits at the first contact is no news; what comes then is told by hundreds, however much it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_mailbox_is_no_news_and_a_huge_burst_is_told_once() {
    let (waiting, burst) = (200_000, size("IDLEWATCH_PROOF_BURST", 2_000) as u32);
    let server = Scripted::start(move |mut peer| async move {
        peer.set_messages(waiting);
        peer.greet().await?;
        let tag = peer.until("IDLE").await?;
        peer.set_messages(waiting + burst);
        peer.say(&format!("+ idling\r\n* {} EXISTS\r\n", waiting + burst)).await?;
        peer.until("DONE").await?;
        peer.say(&format!("{tag} OK done\r\n")).await?;
        peer.behave().await
    })
    .await;
    let mut monitor = Monitor::new(&scripted(server.port(), ""));
    start_quietly(&mut monitor);
    monitor.wait("online", |events| !states(events, "work").is_empty());
    let uids = read_uids(&monitor, burst as usize);
    assert!(uids.into_iter().eq(u64::from(waiting + 1)..=u64::from(waiting + burst)));
    assert_eq!(server.connections(), 1);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Whoever wants to be told of all that is there is.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_huge_mailbox_is_told_once_where_that_is_wanted() {
    let waiting = size("IDLEWATCH_PROOF_BURST", 20_000) as u32;
    let server = Scripted::start(move |mut peer| async move {
        peer.set_messages(waiting);
        peer.greet().await?;
        peer.behave().await
    })
    .await;
    let mut monitor = Monitor::new(&scripted(server.port(), "initial = \"all\"\n"));
    start_quietly(&mut monitor);
    monitor.wait("a file", |_| monitor.output().exists());
    let uids = read_uids(&monitor, waiting as usize);
    assert!(uids.into_iter().eq(1..=u64::from(waiting)));
    assert_eq!(server.connections(), 1);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Connections that are cut after half a minute of silence teach the monitor, and the next one knows it from the start.
#[tokio::test(flavor = "multi_thread")]
async fn a_learned_period_of_idle_outlives_the_process() {
    let cuts = size("IDLEWATCH_PROOF_CUTS", 0);
    let server = Scripted::start(move |mut peer| async move {
        peer.greet().await?;
        let tag = peer.until("IDLE").await?;
        peer.say("+ idling\r\n").await?;
        if peer.number as usize <= cuts {
            tokio::time::sleep(Duration::from_secs(31)).await;
            return Ok(());
        }
        peer.until("DONE").await?;
        peer.say(&format!("{tag} OK done\r\n")).await?;
        peer.behave().await
    })
    .await;
    let mut monitor = Monitor::new(&scripted(server.port(), ""));
    monitor.start();
    let online = |events: &[serde_json::Value]| {
        states(events, "work").iter().filter(|state| *state == "online").count()
    };
    for n in 1..=cuts + 1 {
        monitor.wait("online", |events| online(events) == n);
    }
    monitor.kill();
    if cuts == 0 {
        // In place of a minute and a half.
        let journal = rusqlite::Connection::open(monitor.dir.path().join("state/journal.db")).unwrap();
        journal.execute("INSERT INTO hosts (host, idle_period) VALUES ('127.0.0.1', 30000)", []).unwrap();
    }
    assert!(!server.commands().contains(&"DONE".to_owned()), "nine minutes are not over");
    monitor.start();
    monitor.wait("renewed", |_| server.commands().contains(&"DONE".to_owned()));
    assert_eq!(monitor.stop().code(), Some(0));
}
