//! Flags and expunges of messages that were told, on real servers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::real_servers::{accounts, online, users};
use crate::support::cyrus::Cyrus;
use crate::support::dovecot::{Dovecot, GOOD};
use crate::support::monitor::{Monitor, told};
use crate::support::relay::Relay;
use crate::support::scripted::{Peer, Scripted};

const INCLUDE: &str = "[events]\ninclude = [\"message.new\", \"message.flags\", \"message.expunged\", \"account.state\", \"mailbox.gap\"]\n";

/// `(uid, flags)` of each `message.flags`, in their order.
fn flags(events: &[Value]) -> Vec<(u64, Vec<String>)> {
    let changed = events.iter().filter(|event| event["event"]["action"] == "message.flags");
    changed
        .map(|event| {
            let imap = &event["idlewatch"]["imap"];
            let flags = imap["flags"].as_array().unwrap().iter();
            (imap["uid"].as_u64().unwrap(), flags.map(|flag| flag.as_str().unwrap().to_owned()).collect())
        })
        .collect()
}

fn expunged(events: &[Value]) -> Vec<u64> {
    let gone = events.iter().filter(|event| event["event"]["action"] == "message.expunged");
    gone.map(|event| event["idlewatch"]["imap"]["uid"].as_u64().unwrap()).collect()
}

fn flagged(uid: u64, flag: &str) -> (u64, Vec<String>) {
    (uid, vec![flag.to_owned()])
}

fn assert_each_once(events: &[Value]) {
    let ids: Vec<_> = events.iter().map(|event| event["event"]["id"].as_str().unwrap()).collect();
    let different: BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), different.len(), "twice: {ids:?}");
}

#[test]
fn flags_and_expunges_are_told_by_dovecot_while_it_is_watched_and_afterwards() {
    let server = Dovecot::start(1);
    let users = users(1);
    let mut monitor = Monitor::new(&(accounts(&server, &users, "") + INCLUDE));
    let change = |what: &str, flag: &str, uid: u32| {
        server.adm(&["flags", what, "-u", "user1", flag, "mailbox", "INBOX", "uid", &uid.to_string()]);
    };
    let expunge =
        |uid: u32| drop(server.adm(&["expunge", "-u", "user1", "mailbox", "INBOX", "uid", &uid.to_string()]));
    server.deliver(&users, "there before");
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    for n in 0..3 {
        server.deliver(&users, &format!("number {n}"));
    }
    monitor.wait("messages", |events| told(events, "user1").len() == 3);
    change("add", "\\Flagged", 2);
    monitor.wait("flags while idle", |events| flags(events) == [flagged(2, "\\Flagged")]);
    change("add", "\\Seen", 1);
    monitor.wait("of a message from before", |events| flags(events).contains(&flagged(1, "\\Seen")));
    expunge(1);
    monitor.wait("expunge while idle", |events| expunged(events) == [1]);
    assert_eq!(monitor.stop().code(), Some(0));

    change("add", "Work", 3);
    change("remove", "\\Flagged", 2);
    expunge(4);
    server.deliver(&users, "while it is down");
    change("add", "\\Answered", 5);
    monitor.start();
    let all = |events: &[Value]| {
        expunged(events) == [1, 4] && flags(events).len() == 4 && told(events, "user1").len() == 4
    };
    let events = monitor.wait("what came while it was down", all);
    assert_eq!(flags(&events)[2..], [(2, vec![]), flagged(3, "Work")]);
    // Whatever it was told as, a restart does not tell it again.
    assert_eq!(monitor.stop().code(), Some(0));
    monitor.start();
    change("add", "\\Draft", 5);
    let last = |events: &[Value]| flags(events).last().is_some_and(|(uid, _)| *uid == 5);
    let events = monitor.wait("and on", last);
    assert_eq!(flags(&events).len(), 5);
    assert_each_once(&events);
    assert!(events.iter().all(|event| event["event"]["action"] != "mailbox.gap"), "{events:#?}");
}

