//! NATS JetStream: a real server, killed, stopped, rolled back.

use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::monitor::{Monitor, states, told};
use crate::support::nats::{Nats, counts};

/// Shorter than any restart: what is resent is no duplicate to the server itself.
const NO_WINDOW: Duration = Duration::from_millis(100);

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn configuration(server: &Server, nats: &Nats) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n\
         [outputs.nats]\ntype = \"nats\"\nurl = \"nats://127.0.0.1:{}\"\ninclude = [\"message.new\"]\ntimeout = \"2s\"\nbatch = {{ max_events = 10 }}\n",
        server.addr().port(),
        nats.port
    )
}

async fn start(nats: &Nats) -> (Server, Monitor) {
    let server = server().await;
    let mut monitor = Monitor::new(&configuration(&server, nats));
    monitor.start();
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
    (server, monitor)
}

fn deliver(server: &Server, count: usize) {
    for _ in 0..count {
        server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\nhi\r\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_stored_once_on_its_subject() {
    let nats = Nats::start();
    nats.stream(NO_WINDOW).await;
    let (server, mut monitor) = start(&nats).await;
    deliver(&server, 25);
    let uids = nats.wait(1..=25, || monitor.log()).await;
    assert_eq!(uids, (1..=25).collect::<Vec<_>>());
    assert!(nats.stored().await.iter().all(|(subject, _)| subject == "idlewatch.work.message.new"));
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Also when its acknowledgements are lost with the monitor, and the window in which the server knows duplicates is over.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_every_event_is_stored_exactly_once() {
    let mut nats = Nats::start();
    nats.stream(NO_WINDOW).await;
    let (server, mut monitor) = start(&nats).await;
    let mut random = StdRng::seed_from_u64(3);
    let mut sent = 0;
    for round in 0..12 {
        let count = random.random_range(1..20);
        deliver(&server, count);
        sent += count as u64;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        match round % 3 {
            0 => nats.kill(),
            _ => monitor.kill(),
        }
        tokio::time::sleep(NO_WINDOW * 2).await;
        match round % 3 {
            0 => nats.launch(),
            _ => monitor.start(),
        }
    }
    let uids = nats.wait(1..=sent, || monitor.log()).await;
    assert!(counts(&uids).values().all(|count| *count == 1), "{uids:?}");
    monitor.wait("the file too", |events| told(events, "work").len() as u64 == sent);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// It has one event, and sleeps when five more come, which the file has.
async fn five_while_it_sleeps(nats: &Nats) -> (Server, Monitor) {
    let (server, monitor) = start(nats).await;
    deliver(&server, 1);
    nats.wait(1..=1, || monitor.log()).await;
    nats.signal("STOP");
    deliver(&server, 5);
    monitor.wait("the file has them", |events| told(events, "work").len() == 6);
    (server, monitor)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_sleeps_delays_only_itself() {
    let nats = Nats::start();
    nats.stream(NO_WINDOW).await;
    let (_server, mut monitor) = five_while_it_sleeps(&nats).await;
    monitor.wait_log("events wait in the journal");
    nats.signal("CONT");
    let uids = nats.wait(1..=6, || monitor.log()).await;
    assert!(counts(&uids).values().all(|count| *count == 1), "{uids:?}");
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Acknowledged and lost all the same: the server does not sync what it acknowledges.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_acknowledged_and_lost_is_published_again() {
    let mut nats = Nats::start();
    nats.stream(NO_WINDOW).await;
    let (server, mut monitor) = start(&nats).await;
    deliver(&server, 3);
    nats.wait(1..=3, || monitor.log()).await;
    nats.stop();
    nats.save();
    nats.launch();
    deliver(&server, 20);
    nats.wait(1..=23, || monitor.log()).await;
    for quiet in [false, true] {
        nats.stop();
        if quiet {
            nats.launch();
            nats.stop();
        }
        nats.restore();
        nats.save();
        if !quiet {
            deliver(&server, 2);
        }
        nats.launch();
        let uids = nats.wait(1..=25, || monitor.log()).await;
        assert!(counts(&uids).values().all(|count| *count == 1), "{uids:?}");
        monitor.wait_log("has lost what it took");
    }
    // A restart in between changes nothing.
    monitor.kill();
    nats.stop();
    nats.restore();
    nats.launch();
    monitor.start();
    let uids = nats.wait(1..=25, || monitor.log()).await;
    assert!(counts(&uids).values().all(|count| *count == 1), "{uids:?}");
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_there_is_told_and_never_made() {
    let nats = Nats::start();
    let (server, mut monitor) = start(&nats).await;
    deliver(&server, 2);
    monitor.wait_log("no stream takes idlewatch.*.*.*");
    assert!(nats.context().await.get_stream("MAIL").await.is_err());
    nats.stream(NO_WINDOW).await;
    monitor.kill();
    monitor.start();
    nats.wait(1..=2, || monitor.log()).await;
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Another writer on the same subject is given way to, and nothing of ours is taken for stored.
#[tokio::test(flavor = "multi_thread")]
async fn another_writer_on_the_subject_does_no_harm() {
    let nats = Nats::start();
    nats.stream(NO_WINDOW).await;
    let context = nats.context().await;
    let (server, mut monitor) = start(&nats).await;
    for round in 1..=3 {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Idlewatch-Sequence", "1000000");
        headers.insert("Nats-Msg-Id", format!("foreign-{round}").as_str());
        let published = context.publish_with_headers("idlewatch.work.message.new", headers, "x".into());
        published.await.unwrap().await.unwrap();
        deliver(&server, 2);
        let mut stream = context.get_stream("MAIL").await.unwrap();
        while stream.info().await.unwrap().state.last_sequence < round * 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Where the journal has the lane of the output.
fn position(monitor: &Monitor) -> u64 {
    let journal = rusqlite::Connection::open(monitor.dir.path().join("state/journal.db")).unwrap();
    journal.query_row("SELECT position FROM lanes WHERE name = 'nats'", [], |row| row.get(0)).unwrap()
}

fn pass(monitor: &Monitor) -> String {
    let output = monitor.command().args(["run", "--once"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    said
}

/// Each is over long before an acknowledgement is believed, and there is news in each.
#[tokio::test(flavor = "multi_thread")]
async fn short_passes_store_every_event_once_and_the_journal_lets_it_go_in_time() {
    let nats = Nats::start();
    nats.stream(NO_WINDOW).await;
    let server = server().await;
    let monitor = Monitor::new(&(configuration(&server, &nats) + "hold = \"5s\"\n"));
    pass(&monitor);
    deliver(&server, 3);
    let said = pass(&monitor);
    assert!(said.contains("output=nats") && said.contains("the journal keeps up to "), "{said}");
    let (mut sent, first) = (3, position(&monitor));
    while position(&monitor) < first + 3 {
        assert!(sent < 200, "{}", pass(&monitor));
        deliver(&server, 1);
        sent += 1;
        pass(&monitor);
    }
    let uids = nats.wait(1..=sent, || monitor.log()).await;
    assert_eq!(uids, (1..=sent).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_says_what_the_server_has_not_acknowledged_and_the_next_start_publishes_it() {
    let nats = Nats::start();
    nats.stream(NO_WINDOW).await;
    let (_server, mut monitor) = five_while_it_sleeps(&nats).await;
    assert_eq!(monitor.stop().code(), Some(0));
    let log = monitor.log();
    let left =
        log.lines().find(|line| line.contains("output=nats") && line.contains("for the next start: up to "));
    assert!(left.is_some(), "{log}");
    nats.signal("CONT");
    monitor.start();
    let uids = nats.wait(1..=6, || monitor.log()).await;
    assert!(counts(&uids).values().all(|count| *count == 1), "{uids:?}");
    assert_eq!(monitor.stop().code(), Some(0));
}
