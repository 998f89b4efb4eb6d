//! Faults of networks and servers, made to happen: the message is told once, the others are left alone.

use std::future::Future;
use std::io;

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