/// Changed and killed at random: in the end the last that was told of each message is what it is.
#[test]
fn killed_again_and_again_every_change_is_told_once() {
    let server = Dovecot::start(1);
    let users = users(1);
    let mut monitor = Monitor::new(&(accounts(&server, &users, "") + INCLUDE));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    for n in 0..12 {
        server.deliver(&users, &format!("number {n}"));
    }
    monitor.wait("messages", |events| told(events, "user1").len() == 12);
    let adm = |command: &[&str], uid: u32| {
        server.adm(&[command, &["mailbox", "INBOX", "uid", &uid.to_string()]].concat());
    };
    for round in 1..=6_u32 {
        adm(&["flags", "add", "-u", "user1", &format!("Round{round}")], round);
        adm(&["flags", "add", "-u", "user1", &format!("Late{round}")], 12);
        adm(&["expunge", "-u", "user1"], 5 + round);
        std::thread::sleep(Duration::from_millis(u64::from(150 * (round % 4))));
        monitor.kill();
        adm(&["flags", "add", "-u", "user1", "\\Flagged"], round);
        monitor.start();
    }
    let flags_now = |events: &[Value]| flags(events).into_iter().collect::<BTreeMap<_, _>>();
    let gone = |events: &[Value]| expunged(events).into_iter().collect::<BTreeSet<_>>();
    let settled = |events: &[Value]| {
        let now = flags_now(events);
        let kept = (1..=5).all(|uid| now.get(&uid).is_some_and(|flags| flags.len() == 2));
        kept && now.get(&12).is_some_and(|flags| flags.len() == 6) && gone(events) == (6..=11).collect()
    };
    let events = monitor.wait("all changes", settled);
    assert_each_once(&events);
}

#[test]
fn flags_and_expunges_are_told_by_cyrus_while_it_is_watched_and_afterwards() {
    let server = Cyrus::start();
    let account = format!(
        "[[accounts]]\nid = \"user1\"\nhost = \"{GOOD}\"\nport = {}\nuser = \"user1\"\npassword = {{ inline = \"secret\" }}\ntls_options = {{ ca_file = \"{}/ca.pem\" }}\n",
        server.imaps,
        server.dir.path().display()
    );
    let mut monitor = Monitor::new(&(account + INCLUDE));
    monitor.start();
    monitor.wait("online", |events| online(events, &users(1)));
    for n in 0..4 {
        server.deliver(&format!("number {n}"));
    }
    monitor.wait("messages", |events| told(events, "user1").len() == 4);
    server.in_inbox(&["UID STORE 2 +FLAGS (\\Flagged)"]);
    monitor.wait("flags while idle", |events| flags(events) == [flagged(2, "\\Flagged")]);
    server.in_inbox(&["UID STORE 4 +FLAGS.SILENT (\\Deleted)", "EXPUNGE"]);
    let events = monitor.wait("the last one goes", |events| expunged(events) == [4]);
    // It may have been seen as deleted before it went.
    let before = flags(&events).len();
    assert_eq!(monitor.stop().code(), Some(0));

    server.in_inbox(&[
        "UID STORE 1 +FLAGS.SILENT (\\Seen)",
        "UID STORE 3 +FLAGS.SILENT (\\Deleted)",
        "EXPUNGE",
    ]);
    server.deliver("while it is down");
    monitor.start();
    let all = |events: &[Value]| {
        expunged(events) == [4, 3] && told(events, "user1").len() == 5 && flags(events).len() > before
    };
    let events = monitor.wait("what came while it was down", all);
    assert_eq!(flags(&events)[before..], [flagged(1, "\\Seen")]);
    monitor.kill();
    server.in_inbox(&["UID STORE 2 -FLAGS.SILENT (\\Flagged)"]);
    monitor.start();
    let events = monitor.wait("after a kill", |events| flags(events).len() > before + 1);
    assert_eq!(flags(&events)[before + 1..], [(2, vec![])]);
    assert_each_once(&events);
}

/// What is left of the answer to a look on each connection before the server cuts it; on the last one nothing is cut.
const PARTS: [&str; 4] = [
    "* VANISHED (EARLIER) 8:",
    "* VANISHED (EARLIER) 8:9\r\n* 5 FETCH (UID 5 MODSEQ (51) FLAGS (\\Se",
    "* VANISHED (EARLIER) 8:9\r\n* 5 FETCH (UID 5 MODSEQ (51) FLAGS (\\Seen))\r\n* 6 FETCH (UID 6 MODSEQ (52) FLAGS ())\r\n",
    "* VANISHED (EARLIER) 8:9\r\n* 5 FETCH (UID 5 MODSEQ (51) FLAGS (\\Seen))\r\n* 6 FETCH (UID 6 MODSEQ (52) FLAGS ())\r\n",
];

const ABLE: &str = "CAPABILITY IMAP4rev1 IDLE ENABLE CONDSTORE QRESYNC";

async fn logged_in(peer: &mut Peer, messages: u32, highest: u32) -> std::io::Result<()> {
    peer.say(&format!("* OK [{ABLE}] ready\r\n")).await?;
    let tag = peer.until("LOGIN").await?;
    peer.say(&format!("{tag} OK [{ABLE}] done\r\n")).await?;
    let tag = peer.until("ENABLE").await?;
    peer.say(&format!("* ENABLED QRESYNC\r\n{tag} OK done\r\n")).await?;
    let tag = peer.until("EXAMINE").await?;
    peer.say(&format!(
        "* {messages} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 11] x\r\n* OK [HIGHESTMODSEQ {highest}] x\r\n{tag} OK done\r\n"
    ))
    .await
}

