//! Faults of the network below TCP, made by packet filter rules for one port of the loopback.

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::filter::Rule;
use crate::support::monitor::{Monitor, states, told};

async fn server() -> Server {
    let store = Store::new([("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn deliver(server: &Server) {
    let to: String = (0..200).map(|n| format!("To: someone{n}@example.org\r\n")).collect();
    server.store().deliver("bob", "INBOX", format!("Subject: x\r\n{to}\r\n").as_bytes());
}

/// Accounts on this server, and on another one whose network is well.
fn accounts(server: &Server, well: &Server) -> String {
    let account = |id: &str, server: &Server| {
        format!(
            "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n",
            server.addr().port()
        )
    };
    let impatient = "command_timeout = \"2s\"\nconnect_timeout = \"2s\"\nkeepalive = { idle = \"1s\", interval = \"1s\", count = 2 }\n";
    format!("[defaults]\n{impatient}{}{}", account("sick", server), account("well", well))
}

/// The sick network comes after `online`, and is well again at the end: nothing is lost, and the other account is told
/// its mail meanwhile.
async fn survives(rule: &str, noticed: bool) {
    let (sick, well) = (server().await, server().await);
    let mut monitor = Monitor::new(&accounts(&sick, &well));
    monitor.start();
    let online = |events: &[serde_json::Value], id| states(events, id) == ["online"];
    monitor.wait("online", |events| online(events, "sick") && online(events, "well"));
    let fault = Rule::new(sick.addr().port(), rule);
    deliver(&sick);
    deliver(&well);
    monitor.wait("the other one is told", |events| told(events, "well") == [1]);
    if noticed {
        let events = monitor.wait("noticed", |events| states(events, "sick") == ["online", "backoff"]);
        assert!(
            events.iter().all(|event| event["error"]["type"] != "auth"),
            "a network is no wrong password"
        );
    }
    drop(fault);
    let events = monitor.wait("told", |events| told(events, "sick") == [1]);
    assert_eq!(states(&events, "well"), ["online"]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Half-open: neither side hears of the other any more. Keepalive notices, whatever IDLE's period is.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_drop_is_noticed_while_idling() {
    survives("drop", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_packets_that_are_dropped_stall_and_are_no_wrong_password() {
    survives("meta length > 300 drop", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_by_a_box_in_between_is_survived() {
    survives("reject with tcp reset", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_packets_make_it_slower_only() {
    survives("numgen random mod 100 < 30 drop", false).await;
}
