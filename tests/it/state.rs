//! What the monitor keeps, as its commands show and change it.

use idlewatch::demo::server::Server;
use serde_json::Value;

use crate::admin::{accounts, ask, online, server, text};
use crate::support::monitor::{Monitor, told};

fn shown(monitor: &Monitor, arguments: &[&str]) -> String {
    String::from_utf8(ask(monitor, arguments).stdout).unwrap()
}

/// Two accounts that are known, with a message told of `a`.
async fn known() -> (Server, Monitor) {
    let server = server(&["a", "b"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a", "b"]));
    monitor.start();
    online(&monitor, &["a", "b"]);
    server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    monitor.wait("told", |events| told(events, "a") == [1]);
    (server, monitor)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_mailboxes_stand_is_seen_beside_a_running_monitor() {
    let (server, mut monitor) = known().await;
    let list = shown(&monitor, &["state", "list"]);
    let mut lines = list.lines();
    assert!(lines.next().unwrap().starts_with("ACCOUNT  MAILBOX  UIDVALIDITY  UIDNEXT  MOVED"), "{list}");
    assert!(lines.next().unwrap().starts_with("a        INBOX    ") && lines.count() == 1, "{list}");
    let json: Value = shown(&monitor, &["state", "list", "-a", "a*", "--json"]).parse().unwrap();
    assert_eq!((&json["account"], &json["uid_next"], &json["seen"]), (&"a".into(), &2.into(), &"1".into()));
    let one = shown(&monitor, &["state", "show", "-a", "a"]);
    assert!(one.starts_with("INBOX\n") && one.contains("\n  uid_next: 2\n"), "{one}");
    let none = ask(&monitor, &["state", "show", "-a", "nobody"]);
    assert!(none.status.code() == Some(1) && text(&none).contains("nothing is known of nobody"), "{none:?}");
    for refused in [&["state", "forget", "-a", "a"][..], &["state", "repair"], &["state", "import", "-"]] {
        let refused = ask(&monitor, refused);
        assert!(refused.status.code() == Some(75) && text(&refused).contains("stop it first"), "{refused:?}");
    }
    assert_eq!(monitor.stop().code(), Some(0));
    let empty = Monitor::new(&accounts(&server, &["a"]));
    let nothing = ask(&empty, &["state", "list"]);
    assert!(
        nothing.status.code() == Some(1) && text(&nothing).contains("there is no state in "),
        "{nothing:?}"
    );
}

/// What comes after it was forgotten and before it is met again is not told: that is what a baseline is.
#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_is_forgotten_begins_with_a_baseline() {
    let (server, mut monitor) = known().await;
    monitor.stop();
    let forgotten = ask(&monitor, &["state", "forget", "-a", "a", "-m", "INBOX"]);
    assert_eq!(forgotten.status.code(), Some(0), "{forgotten:?}");
    assert_eq!(ask(&monitor, &["state", "forget", "-a", "a"]).status.code(), Some(1));
    for user in ["a", "b"] {
        server.store().deliver(user, "INBOX", b"Subject: y\r\n\r\n");
    }
    monitor.start();
    monitor.wait("told", |events| told(events, "b") == [1]);
    monitor.wait("known again", |_| shown(&monitor, &["state", "list", "-a", "a"]).lines().count() == 2);
    server.store().deliver("a", "INBOX", b"Subject: z\r\n\r\n");
    let events = monitor.wait("told", |events| told(events, "a").contains(&3));
    assert_eq!(told(&events, "a"), [1, 3]);
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_left_is_forgotten_after_a_month_and_not_before() {
    let (server, mut monitor) = known().await;
    let gone = |monitor: &Monitor| {
        let list = shown(monitor, &["state", "list", "--json"]);
        let known = list.lines().map(|line| line.parse::<Value>().unwrap());
        let since = known.map(|known| (known["account"].clone(), known["gone_since"].is_string()));
        since.map(|(account, gone)| (account.as_str().unwrap().to_owned(), gone)).collect::<Vec<_>>()
    };
    let known = |a, b| vec![("a".to_owned(), a), ("b".to_owned(), b)];
    assert_eq!(gone(&monitor), known(false, false));
    monitor.configure(&accounts(&server, &["a"]));
    monitor.signal("HUP");
    monitor.wait("b has left", |_| gone(&monitor) == known(false, true));
    assert!(shown(&monitor, &["state", "list"]).lines().next().unwrap().ends_with("GONE FOR"));
    monitor.configure(&accounts(&server, &["a", "b"]));
    monitor.signal("HUP");
    monitor.wait("b is back", |_| gone(&monitor) == known(false, false));
    assert_eq!(monitor.stop().code(), Some(0));

    monitor.configure(&accounts(&server, &["a"]));
    let mut narrowed = monitor.command();
    narrowed.args(["run", "-a", "a"]);
    monitor.start_by(narrowed);
    online(&monitor, &["a"]);
    assert_eq!(monitor.stop().code(), Some(0));
    assert_eq!(gone(&monitor), known(false, false), "what flags leave out is not gone");
    let journal = rusqlite::Connection::open(monitor.dir.path().join("state/journal.db")).unwrap();
    let long_ago = "UPDATE cursors SET absent_since = (unixepoch() - 31 * 86400) * 1000";
    journal.execute(long_ago, []).unwrap();
    drop(journal);
    monitor.start();
    monitor.wait("b is forgotten", |_| gone(&monitor) == [("a".to_owned(), false)]);
    monitor.wait_log("forgotten, as gone for 30 days: 1 mailbox");
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_goes_on_elsewhere_with_what_was_exported() {
    let (server, mut monitor) = known().await;
    let elsewhere = Monitor::new(&accounts(&server, &["a", "b"]));
    let export = elsewhere.dir.path().join("export.jsonl");
    let to = export.to_str().unwrap();
    let exported = ask(&monitor, &["state", "export", to]);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    assert_eq!(ask(&monitor, &["state", "export", to]).status.code(), Some(74), "it is there already");
    monitor.stop();
    server.store().deliver("a", "INBOX", b"Subject: y\r\n\r\n");
    let mut elsewhere = elsewhere;
    let imported = ask(&elsewhere, &["state", "import", to]);
    assert!(imported.status.success() && text(&imported).contains("\n2 mailboxes, "), "{imported:?}");
    let again = ask(&elsewhere, &["state", "import", to]);
    assert!(again.status.code() == Some(1) && text(&again).contains("with --replace"), "{again:?}");
    assert!(ask(&elsewhere, &["state", "import", "--replace", to]).status.success());
    elsewhere.start();
    let events = elsewhere.wait("told", |events| told(events, "a") == [2]);
    assert_eq!(told(&events, "b"), [0; 0]);
    assert_eq!(elsewhere.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_repaired_and_what_is_lost_is_told() {
    let (server, mut monitor) = known().await;
    monitor.stop();
    let whole = ask(&monitor, &["state", "repair"]);
    assert!(whole.status.success() && text(&whole).contains("nothing to repair"), "{whole:?}");
    let journal = rusqlite::Connection::open(monitor.dir.path().join("state/journal.db")).unwrap();
    journal.execute("UPDATE cursors SET uid_next = 9 WHERE account = 'b'", []).unwrap();
    drop(journal);
    server.store().deliver("a", "INBOX", b"Subject: y\r\n\r\n");
    monitor.start();
    assert_eq!(monitor.wait_end().code(), Some(71));
    assert!(monitor.log().contains("`idlewatch state repair`"), "{}", monitor.log());
    let repaired = text(&ask(&monitor, &["state", "repair"]));
    assert!(repaired.contains("kept: 1 mailbox, "), "{repaired}");
    assert!(repaired.contains("lost: the cursor of b/INBOX: it begins with a baseline"), "{repaired}");
    assert!(repaired.contains("journal.db.damaged-"), "{repaired}");
    monitor.start();
    monitor.wait("told", |events| told(events, "a") == [1, 2]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// `-` is stdout, as it is stdin for `import`.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_goes_to_stdout_and_ends_with_its_counts() {
    let (_server, monitor) = known().await;
    for arguments in [&["state", "export"][..], &["state", "export", "-"]] {
        let exported = shown(&monitor, arguments);
        let end: Value = exported.lines().last().unwrap().parse().unwrap();
        let rows = exported.lines().count() - 2;
        assert_eq!((&end["end"]["mailboxes"], &end["end"]["rows"]), (&2.into(), &rows.into()), "{exported}");
    }
    assert!(!std::path::Path::new("-").exists());
}
