//! Topics of Kafka: librdkafka's cluster of three brokers, down, wrong, without us.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use rdkafka::types::RDKafkaRespErr::{self, *};

use crate::support::certificates;
use crate::support::kafka::{Doorkeeper, Kafka};
use crate::support::monitor::{Monitor, states, told};

const USERS: [&str; 2] = ["ann", "bob"];

async fn server() -> Server {
    let store = Store::new(USERS.map(|user| (user.to_owned(), "pw".to_owned())));
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn configuration(server: &Server, brokers: &str, more: &str) -> String {
    let account = |user| {
        format!(
            "[[accounts]]\nid = \"{user}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"{user}\"\npassword = {{ inline = \"pw\" }}\n",
            server.addr().port()
        )
    };
    let accounts = USERS.map(account).concat();
    format!(
        "{accounts}[outputs.kafka]\ntype = \"kafka\"\nbrokers = [{brokers}]\ninclude = [\"message.new\"]\ntimeout = \"2s\"\nbatch = {{ max_events = 10 }}\n{more}"
    )
}

async fn start(brokers: &str, more: &str) -> (Server, Monitor) {
    let server = server().await;
    let mut monitor = Monitor::new(&configuration(&server, brokers, more));
    monitor.start();
    for user in USERS {
        monitor.wait("online", |events| states(events, user).last().is_some_and(|state| state == "online"));
    }
    (server, monitor)
}

fn deliver(server: &Server, user: &str, count: usize) {
    for _ in 0..count {
        server.store().deliver(user, "INBOX", b"Subject: x\r\n\r\nhi\r\n");
    }
}

/// The UIDs of an account, in the order of its partition.
fn uids(kafka: &Kafka, user: &str) -> Vec<u64> {
    told(kafka.events().get(user).map(Vec::as_slice).unwrap_or_default(), user)
}

fn dead_letters(monitor: &Monitor) -> usize {
    let letters = std::fs::read_to_string(monitor.dir.path().join("state/dead-letters.jsonl"));
    letters.map_or(0, |letters| letters.lines().count())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_a_record_of_its_account_in_order() {
    let kafka = Kafka::start();
    let (server, mut monitor) = start(&kafka.brokers(), "compression = \"lz4\"\n").await;
    for _ in 0..25 {
        USERS.iter().for_each(|user| deliver(&server, user, 1));
    }
    for user in USERS {
        monitor.wait("produced", |_| uids(&kafka, user).len() == 25);
        assert_eq!(uids(&kafka, user), (1..=25).collect::<Vec<_>>());
    }
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Whatever the brokers say that passes, and however long they are gone.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_doubles_nothing_and_the_file_does_not_wait() {
    let kafka = Kafka::start();
    let (server, mut monitor) = start(&kafka.brokers(), "").await;
    deliver(&server, "bob", 3);
    monitor.wait("produced", |_| uids(&kafka, "bob").len() == 3);
    kafka.down();
    deliver(&server, "bob", 25);
    monitor.wait("the file has them", |events| told(events, "bob").len() == 28);
    monitor.wait_log("no acknowledgement for 2s");
    kafka.up();
    kafka.refuse(&passing());
    monitor.wait("produced", |_| uids(&kafka, "bob").len() >= 28);
    assert_eq!(uids(&kafka, "bob"), (1..=28).collect::<Vec<_>>());
    assert_eq!((monitor.stop().code(), dead_letters(&monitor)), (Some(0), 0));
}

/// It is no failure of the brokers that they need longer than we wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_acknowledgement_doubles_nothing() {
    let kafka = Kafka::start();
    let (server, mut monitor) = start(&kafka.brokers(), "").await;
    deliver(&server, "bob", 1);
    monitor.wait("produced", |_| uids(&kafka, "bob").len() == 1);
    kafka.slow(Duration::from_secs(5));
    deliver(&server, "bob", 15);
    monitor.wait_log("no acknowledgement for 2s");
    monitor.wait_log("the output takes events again");
    kafka.slow(Duration::ZERO);
    monitor.wait("produced", |_| uids(&kafka, "bob").len() >= 16);
    assert_eq!(monitor.stop().code(), Some(0));
    assert_eq!(uids(&kafka, "bob"), (1..=16).collect::<Vec<_>>());
}

/// A batch of several requests, of which the first is refused as it is.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_behind_a_refused_record_does_not_overtake_it() {
    let kafka = Kafka::start();
    let (server, mut monitor) = start(&kafka.brokers(), "").await;
    let many: Vec<_> = (0..100).map(|n| format!("somebody.with.a.long.name.{n}@lists.example.org")).collect();
    let mail = format!("To: {}\r\nSubject: long\r\n\r\n", many.join(",\r\n "));
    kafka.down();
    for _ in 0..400 {
        server.store().deliver("bob", "INBOX", mail.as_bytes());
    }
    monitor.wait("the file has them", |events| told(events, "bob").len() == 400);
    monitor.kill();
    let text = std::fs::read_to_string(monitor.config()).unwrap();
    std::fs::write(monitor.config(), text.replace("max_events = 10 ", "max_events = 1000 ")).unwrap();
    kafka.up();
    kafka.refuse(&[RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    monitor.start();
    monitor.wait("produced", |_| uids(&kafka, "bob").len() >= 400);
    assert_eq!((monitor.stop().code(), dead_letters(&monitor)), (Some(0), 0));
    assert_eq!(uids(&kafka, "bob"), (1..=400).collect::<Vec<_>>());
}

fn passing() -> [RDKafkaRespErr; 5] {
    [
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR__TRANSPORT,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_nothing_is_lost() {
    let kafka = Kafka::start();
    let (server, mut monitor) = start(&kafka.brokers(), "").await;
    let mut sent = 0;
    for round in 0..6 {
        deliver(&server, "bob", 7 + round);
        sent += 7 + round as u64;
        tokio::time::sleep(Duration::from_millis(60 * round as u64)).await;
        if round % 2 == 0 {
            kafka.down();
            kafka.up();
            kafka.refuse(&passing());
        } else {
            monitor.kill();
            monitor.start();
        }
    }
    let all = || uids(&kafka, "bob").into_iter().collect::<BTreeSet<_>>() == (1..=sent).collect();
    monitor.wait("all of them", |_| all());
    // What comes twice comes in order each time.
    let mut first = BTreeSet::new();
    let firsts: Vec<_> = uids(&kafka, "bob").into_iter().filter(|uid| first.insert(*uid)).collect();
    assert_eq!(firsts, (1..=sent).collect::<Vec<_>>());
    assert_eq!((monitor.stop().code(), dead_letters(&monitor)), (Some(0), 0));
}

/// Two that are refused together are taken one by one; one that is refused for itself is buried, and what is behind it
/// neither waits for ever nor overtakes.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_is_buried_alone() {
    let kafka = Kafka::start();
    let (server, mut monitor) = start(&kafka.brokers(), "").await;
    deliver(&server, "bob", 1);
    monitor.wait("produced", |_| uids(&kafka, "bob").len() == 1);
    kafka.refuse(&[RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE; 5]);
    deliver(&server, "bob", 1);
    monitor.wait_log("never taken, now in the dead letters");
    deliver(&server, "bob", 2);
    monitor.wait("produced", |_| uids(&kafka, "bob").len() == 3);
    assert_eq!((uids(&kafka, "bob"), dead_letters(&monitor)), (vec![1, 3, 4], 1));
    kafka.down();
    deliver(&server, "bob", 4);
    monitor.wait_log("no acknowledgement for 2s");
    kafka.up();
    kafka.refuse(&[RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    monitor.wait("produced", |_| uids(&kafka, "bob").len() >= 7);
    assert_eq!((uids(&kafka, "bob"), dead_letters(&monitor)), (vec![1, 3, 4, 5, 6, 7, 8], 1));
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_closed_to_us_is_told_and_nothing_is_given_up() {
    let kafka = Kafka::start();
    kafka.withhold_topic(RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
    let (server, mut monitor) = start(&kafka.brokers(), "").await;
    deliver(&server, "bob", 3);
    monitor.wait_log("events wait in the journal");
    assert!(monitor.log().contains("authorization failed"), "{}", monitor.log());
    kafka.withhold_topic(RD_KAFKA_RESP_ERR_NO_ERROR);
    monitor.kill();
    monitor.start();
    monitor.wait("produced", |_| uids(&kafka, "bob").len() == 3);
    assert_eq!((monitor.stop().code(), dead_letters(&monitor)), (Some(0), 0));
}

/// Nor is the password told, although the broker says it.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_refused_is_told_without_its_password() {
    let broker = Doorkeeper::start();
    let login = "user = \"mail\"\npassword = { inline = \"canary-of-kafka\" }\nsasl = \"plain\"\n";
    let (server, mut monitor) = start(&format!("\"kafka://127.0.0.1:{}\"", broker.port), login).await;
    deliver(&server, "bob", 1);
    monitor.wait_log("events wait in the journal");
    assert_eq!(broker.logins.lock().unwrap()[0], b"\0mail\0canary-of-kafka");
    assert!(monitor.log().contains("what was said is withheld"), "{}", monitor.log());
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!monitor.log().contains("canary-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_with_a_certificate_of_somebody_else_is_not_spoken_to() {
    let certificates = tempfile::tempdir().unwrap();
    certificates::write(certificates.path());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let path = |file: &str| certificates.path().join(file);
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}")]);
    server.arg("-cert").arg(path("good.pem")).arg("-key").arg(path("good.key"));
    let server = server.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = server.spawn().unwrap();
    // The certificate is good, of `localhost`; its authority is not known yet.
    let brokers = format!("\"tls://localhost:{port}\"");
    let (mail, mut monitor) = start(&brokers, "").await;
    deliver(&mail, "bob", 1);
    monitor.wait_log("certificate verify failed");
    assert_eq!(monitor.stop().code(), Some(0));
    let known = format!("tls_options = {{ ca_file = \"{}\" }}\n", path("ca.pem").display());
    monitor.configure(&configuration(&mail, &brokers, &known));
    let before = monitor.log().len();
    monitor.start();
    // Nothing is wrong with it but that it says nothing.
    monitor.wait("told", |_| monitor.log()[before..].contains("events wait in the journal"));
    assert!(!monitor.log()[before..].contains("certificate"), "{}", &monitor.log()[before..]);
    assert_eq!(monitor.stop().code(), Some(0));
    let _ = server.kill();
    let _ = server.wait();
}
