//! The journal in PostgreSQL: a real server, killed, stopped, closed to us; and monitors that stand by for each other.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use idlewatch::cluster::shard::Shard;
use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use idlewatch::event::{Cursor, MailboxKey, MailboxName};
use idlewatch::journal::postgres::PostgresJournal;
use idlewatch::journal::postgres::lease::Opening;
use idlewatch::journal::{
    Damage, Entry, FileEnd, Journal, JournalError, JournalHandle, LanePosition, OpenError, Unstored,
};
use idlewatch::messages::{Batch, Checkpoint, Replaces, Undelivered};
use jiff::Timestamp;
use serde_json::Value;

use crate::admin::{address, http, request};
use crate::journals::{entry, event};
use crate::support::monitor::{Monitor, states, told};
use crate::support::postgres::{Database, PASSWORD, Postgres, shared, signal, turn_over};
use crate::support::receiver::{Receiver, SECRET};

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn configuration(server: &Server, database: &Database, beside: &str) -> String {
    format!(
        "{beside}[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n{}",
        server.addr().port(),
        database.keys("2s")
    )
}

fn start(server: &Server, database: &Database) -> Monitor {
    let mut monitor = Monitor::new(&configuration(server, database, ""));
    monitor.start();
    monitor
}

fn is_online(events: &[Value]) -> bool {
    states(events, "work").last().is_some_and(|state| state == "online")
}

fn deliver(server: &Server, count: u64) {
    for _ in 0..count {
        server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\nhi\r\n");
    }
}

/// Each once, in order.
fn has_each_once(events: &[Value], count: u64) -> bool {
    told(events, "work") == (1..=count).collect::<Vec<_>>()
}

fn opening(home: &str) -> Opening {
    let [name, owner] = ["here", "test"].map(str::to_owned);
    Opening { name, owner, home: home.to_owned(), ..Opening::default() }
}

fn open(database: &Database) -> Result<PostgresJournal, OpenError> {
    PostgresJournal::open(&database.settings(Duration::from_secs(2)), &opening("here"))
        .map(|(journal, _)| journal)
}

/// They are in the state directory of whoever buried them, and go back into the journal, wherever that is.
#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_replayed_through_the_database_and_dropped() {
    let (server, receiver) = (server().await, Receiver::start([]));
    receiver.reject("poison");
    let hook = format!(
        "[outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\nsecret = {{ inline = \"{SECRET}\" }}\ninclude = [\"message.new\"]\n",
        receiver.port
    );
    let mut monitor = Monitor::new(&configuration(&server, &shared().database(), &hook));
    monitor.start();
    monitor.wait("online", is_online);
    server.store().deliver("bob", "INBOX", b"Subject: poison\r\n\r\nhi\r\n");
    monitor.wait_log("now in the dead letters");
    let letters = |monitor: &Monitor, arguments: &[&str]| {
        let output = monitor.command().args(["state", "dead-letters"]).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let id = event_id(letters(&monitor, &["list", "--json"]).1.trim());
    for command in [&["replay"][..], &["drop", "--all"]] {
        assert_eq!(letters(&monitor, command).0, Some(75), "the monitor runs");
    }
    assert_eq!(monitor.stop().code(), Some(0));
    assert_eq!(letters(&monitor, &["drop", "--output", "other"]).0, Some(0));
    assert_eq!(letters(&monitor, &["replay"]).0, Some(0));
    assert_eq!(letters(&monitor, &["list"]), (Some(0), String::new()));
    receiver.reject("no such text");
    monitor.start();
    monitor.wait("replayed", |_| !receiver.taken().is_empty());
    assert_eq!(receiver.taken()[0]["event"]["id"], id.as_str());
    assert_eq!(monitor.stop().code(), Some(0));
}

fn event_id(letter: &str) -> String {
    let letter: Value = serde_json::from_str(letter).unwrap();
    letter["event"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let (mut postgres, server) = (Postgres::start(), server().await);
    let mut monitor = start(&server, &postgres.database());
    monitor.wait("online", is_online);
    let mut sent = 0;
    for round in 0..6 {
        deliver(&server, 20 + round);
        sent += 20 + round;
        tokio::time::sleep(Duration::from_millis(40 * round)).await;
        postgres.kill();
        deliver(&server, 5);
        sent += 5;
        postgres.launch();
    }
    monitor.wait("each once", |events| has_each_once(events, sent));
    let states = states(&monitor.events(), "work");
    assert_eq!(
        states.iter().filter(|state| *state == "online").count(),
        1,
        "who waits for a database goes on watching"
    );
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!monitor.log().contains(PASSWORD));
    let database =
        &postgres.ask("postgres", "SELECT max(datname) FROM pg_database WHERE datname LIKE 'mail%'");
    assert_eq!(postgres.ask(database, "SELECT count(*) FROM idlewatch.events"), "0", "nobody needs them");
}

/// All files beside those that the monitor is to write, with their lengths.
fn state_files(monitor: &Monitor) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(monitor.dir.path().join("state")).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries.map(|entry| (entry.path(), entry.metadata().unwrap().len())).collect();
    files.sort();
    files
}

