//! Syslog: a real rsyslogd by every transport, and peers that hang up as no rsyslogd does.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use crate::support::event;
use crate::support::monitor::{Monitor, states, told};
use crate::support::rsyslog::{Rsyslog, Transport};

const ALL: [Transport; 4] = [Transport::Unix, Transport::Udp, Transport::Tcp, Transport::Tls];

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn account(server: &Server, id: &str, password: &str) -> String {
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"{password}\" }}\n",
        server.addr().port()
    )
}

/// `more` stands in `[outputs.syslog]`.
fn configuration(server: &Server, url: &str, more: &str) -> String {
    format!(
        "{}[outputs.syslog]\ntype = \"syslog\"\nurl = \"{url}\"\nfacility = \"local3\"\ntimeout = \"2s\"\n{more}\n",
        account(server, "work", "pw")
    )
}

fn of(server: &Server, rsyslog: &Rsyslog) -> String {
    let more = format!("tls_options = {{ ca_file = {:?} }}", rsyslog.ca_file());
    configuration(server, &rsyslog.url(), &more)
}

fn online(monitor: &Monitor) {
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
}

fn start(configuration: &str) -> Monitor {
    let mut monitor = Monitor::new(configuration);
    monitor.start();
    online(&monitor);
    monitor
}

fn deliver(server: &Server, subject: &str) {
    server.store().deliver("bob", "INBOX", format!("Subject: {subject}\r\n\r\nhi\r\n").as_bytes());
}

