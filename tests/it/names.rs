//! Names and addresses: a name server of our own that does not know, does not answer, or leads elsewhere.

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::{Message, Store};
use jiff::{Timestamp, ToSpan};
use serde_json::Value;

use crate::support::action;
use crate::support::isolated::{isolated, shell};
use crate::support::monitor::{Monitor, states, told};
use crate::support::name_server::NameServer;

const NAME: &str = "mail.test";

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn monitor(server: &Server) -> Monitor {
    Monitor::new(&format!(
        "[[accounts]]\nid = \"work\"\nhost = \"{NAME}\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n\
         connect_timeout = \"5s\"\nallow_plaintext = true\n",
        server.addr().port()
    ))
}

fn deliver(server: &Server) {
    server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\nhi\r\n");
}

fn is_online(events: &[Value]) -> bool {
    states(events, "work").last().is_some_and(|state| state == "online")
}

/// What has another address on the server's port: that of `server`.
fn address_of(address: &str, port: u16, server: &Server) {
    let to = server.addr().port();
    shell(&format!(
        "nft 'table ip moved {{ chain out {{ type nat hook output priority -100; ip daddr {address} tcp dport {port} dnat to 127.0.0.1:{to}; }}; }}'"
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_known_is_told_as_that_until_it_is() {
    if !isolated("names::a_name_that_is_not_known_is_told_as_that_until_it_is") {
        return;
    }
    let (names, server) = (NameServer::start(), server().await);
    names.tell(NAME, &[]);
    let mut monitor = monitor(&server);
    monitor.start();
    let events = monitor.wait("not known", |events| states(events, "work") == ["backoff"]);
    let trouble = events.iter().find(|event| action(event) == "account.state").unwrap();
    assert_eq!(trouble["error"]["type"], "dns", "{trouble}");
    assert!(trouble["error"]["message"].as_str().unwrap().contains(NAME), "{trouble}");
    // Nobody listens at the first two, one of them of the other family.
    names.tell(NAME, &["::1", "127.0.0.9", "127.0.0.1"]);
    monitor.wait("online", is_online);
    deliver(&server);
    monitor.wait("told", |events| told(events, "work") == [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_address_serves_while_the_name_server_is_silent_or_forgetful() {
    if !isolated("names::the_last_good_address_serves_while_the_name_server_is_silent_or_forgetful") {
        return;
    }
    let (names, server) = (NameServer::start(), server().await);
    names.tell(NAME, &["127.0.0.1"]);
    let mut monitor = monitor(&server);
    monitor.start();
    monitor.wait("online", is_online);
    let mut uids = Vec::new();
    for silent in [true, false] {
        if silent {
            names.falls_silent()
        } else {
            names.tell(NAME, &[])
        }
        server.drop_connections();
        deliver(&server);
        uids.push(uids.len() as u64 + 1);
        let events = monitor.wait("told", |events| told(events, "work") == uids && is_online(events));
        assert!(events.iter().all(|event| event["error"]["type"] != "dns"), "it was known a moment ago");
        names.wakes();
    }
}

/// As a changed UIDVALIDITY: what has lain there for long is no news, and what was missed is said to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_to_another_server_floods_nobody() {
    if !isolated("names::a_name_that_leads_to_another_server_floods_nobody") {
        return;
    }
    let (names, old, new) = (NameServer::start(), server().await, server().await);
    names.tell(NAME, &["127.0.0.1"]);
    let received = Timestamp::now().checked_sub(72.hours()).unwrap();
    new.store().change("bob", "INBOX", |inbox| {
        inbox.uid_validity = 77;
        inbox.uid_next = 501;
        let message = |uid| Message { uid, bytes: b"Subject: old\r\n\r\n".as_slice().into(), received };
        inbox.messages = (1..=500).map(message).collect();
    });
    let mut monitor = monitor(&old);
    monitor.start();
    monitor.wait("online", is_online);
    deliver(&old);
    monitor.wait("told", |events| told(events, "work") == [1]);
    address_of("127.0.0.3", old.addr().port(), &new);
    names.tell(NAME, &["127.0.0.3"]);
    old.drop_connections();
    let events = monitor.wait("reset", |events| events.iter().any(|event| action(event) == "mailbox.reset"));
    let reset = events.iter().find(|event| action(event) == "mailbox.reset").unwrap();
    assert_eq!(reset["idlewatch"]["imap"]["uid_validity"], 77);
    monitor.wait("the gap", |events| events.iter().any(|event| action(event) == "mailbox.gap"));
    deliver(&new);
    monitor.wait("told, and only that", |events| told(events, "work") == [1, 501]);
}
