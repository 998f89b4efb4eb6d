//! From the news to the event, on real servers: in one round trip where the server takes commands ahead, in none where it pushes.

use serde_json::Value;

use crate::real_servers::{accounts, online, users};
use crate::support::cyrus::Cyrus;
use crate::support::dovecot::{Dovecot, GOOD};
use crate::support::monitor::{Monitor, told};

const ROUNDS: usize = 40;

fn sources(events: &[Value], source: &str) -> usize {
    events.iter().filter(|event| event["idlewatch"]["source"] == source).count()
}

/// Told messages are flagged and expunged while new ones come; each of these is told once.
fn storm(server: &Dovecot, monitor: &Monitor, all: &[String]) -> Vec<Value> {
    for round in 0..ROUNDS {
        server.deliver(all, &format!("number {round}"));
        let uids = server.uids("user1");
        if round % 4 == 1 {
            server.adm(&["flags", "add", "-u", "user1", "\\Flagged", "mailbox", "INBOX", "all"]);
        }
        if round % 8 == 7 {
            let lowest = uids[0];
            monitor.wait("the lowest is told", |events| told(events, "user1").contains(&lowest));
            server.adm(&["expunge", "-u", "user1", "mailbox", "INBOX", "uid", &lowest.to_string()]);
        }
    }
    let events = monitor.wait("all are told", |events| told(events, "user1").len() >= ROUNDS);
    let mut uids = told(&events, "user1");
    uids.sort_unstable();
    assert_eq!(uids, (1..=ROUNDS as u64).collect::<Vec<_>>());
    events
}

#[test]
fn dovecot_pushes_new_messages_beside_changed_flags_and_expunges() {
    let (server, all) = (Dovecot::start(1), users(1));
    let mut monitor = Monitor::new(&accounts(&server, &all, ""));
    monitor.start();
    monitor.wait("online", |events| online(events, &all));
    server.deliver(&all, "the first");
    let events = monitor.wait("the first is told", |events| told(events, "user1").len() == 1);
    assert_eq!(sources(&events, "notify"), 1, "{events:#?}");
    server.adm(&["expunge", "-u", "user1", "mailbox", "INBOX", "all"]);
    monitor.stop();
    // A state of its own: what follows counts from one again.
    let server = Dovecot::start(1);
    let mut monitor = Monitor::new(&accounts(&server, &all, ""));
    monitor.start();
    monitor.wait("online", |events| online(events, &all));
    let events = storm(&server, &monitor, &all);
    assert!(sources(&events, "notify") > ROUNDS / 2, "{} pushed", sources(&events, "notify"));
    monitor.stop();
    assert_eq!(told(&monitor.events(), "user1").len(), ROUNDS, "{}", monitor.log());
}

#[test]
fn dovecot_takes_commands_ahead() {
    let without_notify = "imap_capability = IMAP4rev1 SASL-IR ID ENABLE IDLE LITERAL+ CONDSTORE QRESYNC\n";
    let (server, all) = (Dovecot::start_with(1, without_notify), users(1));
    let mut monitor = Monitor::new(&accounts(&server, &all, ""));
    monitor.start();
    monitor.wait("online", |events| online(events, &all));
    let events = storm(&server, &monitor, &all);
    assert_eq!(sources(&events, "notify"), 0);
    assert!(sources(&events, "idle") > ROUNDS / 2, "{} told in IDLE", sources(&events, "idle"));
    assert!(!monitor.log().contains("sent ahead"), "{}", monitor.log());
}

/// What Cyrus heard is in its log of the session: nothing of the server's stands between the three commands.
#[test]
fn cyrus_takes_commands_ahead() {
    let server = Cyrus::start();
    let ca_file = server.dir.path().join("ca.pem");
    let account = format!(
        "[[accounts]]\nid = \"user1\"\nhost = \"{GOOD}\"\nport = {}\nuser = \"user1\"\npassword = {{ inline = \"secret\" }}\n[accounts.tls_options]\nca_file = {ca_file:?}\n",
        server.imaps
    );
    let mut monitor = Monitor::new(&account);
    monitor.start();
    monitor.wait("online", |events| online(events, &["user1".to_owned()]));
    for n in 0..5 {
        server.deliver(&format!("number {n}"));
        monitor.wait("told", |events| told(events, "user1").len() > n);
    }
    monitor.stop();
    assert_eq!(told(&monitor.events(), "user1").len(), 5);
    assert!(!monitor.log().contains("sent ahead"), "{}", monitor.log());
    let heard = server.heard();
    let heard: Vec<&str> = heard.lines().map(str::trim).collect();
    let ahead = heard.windows(3).filter(|lines| {
        lines[0].ends_with("DONE") && lines[1].contains("UID FETCH") && lines[2].ends_with(" IDLE")
    });
    assert!(ahead.count() >= 4, "{heard:#?}");
}
