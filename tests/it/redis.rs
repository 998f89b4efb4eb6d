//! Streams of Redis: a real server, killed, full, closed to us.

use std::collections::BTreeSet;
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::monitor::{Monitor, states, told};
use crate::support::redis::{PASSWORD, Redis};

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn configuration(server: &Server, redis: &Redis, password: &str) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n\
         [outputs.redis]\ntype = \"redis\"\nurl = \"redis://127.0.0.1:{}\"\nuser = \"mail\"\npassword = {{ inline = \"{password}\" }}\n\
         include = [\"message.new\"]\ntimeout = \"2s\"\nbatch = {{ max_events = 10 }}\n",
        server.addr().port(),
        redis.port
    )
}

async fn start(redis: &Redis, password: &str) -> (Server, Monitor) {
    let server = server().await;
    let mut monitor = Monitor::new(&configuration(&server, redis, password));
    monitor.start();
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
    (server, monitor)
}

fn deliver(server: &Server, count: usize) {
    for _ in 0..count {
        server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\nhi\r\n");
    }
}

fn uids(redis: &Redis) -> Vec<u64> {
    told(&redis.events(), "work")
}

fn all(redis: &Redis, count: u64) -> bool {
    uids(redis).into_iter().collect::<BTreeSet<_>>() == (1..=count).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_an_entry_in_order() {
    let redis = Redis::start();
    let (server, mut monitor) = start(&redis, PASSWORD).await;
    deliver(&server, 25);
    monitor.wait("added", |_| uids(&redis).len() == 25);
    assert_eq!(uids(&redis), (1..=25).collect::<Vec<_>>());
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!monitor.log().contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_nothing_is_lost() {
    let mut redis = Redis::start();
    let (server, mut monitor) = start(&redis, PASSWORD).await;
    let mut sent = 0;
    for round in 0..6 {
        deliver(&server, 7 + round);
        sent += 7 + round as u64;
        tokio::time::sleep(Duration::from_millis(60 * round as u64)).await;
        if round % 2 == 0 {
            redis.kill();
            redis.launch();
        } else {
            monitor.kill();
            monitor.start();
        }
    }
    monitor.wait("all of them", |_| all(&redis, sent));
    monitor.wait("the file has each once", |events| told(events, "work").len() as u64 == sent);
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!monitor.dir.path().join("state/dead-letters.jsonl").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_full_is_waited_for_and_the_file_is_not() {
    let redis = Redis::start();
    let (server, mut monitor) = start(&redis, PASSWORD).await;
    redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    deliver(&server, 5);
    monitor.wait_log("the server answered: OOM");
    monitor.wait("the file has them", |events| told(events, "work").len() == 5);
    assert!(uids(&redis).is_empty());
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    monitor.wait("added", |_| all(&redis, 5));
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_refused_is_told_and_nothing_is_given_up() {
    let redis = Redis::start();
    let (server, mut monitor) = start(&redis, "canary-that-is-wrong").await;
    deliver(&server, 3);
    monitor.wait_log("the server answered: WRONGPASS");
    assert!(!monitor.log().contains("canary-"));
    assert_eq!(monitor.stop().code(), Some(0));
    monitor.configure(&configuration(&server, &redis, PASSWORD));
    monitor.start();
    monitor.wait("added", |_| all(&redis, 3));
    assert!(!monitor.dir.path().join("state/dead-letters.jsonl").exists());
    assert_eq!(monitor.stop().code(), Some(0));
}