/// The server says something in IDLE, which the client leaves.
async fn hinted(peer: &mut Peer, hint: &str) -> std::io::Result<()> {
    let tag = peer.until("IDLE").await?;
    peer.say(&format!("+ idling\r\n{hint}\r\n")).await?;
    peer.until("DONE").await?;
    peer.say(&format!("{tag} OK done\r\n")).await
}

/// HIGHESTMODSEQ, and the command that asks for what has changed since `told`: its tag.
async fn looked(peer: &mut Peer, highest: u32, told: u32) -> std::io::Result<String> {
    let tag = peer.until("STATUS").await?;
    peer.say(&format!("* STATUS INBOX (HIGHESTMODSEQ {highest})\r\n{tag} OK done\r\n")).await?;
    peer.until(&format!("UID FETCH 1:10 (UID FLAGS) (CHANGEDSINCE {told} VANISHED)")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_the_server_cuts_anywhere_is_made_again_and_each_change_is_told_once() {
    let server = Scripted::start(|mut peer| async move {
        peer.set_messages(10);
        let first = peer.number == 1;
        logged_in(&mut peer, if first { 10 } else { 8 }, if first { 50 } else { 53 }).await?;
        if first {
            hinted(&mut peer, "* 5 FETCH (UID 5 MODSEQ (51) FLAGS (\\Seen))").await?;
        }
        let tag = looked(&mut peer, 53, 50).await?;
        let nth = peer.number as usize - 1;
        peer.say(PARTS[nth.min(PARTS.len() - 1)]).await?;
        if nth + 1 < PARTS.len() {
            return Ok(());
        }
        peer.say(&format!("{tag} OK done\r\n")).await?;
        // And on, from there.
        hinted(&mut peer, "* 5 FETCH (UID 5 MODSEQ (54) FLAGS ())").await?;
        let tag = looked(&mut peer, 54, 53).await?;
        peer.say(&format!("* 5 FETCH (UID 5 MODSEQ (54) FLAGS ())\r\n{tag} OK done\r\n")).await?;
        peer.behave().await
    })
    .await;
    let account = format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n",
        server.port()
    );
    let mut monitor = Monitor::new(&(account + INCLUDE));
    monitor.start();
    let events = monitor.wait("all changes", |events| flags(events).len() >= 3);
    assert_eq!(flags(&events), [flagged(5, "\\Seen"), (6, vec![]), (5, vec![])]);
    assert_eq!(expunged(&events), [8, 9]);
    assert_eq!(monitor.stop().code(), Some(0));
    assert_each_once(&monitor.events());
}

/// The connection breaks in the middle of the answer, and the server is killed; the monitor too.
#[test]
fn dovecot_is_killed_in_the_middle_of_what_has_changed_and_each_change_is_told_once() {
    const MESSAGES: u64 = 300;
    let mut server = Dovecot::start(1);
    let users = users(1);
    (0..MESSAGES).for_each(|n| server.deliver(&users, &format!("number {n}")));
    let relay = Relay::start(server.imap);
    let account = format!(
        "[[accounts]]\nid = \"user1\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"user1\"\npassword = {{ inline = \"secret\" }}\n",
        relay.port
    );
    let mut monitor = Monitor::new(&(account + INCLUDE));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    let mut all = BTreeMap::new();
    for round in 1..=2_u64 {
        let gone = round.to_string();
        let flag = format!("Round{round}");
        relay.cut_after("VANISHED)", 2_000);
        server.adm(&["flags", "add", "-u", "user1", &flag, "mailbox", "INBOX", "all"]);
        let torn = relay.wait_cut(usize::try_from(round).unwrap());
        server.adm(&["expunge", "-u", "user1", "mailbox", "INBOX", "uid", &gone]);
        server.crash();
        if round == 2 {
            monitor.kill();
            monitor.start();
        }
        let flags_now = |events: &[Value]| flags(events).into_iter().collect::<BTreeMap<_, _>>();
        let settled = |events: &[Value]| {
            let now = flags_now(events);
            let flagged = (3..=MESSAGES).all(|uid| now.get(&uid).is_some_and(|flags| flags.contains(&flag)));
            flagged && expunged(events) == (1..=round).collect::<Vec<_>>()
        };
        let events = monitor.wait("all changes", settled);
        all = flags_now(&events);
        assert!(torn.contains("FETCH (") && !torn.contains(" OK "), "it was no answer in its middle: {torn}");
    }
    assert!((3..=MESSAGES).all(|uid| all[&uid].len() == 2), "{all:?}");
    assert_each_once(&monitor.events());
}

/// A thousand are told one by one, and of the others how many there are.
#[test]
fn a_storm_of_changes_is_bounded_and_counted() {
    let server = Dovecot::start(1);
    let users = users(1);
    (0..1_100).for_each(|n| server.deliver(&users, &format!("number {n}")));
    let mut monitor = Monitor::new(&(accounts(&server, &users, "") + INCLUDE));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    assert_eq!(monitor.stop().code(), Some(0));
    server.adm(&["flags", "add", "-u", "user1", "\\Seen", "mailbox", "INBOX", "all"]);
    monitor.start();
    let gap = |event: &Value| event["idlewatch"]["gap"]["reason"] == "changes";
    let events = monitor.wait("a gap", |events| events.iter().any(gap));
    let gap = events.iter().find(|event| gap(event)).unwrap();
    assert_eq!((flags(&events).len(), &gap["idlewatch"]["gap"]["lost"]), (1_000, &100.into()));
    let words = "100 more changes of flags and expunges in user1/INBOX than are told one by one";
    assert_eq!(gap["message"], words);
    server.adm(&["flags", "add", "-u", "user1", "Last", "mailbox", "INBOX", "uid", "7"]);
    let events = monitor.wait("and on", |events| flags(events).len() > 1_000);
    assert_eq!(flags(&events)[1_000..], [(7, vec!["\\Seen".to_owned(), "Last".to_owned()])]);
}

/// What is wanted and cannot be had is said, and messages are told all the same.
#[test]
fn a_server_without_mod_sequences_is_watched_for_messages() {
    let server = Dovecot::start_with(1, "imap_capability = IMAP4rev1 IDLE ENABLE\n");
    let users = users(1);
    let mut monitor = Monitor::new(&(accounts(&server, &users, "") + INCLUDE));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    server.deliver(&users, "hello");
    monitor.wait("a message", |events| told(events, "user1").len() == 1);
    let log = monitor.log();
    for missing in ["CONDSTORE, which message.flags needs", "QRESYNC, which message.expunged needs"] {
        assert_eq!(log.matches(missing).count(), 1, "{missing}");
    }
}

/// Before it is run, `check` says what will not be told, and how mailboxes will be watched.
#[test]
fn a_check_says_which_changes_cannot_be_told() {
    let users = users(1);
    let checked = |server: &Dovecot| {
        let monitor = Monitor::new(&(accounts(server, &users, "") + INCLUDE));
        let output = monitor.command().args(["check", "--json"]).output().unwrap();
        let all: Value = serde_json::from_slice(&output.stdout).unwrap();
        let account = all["accounts"][0].clone();
        (account["warnings"].as_array().unwrap().len(), account["watched_by"].as_str().unwrap().to_owned())
    };
    let without = Dovecot::start_with(1, "imap_capability = IMAP4rev1 IDLE ENABLE\n");
    assert_eq!(checked(&without), (2, "idle".to_owned()));
    assert_eq!(checked(&Dovecot::start(1)), (0, "idle".to_owned()), "although it has NOTIFY");
}

/// One connection for all: what changes in the mailbox that is not open is found by STATUS.
#[test]
fn mailboxes_that_share_a_connection_have_their_changes_told() {
    let server = Dovecot::start(1);
    let users = users(1);
    server.adm(&["mailbox", "create", "-u", "user1", "Work"]);
    for mailbox in ["INBOX", "Work"] {
        (0..2).for_each(|n| server.save("user1", mailbox, &format!("{mailbox} {n}")));
    }
    let shared = "mailboxes = [\"INBOX\", \"Work\"]\nmax_connections = 1\npoll_interval = \"10s\"";
    let mut monitor = Monitor::new(&(accounts(&server, &users, shared) + INCLUDE));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    server.adm(&["flags", "add", "-u", "user1", "\\Flagged", "mailbox", "Work", "uid", "1"]);
    server.adm(&["expunge", "-u", "user1", "mailbox", "Work", "uid", "2"]);
    server.adm(&["expunge", "-u", "user1", "mailbox", "INBOX", "uid", "1"]);
    let told = |events: &[Value]| {
        let mailbox = |event: &Value| event["idlewatch"]["mailbox"]["name"].as_str().unwrap().to_owned();
        let changes = events.iter().filter(|event| {
            event["event"]["action"] == "message.flags" || event["event"]["action"] == "message.expunged"
        });
        changes
            .map(|event| (mailbox(event), event["idlewatch"]["imap"]["uid"].as_u64().unwrap()))
            .collect::<BTreeSet<_>>()
    };
    let of = |mailbox: &str, uid: u64| (mailbox.to_owned(), uid);
    let all = BTreeSet::from([of("INBOX", 1), of("Work", 1), of("Work", 2)]);
    let events = monitor.wait("all changes", |events| told(events).len() == 3);
    assert_eq!(told(&events), all);
    assert_eq!(monitor.stop().code(), Some(0));
    assert_each_once(&monitor.events());
}
