//! Faults of networks and servers, made to happen: the message is told once, the others are left alone.

use std::future::Future;
use std::io;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::action;
use crate::support::monitor::{Monitor, states, told};
use crate::support::scripted::{Peer, Scripted, message};

const CANARY: &str = "CANARY-pw-7f3a";

fn account(id: &str, port: u16) -> String {
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"{CANARY}\" }}\n"
    )
}

/// Watched at last; the first message comes now unless it came already.
async fn recover(mut peer: Peer) -> io::Result<()> {
    peer.greet().await?;
    let tag = peer.until("IDLE").await?;
    peer.say("+ idling\r\n").await?;
    if peer.messages() == 0 {
        peer.set_messages(1);
        peer.say("* 1 EXISTS\r\n").await?;
    }
    peer.until("DONE").await?;
    peer.say(&format!("{tag} OK done\r\n")).await?;
    peer.behave().await
}

/// The first connection is `fault`'s, the others are well.
async fn once<F, T>(fault: F) -> Scripted
where
    F: Fn(Peer) -> T + Send + Sync + 'static,
    T: Future<Output = io::Result<()>> + Send + 'static,
{
    let fault = std::sync::Arc::new(fault);
    Scripted::start(move |peer| {
        let fault = fault.clone();
        async move { if peer.number == 1 { fault(peer).await } else { recover(peer).await } }
    })
    .await
}

/// To the FETCH of message 1, which came while the mailbox was watched: its tag.
async fn to_fetch(peer: &mut Peer) -> io::Result<String> {
    peer.greet().await?;
    let tag = peer.until("IDLE").await?;
    peer.set_messages(1);
    peer.say("+ idling\r\n* 1 EXISTS\r\n").await?;
    peer.until("DONE").await?;
    peer.say(&format!("{tag} OK done\r\n")).await?;
    peer.until("UID FETCH").await
}

/// Each of these connections ends by a reset.
async fn resets() -> Vec<(&'static str, Scripted)> {
    vec![
        ("at-once", once(|peer| async move { peer.reset() }).await),
        (
            "greeted",
            once(|mut peer| async move {
                peer.greet().await?;
                peer.reset()
            })
            .await,
        ),
        (
            "at-login",
            once(|mut peer| async move {
                peer.greet().await?;
                peer.until("LOGIN").await?;
                peer.reset()
            })
            .await,
        ),
        (
            "at-examine",
            once(|mut peer| async move {
                peer.greet().await?;
                peer.until("EXAMINE").await?;
                peer.reset()
            })
            .await,
        ),
        (
            "idle",
            once(|mut peer| async move {
                peer.greet().await?;
                peer.until("IDLE").await?;
                peer.say("+ idling\r\n").await?;
                peer.reset()
            })
            .await,
        ),
        (
            "at-fetch",
            once(|mut peer| async move {
                to_fetch(&mut peer).await?;
                peer.reset()
            })
            .await,
        ),
        (
            "in-literal",
            once(|mut peer| async move {
                to_fetch(&mut peer).await?;
                let whole = message(1);
                peer.say(&whole[..whole.len() - 20]).await?;
                peer.reset()
            })
            .await,
        ),
        (
            "before-tagged",
            once(|mut peer| async move {
                to_fetch(&mut peer).await?;
                peer.say(&message(1)).await?;
                peer.reset()
            })
            .await,
        ),
    ]
}

