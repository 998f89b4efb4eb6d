//! Faults of networks and servers, made to happen: the message is told once, the others are left alone.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use tokio::sync::Notify;

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

/// Each of these connections falls silent, or nearly so.
async fn stalls() -> Vec<(&'static str, Scripted)> {
    vec![
        ("no-greeting", once(|peer| async move { peer.silence().await }).await),
        (
            "half-a-greeting",
            once(|mut peer| async move {
                peer.say("* OK [CAPABILITY IMAP4rev1").await?;
                peer.silence().await
            })
            .await,
        ),
        (
            "a-byte-now-and-then",
            once(|mut peer| async move {
                loop {
                    peer.say("*").await?;
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            })
            .await,
        ),
        (
            "half-a-completion",
            once(|mut peer| async move {
                peer.greet().await?;
                let tag = peer.until("LOGIN").await?;
                peer.say(&format!("{tag} OK half a li")).await?;
                peer.silence().await
            })
            .await,
        ),
        (
            "examine-unanswered",
            once(|mut peer| async move {
                peer.greet().await?;
                peer.until("EXAMINE").await?;
                peer.silence().await
            })
            .await,
        ),
        (
            "in-a-literal",
            once(|mut peer| async move {
                to_fetch(&mut peer).await?;
                let whole = message(1);
                peer.say(&whole[..whole.len() - 20]).await?;
                peer.silence().await
            })
            .await,
        ),
        (
            "endless-literal",
            once(|mut peer| async move {
                to_fetch(&mut peer).await?;
                peer.say("* 1 FETCH (UID 1 BODY[HEADER.FIELDS (FROM)]<0> {60000000}\r\n").await?;
                loop {
                    peer.say("x").await?;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
            .await,
        ),
    ]
}

/// No silence is waited out: not a whole one, and not one of a byte now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_anywhere_is_left_in_time() {
    let cases = stalls().await;
    let impatient = "connect_timeout = \"1s\"\ncommand_timeout = \"1s\"\n";
    let text: String = cases.iter().map(|(name, server)| account(name, server.port()) + impatient).collect();
    let mut monitor = Monitor::new(&text);
    monitor.start();
    let events = monitor.wait("all told", |events| cases.iter().all(|(name, _)| told(events, name) == [1]));
    for (name, _) in &cases {
        let own = |event: &&serde_json::Value| event["idlewatch"]["account"]["id"] == *name;
        let errors: Vec<_> =
            events.iter().filter(own).filter_map(|event| event["error"]["type"].as_str()).collect();
        assert_eq!(errors, ["timeout"], "{name}: one change per fault");
    }
}

/// What is no IMAP, or more than anybody may say, is named, and costs neither memory nor the other accounts.
#[tokio::test(flavor = "multi_thread")]
async fn excess_and_nonsense_are_named_and_bounded() {
    let says = async |text: Vec<u8>| {
        let text = std::sync::Arc::new(text);
        Scripted::start(move |mut peer| {
            let text = text.clone();
            async move {
                peer.say_bytes(&text).await?;
                peer.silence().await
            }
        })
        .await
    };
    let greeting = b"* OK [CAPABILITY IMAP4rev1 IDLE] ready\r\n".to_vec();
    let endless = |begin: &[u8]| [begin, &vec![b'a'; 4 << 20]].concat();
    let cases = [
        ("http", says(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await, "not_imap"),
        ("ssh", says(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()).await, "not_imap"),
        ("noise", says((0..=255).cycle().take(5000).collect()).await, "not_imap"),
        ("line", says(endless(b"* OK ")).await, "limit"),
        ("literal", says([greeting.clone(), b"* LIST () {4294967295}\r\n".to_vec()].concat()).await, "limit"),
        ("negative", says([greeting.clone(), b"* LIST () {-1}\r\n".to_vec()].concat()).await, "limit"),
        ("blank", says(b"\r\n".repeat(1 << 20)).await, "limit"),
    ];
    let well = once(recover).await;
    let text: String = cases.iter().map(|(name, server, _)| account(name, server.port())).collect();
    let mut monitor = Monitor::new(&(text + &account("well", well.port())));
    monitor.start();
    let code = |events: &[serde_json::Value], name: &str| {
        let own = events.iter().filter(|event| event["idlewatch"]["account"]["id"] == name);
        own.filter_map(|event| event["error"]["code"].as_str()).next().map(str::to_owned)
    };
    let events = monitor.wait("all named", |events| {
        cases.iter().all(|(name, _, _)| code(events, name).is_some()) && told(events, "well") == [1]
    });
    for (name, _, expected) in &cases {
        assert_eq!(code(&events, name).as_deref(), Some(*expected), "{name}");
    }
    assert!(monitor.peak_memory() < 200 << 20, "{}", monitor.peak_memory());
}

/// A server that never stops talking is listened to slowly; another account of the same monitor is told its mail.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_floods_leaves_the_others_alone() {
    let flood = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        peer.until("IDLE").await?;
        peer.say("+ idling\r\n").await?;
        let lines = "* 0 EXISTS\r\n".repeat(1000);
        loop {
            peer.say(&lines).await?;
        }
    })
    .await;
    let well = server(CANARY).await;
    let mut monitor = Monitor::new(&(account("flood", flood.port()) + &account("well", well.addr().port())));
    monitor.start();
    monitor.wait("online", |events| {
        states(events, "well") == ["online"] && states(events, "flood") == ["online"]
    });
    for n in 1..=100 {
        well.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\n");
        monitor.wait("told", |events| told(events, "well").len() == n);
    }
    assert!(monitor.peak_memory() < 200 << 20, "{}", monitor.peak_memory());
    assert_eq!(monitor.stop().code(), Some(0));
}

/// A limit is no wrong password, whatever words it is told in; each kind of refusal has its class.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_logins_are_told_apart() {
    let table = [
        ("[AUTHENTICATIONFAILED] no", "auth_failed", "auth"),
        ("[AUTHORIZATIONFAILED] no", "auth_failed", "auth"),
        ("[EXPIRED] no", "auth_failed", "auth"),
        ("[PRIVACYREQUIRED] no", "auth_failed", "auth"),
        ("[CONTACTADMIN] no", "auth_failed", "auth"),
        ("[UNAVAILABLE] no", "throttled", "throttled"),
        ("[INUSE] no", "throttled", "throttled"),
        ("[LIMIT] no", "throttled", "throttled"),
        ("[THROTTLED] no", "throttled", "throttled"),
        ("Too many simultaneous connections", "throttled", "throttled"),
        ("User is authenticated but not connected.", "throttled", "throttled"),
    ];
    let mut servers = Vec::new();
    for (words, _, _) in table {
        servers.push(
            Scripted::start(move |mut peer| async move {
                peer.greet().await?;
                let tag = peer.until("LOGIN").await?;
                peer.say(&format!("{tag} NO {words}\r\n")).await?;
                peer.behave().await
            })
            .await,
        );
    }
    let text: String =
        servers.iter().enumerate().map(|(n, server)| account(&format!("a{n}"), server.port())).collect();
    let mut monitor = Monitor::new(&text);
    monitor.start();
    let events = monitor
        .wait("all refused", |events| (0..table.len()).all(|n| !states(events, &format!("a{n}")).is_empty()));
    for (n, (words, state, error_type)) in table.into_iter().enumerate() {
        let id = format!("a{n}");
        let event = events.iter().find(|event| event["idlewatch"]["account"]["id"] == id).unwrap();
        assert_eq!(
            (&event["idlewatch"]["account"]["state"], &event["error"]["type"]),
            (&state.into(), &error_type.into()),
            "{words}"
        );
        assert_eq!(servers[n].logins().len(), 1, "{words}");
    }
    assert!(!format!("{events:?}{}", monitor.log()).contains(CANARY));
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
        // Time enough for a login that must not come.
        tokio::time::sleep(Duration::from_millis(700)).await;
        monitor.kill();
    }
    assert_eq!(server.logins().len(), 1, "the journal remembers it");
    assert!(well.connections() >= 2);
}

