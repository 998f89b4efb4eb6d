//! The webhook: whatever its receiver does, every event comes, and nothing else is harmed.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use serde_json::Value;

use crate::support::monitor::{Monitor, states, told};
use crate::support::proxy::{Protocol, RealProxy};
use crate::support::receiver::{Answer, Receiver, SECRET};

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

/// `more` stands in `[outputs.hook]`.
fn configuration(server: &Server, receiver: &Receiver, more: &str) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n\
         [outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/mail\"\nsecret = {{ inline = \"{SECRET}\" }}\n\
         include = [\"message.new\"]\nbatch = {{ max_events = 10 }}\ntimeout = \"1s\"\n{more}\n",
        server.addr().port(),
        receiver.port
    )
}

fn online(monitor: &Monitor) {
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
}

fn deliver(server: &Server, subject: &str) {
    server.store().deliver("bob", "INBOX", format!("Subject: {subject}\r\n\r\nhi\r\n").as_bytes());
}

fn uids(receiver: &Receiver) -> Vec<u64> {
    told(&receiver.taken(), "work")
}

async fn monitor(receiver: &Receiver, more: &str) -> (Server, Monitor) {
    let server = server().await;
    let mut monitor = Monitor::new(&configuration(&server, receiver, more));
    monitor.start();
    online(&monitor);
    (server, monitor)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_comes_signed_and_in_order_in_each_form_of_a_body() {
    for (body, format) in
        [("ndjson", "ecs"), ("json", "ecs"), ("single", "cloudevents"), ("binary", "cloudevents")]
    {
        // The second is refused at first, and goes before the third all the same.
        let receiver = Receiver::start([Answer::Take, Answer::status(503)]);
        let more = format!("body = \"{body}\"\nformat = \"{format}\"\nheaders = {{ X-Team = \"mail\" }}");
        let (server, mut monitor) = monitor(&receiver, &more).await;
        (1..=25).for_each(|n| deliver(&server, &format!("number {n}")));
        monitor.wait("taken", |_| uids(&receiver).len() == 25);
        assert_eq!(uids(&receiver), (1..=25).collect::<Vec<_>>());
        assert_eq!(monitor.stop().code(), Some(0));
        assert!(!monitor.log().contains(SECRET));
        assert!(receiver.asked().iter().all(|line| line == "POST /mail HTTP/1.1"));
    }
}

/// What a receiver may do that passes: each time the same events come again under the same key.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_hangs_and_lost_answers_are_repeated_under_the_same_key() {
    let answers = [
        Answer::status(500),
        Answer::Lose,
        Answer::Status(429, "Retry-After: 1\r\n".to_owned()),
        Answer::Hang,
        Answer::Slow(503),
        Answer::Huge(503),
    ];
    let count = answers.len();
    let receiver = Receiver::start(answers);
    let (server, mut monitor) = monitor(&receiver, "").await;
    deliver(&server, "one");
    monitor.wait("taken at last", |_| uids(&receiver).len() == 2);
    assert_eq!(uids(&receiver), [1, 1], "the lost answer's too");
    assert_eq!(receiver.repeated(), count);
    let log = monitor.log();
    assert!(log.contains("500 Internal Server Error: some\u{fffd}[2Jw") && !log.contains('\x1b'), "{log}");
    assert!(log.contains("the output takes events again"));
    assert!(monitor.peak_memory() < 100 << 20, "{}", monitor.peak_memory());
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Where a proxy is configured nothing goes around it, whatever it does.
#[tokio::test(flavor = "multi_thread")]
async fn events_go_through_the_proxy_that_is_configured_or_wait() {
    for protocol in [Protocol::Socks5, Protocol::Http] {
        let (receiver, server, proxy) = (Receiver::start([]), server().await, RealProxy::start(protocol));
        let url = |password: &str| {
            format!("proxy = \"{}://me:{password}@127.0.0.1:{}\"", protocol.scheme(), proxy.port)
        };
        let mut monitor = Monitor::new(&configuration(&server, &receiver, &url("canary-wrong")));
        monitor.start();
        online(&monitor);
        deliver(&server, "one");
        monitor.wait_log("events wait in the journal");
        assert_eq!(monitor.stop().code(), Some(0));
        assert!(receiver.asked().is_empty(), "{:?}", receiver.asked());
        monitor.configure(&configuration(&server, &receiver, &url("sesame")));
        monitor.start();
        monitor.wait("taken", |_| uids(&receiver) == [1]);
        assert_eq!(monitor.stop().code(), Some(0));
        assert!(!monitor.log().contains("canary-wrong") && !monitor.log().contains("sesame"));
    }
}

/// Connections are used again, and answers are not: what comes for an earlier request, or for none, acknowledges nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_late_or_twice_acknowledges_no_other_request() {
    let late = Answer::Late(Duration::from_millis(1500));
    let receiver =
        Receiver::start([late.clone(), Answer::Twice(503), Answer::Half(503), late, Answer::Twice(429)]);
    let (server, mut monitor) = monitor(&receiver, "").await;
    deliver(&server, "one");
    monitor.wait("the first", |_| !uids(&receiver).is_empty());
    deliver(&server, "two");
    monitor.wait("both", |_| uids(&receiver) == [1, 2]);
    assert_eq!(receiver.repeated(), 5);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// A redirect, into the cloud's own network too, is never followed; nor are such events given up, nor others delayed.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_what_only_a_person_mends_is_never_buried() {
    for (answer, words) in [
        (302, "redirects are not followed (to http://169.254.169.254/latest/meta-data)"),
        (401, "the answer is 401 Unauthorized"),
        (404, "the answer is 404 Not Found"),
    ] {
        let location = "Location: http://169.254.169.254/latest/meta-data\r\n".to_owned();
        let receiver = Receiver::start([Answer::Status(answer, location)]);
        let (server, mut monitor) = monitor(&receiver, "").await;
        deliver(&server, "one");
        monitor.wait_log(words);
        deliver(&server, "two");
        monitor.wait("the file has both", |events| told(events, "work") == [1, 2]);
        assert_eq!(uids(&receiver), [0; 0]);
        monitor.kill();
        monitor.start();
        monitor.wait("taken once it is mended", |_| uids(&receiver) == [1, 2]);
        assert!(!monitor.dir.path().join("state/dead-letters.jsonl").exists());
        assert_eq!(monitor.stop().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_never_accepted_is_found_buried_and_can_be_replayed() {
    let receiver = Receiver::start([]);
    let (server, mut monitor) = monitor(&receiver, "").await;
    receiver.reject("poison");
    for subject in ["one", "two", "poison three", "four"] {
        deliver(&server, subject);
    }
    monitor.wait("the others come", |_| uids(&receiver) == [1, 2, 4]);
    monitor.wait_log(": the answer is 422");
    assert_eq!(monitor.stop().code(), Some(0));
    let letters = dead_letters(&monitor, &["list", "--json"]);
    let letter: Value = serde_json::from_str(letters.trim()).unwrap();
    assert_eq!((&letter["output"], &letter["event"]["body"]["uid"]), (&"hook".into(), &3.into()));
    assert!(dead_letters(&monitor, &["list"]).contains("hook"), "for people too");
    receiver.reject("no such text");
    assert_eq!(dead_letters(&monitor, &["replay"]), "");
    monitor.start();
    monitor.wait("replayed", |_| uids(&receiver) == [1, 2, 4, 3]);
    online(&monitor);
    assert_eq!(told(&monitor.events(), "work"), [1, 2, 3, 4], "only to the output that lacked it");
    assert_eq!(dead_letters(&monitor, &["list"]), "");
    assert_eq!(monitor.stop().code(), Some(0));
}

fn dead_letters(monitor: &Monitor, arguments: &[&str]) -> String {
    let output = monitor.command().args(["state", "dead-letters"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_not_there_delays_only_itself() {
    let receiver = Receiver::start([]);
    let server = server().await;
    let text = configuration(&server, &receiver, "").replace(&format!(":{}/", receiver.port), ":1/");
    let mut monitor = Monitor::new(&text);
    monitor.start();
    online(&monitor);
    (1..=3).for_each(|_| deliver(&server, "x"));
    monitor.wait("the file has them", |events| told(events, "work") == [1, 2, 3]);
    monitor.wait_log("onnection refused");
    assert_eq!(monitor.stop().code(), Some(0));
    monitor.configure(&configuration(&server, &receiver, ""));
    monitor.start();
    monitor.wait("taken later", |_| uids(&receiver) == [1, 2, 3]);
}

/// `kill -9` at random while answers are refused and lost: nothing is missing, and whatever comes twice has its id.
#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_nothing_is_lost() {
    let rounds =
        std::env::var("IDLEWATCH_PROOF_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    let receiver = Receiver::start([]);
    let (server, mut monitor) = monitor(&receiver, "").await;
    receiver.be_unreliable(7);
    let pause = Duration::from_millis(400);
    let sent = monitor.kill_again_and_again(7, rounds, pause, || deliver(&server, "x")).await;
    let all = |uids: Vec<u64>| uids.into_iter().collect::<BTreeSet<_>>().into_iter().eq(1..=sent);
    monitor.wait("all of them", |_| all(uids(&receiver)));
    monitor.wait("the file has each once", |events| told(events, "work").len() as u64 == sent);
    let taken = receiver.taken();
    let ids: BTreeSet<_> = taken.iter().map(|event| event["event"]["id"].to_string()).collect();
    assert_eq!(ids.len() as u64, sent, "an id for each message, whenever it came");
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!monitor.dir.path().join("state/dead-letters.jsonl").exists());
}

/// A certificate that nobody vouches for gets nothing, not even the secret of the signature.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_without_a_good_certificate_gets_nothing() {
    let receiver = Receiver::start([]);
    let server = server().await;
    let text = configuration(&server, &receiver, "").replace("url = \"http:", "url = \"https:");
    let mut monitor = Monitor::new(&text);
    monitor.start();
    online(&monitor);
    deliver(&server, "x");
    monitor.wait_log("events wait in the journal");
    assert!(receiver.asked().is_empty());
    assert_eq!(monitor.stop().code(), Some(0));
    let check = Command::new(env!("CARGO_BIN_EXE_idlewatch"))
        .arg("-c")
        .arg(monitor.config())
        .args(["check", "--no-network"])
        .output();
    assert!(check.unwrap().status.success());
}