fn all(uids: impl IntoIterator<Item = u64>, last: u64) -> bool {
    uids.into_iter().collect::<BTreeSet<_>>().into_iter().eq(1..=last)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_whole_by_every_transport() {
    for transport in ALL {
        let rsyslog = Rsyslog::start(transport);
        let server = server().await;
        let bad = account(&server, "bad", "not this one");
        let mut monitor = start(&(of(&server, &rsyslog) + &bad));
        (1..=25).for_each(|n| deliver(&server, &format!("Übersicht | {n}")));
        monitor.wait("received", |_| rsyslog.uids().len() == 25);
        assert_eq!(rsyslog.uids(), (1..=25).collect::<Vec<_>>(), "{transport:?}");
        monitor.wait("refused", |events| states(events, "bad").iter().any(|state| state == "auth_failed"));
        let pid = monitor.pid().to_string();
        assert_eq!(monitor.stop().code(), Some(0));
        let refused = |event: &Value| event["idlewatch"]["account"]["state"] == "auth_failed";
        monitor.wait("all of them", |events| rsyslog.received().len() == events.len());
        let received = rsyslog.received();
        assert_eq!(received.iter().map(|m| m.event.clone()).collect::<Vec<_>>(), monitor.events());
        for message in &received {
            assert_eq!((message.facility.as_str(), message.hostname.as_str()), ("local3", "test"));
            assert_eq!((message.app_name.as_str(), &message.procid), ("idlewatch", &pid));
            assert_eq!(message.msgid, message.event["event"]["action"].as_str().unwrap());
            assert_eq!(message.structured_data, "-");
            let at = message.event["@timestamp"].as_str().unwrap();
            let at: jiff::Timestamp = at.parse().unwrap();
            assert_eq!(message.timestamp.parse::<jiff::Timestamp>().unwrap(), at);
            let level = message.event["level"].as_str().unwrap();
            assert_eq!(message.severity, level.replace("warn", "warning").replace("error", "err"));
        }
        assert!(received.iter().any(|message| refused(&message.event) && message.severity == "err"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_for_a_datagram_is_shortened_and_says_so() {
    let rsyslog = Rsyslog::start(Transport::Udp);
    let server = server().await;
    let mut monitor = start(&of(&server, &rsyslog));
    let many: Vec<_> = (0..200).map(|n| format!("somebody.of.the.list.{n}@example.org")).collect();
    let mail = format!("To: {}\r\nSubject: {}\r\n\r\n", many.join(",\r\n "), "long ".repeat(150));
    server.store().deliver("bob", "INBOX", mail.as_bytes());
    monitor.wait("received", |_| rsyslog.uids() == [1]);
    let received = rsyslog.received();
    assert!(received.iter().all(|message| message.bytes <= 2048), "{received:#?}");
    let message = received.iter().find(|message| message.msgid == "message.new").unwrap();
    let truncated = message.event["idlewatch"]["truncated"].to_string();
    assert!(truncated.contains("email.to.address"), "{truncated}");
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Also of a pass that lives shorter than events are held.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_read_to_the_end_does_not_come_again_after_a_restart() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let rsyslog = Rsyslog::start(transport);
        let server = server().await;
        let mut monitor = start(&of(&server, &rsyslog));
        deliver(&server, "one");
        monitor.wait("received", |_| rsyslog.uids() == [1]);
        assert_eq!(monitor.stop().code(), Some(0));
        deliver(&server, "two");
        let pass = monitor.command().args(["run", "--once"]).output().unwrap();
        assert!(pass.status.success(), "{}", String::from_utf8_lossy(&pass.stderr));
        deliver(&server, "three");
        monitor.start();
        monitor.wait("received", |_| rsyslog.uids().contains(&3));
        online(&monitor);
        assert_eq!(monitor.stop().code(), Some(0));
        assert_eq!(rsyslog.uids(), [1, 2, 3], "{transport:?}");
    }
}

/// It does not read, so nobody knows: the next start offers it again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_did_not_read_comes_again_after_a_restart() {
    let rsyslog = Rsyslog::start(Transport::Tcp);
    let server = server().await;
    let mut monitor = start(&of(&server, &rsyslog));
    deliver(&server, "one");
    monitor.wait("received", |_| rsyslog.uids() == [1]);
    rsyslog.signal("STOP");
    deliver(&server, "two");
    monitor.wait("the file has it", |events| told(events, "work") == [1, 2]);
    assert_eq!(monitor.stop().code(), Some(0));
    monitor.start();
    rsyslog.signal("CONT");
    monitor.wait("all of them", |_| rsyslog.uids().iter().filter(|uid| **uid == 2).count() == 2);
}

/// Ended in order and killed, while mail comes: what it did not read, and what it had read but not written, comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_and_killed_loses_nothing_of_a_stream() {
    for transport in [Transport::Tcp, Transport::Tls] {
        let mut rsyslog = Rsyslog::start(transport);
        let server = server().await;
        let mut monitor = start(&of(&server, &rsyslog));
        let mut random = StdRng::seed_from_u64(5);
        let mut sent = 0;
        for round in 0..4 {
            monitor.wait("all of them", |_| all(rsyslog.uids(), sent));
            // Asleep, it does not read what its machine takes for it.
            if round % 2 == 1 {
                rsyslog.signal("STOP");
            }
            for _ in 0..random.random_range(5..40) {
                deliver(&server, "x");
                sent += 1;
            }
            monitor.wait("the file has them", |events| told(events, "work").len() as u64 == sent);
            tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
            if round % 2 == 0 {
                rsyslog.stop()
            } else {
                rsyslog.kill()
            }
            deliver(&server, "while it is down");
            sent += 1;
            rsyslog.launch();
        }
        monitor.wait("all of them", |_| all(rsyslog.uids(), sent));
        monitor.wait("the file has each once", |events| told(events, "work").len() as u64 == sent);
        let ids: BTreeSet<_> =
            rsyslog.received().iter().map(|m| m.event["event"]["id"].to_string()).collect();
        assert_eq!(ids.len(), monitor.events().len(), "whatever comes twice has its id");
        assert_eq!(monitor.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_is_killed_again_and_again_loses_nothing() {
    for transport in [Transport::Unix, Transport::Tcp] {
        let rsyslog = Rsyslog::start(transport);
        let server = server().await;
        let mut monitor = start(&of(&server, &rsyslog));
        let pause = Duration::from_millis(400);
        let sent = monitor.kill_again_and_again(9, 8, pause, || deliver(&server, "x")).await;
        monitor.wait("all of them", |_| all(rsyslog.uids(), sent));
        monitor.wait("the file has each once", |events| told(events, "work").len() as u64 == sent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_yet_delays_only_itself() {
    for transport in ALL {
        let mut rsyslog = Rsyslog::prepare(transport);
        let server = server().await;
        let mut monitor = start(&of(&server, &rsyslog));
        (1..=3).for_each(|_| deliver(&server, "x"));
        monitor.wait("the file has them", |events| told(events, "work") == [1, 2, 3]);
        monitor.wait_log("events wait in the journal");
        rsyslog.launch();
        monitor.wait("received later", |_| all(rsyslog.uids(), 3));
        assert_eq!(monitor.stop().code(), Some(0), "{transport:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_good_certificate_gets_nothing() {
    let rsyslog = Rsyslog::start(Transport::Tls);
    let server = server().await;
    let mut monitor = start(&configuration(&server, &rsyslog.url(), ""));
    deliver(&server, "x");
    monitor.wait("the file has it", |events| told(events, "work") == [1]);
    monitor.wait_log("is not signed by a known authority");
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(rsyslog.received().is_empty());
}

/// What a peer does with each connection.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    /// Reads all, to the end.
    Reads,
    /// Reads one message, and hangs up in order.
    HangsUp,
    /// Reads nothing of what came, and goes: a reset.
    Resets,
    /// Reads nothing and stays.
    Sleeps,
}

struct Peer {
    port: u16,
    events: Arc<Mutex<Vec<Value>>>,
}

impl Peer {
    /// The habits of its connections one after the other; then the last one's.
    fn start(habits: Vec<Habit>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = Self { port: listener.local_addr().unwrap().port(), events: Arc::default() };
        let events = peer.events.clone();
        std::thread::spawn(move || {
            let mut habits = habits.into_iter();
            let mut habit = habits.next().unwrap();
            let mut asleep = Vec::new();
            for stream in listener.incoming().flatten() {
                match habit {
                    Habit::Reads => {
                        let events = events.clone();
                        std::thread::spawn(move || while receive(&stream, &events).is_some() {});
                    }
                    Habit::HangsUp => {
                        receive(&stream, &events);
                    }
                    Habit::Resets => {
                        let _ = stream.peek(&mut [0]);
                    }
                    Habit::Sleeps => asleep.push(stream),
                }
                habit = habits.next().unwrap_or(habit);
            }
        });
        peer
    }

    fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }

    fn uids(&self) -> Vec<u64> {
        told(&self.events.lock().unwrap(), "work")
    }
}

/// One message with its length before it, or the end.
fn receive(mut stream: &TcpStream, events: &Mutex<Vec<Value>>) -> Option<()> {
    let mut length = 0;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        match byte[0] {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit.checked_sub(b'0').filter(|d| *d < 10).unwrap()),
        }
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).ok()?;
    let message = String::from_utf8(message).unwrap();
    let (header, text) = message.split_once(" - ").unwrap();
    assert!(header.starts_with("<158>1 ") || header.starts_with("<156>1 "), "{header}");
    events.lock().unwrap().push(event(text));
    Some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reset_connection_had_is_written_again() {
    let peer = Peer::start(vec![Habit::Resets, Habit::Resets, Habit::Reads]);
    let server = server().await;
    let mut monitor = start(&configuration(&server, &peer.url(), "include = [\"message.new\"]"));
    deliver(&server, "one");
    monitor.wait_log("the output has lost what it took");
    deliver(&server, "two");
    monitor.wait("all of them", |_| all(peer.uids(), 2));
    assert_eq!(monitor.stop().code(), Some(0));
}

/// It has the message when it hangs up, and would otherwise get it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hangs_up_after_each_message_gets_it_twice_at_most() {
    let peer = Peer::start(vec![Habit::HangsUp]);
    let server = server().await;
    let more = "include = [\"message.new\"]\nbatch = { max_events = 1 }";
    let mut monitor = start(&configuration(&server, &peer.url(), more));
    deliver(&server, "one");
    monitor.wait("it comes again", |_| peer.uids() == [1, 1]);
    deliver(&server, "two");
    monitor.wait("and the next", |_| peer.uids().contains(&2));
    monitor.wait("the file has both", |events| told(events, "work") == [1, 2]);
    assert_eq!(monitor.stop().code(), Some(0));
    let uids = peer.uids();
    assert!(uids.iter().filter(|uid| **uid == 1).count() <= 3, "{uids:?}");
}

/// Whatever it does, its own lane alone waits, and the monitor ends in time.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_nothing_delays_only_itself() {
    let peer = Peer::start(vec![Habit::Sleeps]);
    let server = server().await;
    let mut monitor =
        start(&configuration(&server, &peer.url(), "timeout = \"1s\"").replace("timeout = \"2s\"\n", ""));
    let mail = format!("Subject: {}\r\n\r\n", "long ".repeat(180));
    (0..3000).for_each(|_| {
        server.store().deliver("bob", "INBOX", mail.as_bytes());
    });
    monitor.wait_for_lines("\"message.new\"", 3000);
    monitor.wait_log("the server took nothing for 1s");
    assert_eq!(monitor.stop().code(), Some(0));
}
