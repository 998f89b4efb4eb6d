//! Events in the journal of a real systemd-journald, as journalctl finds them there.

use std::collections::BTreeSet;
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::journald::Journald;
use crate::support::monitor::{Monitor, states, told};

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

/// `more` stands behind `[outputs.journal]`.
fn configuration(server: &Server, journald: &Journald, more: &str) -> String {
    let account = |id: &str, password: &str| {
        format!(
            "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"{password}\" }}\nlabels = {{ team-x = \"mail\" }}\n",
            server.addr().port()
        )
    };
    format!(
        "{}{}[outputs.journal]\ntype = \"journald\"\nsocket = {:?}\ntimeout = \"1s\"\n{more}\n",
        account("work", "pw"),
        account("bad", "not this one"),
        journald.socket()
    )
}

fn start(configuration: &str) -> Monitor {
    let mut monitor = Monitor::new(configuration);
    monitor.start();
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
    monitor
}

fn deliver(server: &Server, subject: &str) {
    let mail = format!("From: Alice <alice@example.org>\r\nSubject: {subject}\r\n\r\nhi\r\n");
    server.store().deliver("bob", "INBOX", mail.as_bytes());
}

fn all(uids: Vec<u64>, last: u64) -> bool {
    uids.into_iter().collect::<BTreeSet<_>>().into_iter().eq(1..=last)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_an_entry_and_every_value_a_field() {
    let (server, journald) = (server().await, Journald::start());
    let mut monitor = start(&configuration(&server, &journald, ""));
    (1..=25).for_each(|n| deliver(&server, &format!("Übersicht {n}")));
    monitor.wait("received", |_| journald.uids().len() == 25);
    monitor.wait("refused", |events| states(events, "bad").iter().any(|state| state == "auth_failed"));
    assert_eq!(journald.uids(), (1..=25).collect::<Vec<_>>());
    assert_eq!(monitor.stop().code(), Some(0));
    let events = monitor.events();
    monitor.wait("all of them", |_| journald.journalctl(&["-t", "idlewatch"]).len() == events.len());
    let entries = journald.journalctl(&["-t", "idlewatch"]);
    for (entry, event) in entries.iter().zip(&events) {
        for (field, pointer) in [
            ("MESSAGE", "/message"),
            ("IDLEWATCH_TIMESTAMP", "/@timestamp"),
            ("IDLEWATCH_EVENT_ID", "/event/id"),
            ("IDLEWATCH_EVENT_ACTION", "/event/action"),
            ("IDLEWATCH_EMAIL_SUBJECT", "/email/subject"),
            ("IDLEWATCH_FROM", "/idlewatch/from"),
            ("IDLEWATCH_ACCOUNT_ID", "/idlewatch/account/id"),
            ("IDLEWATCH_LABELS_TEAM_X", "/labels/team-x"),
            ("IDLEWATCH_ERROR_TYPE", "/error/type"),
        ] {
            let value = event.pointer(pointer).cloned().unwrap_or_default();
            assert_eq!(entry.get(field).cloned().unwrap_or_default(), value, "{field}: {entry}");
        }
        assert_eq!(entry["IDLEWATCH_EVENT_SEQUENCE"], event["event"]["sequence"].to_string());
    }
    // As the documentation says to look for them.
    let count = |arguments: &[&str]| journald.journalctl(arguments).len();
    assert_eq!(count(&["MESSAGE_ID=14f6a72d48ce4539b4c9fe8a987a2287"]), 25);
    assert_eq!(count(&["IDLEWATCH_ACCOUNT_ID=work", "IDLEWATCH_EVENT_ACTION=message.new"]), 25);
    assert_eq!(count(&["-t", "idlewatch", "-p", "err"]), 1, "the refused login");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_event_is_whole() {
    let (server, journald) = (server().await, Journald::start());
    let more = "[events]\nmax_bytes = 1000000\nmax_addresses = 1000\nheaders = [\"X-Long\"]";
    let mut monitor = Monitor::new(&configuration(&server, &journald, more));
    let file = "[outputs.file]\ntype = \"file\"\npath = \"events.jsonl\"\n";
    let text = std::fs::read_to_string(monitor.config()).unwrap().replace(file, "");
    std::fs::write(monitor.config(), text).unwrap();
    monitor.start();
    monitor.wait("online", |_| {
        !journald.journalctl(&["IDLEWATCH_ACCOUNT_STATE=online", "IDLEWATCH_ACCOUNT_ID=work"]).is_empty()
    });
    let many: Vec<_> = (0..800).map(|n| format!("somebody.with.a.long.name.{n}@lists.example.org")).collect();
    let mail = format!("To: {}\r\nSubject: long\r\n\r\n", many.join(",\r\n "));
    server.store().deliver("bob", "INBOX", mail.as_bytes());
    monitor.wait("received", |_| journald.uids() == [1]);
    let entries = journald.journalctl(&["IDLEWATCH_EMAIL_SUBJECT=long"]);
    let to = entries[0]["IDLEWATCH_EMAIL_TO_ADDRESS"].as_str().unwrap();
    assert_eq!(to.split(", ").count(), 800, "{} bytes", to.len());
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journald_that_is_not_there_or_restarted_delays_only_itself() {
    let (server, mut journald) = (server().await, Journald::prepare());
    let mut monitor = start(&configuration(&server, &journald, ""));
    (1..=3).for_each(|_| deliver(&server, "x"));
    monitor.wait("the file has them", |events| told(events, "work") == [1, 2, 3]);
    monitor.wait_log("events wait in the journal");
    let mut sent = 3;
    for _ in 0..3 {
        journald.launch();
        monitor.wait("received later", |_| all(journald.uids(), sent));
        journald.stop();
        deliver(&server, "while it is down");
        sent += 1;
        monitor.wait("the file has it", |events| told(events, "work").len() as u64 == sent);
    }
    journald.launch();
    monitor.wait("received later", |_| all(journald.uids(), sent));
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_killed_again_and_again_loses_nothing() {
    let (server, journald) = (server().await, Journald::start());
    let mut monitor = start(&configuration(&server, &journald, ""));
    let pause = Duration::from_millis(300);
    let sent = monitor.kill_again_and_again(4, 8, pause, || deliver(&server, "x")).await;
    monitor.wait("all of them", |_| all(journald.uids(), sent));
    let entries = journald.journalctl(&["IDLEWATCH_EVENT_ACTION=message.new"]);
    let ids: BTreeSet<_> = entries.iter().map(|entry| entry["IDLEWATCH_EVENT_ID"].to_string()).collect();
    assert_eq!(ids.len() as u64, sent, "whatever comes twice has its id");
}
