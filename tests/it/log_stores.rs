//! Elasticsearch, Loki, OTLP: whatever they answer, every event comes, and nothing else is harmed.

use std::collections::BTreeSet;
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::consumers::{Bulk, Collector, Streams};
use crate::support::monitor::{Monitor, states, told};
use crate::support::receiver::{Answer, Receiver};
use crate::support::rotel::Rotel;

const CANARY: &str = "canary-of-the-store";

/// A type, what it needs, and a receiver of it.
type Case = (&'static str, String, Receiver);

fn cases(script: impl IntoIterator<Item = Answer> + Clone) -> [Case; 3] {
    let secret = |key: &str| format!("{key} = {{ inline = \"{CANARY}\" }}");
    [
        ("elasticsearch", secret("api_key"), Receiver::of(Bulk::default(), script.clone())),
        (
            "loki",
            format!("tenant = \"mail\"\nlabels = {{ env = \"test\" }}\n{}", secret("token")),
            Receiver::of(Streams::default(), script.clone()),
        ),
        ("otlp", format!("user = \"bob\"\n{}", secret("password")), Receiver::of(Collector, script)),
    ]
}

fn configuration(server: &Server, (kind, more, receiver): &Case) -> String {
    of_type(server, kind, receiver.port, more)
}

fn of_type(server: &Server, kind: &str, port: u16, more: &str) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n\
         [outputs.store]\ntype = \"{kind}\"\nurl = \"http://127.0.0.1:{}\"\n\
         include = [\"message.new\"]\nbatch = {{ max_events = 10 }}\ntimeout = \"1s\"\n{more}\n",
        server.addr().port(),
        port
    )
}

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

async fn start(case: &Case) -> (Server, Monitor) {
    let server = server().await;
    let monitor = watch(&configuration(&server, case));
    (server, monitor)
}

fn watch(configuration: &str) -> Monitor {
    let mut monitor = Monitor::new(configuration);
    monitor.start();
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
    monitor
}

fn deliver(server: &Server, subject: &str) {
    server.store().deliver("bob", "INBOX", format!("Subject: {subject}\r\n\r\nhi\r\n").as_bytes());
}

fn uids(receiver: &Receiver) -> Vec<u64> {
    told(&receiver.taken(), "work")
}

fn once_each(uids: &[u64]) -> BTreeSet<u64> {
    uids.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_comes_in_the_form_of_its_store_and_in_order() {
    for case in cases([]) {
        let (server, mut monitor) = start(&case).await;
        (1..=25).for_each(|n| deliver(&server, &format!("number {n} \u{fc}")));
        monitor.wait("taken", |_| uids(&case.2).len() == 25);
        assert_eq!(uids(&case.2), (1..=25).collect::<Vec<_>>(), "{}", case.0);
        assert_eq!(monitor.stop().code(), Some(0));
        assert!(!monitor.log().contains(CANARY));
    }
}

/// Refused, hung, lost: the first events come again. Elasticsearch and Loki know them, and keep them once.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_hangs_and_lost_answers_are_repeated_and_the_file_does_not_wait() {
    let answers = [
        Answer::status(500),
        Answer::Lose,
        Answer::Status(429, "Retry-After: 1\r\n".to_owned()),
        Answer::Hang,
        Answer::Huge(503),
    ];
    for case in cases(answers) {
        let (server, mut monitor) = start(&case).await;
        deliver(&server, "one");
        monitor.wait("the file has it", |events| told(events, "work") == [1]);
        monitor.wait_log("the output takes events again");
        let most = if case.0 == "otlp" { 2 } else { 1 };
        assert_eq!(uids(&case.2), vec![1; most], "{}", case.0);
        assert_eq!(case.2.asked().len(), 6, "{}", case.0);
        assert!(monitor.peak_memory() < 100 << 20, "{}", monitor.peak_memory());
        assert_eq!(monitor.stop().code(), Some(0));
    }
}