/// A clean end of the stream is as much of an end as a reset, and no message is taken for complete by it.
async fn ends() -> Vec<(&'static str, Scripted)> {
    vec![
        (
            "eof-in-literal",
            once(|mut peer| async move {
                to_fetch(&mut peer).await?;
                let whole = message(1);
                peer.say(&whole[..whole.len() - 20]).await
            })
            .await,
        ),
        (
            "eof-before-tagged",
            once(|mut peer| async move {
                to_fetch(&mut peer).await?;
                peer.say(&message(1)).await
            })
            .await,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_anywhere_loses_nothing_and_doubles_nothing() {
    let mut cases = resets().await;
    cases.extend(ends().await);
    cases.push(("well", once(recover).await));
    let text: String = cases.iter().map(|(name, server)| account(name, server.port())).collect();
    let mut monitor = Monitor::new(&text);
    monitor.start();
    let all_told =
        |events: &[serde_json::Value]| cases.iter().all(|(name, _)| told(events, name).contains(&1));
    let events = monitor.wait("all told", all_told);
    for (name, server) in &cases {
        assert_eq!(told(&events, name), [1], "{name}: {:?}", server.commands());
        let expected: &[&str] = if *name == "well" { &["online"] } else { &["backoff", "online"] };
        let mut states = states(&events, name);
        if states.first().is_some_and(|state| state == "online") && *name != "well" {
            states.remove(0);
        }
        assert_eq!(states, expected, "{name}: one change per fault");
        assert!(server.logins().len() <= 2 && server.connections() <= 2, "{name}: no storm");
    }
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!format!("{events:?}{}", monitor.log()).contains(CANARY));
}
/// A refused login is not tried again soon, whatever the server's other accounts do.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_tried_once_and_not_again_by_a_restart() {
    let server = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        let tag = peer.until("LOGIN").await?;
        peer.say(&format!("{tag} NO [AUTHENTICATIONFAILED] no\r\n")).await?;
        peer.behave().await
    })
    .await;
    let well = once(recover).await;
    let mut monitor = Monitor::new(&(account("refused", server.port()) + &account("well", well.port())));
    for start in 1..=2 {
        monitor.start();
        let refused = |events: &[serde_json::Value]| {
            states(events, "refused").iter().filter(|state| *state == "auth_failed").count() == start
                && states(events, "well").iter().filter(|state| *state == "online").count() == start
        };
        monitor.wait("refused", refused);
        monitor.kill();
    }
    assert_eq!(server.logins().len(), 1, "the journal remembers it");
    assert!(well.connections() >= 2);
}

/// The old password is refused and waits for minutes; another one in the file is tried at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_is_tried_at_once() {
    let server = server("new").await;
    let inline = format!("inline = \"{CANARY}\"");
    let mut monitor =
        Monitor::new(&account("work", server.addr().port()).replace(&inline, "file = \"password\""));
    let password = monitor.dir.path().join("password");
    std::fs::write(&password, "old\n").unwrap();
    monitor.start();
    monitor.wait("refused", |events| states(events, "work") == ["auth_failed"]);
    std::fs::write(&password, "new\n").unwrap();
    monitor.wait("online", |events| states(events, "work") == ["auth_failed", "online"]);
}

/// A monitor that was down for an hour says so, once, with what it caught up on.
#[tokio::test(flavor = "multi_thread")]
async fn a_blindness_is_told_with_its_length_and_what_was_recovered() {
    let server = server(CANARY).await;
    let mut monitor = Monitor::new(&account("work", server.addr().port()));
    monitor.start();
    monitor.wait("online", |events| states(events, "work") == ["online"]);
    monitor.kill();
    let journal = rusqlite::Connection::open(monitor.dir.path().join("state/journal.db")).unwrap();
    let hour_ago = jiff::Timestamp::now().as_millisecond() - 3_600_000;
    journal.execute("UPDATE monitor SET value = ?1 WHERE name = 'alive_at'", [hour_ago]).unwrap();
    drop(journal);
    for _ in 0..3 {
        server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\n");
    }
    monitor.start();
    let gaps = |events: &[serde_json::Value]| {
        events.iter().filter(|event| action(event) == "mailbox.gap").cloned().collect::<Vec<_>>()
    };
    let events = monitor.wait("told", |events| !gaps(events).is_empty());
    assert_eq!(told(&events, "work"), [1, 2, 3], "all before the end of the blindness");
    let gap = &gaps(&events)[0]["idlewatch"]["gap"];
    assert_eq!((&gap["reason"], &gap["recovered"], &gap["lost"]), (&"offline".into(), &3.into(), &0.into()));
    let at = |key: &str| gap[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(at("since").as_millisecond(), hour_ago);
    assert!(at("until") > at("since"));
    server.drop_connections();
    server.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\n");
    let events = monitor.wait("told", |events| told(events, "work").len() == 4);
    assert_eq!(gaps(&events).len(), 1, "a moment without a connection is none");
}

async fn server(password: &str) -> Server {
    let store = Store::new([("bob".to_owned(), password.to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}