/// It does not refuse, it does not answer; and what it was told before is done later than all that was told since.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_asleep_stores_nothing_twice_though_it_wakes_in_parts() {
    let (postgres, server) = (Postgres::start(), server().await);
    let database = postgres.database();
    let configuration = configuration(&server, &database, "").replace("ttl = \"2s\"", "ttl = \"5m\"");
    let mut monitor = Monitor::new(&configuration);
    monitor.start();
    monitor.wait("online", is_online);
    deliver(&server, 5);
    monitor.wait("before", |events| has_each_once(events, 5));
    let ask = |sql: &str| postgres.ask(&database.name, sql);
    eventually(|| {
        (ask("SELECT bool_and(position = last) FROM idlewatch.lanes, idlewatch.nodes") == "t").then_some(())
    });
    let stored: u64 = ask("SELECT last FROM idlewatch.nodes").parse().unwrap();
    let files = state_files(&monitor);

    let late = postgres.stop_backend();
    postgres.sleep();
    deliver(&server, 10);
    monitor.wait_log("the journal's database cannot be reached: nothing is fetched until it can be");
    let status = monitor.command().arg("status").output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("the journal's database cannot be reached"), "{status}");
    deliver(&server, 10);
    assert!(has_each_once(&monitor.events(), 5), "nothing is told before it is stored");
    assert_eq!(state_files(&monitor), files, "the mailbox is the spool");

    postgres.wake_but(&late);
    monitor.wait("after", |events| has_each_once(events, 25));
    monitor.wait_log("the journal's database answers again");
    signal("CONT", &late);
    let waits = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {late}");
    eventually(|| (postgres.ask("postgres", &waits) == "0").then_some(()));
    deliver(&server, 5);
    let events = monitor.wait("later", |events| has_each_once(events, 30));
    let ids: BTreeSet<_> = events.iter().map(|event| event["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), events.len(), "each id once");
    let gained = ask("SELECT last FROM idlewatch.nodes").parse::<u64>().unwrap() - stored;
    assert_eq!(gained, 25, "nothing is stored twice");
    let states = states(&events, "work");
    assert_eq!(states.iter().filter(|state| *state == "online").count(), 1, "the connection stays");
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_killed_again_and_again_loses_and_doubles_nothing() {
    let server = server().await;
    let mut monitor = start(&server, &shared().database());
    monitor.wait("online", is_online);
    let sent = monitor.kill_again_and_again(7, 5, Duration::from_millis(300), || deliver(&server, 1)).await;
    monitor.wait("each once", |events| has_each_once(events, sent));
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_there_is_waited_for_at_the_start_too() {
    let (mut postgres, server) = (Postgres::start(), server().await);
    let database = postgres.database();
    postgres.kill();
    let mut monitor = Monitor::new(&configuration(&server, &database, ""));
    let once = monitor.command().args(["run", "--once"]).output().unwrap();
    assert_eq!(once.status.code(), Some(71), "one that is to end soon does not wait");
    monitor.start();
    monitor.wait_log("waiting for it");
    postgres.launch();
    monitor.wait("online", is_online);
    assert_eq!(monitor.stop().code(), Some(0));
    monitor.start();
    monitor.wait("again", |events| states(events, "work").len() > 1 && is_online(events));
    assert_eq!(monitor.stop().code(), Some(0), "what was released is had at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_stands_by_takes_over_and_the_one_that_was_asleep_stores_nothing_any_more() {
    let (server, database) = (server().await, shared().database());
    let mut first = start(&server, &database);
    first.wait("online", is_online);
    let mut second = start(&server, &database);
    second.wait_log("standing by");
    let once = second.command().args(["run", "--once"]).output().unwrap();
    assert_eq!(once.status.code(), Some(75), "{}", String::from_utf8_lossy(&once.stderr));
    deliver(&server, 10);
    first.wait("the first", |events| has_each_once(events, 10));
    // What is not durable yet would be offered to the second's output, too.
    let all_taken = "SELECT bool_and(position = last) FROM idlewatch.lanes, idlewatch.nodes";
    eventually(|| (database_of(&database, all_taken) == "t").then_some(()));
    first.signal("STOP");
    deliver(&server, 10);
    let later: Vec<_> = (11..=20).collect();
    second.wait("the second", |events| told(events, "work") == later);
    let stored = database_of(&database, "SELECT last FROM idlewatch.nodes");
    first.signal("CONT");
    assert_eq!(first.wait_end().code(), Some(75));
    assert!(first.log().contains("another monitor has taken the journal over"));
    deliver(&server, 5);
    let later: Vec<_> = (11..=25).collect();
    second.wait("the second goes on", |events| told(events, "work") == later);
    let gained: u64 = database_of(&database, "SELECT last FROM idlewatch.nodes").parse().unwrap();
    assert_eq!(gained, stored.parse::<u64>().unwrap() + 5, "nothing of the first got in");
    assert_eq!(second.stop().code(), Some(0));
}

fn database_of(database: &Database, sql: &str) -> String {
    shared().ask(&database.name, sql)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_ends_in_order_hands_over_at_once() {
    let (server, database) = (server().await, shared().database());
    let mut first = start(&server, &database);
    first.wait("online", is_online);
    let mut second = start(&server, &database);
    second.wait_log("standing by");
    deliver(&server, 3);
    first.wait("the first", |events| has_each_once(events, 3));
    assert_eq!(first.stop().code(), Some(0));
    deliver(&server, 3);
    second.wait("the second", |events| told(events, "work") == [4, 5, 6]);
    let mut third = start(&server, &database);
    third.wait_log("standing by");
    assert_eq!(third.stop().code(), Some(0), "who stands by can be told to stop");
    assert_eq!(second.stop().code(), Some(0));
}

/// What was changed while it stood by: it is told so by a signal, or sees it itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_stood_by_goes_on_with_the_configuration_of_now() {
    for on_change in [false, true] {
        let (server, database) = (server().await, shared().database());
        let mut first = start(&server, &database);
        first.wait("online", is_online);
        let config = configuration(&server, &database, &format!("reload_on_change = {on_change}\n"));
        let mut second = Monitor::new(&config);
        second.start();
        second.wait_log("standing by");
        second.configure(&config.replace("id = \"work\"", "id = \"now\""));
        if !on_change {
            second.signal("HUP");
        }
        assert_eq!(first.stop().code(), Some(0));
        second.wait("now", |events| states(events, "now").last().is_some_and(|state| state == "online"));
        assert_eq!(second.stop().code(), Some(0));
    }
}

/// Which bytes never arrive; the connection is cut in their place.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lost {
    Nothing,
    Request,
    Answer,
    /// That to whoever asks for a name, once.
    AnswerToJoin,
    /// The same, once it has been asked.
    AnswerOnce,
}

/// A network between us and the database, which loses what it is told to.
struct Between {
    port: u16,
    lost: Arc<Mutex<Lost>>,
}

impl Between {
    fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, lost) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Lost::Nothing)));
        let told = lost.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", server)).unwrap();
                for (from, to, this) in [(&client, &server, Lost::Request), (&server, &client, Lost::Answer)]
                {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let lost = told.clone();
                    std::thread::spawn(move || {
                        carry(from, to, |bytes| is_lost(&mut lost.lock().unwrap(), this, bytes))
                    });
                }
            }
        });
        Self { port, lost }
    }

    fn loses(&self, lost: Lost) {
        *self.lost.lock().unwrap() = lost;
    }
}

