//! Filters, on the program as a black box.

use std::path::Path;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use serde_json::Value;

use crate::support::monitor::{Monitor, events, states, told};

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

/// `filters` begins within `[outputs.vip]`.
fn configuration(server: &Server, filters: &str) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n\
         labels = {{ team = \"support\" }}\n[outputs.vip]\ntype = \"file\"\npath = \"vip.jsonl\"\ninclude = [\"message.new\"]\n{filters}",
        server.addr().port()
    )
}

fn deliver(server: &Server, header: &str) {
    server.store().deliver("bob", "INBOX", format!("{header}\r\n\r\nhi\r\n").as_bytes());
}

fn online(monitor: &Monitor) {
    monitor.wait("online", |events| states(events, "work").last().is_some_and(|state| state == "online"));
}

fn of_uid(events: &[Value], uid: u64) -> Value {
    let own = |event: &&Value| event["idlewatch"]["imap"]["uid"] == uid;
    events.iter().find(own).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_message_is_never_told_and_the_others_are() {
    let server = server().await;
    let filters = "[filters.vip]\naction = \"keep\"\nany = [{ from = \"boss@*\" }]\n\
                   [filters.news]\naction = \"drop\"\nany = [{ header_exists = \"List-Unsubscribe\" }, { from = \"*@news.example.net\" }]\n";
    let mut monitor = Monitor::new(&configuration(&server, filters));
    monitor.start();
    online(&monitor);
    deliver(&server, "From: daily@NEWS.example.net\r\nSubject: one");
    deliver(&server, "From: boss@example.org\r\nList-Unsubscribe: <x>\r\nSubject: two");
    deliver(&server, "From: shop@example.org\r\nlist-unsubscribe: <x>\r\nSubject: three");
    deliver(&server, "From: alice@example.org\r\nSubject: four");
    let events = monitor.wait("told", |events| told(events, "work") == [2, 4]);
    assert_eq!(of_uid(&events, 2)["idlewatch"]["filter"]["names"], serde_json::json!(["vip"]));
    assert!(of_uid(&events, 4)["idlewatch"].get("filter").is_none());
    assert!(!of_uid(&events, 2).to_string().contains("unsubscribe"), "asked for by a filter only");
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(monitor.log().contains("2 messages were dropped by filters"), "{}", monitor.log());
    // The cursor has moved over them: without any filter they are no news either.
    monitor.configure(&configuration(&server, ""));
    monitor.start();
    deliver(&server, "From: daily@news.example.net\r\nSubject: five");
    monitor.wait("told after it", |events| told(events, "work") == [2, 4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_labels_and_a_route_leads_to_its_output_alone() {
    let server = server().await;
    let filters = "[filters.tickets]\naction = \"tag\"\nall = [{ subject = \"re:ticket #[0-9]+\" }]\nlabels = { kind = \"ticket\", team = \"desk\" }\n\
                   [filters.to-vip]\naction = \"route\"\nall = [{ header = { name = \"X-Priority\", matches = \"1*\" } }]\naccounts = [\"w*\"]\noutputs = [\"vip\"]\n";
    let mut monitor = Monitor::new(&configuration(&server, filters));
    monitor.start();
    online(&monitor);
    deliver(&server, "From: a@example.org\r\nSubject: Re: Ticket #47");
    deliver(&server, "From: a@example.org\r\nX-Priority: 1 (Highest)\r\nSubject: Ticket #48");
    deliver(&server, "From: a@example.org\r\nX-Priority: 3\r\nSubject: plain");
    let all = monitor.wait("told", |events| told(events, "work") == [1, 3]);
    assert_eq!(of_uid(&all, 1)["labels"], serde_json::json!({"kind": "ticket", "team": "desk"}));
    assert_eq!(of_uid(&all, 3)["labels"], serde_json::json!({"team": "support"}));
    monitor.kill();
    monitor.start();
    deliver(&server, "From: a@example.org\r\nX-Priority: 1\r\nSubject: late");
    let vip = monitor.dir.path().join("vip.jsonl");
    monitor.wait("both outputs after a crash", |events| {
        told(events, "work") == [1, 3] && vip_uids(&vip) == [1, 2, 3, 4]
    });
    let routed = of_uid(&events(&vip), 2);
    assert_eq!(routed["idlewatch"]["filter"]["outputs"], serde_json::json!(["vip"]));
    assert_eq!(routed["idlewatch"]["filter"]["names"], serde_json::json!(["tickets", "to-vip"]));
    assert_eq!(monitor.stop().code(), Some(0));
}

fn vip_uids(path: &Path) -> Vec<u64> {
    told(&events(path), "work")
}