/// A page of a proxy in place of an answer has taken nothing, where the answer counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_status_without_a_good_answer_is_no_success() {
    let page = Answer::Told("<html>welcome</html>".to_owned());
    for case in cases([page, Answer::Half(200)]) {
        if case.0 == "loki" {
            continue;
        }
        let (server, mut monitor) = start(&case).await;
        deliver(&server, "one");
        monitor.wait_log("events wait in the journal");
        assert_eq!(uids(&case.2), [0; 0]);
        monitor.kill();
        monitor.start();
        monitor.wait("taken", |_| uids(&case.2) == [1]);
        assert_eq!(monitor.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_never_accepted_is_buried_alone() {
    for case in cases([]) {
        let (server, mut monitor) = start(&case).await;
        if case.0 == "loki" {
            case.2.reject("poison");
        }
        for subject in ["one", "two", "poison three", "four"] {
            deliver(&server, subject);
        }
        monitor.wait_log("now in the dead letters");
        monitor.wait("the others come", |_| once_each(&uids(&case.2)) == BTreeSet::from([1, 2, 4]));
        if case.0 != "otlp" {
            assert_eq!(uids(&case.2), [1, 2, 4], "{}", case.0);
        }
        let letters = std::fs::read_to_string(monitor.dir.path().join("state/dead-letters.jsonl")).unwrap();
        assert_eq!(letters.lines().count(), 1, "{letters}");
        assert!(letters.contains("poison three"));
        assert_eq!(monitor.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_have_to_wait_are_offered_again_and_the_others_are_known() {
    let [(kind, more, _), ..] = cases([]);
    let case = (kind, more, Receiver::of(Bulk::busy(4), []));
    let (server, mut monitor) = start(&case).await;
    (1..=10).for_each(|_| deliver(&server, "x"));
    monitor.wait("all of them", |_| uids(&case.2).len() == 10);
    monitor.wait_log("a document got 429");
    assert_eq!(once_each(&uids(&case.2)), (1..=10).collect());
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!monitor.dir.path().join("state/dead-letters.jsonl").exists());
}

/// `kill -9` at random while answers are refused and lost.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_nothing_is_lost_and_documents_and_entries_are_there_once() {
    for case in cases([]) {
        let (server, mut monitor) = start(&case).await;
        case.2.be_unreliable(7);
        let pause = Duration::from_millis(400);
        let mut sent = monitor.kill_again_and_again(7, 5, pause, || deliver(&server, "x")).await;
        // What comes now is told by the last one: it is up before it is stopped.
        deliver(&server, "the last");
        sent += 1;
        monitor.wait("all of them", |_| once_each(&uids(&case.2)).into_iter().eq(1..=sent));
        if case.0 != "otlp" {
            assert_eq!(uids(&case.2).len() as u64, sent, "{}", case.0);
        }
        assert_eq!(monitor.stop().code(), Some(0));
        assert!(!monitor.dir.path().join("state/dead-letters.jsonl").exists());
    }
}

/// What an output may not know is in no request to it.
#[tokio::test(flavor = "multi_thread")]
async fn privacy_holds_for_every_store() {
    for (kind, more, receiver) in cases([]) {
        let more = format!("{more}\nprivacy = {{ subject = \"omit\", addresses = \"omit\" }}");
        let case = (kind, more, receiver);
        let (server, mut monitor) = start(&case).await;
        let text = b"Subject: canary-subject\r\nFrom: canary-name <canary-sender@example.org>\r\n\r\nhi\r\n";
        server.store().deliver("bob", "INBOX", text);
        monitor.wait("taken", |_| uids(&case.2).len() == 1);
        let asked = case.2.bodies().concat();
        assert!(asked.contains("subject withheld"), "{asked}");
        assert!(!asked.contains("canary-"), "{asked}");
        assert_eq!(monitor.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_collector_gets_every_event_when_it_is_killed_and_when_the_monitor_is() {
    let mut rotel = Rotel::start();
    let server = server().await;
    let mut monitor = watch(&of_type(&server, "otlp", rotel.port, ""));
    (1..=12).for_each(|n| deliver(&server, &format!("number {n}")));
    monitor.wait("told", |_| rotel.uids().len() == 12);
    let log = rotel.log();
    for line in [
        "-> service.name: Str(idlewatch)",
        "SeverityNumber: SEVERITY_NUMBER_INFO(9)",
        "EventName: idlewatch.message.new",
        "-> email.subject: Str(number 7)",
        "-> event.category: Slice(",
    ] {
        assert!(log.contains(line), "{line} in {log}");
    }
    rotel.kill();
    (13..=15).for_each(|n| deliver(&server, &format!("number {n}")));
    monitor.wait_log("events wait in the journal");
    monitor.wait("the file does not wait", |events| told(events, "work").len() == 15);
    monitor.kill();
    rotel.launch();
    monitor.start();
    monitor.wait("told later", |_| once_each(&rotel.uids()) == (1..=15).collect());
    assert_eq!(monitor.stop().code(), Some(0));
}