/// Whether these bytes are, of the direction in which `this` is what may be lost.
fn is_lost(lost: &mut Lost, this: Lost, bytes: &[u8]) -> bool {
    match (*lost, this) {
        (Lost::AnswerToJoin, Lost::Request) => {
            if String::from_utf8_lossy(bytes).contains("INSERT INTO nodes") {
                *lost = Lost::AnswerOnce;
            }
            false
        }
        (Lost::AnswerOnce, Lost::Answer) => {
            *lost = Lost::Nothing;
            true
        }
        (lost, this) => lost == this,
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_lost: impl Fn(&[u8]) -> bool) {
    let mut bytes = [0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if is_lost(&bytes[..read]) || to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

/// The commit that did happen, and whose answer nobody heard; and the one that did not.
#[test]
fn a_commit_whose_answer_is_lost_is_found_again_and_not_repeated() {
    let database = shared().database();
    let between = Between::start(database.port);
    let mut journal = open(&Database { port: between.port, name: database.name.clone() }).unwrap();
    let key = MailboxKey { account: "a".into(), mailbox: MailboxName::inbox() };
    let mut before = None;
    for (round, lost) in [Lost::Answer, Lost::Request, Lost::Answer].into_iter().enumerate() {
        let cursor = Cursor::baseline(7, u32::try_from(round).unwrap() + 5, None);
        let replaces = before.replace(Box::new(cursor.clone())).into();
        let checkpoint = Some(Checkpoint { key: key.clone(), cursor: cursor.clone(), replaces });
        let moved = Entry::new(Batch { checkpoint, ..Batch::default() });
        let told = entry(&format!("told {round}"));
        between.loses(lost);
        let answer = journal.commit(&[moved.clone(), told.clone()], &[]);
        assert!(matches!(answer, Err(JournalError::Unreachable)), "{answer:?}");
        let stored = database_of(&database, "SELECT count(*) FROM idlewatch.events");
        assert_eq!(stored, (2 * round + usize::from(lost == Lost::Answer)).to_string(), "{lost:?}");
        between.loses(Lost::Nothing);
        // What came meanwhile goes with it.
        let group = [moved, told, entry(&format!("later {round}"))];
        let receipts = eventually(|| journal.commit(&group, &[]).ok());
        let receipts: Vec<_> = receipts.into_iter().map(Result::unwrap).collect();
        assert_eq!(receipts[0].cursor(), Some(&cursor), "{lost:?}");
        let first = 2 * round as u64 + 1;
        assert_eq!(
            [&receipts[1], &receipts[2]].map(|receipt| receipt.sequences()),
            [Some(first..=first), Some(first + 1..=first + 1)]
        );
        assert_eq!(journal.cursor(&key).unwrap(), Some(cursor));
    }
    let ids: Vec<_> = journal.pending(0, 99).unwrap().iter().map(|event| event.event.id.clone()).collect();
    assert_eq!(ids, ["told 0", "later 0", "told 1", "later 1", "told 2", "later 2"]);
    assert_eq!(journal.last().unwrap(), 6);
}

/// The journal is full meanwhile, say: some of what was in doubt is offered later than the rest.
#[test]
fn what_was_found_out_is_known_until_it_is_asked_for() {
    let database = shared().database();
    let between = Between::start(database.port);
    let mut journal = open(&Database { port: between.port, name: database.name.clone() }).unwrap();
    let (one, two) = (entry("one"), entry("two"));
    between.loses(Lost::Answer);
    assert!(journal.commit(&[one.clone(), two.clone()], &[]).is_err());
    between.loses(Lost::Nothing);
    let mut sequences = |entry: &Entry| {
        let receipt = eventually(|| journal.commit(std::slice::from_ref(entry), &[]).ok()).remove(0);
        receipt.unwrap().sequences()
    };
    assert_eq!(sequences(&one), Some(1..=1));
    assert_eq!(sequences(&entry("three")), Some(3..=3));
    assert_eq!(sequences(&two), Some(2..=2));
    assert_eq!(database_of(&database, "SELECT count(*) FROM idlewatch.events"), "3");
    // Offered anew, it is another one.
    assert_eq!(sequences(&two), Some(4..=4));
}

fn eventually<T>(mut tried: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(done) = tried() {
            return done;
        }
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A database that is back from an older copy has forgotten what it gave out.
#[test]
fn numbers_are_not_given_twice_even_where_the_database_went_back() {
    let database = shared().database();
    let mut journal = open(&database).unwrap();
    journal.commit(&[entry("one"), entry("two")], &[]).unwrap();
    database_of(&database, "DELETE FROM idlewatch.events; UPDATE idlewatch.nodes SET last = 0");
    let receipt = journal.commit(&[entry("three")], &[]).unwrap().remove(0).unwrap();
    assert_eq!(receipt.sequences(), Some(3..=3));
}

/// A standby that lagged behind still has what went to another monitor, under numbers that our outputs have passed since.
#[test]
fn what_is_back_after_a_failover_gets_numbers_that_no_output_has_passed() {
    for looks in [true, false] {
        let database = shared().database();
        let ask = |sql: &str| database_of(&database, sql);
        let mut journal = open(&database).unwrap();
        journal.lanes(&["out".to_owned()]).unwrap();
        journal.commit(&[entry("one"), entry("two"), entry("three")], &[]).unwrap();
        ask("CREATE TABLE back AS SELECT * FROM idlewatch.events WHERE sequence < 3");
        let passed = |sequence| [("out".to_owned(), LanePosition { sequence, file: None })];
        journal.commit(&[], &passed(3)).unwrap();
        journal.forget(3).unwrap();
        ask("INSERT INTO idlewatch.events SELECT * FROM back;
            UPDATE idlewatch.nodes SET last = 2; UPDATE idlewatch.lanes SET position = 1");
        journal.forget(3).unwrap();
        if looks {
            journal.alive(Timestamp::now()).unwrap();
            assert_eq!(journal.last().unwrap(), 5);
        }
        let receipt = journal.commit(&[entry("four")], &passed(3)).unwrap().remove(0).unwrap();
        assert_eq!(receipt.sequences(), Some(6..=6));
        let told = journal.pending(3, 9).unwrap();
        let told: Vec<_> =
            told.iter().map(|one| (one.sequence, one.event.id.as_str(), one.had.len())).collect();
        assert_eq!(told, [(4, "one", 1), (5, "two", 0), (6, "four", 0)], "looks: {looks}");
        // Once is enough.
        journal.alive(Timestamp::now()).unwrap();
        assert_eq!(journal.last().unwrap(), 6);
    }
}

/// Whoever looks or stores first on a new connection finds out whose commits its server lacks.
#[test]
fn accounts_whose_commits_are_gone_are_told_once() {
    for looks in [true, false] {
        let database = shared().database();
        let ask = |sql: &str| database_of(&database, sql);
        let mut journal = open(&database).unwrap();
        journal.begin(Timestamp::now()).unwrap();
        journal.commit(&[entry_of("a", "one")], &[]).unwrap();
        let round = ask("SELECT answered FROM idlewatch.nodes");
        journal.commit(&[entry_of("b", "two"), entry_of("c", "three"), entry("four")], &[]).unwrap();
        let reconnect = || {
            ask(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'idlewatch'",
            )
        };
        let mut lost = |number: u32| {
            if looks {
                eventually(|| journal.alive(Timestamp::now()).ok());
            } else {
                let entry = entry_of(&format!("d{number}"), &format!("five-{number}"));
                eventually(|| journal.commit(std::slice::from_ref(&entry), &[]).ok());
            }
            let mut lost: Vec<_> = journal.forgotten().iter().map(ToString::to_string).collect();
            lost.sort();
            lost
        };
        assert!(lost(0).is_empty());
        reconnect();
        assert!(lost(1).is_empty(), "it has all of it");
        ask(&format!("UPDATE idlewatch.nodes SET answered = {round}"));
        assert!(lost(2).is_empty(), "of a server that stays nobody asks");
        ask(&format!("UPDATE idlewatch.nodes SET answered = {round}"));
        reconnect();
        let expected = if looks { vec!["b", "c"] } else { vec!["b", "c", "d0", "d1", "d2"] };
        assert_eq!(lost(3), expected, "looks: {looks}");
        reconnect();
        assert!(lost(4).is_empty(), "once");
    }
}

/// An asynchronous standby that lacks what was committed last.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_that_forgets_commits_loses_nothing_and_tells_the_same_ids() {
    let (mut primary, server) = (Postgres::start(), server().await);
    let database = primary.database();
    let standby = primary.standby();
    let plain = configuration(&server, &database, "");
    let (one, both) =
        (format!(":{}/", primary.port), format!(":{},127.0.0.1:{}/", primary.port, standby.port));
    let mut monitor = Monitor::new(&plain.replace(&one, &both));
    monitor.start();
    monitor.wait("online", is_online);
    deliver(&server, 10);
    monitor.wait("ten", |events| has_each_once(events, 10));
    let at = |server: &Postgres| server.ask(&database.name, "SELECT last FROM idlewatch.nodes");
    eventually(|| (at(&primary) == at(&standby)).then_some(()));
    standby.ask("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
    standby.ask("postgres", "SELECT pg_reload_conf()");
    eventually(|| (primary.ask("postgres", "SELECT count(*) FROM pg_stat_replication") == "0").then_some(()));
    deliver(&server, 10);
    monitor.wait("twenty", |events| has_each_once(events, 20));
    primary.kill();
    standby.promote();
    // It was told already, but it might have waited for an output: nobody waits for the next message to notice.
    monitor.wait("what the standby lacks is told again", |events| told(events, "work").len() >= 30);
    deliver(&server, 10);
    let events = monitor.wait("all", |events| {
        told(events, "work").into_iter().collect::<BTreeSet<_>>() == (1..=30).collect()
    });
    let new = events.iter().filter(|event| event["event"]["action"] == "message.new");
    let ids: BTreeSet<_> = new.map(|event| event["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 30, "what is told again has its id");
    let numbers: Vec<_> = events.iter().map(|event| event["event"]["sequence"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_the_certificate_has_to_be_good() {
    let (postgres, server) = (Postgres::start_with_tls(), server().await);
    let database = postgres.database();
    let plain = configuration(&server, &database, "");
    let at = |host: &str, authority: Option<&Path>| {
        let options = authority.map(|path| format!("tls_options = {{ ca_file = {path:?} }}\n"));
        let there = plain.replace("@127.0.0.1:", &format!("@{host}:"));
        there.replace("?sslmode=disable\"\n", &format!("\"\n{}", options.unwrap_or_default()))
    };
    let authority = postgres.authority();
    let mut monitor = Monitor::new("");
    for (host, authority) in [("localhost", None), ("127.0.0.2", Some(&*authority))] {
        monitor.configure(&at(host, authority));
        let once = monitor.command().args(["run", "--once"]).output().unwrap();
        let log = String::from_utf8_lossy(&once.stderr);
        assert_eq!(once.status.code(), Some(71), "{log}");
        assert!(log.contains("certificate"), "{log}");
    }
    monitor.configure(&at("localhost", Some(&authority)));
    monitor.start();
    monitor.wait("online", is_online);
    let asked =
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'idlewatch'";
    assert_eq!(postgres.ask("postgres", asked), "t");
    assert_eq!(monitor.stop().code(), Some(0));
}

/// The file of another machine may well have the same inode.
#[test]
fn a_file_of_an_output_is_known_again_only_where_it_is() {
    let database = shared().database();
    let settings = database.settings(Duration::from_millis(300));
    let file = Some(FileEnd { generation: "1:2".to_owned(), offset: 99 });
    let there = LanePosition { sequence: 1, file: file.clone() };
    let mut journal = PostgresJournal::open(&settings, &opening("here")).unwrap().0;
    journal.lanes(&["out".to_owned()]).unwrap();
    journal.commit(&[entry("one")], &[("out".to_owned(), there.clone())]).unwrap();
    for (home, file) in [("elsewhere", None), ("here", file)] {
        let mut journal = PostgresJournal::open(&settings, &opening(home)).unwrap().0;
        let found = journal.lanes(&["out".to_owned()]).unwrap();
        assert_eq!(found, [LanePosition { file, ..there.clone() }], "{home}");
    }
}

#[test]
fn whoever_has_lost_the_lease_stores_nothing() {
    let database = shared().database();
    let mut late = open(&database).unwrap();
    late.lanes(&["out".to_owned()]).unwrap();
    late.commit(&[entry("one")], &[]).unwrap();
    assert!(open(&database).is_ok(), "nothing was seen of it for its whole promise");
    let taken = |result: Result<(), JournalError>| matches!(result, Err(JournalError::TakenOver));
    assert!(taken(late.commit(&[entry("late")], &[]).map(drop)));
    assert!(taken(late.begin(Timestamp::now())));
    assert!(taken(late.alive(Timestamp::now())));
    assert!(taken(late.forget(9)));
    assert!(taken(late.lanes(&["other".to_owned()]).map(drop)));
    late.tidy();
    assert_eq!(
        database_of(&database, "SELECT count(*), min(name) FROM idlewatch.events, idlewatch.lanes"),
        "1|out"
    );
    assert_eq!(database_of(&database, "SELECT owner FROM idlewatch.nodes"), "test");
}

/// Neither has seen the other when it looked: here the other is written down in the moment in which we are.
#[test]
fn whoever_wants_everything_ends_where_another_comes_in_the_same_moment() {
    let database = shared().database();
    open(&database).unwrap().tidy();
    database_of(
        &database,
        "SET search_path = idlewatch;
         CREATE FUNCTION beside() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO idlewatch.nodes (name, owner, epoch, ttl) VALUES ('other', 'other (pid 1)', 1, 60000);
             RETURN NULL;
         END $$;
         CREATE TRIGGER beside AFTER UPDATE OF owner ON nodes FOR EACH ROW WHEN (NEW.name = 'here' AND NEW.owner <> '')
             EXECUTE FUNCTION beside()",
    );
    let ended = open(&database);
    assert!(matches!(&ended, Err(OpenError::Held { by }) if by == "other (pid 1)"), "{ended:?}");
    let left = database_of(&database, "SELECT owner FROM idlewatch.nodes WHERE name = 'here'");
    assert_eq!(left, "", "nobody waits for it");
}

#[test]
fn a_database_that_is_not_ours_to_use_says_so() {
    let database = shared().database();
    let refused = |settings: &Database| match open(settings) {
        Err(OpenError::Database(words)) => words,
        other => panic!("{other:?}"),
    };
    drop(open(&database).unwrap());
    database_of(&database, "UPDATE idlewatch.version SET number = 99");
    assert!(refused(&database).contains("a newer idlewatch has written it (schema 99"));
    let missing = Database { name: "nothing".to_owned(), port: database.port };
    assert!(refused(&missing).contains("\"nothing\" does not exist"));
    let mut settings = database.settings(Duration::from_secs(2));
    settings.user = "nobody".to_owned();
    let error = PostgresJournal::open(&settings, &opening("here")).unwrap_err().to_string();
    assert!(error.contains("28P01") && !error.contains(PASSWORD), "{error}");
    let empty = Opening { require_state: true, waits: true, ..opening("here") };
    let new = shared().database();
    let error = PostgresJournal::open(&new.settings(Duration::from_secs(2)), &empty).unwrap_err();
    assert!(error.to_string().contains("monitor.require_state"), "{error}");
}

/// Whoever comes second finds it done.
#[test]
fn many_that_start_at_once_make_the_tables_once_and_one_has_the_journal() {
    let database = shared().database();
    let settings = database.settings(Duration::from_secs(5));
    let ended: BTreeSet<String> = std::thread::scope(|scope| {
        let start = |n: usize| {
            let settings = &settings;
            scope.spawn(move || {
                let opened = PostgresJournal::open(settings, &opening(&n.to_string()));
                opened.map(|(journal, _)| std::mem::forget(journal)).err().map(|error| error.to_string())
            })
        };
        let threads: Vec<_> = (0..4).map(start).collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ended.len() <= 3 && !ended.is_empty(), "{ended:?}");
    assert_eq!(database_of(&database, "SELECT count(*) FROM idlewatch.version"), "1");
}

/// What one monitor without a name had, before they had names, is the first one's that comes.
#[test]
fn a_schema_of_the_first_version_is_brought_up_to_date_with_what_is_in_it() {
    let database = shared().database();
    let schema =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/journal/postgres/schema.sql"));
    let rows = "UPDATE lease SET epoch = 5, last = 3, alive_at = 111;
        INSERT INTO events VALUES (2, 'message.new', '{}', 1), (3, 'monitor.state', '{}', 1);
        INSERT INTO cursors (account, mailbox, uid_validity, uid_next, seen, updated_at, crc)
            VALUES ('work', 'INBOX', 1, 2, '', 3, 4);
        INSERT INTO lanes (name, position) VALUES ('out', 1)";
    let made = format!(
        "SET ROLE idlewatch; CREATE SCHEMA idlewatch; SET search_path = idlewatch; {}; {rows}",
        schema.unwrap()
    );
    database_of(&database, &made);
    let mut journal = open(&database).unwrap();
    let found = journal.lanes(&["out".to_owned()]).unwrap();
    assert_eq!((found[0].sequence, journal.last().unwrap()), (1, 3));
    let asked = "SELECT string_agg(node || sequence, ' ' ORDER BY sequence) FROM idlewatch.events";
    assert_eq!(database_of(&database, asked), "here2 here3");
    let asked = "SELECT c.shard, c.blind_since, s.owner FROM idlewatch.cursors c JOIN idlewatch.shards s ON s.id = c.shard";
    let shard = Shard::of(&"work".into()).number();
    assert_eq!(database_of(&database, asked), format!("{shard}|111|here"));
}

/// It would end every monitor that inherits it, one after the other.
#[test]
fn an_event_that_is_damaged_is_set_aside_and_what_is_behind_it_is_told() {
    let database = shared().database();
    let mut journal = open(&database).unwrap();
    journal.commit(&[entry("one"), entry("two"), entry("three"), entry("four")], &[]).unwrap();
    database_of(
        &database,
        "UPDATE idlewatch.events SET payload = left(payload, 9) WHERE sequence = 1;
        UPDATE idlewatch.events SET crc = crc + 1 WHERE sequence = 2",
    );
    let before = journal.bytes();
    let mut told = |after, most| {
        let told = journal.pending(after, most).unwrap();
        told.iter().map(|one| one.event.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(told(0, 1), ["three"], "nothing whole is between");
    assert_eq!(told(0, 9), ["three", "four"]);
    assert_eq!(journal.damage(), Damage { events: 2, ..Damage::default() });
    assert!(journal.bytes() < before);
    let kept = database_of(&database, "SELECT sequence, action FROM idlewatch.damaged ORDER BY sequence");
    assert_eq!(kept.lines().collect::<Vec<_>>(), ["1|monitor.state", "2|monitor.state"]);
}

/// As an event. Of its mailbox nobody knows what was told, and that is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_damaged_makes_a_gap_of_its_mailbox_and_all_others_go_on() {
    let (server, database) = (server().await, shared().database());
    let two = "[[accounts]]\nid = \"other\"\nhost = \"127.0.0.1\"\ntls = \"none\"\nuser = \"bob\"\npassword = { inline = \"pw\" }\nport = PORT\n";
    let two = two.replace("PORT", &server.addr().port().to_string());
    let mut monitor = Monitor::new(&configuration(&server, &database, &two));
    monitor.start();
    let mail = |id: u32| {
        let mail = format!("Message-ID: <{id}@x.example>\r\nSubject: x\r\n\r\nhi\r\n");
        server.store().deliver("bob", "INBOX", mail.as_bytes());
    };
    let online = |events: &[Value]| {
        events.iter().filter(|event| event["idlewatch"]["account"]["state"] == "online").count()
    };
    monitor.wait("both online", |events| online(events) == 2);
    [1, 2].into_iter().for_each(mail);
    monitor.wait("both told", |events| news(events, "work") == 2 && news(events, "other") == 2);
    assert_eq!(monitor.stop().code(), Some(0));
    database_of(
        &database,
        "UPDATE idlewatch.cursors SET uid_next = uid_next + 7 WHERE account = 'work';
        INSERT INTO idlewatch.refusals VALUES ('work', 'nothing that was written')",
    );
    mail(3);
    let served = format!("[http]\nlisten = \"127.0.0.1:0\"\n{two}");
    monitor.configure(&configuration(&server, &database, &served));
    monitor.start();
    mail(4);
    monitor.wait("a gap, and all told", |events| {
        let gap = |event: &Value| {
            event["event"]["action"] == "mailbox.gap" && event["idlewatch"]["account"]["id"] == "work"
        };
        events.iter().any(gap) && news(events, "work") == 4 && news(events, "other") == 4
    });
    monitor.wait_log("the cursor of work/INBOX is damaged");
    monitor.wait_log("the refused logins of work are damaged");
    let kept = database_of(&database, "SELECT action, payload::jsonb ->> 'account' FROM idlewatch.damaged");
    assert_eq!(kept, "cursor|work");
    let metrics = http(address(&monitor), &request("GET", "/metrics", "localhost"));
    for (what, count) in [("event", 0), ("cursor", 1), ("position", 0), ("refusals", 1)] {
        let line = format!("idlewatch_journal_damaged_rows_total{{what=\"{what}\"}} {count}");
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} in {metrics}");
    }
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Of many cursors, with that of `other` on another page than that of `work`, and in no shard of what is there.
fn spread(postgres: &Postgres, database: &Database) {
    let shard = |account: &str| Shard::of(&account.into()).number();
    let (work, other) = (shard("work"), shard("other"));
    let sql = format!(
        "INSERT INTO idlewatch.cursors (account, mailbox, uid_validity, uid_next, seen, updated_at, crc, shard)
            SELECT 'filler' || n, 'INBOX', 1, 1, '', 0, 0, CASE n % 1024 WHEN {other} THEN {work} ELSE n % 1024 END
            FROM generate_series(1, 300) AS n;
        WITH moved AS (DELETE FROM idlewatch.cursors WHERE account = 'other' RETURNING *)
            INSERT INTO idlewatch.cursors SELECT * FROM moved"
    );
    postgres.ask(&database.name, &sql);
    // An index leads to where it was, until then.
    postgres.ask(&database.name, "VACUUM (ANALYZE, INDEX_CLEANUP ON) idlewatch.cursors");
    let pages = "SELECT account, ctid::text LIKE '(0,%' FROM idlewatch.cursors
        WHERE account IN ('work', 'other') ORDER BY account";
    assert_eq!(postgres.ask(&database.name, pages), "other|f\nwork|t");
}

/// What is on it waits, as for a database that is away. It would end each monitor that reads it, one after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_keeps_waiting_what_is_on_it_and_nothing_else() {
    let (mut postgres, server) = (Postgres::start(), server().await);
    let database = postgres.database();
    let (port, http_at) = (server.addr().port(), "[http]\nlisten = \"127.0.0.1:0\"\n");
    let other = format!(
        "{http_at}[[accounts]]\nid = \"other\"\nhost = \"127.0.0.1\"\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\nport = {port}\n"
    );
    let mut monitor = Monitor::new(&configuration(&server, &database, &other));
    monitor.start();
    let online = |events: &[Value], account| states(events, account) == ["online"];
    monitor.wait("both online", |events| online(events, "work") && online(events, "other"));
    deliver(&server, 1);
    monitor.wait("both told", |events| told(events, "work") == [1] && told(events, "other") == [1]);
    spread(&postgres, &database);
    let file = postgres.file(&database.name, "idlewatch.cursors");
    postgres.stop();
    turn_over(&file, 0);
    postgres.launch();

    deliver(&server, 1);
    monitor.wait_log("cannot read the table idlewatch.cursors");
    monitor.wait("the other one goes on", |events| told(events, "other") == [1, 2]);
    monitor.wait_log("a part of the journal's database cannot be read");
    assert_eq!(told(&monitor.events(), "work"), [1]);
    let status = monitor.command().arg("status").output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("a part of the journal's database cannot be read"), "{status}");
    let metrics = http(address(&monitor), &request("GET", "/metrics", "localhost"));
    for line in ["idlewatch_journal_blocked 1", "idlewatch_journal_damaged_rows_total{what=\"page\"} 1"] {
        assert!(metrics.contains(&format!("\n{line}\n")), "{line} in {metrics}");
    }
    assert_eq!(states(&monitor.events(), "work"), ["online"], "its connection stays");

    // The next one has the same page.
    for (last, ends) in [(3, true), (4, false)] {
        if ends {
            assert_eq!(monitor.stop().code(), Some(0));
        } else {
            monitor.kill();
        }
        deliver(&server, 1);
        monitor.start();
        monitor.wait("the other one is taken over", |events| told(events, "other").last() == Some(&last));
    }
    postgres.stop();
    turn_over(&file, 0);
    postgres.launch();
    deliver(&server, 1);
    monitor.wait("each once", |events| {
        has_each_once(events, 5) && told(events, "other") == told(events, "work")
    });
    assert_eq!(monitor.stop().code(), Some(0));
}

#[test]
fn what_needs_no_damaged_page_is_stored_though_it_came_with_what_does() {
    let mut postgres = Postgres::start();
    let database = postgres.database();
    let mut journal = open(&database).unwrap();
    journal.lanes(&["out".to_owned()]).unwrap();
    journal.commit(&[entry_of("work", "one"), entry_of("other", "two")], &[]).unwrap();
    spread(&postgres, &database);
    let file = postgres.file(&database.name, "idlewatch.cursors");
    let mut damage = || {
        postgres.stop();
        turn_over(&file, 0);
        postgres.launch();
    };
    let moved = |account: &str, id: &str| {
        let key = MailboxKey { account: account.into(), mailbox: MailboxName::inbox() };
        let replaces = Some(Box::new(Cursor::baseline(7, 5, None))).into();
        let checkpoint = Some(Checkpoint { key, cursor: Cursor::baseline(7, 6, None), replaces });
        Entry::new(Batch { events: vec![event(id)], checkpoint, ..Batch::default() })
    };
    let group = [entry("three"), moved("work", "four"), entry("five"), moved("other", "six"), entry("seven")];
    let places = [("out".to_owned(), LanePosition { sequence: 2, file: None })];
    damage();
    let answers = eventually(|| journal.commit(&group, &places).ok());
    let stored: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().copied()).collect();
    assert_eq!(stored, [None, Some(Unstored::Unreadable), None, None, None]);
    damage();
    let answers = eventually(|| journal.commit(&group[1..2], &[]).ok());
    assert_eq!(answers[0].as_ref().unwrap().sequences(), Some(7..=7));
    let ids: Vec<_> = journal.pending(2, 9).unwrap().iter().map(|event| event.event.id.clone()).collect();
    assert_eq!(ids, ["three", "five", "six", "seven", "four"]);
    assert_eq!(journal.lanes(&["out".to_owned()]).unwrap(), [places[0].1.clone()]);
}

/// Some of them are needed for whatever is done: then everything waits, at the start too.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_cannot_be_read_ends_no_monitor_whatever_is_on_it() {
    let (mut postgres, server) = (Postgres::start(), server().await);
    for table in ["events", "lanes", "nodes", "shards", "told", "unpipelined"] {
        let database = postgres.database();
        let mut monitor = start(&server, &database);
        monitor.wait("online", is_online);
        deliver(&server, 2);
        monitor.wait("told", |events| told(events, "work").len() == 2);
        postgres.ask(&database.name, "INSERT INTO idlewatch.unpipelined VALUES ('x')");
        let file = postgres.file(&database.name, &format!("idlewatch.{table}"));
        postgres.stop();
        turn_over(&file, 0);
        postgres.launch();
        deliver(&server, 2);
        let unread = format!("cannot read the table idlewatch.{table}");
        let is_told = |monitor: &Monitor, times| monitor.log().matches(&unread).count() == times;
        if table != "unpipelined" {
            monitor.wait(table, |_| is_told(&monitor, 1));
            assert!(monitor.is_alive(), "{table}");
        }
        let before = usize::from(table != "unpipelined");
        monitor.kill();
        monitor.start();
        monitor.wait(table, |_| is_told(&monitor, before + 1));
        assert!(monitor.is_alive(), "{table}");
        postgres.stop();
        turn_over(&file, 0);
        postgres.launch();
        deliver(&server, 2);
        let events = monitor.wait(table, |events| told(events, "work").len() >= 6);
        let known = told(&events, "work");
        assert_eq!(known, (known[0]..known[0] + 6).collect::<Vec<_>>(), "{table}");
        assert_eq!(monitor.stop().code(), Some(0));
    }
}

/// It gets again what is still there.
#[test]
fn a_position_that_is_damaged_is_the_first() {
    let database = shared().database();
    let mut journal = open(&database).unwrap();
    let names = ["out".to_owned(), "whole".to_owned()];
    journal.lanes(&names).unwrap();
    let at = |sequence| LanePosition { sequence, file: None };
    let positions = names.clone().map(|name| (name, at(3)));
    journal.commit(&[entry("one")], &positions).unwrap();
    database_of(&database, "UPDATE idlewatch.lanes SET position = 9 WHERE name = 'out'");
    assert_eq!(journal.lanes(&names).unwrap(), [at(0), at(3)]);
    assert_eq!(journal.damage(), Damage { positions: 1, ..Damage::default() });
}

/// How many messages of an account were told, each counted once.
fn news(events: &[Value], account: &str) -> usize {
    let told = events.iter().filter(|event| {
        event["event"]["action"] == "message.new" && event["idlewatch"]["account"]["id"] == account
    });
    told.map(|event| event["event"]["id"].to_string()).collect::<BTreeSet<_>>().len()
}

/// Its cursor goes with it, so that it is of this account's shard.
fn entry_of(account: &str, id: &str) -> Entry {
    let key = MailboxKey { account: account.into(), mailbox: MailboxName::inbox() };
    let checkpoint =
        Some(Checkpoint { key, cursor: Cursor::baseline(7, 5, None), replaces: Replaces::Nothing });
    Entry::new(Batch { events: vec![event(id)], checkpoint, ..Batch::default() })
}

/// One of several that share the accounts.
fn member(database: &Database, name: &str) -> PostgresJournal {
    let opening = Opening { name: name.to_owned(), waits: true, ..opening(name) };
    let settings = database.settings(Duration::from_millis(500));
    let mut journal = PostgresJournal::open(&settings, &opening).unwrap().0;
    journal.begin(Timestamp::now()).unwrap();
    journal
}

/// The database has forgotten which numbers the one that takes over has given, as a standby may that lagged behind.
#[test]
fn what_waits_moves_with_its_shard_under_numbers_that_no_output_has_passed() {
    let database = shared().database();
    let (mut one, mut two) = (member(&database, "one"), member(&database, "two"));
    for n in 0..40 {
        one.commit(&[entry_of(&format!("account{n}"), &format!("event {n}"))], &[])
            .unwrap()
            .remove(0)
            .unwrap();
    }
    let before = one.bytes();
    for id in ["a", "b", "c"] {
        two.commit(&[entry(id)], &[]).unwrap().remove(0).unwrap();
    }
    database_of(
        &database,
        "UPDATE idlewatch.nodes SET last = 0 WHERE name = 'two'; DELETE FROM idlewatch.events WHERE node = 'two'",
    );
    eventually(|| {
        one.alive(Timestamp::now()).unwrap();
        let leaving = one.holding().leaving;
        one.hand_over(&leaving, Timestamp::now()).unwrap();
        two.alive(Timestamp::now()).unwrap();
        (one.holding().held.len() == 512 && two.holding().held.len() == 512).then_some(())
    });
    let moved = two.pending(3, 99).unwrap();
    assert!(moved.len() > 5 && moved.len() < 35, "{}", moved.len());
    assert_eq!(two.last().unwrap(), 3 + moved.len() as u64);
    one.alive(Timestamp::now()).unwrap();
    let kept = one.pending(0, 99).unwrap().len();
    assert_eq!(kept + moved.len(), 40);
    assert!(one.bytes() < before && one.bytes() > 0, "what has moved does not fill it: {}", one.bytes());
    let refused = one.commit(&[entry_of(&moved_account(&moved[0].event.id), "late")], &[]).unwrap().remove(0);
    assert!(refused.is_err(), "it is another's");
}

/// Between the two it is in the stream of the one that let it go still. Whoever passed it there would say that it was told.
#[test]
fn what_was_let_go_is_told_by_whoever_takes_it_and_by_nobody_before() {
    let database = shared().database();
    let mut one = member(&database, "one");
    for (account, id) in [("work", "first"), ("home", "second"), ("other", "third")] {
        one.commit(&[entry_of(account, id)], &[]).unwrap().remove(0).unwrap();
    }
    let told = |journal: &mut PostgresJournal| {
        let told = journal.pending(0, 9).unwrap();
        told.iter().map(|one| one.event.id.clone()).collect::<Vec<_>>()
    };
    let home = [Shard::of(&"home".into())].into_iter().collect();
    one.hand_over(&home, Timestamp::now()).unwrap();
    assert_eq!((told(&mut one), one.holding().given), (vec!["first".to_owned()], home));
    one.alive(Timestamp::now()).unwrap();
    assert_eq!((told(&mut one).len(), one.holding().given.len()), (3, 0), "there is nobody else");
    let mut two = member(&database, "two");
    database_of(&database, "UPDATE idlewatch.nodes SET draining = true WHERE name = 'one'");
    one.hand_over(&home, Timestamp::now()).unwrap();
    two.alive(Timestamp::now()).unwrap();
    assert_eq!(
        (told(&mut one), told(&mut two)),
        (vec!["first".to_owned(), "third".to_owned()], vec!["second".to_owned()])
    );
    assert_eq!(one.holding().given, home, "it has not looked yet");
    one.alive(Timestamp::now()).unwrap();
    assert!(one.holding().given.is_empty());
    assert!(one.has_after(2).unwrap() && !one.has_after(3).unwrap());
    let first = [Shard::of(&"work".into()), Shard::of(&"other".into())].into_iter().collect();
    one.hand_over(&first, Timestamp::now()).unwrap();
    assert!(told(&mut one).is_empty() && one.has_after(0).unwrap(), "they are with it still");
    two.alive(Timestamp::now()).unwrap();
    assert!(!one.has_after(0).unwrap());
}

/// It had no shards any more with which it could come to somebody.
#[test]
fn what_a_drained_monitor_said_of_itself_is_told_by_others_once_it_is_gone() {
    for ends in [true, false] {
        let database = shared().database();
        let (mut one, mut two) = (member(&database, "one"), member(&database, "two"));
        database_of(&database, "UPDATE idlewatch.nodes SET draining = true WHERE name = 'two'");
        eventually(|| {
            for member in [&mut two, &mut one] {
                member.alive(Timestamp::now()).unwrap();
                let leaving = member.holding().leaving;
                member.hand_over(&leaving, Timestamp::now()).unwrap();
            }
            (one.holding().held.len() == 1024).then_some(())
        });
        two.commit(&[entry("goodbye")], &[]).unwrap();
        one.alive(Timestamp::now()).unwrap();
        assert!(one.pending(0, 9).unwrap().is_empty(), "it tells that itself");
        if ends {
            two.tidy();
        }
        drop(two);
        let told = eventually(|| {
            one.alive(Timestamp::now()).unwrap();
            Some(one.pending(0, 9).unwrap()).filter(|told| !told.is_empty())
        });
        assert_eq!(told.iter().map(|one| one.event.id.as_str()).collect::<Vec<_>>(), ["goodbye"]);
    }
}

/// Of `event N`.
fn moved_account(id: &str) -> String {
    id.replace("event ", "account")
}

/// Whoever did not hear that it has the name is no other one.
#[test]
fn a_name_whose_answer_was_lost_is_had_at_once() {
    let database = shared().database();
    let between = Between::start(database.port);
    let through = Database { port: between.port, name: database.name.clone() };
    between.loses(Lost::AnswerToJoin);
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let opening = Opening { waits: true, ..opening("here") };
        let opened = PostgresJournal::open(&through.settings(Duration::from_secs(600)), &opening);
        tell.send(opened.map(|(mut journal, _)| journal.commit(&[entry("one")], &[]).is_ok()))
    });
    assert!(told.recv_timeout(Duration::from_secs(60)).unwrap().unwrap());
    assert_eq!(*between.lost.lock().unwrap(), Lost::Nothing, "it was lost");
}

/// A transaction of somebody else: that, and this once another one waits for what it has locked.
fn meanwhile(database: &Database, first: &str, then: &str) -> std::thread::JoinHandle<String> {
    let (name, sql) = (
        database.name.clone(),
        format!(
            "BEGIN; {first}; DO $$ BEGIN
                WHILE NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock') LOOP
                    PERFORM pg_sleep(0.05); PERFORM pg_stat_clear_snapshot();
                END LOOP;
            END $$; {then}; COMMIT"
        ),
    );
    let thread = std::thread::spawn(move || shared().ask(&name, &sql));
    let sleeps =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    eventually(|| (database_of(database, sleeps) == "1").then_some(()));
    thread
}

/// Whoever claims locks them in the order of their numbers.
#[test]
fn shards_are_let_go_in_the_order_in_which_they_are_claimed() {
    for leaves in [false, true] {
        let database = shared().database();
        let mut journal = open(&database).unwrap();
        // It stands behind the others in the table now.
        database_of(&database, "UPDATE idlewatch.shards SET epoch = epoch WHERE id = 0");
        let lock = |id| format!("SELECT FROM idlewatch.shards WHERE id = {id} FOR UPDATE");
        let other = meanwhile(&database, &lock(0), &lock(1));
        if leaves {
            journal.tidy();
        } else {
            let shards = [0, 1].into_iter().filter_map(Shard::numbered).collect();
            journal.hand_over(&shards, Timestamp::now()).unwrap();
        }
        other.join().expect("no deadlock");
        let free = database_of(&database, "SELECT count(*) FROM idlewatch.shards WHERE owner = ''");
        assert_eq!(free, if leaves { "1024" } else { "2" });
    }
}

/// It came back in the moment in which it was to be forgotten.
#[test]
fn a_mailbox_that_is_there_again_is_not_forgotten() {
    let database = shared().database();
    let mut journal = open(&database).unwrap();
    journal.commit(&[entry_of("bob", "one")], &[]).unwrap().remove(0).unwrap();
    database_of(&database, "UPDATE idlewatch.cursors SET gone_since = 1");
    let other = meanwhile(&database, "UPDATE idlewatch.cursors SET gone_since = NULL", "SELECT 1");
    assert_eq!(journal.forget_gone(Timestamp::now()).unwrap(), 0);
    other.join().unwrap();
    assert_eq!(database_of(&database, "SELECT count(*) FROM idlewatch.cursors"), "1");
    database_of(&database, "UPDATE idlewatch.cursors SET gone_since = 1");
    assert_eq!(journal.forget_gone(Timestamp::now()).unwrap(), 1);
}

/// Others may have everything by then, which is no failure.
#[test]
fn who_is_late_once_the_journal_is_left_hears_that_we_stop() {
    let database = shared().database();
    let journal = open(&database).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let failed = move |failure: JournalError| tell.send(failure.to_string()).unwrap();
    let (journal, _) = JournalHandle::start(Box::new(journal), Vec::new(), 1 << 20, failed).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        journal.commit(entry("one")).await.unwrap();
        journal.settle().await;
        assert_eq!(journal.commit(entry("two")).await.unwrap_err(), Undelivered::Stopping);
    });
    // The writer has ended, and said nothing.
    assert_eq!(told.recv(), Err(std::sync::mpsc::RecvError));
}