/// Of two logins at the same time one is refused and then one accepted: nobody believes the refusal any more, neither
/// the refused session nor one that waited for a place.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_is_accepted_frees_those_that_wait_beside_a_refused_one() {
    let (both, refused) = <(Arc<Notify>, Arc<Notify>)>::default();
    let server = Scripted::start(move |mut peer| {
        let (both, refused) = (both.clone(), refused.clone());
        async move {
            peer.greet().await?;
            match peer.number {
                2 => {
                    let tag = peer.until("LOGIN").await?;
                    both.notified().await;
                    peer.say(&format!("{tag} NO [AUTHENTICATIONFAILED] no\r\n")).await?;
                    let gone = peer.silence().await;
                    refused.notify_one();
                    gone
                }
                3 => {
                    let tag = peer.until("LOGIN").await?;
                    both.notify_one();
                    refused.notified().await;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    peer.say(&format!("{tag} OK welcome\r\n")).await?;
                    peer.behave().await
                }
                _ => peer.behave().await,
            }
        }
    })
    .await;
    let text = "[connections.per_host]\nmax_connecting = 2\n".to_owned() + &account("work", server.port());
    let mut monitor = Monitor::new(&(text + "mailboxes = [\"INBOX\", \"a\", \"b\", \"c\"]\n"));
    monitor.start();
    let watched = || server.commands().iter().filter(|command| command.starts_with("IDLE")).count();
    let events = monitor.wait("all watched", |events| {
        watched() == 4 && states(events, "work").last().is_some_and(|state| state == "online")
    });
    assert!(states(&events, "work").contains(&"auth_failed".to_owned()), "{events:?}");
    assert_eq!(server.logins().len(), 5, "one of them twice");
}

