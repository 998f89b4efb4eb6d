//! `idlewatch replay`: past messages once more.

use serde_json::Value;

use crate::admin::{accounts, ask, online, server, text};
use crate::support::monitor::{Monitor, events, told};

const SECOND: &str = "[outputs.second]\ntype = \"file\"\npath = \"second.jsonl\"\n";

/// The UIDs that were told again.
fn again(events: &[Value]) -> Vec<u64> {
    let again = events.iter().filter(|event| event["idlewatch"]["source"] == "replay");
    again.map(|event| event["idlewatch"]["imap"]["uid"].as_u64().unwrap()).collect()
}

fn cursor(monitor: &Monitor) -> Value {
    let shown = ask(monitor, &["state", "list", "-a", "a", "--json"]).stdout;
    let cursor: Value = serde_json::from_slice(&shown).unwrap();
    serde_json::json!([cursor["uid_next"], cursor["seen"], cursor["uid_validity"]])
}

#[tokio::test(flavor = "multi_thread")]
async fn past_messages_come_again_through_the_running_monitor_and_its_mailboxes_stand_where_they_stood() {
    let server = server(&["a", "b"]).await;
    let filters = "[filters.x]\naction = \"drop\"\nany = [{ from = \"noise@*\" }]\n";
    let mut monitor = Monitor::new(&format!("{SECOND}{filters}{}", accounts(&server, &["a", "b"])));
    monitor.start();
    online(&monitor, &["a", "b"]);
    for _ in 0..3 {
        server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    }
    server.store().deliver("a", "INBOX", b"From: noise@example.org\r\n\r\n");
    monitor.wait("told", |events| told(events, "a") == [1, 2, 3]);
    monitor.wait("passed over", |_| cursor(&monitor)[0] == 5);
    let before = cursor(&monitor);
    let done = ask(&monitor, &["replay", "-a", "a", "--from-uid", "2"]);
    assert_eq!(
        (done.status.code(), text(&done).contains("2 past messages of a were told again")),
        (Some(0), true),
        "{done:?}"
    );
    let all = monitor.wait("again", |events| again(events) == [2, 3]);
    assert_eq!(cursor(&monitor), before);
    let ids = |uid: u64| {
        let of = all.iter().filter(|event| event["idlewatch"]["imap"]["uid"] == uid);
        of.map(|event| event["event"]["id"].to_string()).collect::<Vec<_>>()
    };
    assert!(ids(2).len() == 2 && ids(2)[0] == ids(2)[1], "the same message has the same id: {:?}", ids(2));
    // To one output only.
    let second = monitor.dir.path().join("second.jsonl");
    monitor.wait("both have it", |_| again(&events(&second)) == [2, 3]);
    let done = ask(&monitor, &["replay", "-a", "a", "--since", "1h", "--output", "second"]);
    assert!(done.status.success(), "{done:?}");
    monitor.wait("again", |_| again(&events(&second)) == [2, 3, 1, 2, 3]);
    // What is new comes as ever, once.
    server.store().deliver("a", "INBOX", b"Subject: y\r\n\r\n");
    let all = monitor.wait("new", |events| told(events, "a").contains(&5));
    assert_eq!((again(&all), told(&all, "a").iter().filter(|uid| **uid == 5).count()), (vec![2, 3], 1));
    for (arguments, code, why) in [
        (&["replay", "-a", "nobody", "--since", "1h"][..], 1, "there is no account \"nobody\""),
        (&["replay", "-a", "a", "--since", "1h", "--output", "x"], 1, "there is no [outputs.x]"),
        (
            &["replay", "-a", "a", "--since", "1h", "-m", "Sent"],
            1,
            "no mailbox that is watched matches \"Sent\"",
        ),
        (&["replay", "-a", "a", "--since", "7"], 2, "--from-uid"),
        (&["replay", "-a", "a"], 2, "--since"),
    ] {
        let refused = ask(&monitor, arguments);
        assert!(refused.status.code() == Some(code) && text(&refused).contains(why), "{refused:?}");
    }
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_monitor_runs_past_messages_are_told_by_the_command_itself() {
    let server = server(&["a"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    monitor.wait("told", |events| told(events, "a") == [1]);
    assert_eq!(monitor.stop().code(), Some(0));
    server.store().deliver("a", "INBOX", b"Subject: y\r\n\r\n");
    let before = cursor(&monitor);
    let done = ask(&monitor, &["replay", "-a", "a", "--from-uid", "1"]);
    assert!(done.status.success() && text(&done).contains("2 past messages were told again"), "{done:?}");
    assert_eq!((again(&monitor.events()), cursor(&monitor)), (vec![1, 2], before));
    // The one that was new is told as such, too: the mailbox stands where it stood.
    monitor.start();
    monitor.wait("told", |events| told(events, "a") == [1, 1, 2, 2]);
    assert_eq!(again(&monitor.events()), [1, 2]);
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_fails_says_why() {
    let server = server(&["a"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    server.store().set_password("a", "another");
    let failed = ask(&monitor, &["replay", "-a", "a", "--since", "1h"]);
    let told = text(&failed);
    assert!(failed.status.code() == Some(1) && told.contains("and not all: "), "{failed:?}");
    assert!(told.contains("wrong user name or password"), "{told}");
    assert_eq!(monitor.stop().code(), Some(0));
}
