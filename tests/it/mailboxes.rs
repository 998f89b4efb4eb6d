//! Many mailboxes of one account on few connections, on real servers: none missed, none told twice.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use crate::admin::ask;
use crate::support::cyrus::Cyrus;
use crate::support::dovecot::{Dovecot, GOOD};
use crate::support::monitor::{Monitor, states};

/// What was delivered, by the subjects: each of its own.
#[derive(Default)]
struct Delivered {
    count: usize,
    subjects: Vec<String>,
}

impl Delivered {
    fn next(&mut self, mailbox: &str) -> String {
        self.count += 1;
        self.subjects.push(format!("{} for {mailbox}", self.count));
        self.subjects[self.count - 1].clone()
    }

    /// How often each was told.
    fn told(&self, events: &[Value]) -> Vec<usize> {
        let mut told: BTreeMap<&str, usize> = BTreeMap::new();
        for subject in events.iter().filter_map(|event| event["email"]["subject"].as_str()) {
            *told.entry(subject).or_default() += 1;
        }
        self.subjects.iter().map(|subject| told.get(subject.as_str()).copied().unwrap_or(0)).collect()
    }

    /// Waits until all of it is told, and sees that nothing is told twice.
    fn wait(&self, monitor: &Monitor, what: &str) {
        let events = monitor.wait(what, |events| !self.told(events).contains(&0));
        assert!(self.told(&events).iter().all(|&times| times == 1), "{what}: {:?}", self.told(&events));
        let messages = events.iter().filter(|event| event["event"]["action"] == "message.new").count();
        assert_eq!(messages, self.count, "{what}: nothing else is told");
    }
}

fn online(monitor: &Monitor, times: usize) {
    monitor.wait("online", |events| {
        let states = states(events, "user1");
        states.last().is_some_and(|state| state == "online")
            && states.iter().filter(|state| *state == "online").count() >= times
    });
}

/// Established connections to a port of this machine.
fn connections(port: u16) -> usize {
    let established = |line: &&str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        words.get(2).is_some_and(|remote| remote.ends_with(&format!(":{port:04X}")))
            && words.get(3) == Some(&"01")
    };
    fs::read_to_string("/proc/net/tcp").unwrap().lines().filter(established).count()
}

fn account(port: u16, ca_file: &std::path::Path, more: &str) -> String {
    format!(
        "[[accounts]]\nid = \"user1\"\nuser = \"user1\"\nhost = \"{GOOD}\"\nport = {port}\npassword = {{ inline = \"secret\" }}\n\
         tls_options = {{ ca_file = {ca_file:?} }}\n{more}\n"
    )
}

fn deliver(server: &Dovecot, delivered: &mut Delivered, mailbox: &str) {
    let subject = delivered.next(mailbox);
    server.save("user1", mailbox, &subject);
}

/// Dovecot has NOTIFY: one connection for all of them, and nobody waits for a round.
#[test]
fn twenty_mailboxes_on_one_connection_miss_nothing() {
    let mut server = Dovecot::start(1);
    let mut mailboxes: Vec<_> = (1..20).map(|n| format!("Box/{n:02} Größe")).collect();
    mailboxes.iter().for_each(|mailbox| drop(server.adm(&["mailbox", "create", "-u", "user1", mailbox])));
    mailboxes.push("INBOX".to_owned());
    server.adm(&["mailbox", "create", "-u", "user1", "Box/Old/kept", "Elsewhere"]);
    let entries = "mailboxes = [\"INBOX\", \"Box/**\", \"!Box/Old/**\"]";
    let mut monitor = Monitor::new(&account(server.imaps, &server.ca_file(), entries));
    let mut delivered = Delivered::default();
    monitor.start();
    online(&monitor, 1);
    assert_eq!(connections(server.imaps), 1);
    for _ in 0..2 {
        mailboxes.iter().for_each(|mailbox| deliver(&server, &mut delivered, mailbox));
    }
    deliver_unwatched(&server);
    delivered.wait(&monitor, "while running");
    // Mailboxes come, go, and change their names under way.
    server.adm(&["mailbox", "create", "-u", "user1", "Box/new"]);
    deliver(&server, &mut delivered, "Box/new");
    deliver(&server, &mut delivered, &mailboxes[4]);
    server.adm(&["mailbox", "rename", "-u", "user1", &mailboxes[4], "Box/renamed"]);
    deliver(&server, &mut delivered, "Box/renamed");
    delivered.wait(&monitor, "created and renamed");
    server.adm(&["mailbox", "delete", "-u", "user1", &mailboxes[5]]);
    mailboxes.remove(5);
    mailboxes[4] = "Box/renamed".to_owned();
    mailboxes.push("Box/new".to_owned());
    mailboxes.iter().for_each(|mailbox| deliver(&server, &mut delivered, mailbox));
    delivered.wait(&monitor, "after one was deleted");
    server.crash();
    mailboxes.iter().for_each(|mailbox| deliver(&server, &mut delivered, mailbox));
    delivered.wait(&monitor, "after a crash of the server");
    for round in 0..3 {
        mailboxes.iter().for_each(|mailbox| deliver(&server, &mut delivered, mailbox));
        std::thread::sleep(std::time::Duration::from_millis(150 * round));
        monitor.kill();
        mailboxes.iter().take(3).for_each(|mailbox| deliver(&server, &mut delivered, mailbox));
        monitor.start();
    }
    delivered.wait(&monitor, "after kills of the monitor");
    assert_eq!(connections(server.imaps), 1);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// What no entry chooses, or one excludes, is never told.
fn deliver_unwatched(server: &Dovecot) {
    for mailbox in ["Box/Old/kept", "Elsewhere"] {
        server.save("user1", mailbox, "not watched");
    }
}

/// Cyrus has no NOTIFY: two mailboxes have connections of their own, the others share the third.
#[test]
fn a_budget_of_three_connections_is_kept_and_misses_nothing() {
    let server = Cyrus::start();
    let mailboxes: Vec<_> = (1..20).map(|n| format!("Box/{n}")).chain(["INBOX".to_owned()]).collect();
    mailboxes.iter().filter(|name| *name != "INBOX").for_each(|name| server.create(name));
    let more = "mailboxes = [\"INBOX\", \"Box/**\"]\nmax_connections = 3\npoll_interval = \"2s\"";
    let mut monitor = Monitor::new(&account(server.imaps, &server.dir.path().join("ca.pem"), more));
    let mut delivered = Delivered::default();
    let deliver = |delivered: &mut Delivered, mailbox: &str| {
        let subject = delivered.next(mailbox);
        server.deliver_to(mailbox, &subject);
    };
    monitor.start();
    online(&monitor, 1);
    for _ in 0..2 {
        mailboxes.iter().for_each(|mailbox| deliver(&mut delivered, mailbox));
        assert!(connections(server.imaps) <= 3);
    }
    delivered.wait(&monitor, "while running");
    assert_eq!(connections(server.imaps), 3);
    monitor.kill();
    mailboxes.iter().for_each(|mailbox| deliver(&mut delivered, mailbox));
    monitor.start();
    delivered.wait(&monitor, "after a kill");
    server.create("Box/new");
    deliver(&mut delivered, "Box/new");
    // Names are listed every five minutes, and by each new connection.
    let reconnected = ask(&monitor, &["reconnect", "-a", "user1"]);
    assert_eq!(reconnected.status.code(), Some(0), "{reconnected:?}");
    delivered.wait(&monitor, "in a mailbox that is new");
    assert_eq!(monitor.stop().code(), Some(0));
}