/// The old password is refused and waits for minutes; another one in the file is tried at once, by a monitor that was
/// started anew meanwhile too.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_changes_is_tried_at_once() {
    for restarted in [false, true] {
        let server = server("new").await;
        let inline = format!("inline = \"{CANARY}\"");
        let mut monitor =
            Monitor::new(&account("work", server.addr().port()).replace(&inline, "file = \"password\""));
        let password = monitor.dir.path().join("password");
        std::fs::write(&password, "old\n").unwrap();
        monitor.start();
        monitor.wait("refused", |events| states(events, "work") == ["auth_failed"]);
        let before = if restarted { vec!["auth_failed"; 2] } else { vec!["auth_failed"] };
        if restarted {
            assert_eq!(monitor.stop().code(), Some(0));
            monitor.start();
            monitor.wait("still refused", |events| states(events, "work") == before);
        }
        std::fs::write(&password, "new\n").unwrap();
        let wanted = [before, vec!["online"]].concat();
        monitor.wait("online", |events| states(events, "work") == wanted);
    }
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

/// A list without end is cut where it is too long, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_too_many_mailboxes_is_cut() {
    let server = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        let tag = peer.until("LIST").await?;
        for n in 0..20_000 {
            peer.say(&format!("* LIST () \"/\" box{n}\r\n")).await?;
        }
        peer.say(&format!("{tag} OK done\r\n")).await?;
        peer.behave().await
    })
    .await;
    let monitor = Monitor::new(&account("work", server.port()));
    let output = tokio::task::spawn_blocking(move || monitor.command().arg("mailboxes").output().unwrap());
    let output = output.await.unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), listed.lines().count()), (Some(0), 10_001));
    assert!(listed.ends_with("... and more\n"));
}

/// Nobody can answer ahead: the tags of no two connections begin alike.
#[tokio::test(flavor = "multi_thread")]
async fn tags_cannot_be_guessed() {
    let (told, mut tags) = tokio::sync::mpsc::unbounded_channel();
    let server = Scripted::start(move |mut peer| {
        let told = told.clone();
        async move {
            peer.greet().await?;
            let tag = peer.until("EXAMINE").await?;
            let _ = told.send(tag);
            peer.reset()
        }
    })
    .await;
    let mut monitor = Monitor::new(&account("work", server.port()));
    monitor.start();
    let (first, second) = (tags.recv().await.unwrap(), tags.recv().await.unwrap());
    assert!(first.len() >= 7 && first[..6] != second[..6], "{first} {second}");
}

/// Hundreds of messages a second to one account: another one is told its own, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_mail_to_one_account_leaves_the_others_alone() {
    let (busy, well) = (server(CANARY).await, server(CANARY).await);
    let mut monitor =
        Monitor::new(&(account("busy", busy.addr().port()) + &account("well", well.addr().port())));
    monitor.start();
    monitor.wait("online", |events| ["busy", "well"].iter().all(|id| states(events, id) == ["online"]));
    for n in 1..=1000 {
        busy.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\n");
        if n % 100 == 0 {
            well.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\n");
        }
    }
    let events =
        monitor.wait("told", |events| told(events, "busy").len() >= 1000 && told(events, "well").len() >= 10);
    assert_eq!(told(&events, "busy"), (1..=1000).collect::<Vec<_>>(), "in order, each once");
    assert_eq!(told(&events, "well"), (1..=10).collect::<Vec<_>>());
}
