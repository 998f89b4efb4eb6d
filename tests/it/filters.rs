//! Filters, on the program as a black box.

use std::path::Path;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use idlewatch::uid_set::UidSet;
use serde_json::Value;

use crate::real_servers::{accounts, online as online_all, users};
use crate::support::cyrus::Cyrus;
use crate::support::dovecot::{Dovecot, GOOD};
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
    assert!(monitor.log().contains("dropped by filters: 2 messages"), "{}", monitor.log());
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

/// An output that takes nothing, a crash, and another configuration of filters: what waits in the journal keeps its route.
#[tokio::test(flavor = "multi_thread")]
async fn a_route_survives_a_crash_in_the_journal() {
    let server = server().await;
    let route =
        "[filters.to-vip]\naction = \"route\"\nall = [{ subject = \"urgent*\" }]\noutputs = [\"vip\"]\n";
    let text = configuration(&server, route).replace("\"vip.jsonl\"", "\"vip/out.jsonl\"");
    let mut monitor = Monitor::new(&text);
    let (vip, away) = (monitor.dir.path().join("vip"), monitor.dir.path().join("away"));
    std::fs::create_dir(&vip).unwrap();
    monitor.start();
    online(&monitor);
    std::fs::rename(&vip, &away).unwrap();
    deliver(&server, "From: a@example.org\r\nSubject: urgent: one");
    deliver(&server, "From: a@example.org\r\nSubject: two");
    monitor.wait("the other output is not delayed", |events| told(events, "work") == [2]);
    monitor.wait_log("events wait in the journal");
    monitor.kill();
    monitor.configure(&text.replace(route, ""));
    std::fs::rename(&away, &vip).unwrap();
    monitor.start();
    deliver(&server, "From: a@example.org\r\nSubject: urgent: three");
    let out = vip.join("out.jsonl");
    monitor.wait("each where it belongs", |events| {
        told(events, "work") == [2, 3] && vip_uids(&out) == [1, 2, 3]
    });
    assert_eq!(monitor.stop().code(), Some(0));
}

fn vip_uids(path: &Path) -> Vec<u64> {
    told(&events(path), "work")
}

/// The headers that a real server is asked for are those that a filter names.
#[test]
fn a_real_server_is_asked_for_what_filters_look_at() {
    let server = Dovecot::start(1);
    let filters = "[filters.f]\naction = \"tag\"\nany = [{ header = { name = \"Return-Path\", matches = \"<sender@*>\" }, to = \"all@example.org\" }]\nlabels = { seen = \"yes\" }";
    let mut monitor = Monitor::new(&format!("{}{filters}\n", accounts(&server, &users(1), "")));
    monitor.start();
    monitor.wait("online", |events| online_all(events, &users(1)));
    server.deliver(&users(1), "tagged");
    let events = monitor.wait("told", |events| told(events, "user1") == [1]);
    assert_eq!(of_uid(&events, 1)["labels"]["seen"], "yes");
}

/// What the search does not name is neither fetched (else it would be told) nor asked for again.
#[test]
fn dovecot_is_asked_for_what_is_wanted_and_the_rest_is_not_fetched() {
    let server = Dovecot::start(1);
    let users = users(1);
    let search = |search: &str| accounts(&server, &users, &format!("search = {{ {search} }}"));
    let mut monitor = Monitor::new(&search("subject = \"größe\", not_from = \"nobody\", unseen = true"));
    monitor.start();
    monitor.wait("online", |events| online_all(events, &users));
    let large = "=?utf-8?q?Gr=C3=B6=C3=9Fe?= 1";
    for subject in ["small", large, "tiny"] {
        server.deliver(&users, subject);
    }
    monitor.wait("told", |events| told(events, "user1") == [2]);
    monitor.stop();
    server.deliver(&users, "small");
    server.deliver(&users, large);
    monitor.start();
    monitor.wait("told after a restart", |events| told(events, "user1") == [2, 5]);
    monitor.stop();
    assert!(!monitor.log().contains("the search was refused"), "{}", monitor.log());
    // What was not wanted counts as seen, whatever is searched for later.
    monitor.configure(&search("unseen = true"));
    monitor.start();
    server.deliver(&users, "anything");
    monitor.wait("told without a subject", |events| told(events, "user1") == [2, 5, 6]);
    monitor.stop();
    // By the server's own account: as many headers were fetched as messages were told.
    monitor.wait("fetched", |_| server.headers_fetched() >= 3);
    assert_eq!(server.headers_fetched(), 3, "{}", server.log());
}

#[test]
fn cyrus_is_asked_for_what_is_wanted_and_the_rest_is_not_fetched() {
    let server = Cyrus::start();
    let text = format!(
        "[[accounts]]\nid = \"user1\"\nhost = \"{GOOD}\"\nport = {}\nuser = \"user1\"\npassword = {{ inline = \"secret\" }}\n\
         search = {{ subject = \"wanted\", not_header = \"X-Nothing:\", smaller = \"1MiB\" }}\n[accounts.tls_options]\nca_file = {:?}\n",
        server.imaps,
        server.dir.path().join("ca.pem")
    );
    let mut monitor = Monitor::new(&text);
    monitor.start();
    monitor.wait("online", |events| online_all(events, &["user1".to_owned()]));
    for subject in ["one", "Wanted two", "three", "un\"wanted\\", "wanted five"] {
        server.deliver(subject);
    }
    let is_told = |events: &[Value]| of_uid(events, 5) != Value::Null;
    let events = monitor.wait("told", is_told);
    assert_eq!(told(&events, "user1"), [2, 4, 5]);
    assert!(!monitor.log().contains("the search was refused"), "{}", monitor.log());
    monitor.stop();
    // As the server heard it.
    monitor.wait("heard", |_| server.heard().contains("LOGOUT"));
    let heard = server.heard();
    let fetched: Vec<&str> = heard.lines().filter(|line| line.contains("BODY.PEEK")).collect();
    assert!(!fetched.is_empty() && heard.contains("UID SEARCH UID"), "{heard}");
    for line in fetched {
        let set = line.split("UID FETCH ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        let set: UidSet = set.parse().unwrap();
        assert!(!set.contains(1) && !set.contains(3), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_search_is_asked_for_everything_and_that_is_said() {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    let behaviour = Behaviour { searches: false, ..Behaviour::default() };
    let server = Server::start(store, behaviour).await.unwrap();
    let text = configuration(&server, "").replace("user =", "search = { from = \"boss\" }\nuser =");
    let mut monitor = Monitor::new(&text);
    monitor.start();
    online(&monitor);
    deliver(&server, "From: alice@example.org\r\nSubject: one");
    monitor.wait("told", |events| told(events, "work") == [1]);
    monitor.wait_log("the search was refused, and everything is fetched: there is no such search here");
}
