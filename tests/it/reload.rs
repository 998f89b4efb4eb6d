//! The configuration is read again while the monitor runs: a wrong one changes nothing, a right one touches only what
//! it changes.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::real_servers::{accounts, online as online_all, users};
use crate::support::action;
use crate::support::dovecot::Dovecot;
use crate::support::monitor::{Monitor, states, told};
use crate::support::scripted::{Scripted, message};

const PASSWORD: &str = "CANARY-reload-77";

async fn server(users: &[&str]) -> Server {
    let store = Store::new(users.iter().map(|user| ((*user).to_owned(), PASSWORD.to_owned())));
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn account(server: &Server, id: &str) -> String {
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"{id}\"\npassword = {{ inline = \"{PASSWORD}\" }}\n",
        server.addr().port()
    )
}

fn online(monitor: &Monitor, accounts: &[&str]) {
    monitor.wait("online", |events| {
        accounts.iter().all(|id| states(events, id).last().is_some_and(|state| state == "online"))
    });
}

/// The local ports of the connections to `port` that are established.
fn connections(monitor: &Monitor, port: u16) -> BTreeSet<u16> {
    let of_process: BTreeSet<String> = fs::read_dir(format!("/proc/{}/fd", monitor.pid()))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tcp = fs::read_to_string("/proc/net/tcp").unwrap();
    let port_of = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let local = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let ours =
            of_process.contains(*fields.get(9)?) && fields[3] == "01" && port_of(fields[2]) == Some(port);
        ours.then(|| port_of(fields[1])).flatten()
    };
    tcp.lines().skip(1).filter_map(local).collect()
}

/// Sends SIGHUP and waits for the next word about it.
fn reload(monitor: &Monitor, word: &str) {
    let count = |log: &str| log.matches(word).count();
    let before = count(&monitor.log());
    monitor.signal("HUP");
    monitor.wait(word, |_| count(&monitor.log()) > before);
}

const DONE: &str = "the configuration was read again";
const REFUSED: &str = "the old one stays in force";

/// L15: what is wrong is told with its place, and nobody notices anything else.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_bad_configurations_change_nothing() {
    let server = server(&["a", "b"]).await;
    let good = account(&server, "a") + &account(&server, "b");
    let mut monitor = Monitor::new(&good);
    monitor.start();
    online(&monitor, &["a", "b"]);
    let before = connections(&monitor, server.addr().port());
    assert_eq!(before.len(), 2);
    let replaced = |from: &str, to: &str| good.replacen(from, to, 1);
    let password = format!("{{ inline = \"{PASSWORD}\" }}");
    let bad = [
        replaced("host = ", "host "),
        replaced("[[accounts]]", "[[accounts]"),
        format!("{good}[[accounts]]\n"),
        good.clone() + &account(&server, "a"),
        replaced("user", "usr"),
        replaced("port = ", "port = 9"),
        replaced(&format!("port = {}", server.addr().port()), "port = \"993\""),
        replaced("tls = \"none\"", "tls = \"maybe\""),
        replaced("127.0.0.1", "imap.example.com"),
        replaced(&password, "{ file = \"missing\" }"),
        replaced(&password, "{ env = \"IDLEWATCH_IS_NOT_SET\" }"),
        replaced(&password, "{ command = [\"/nowhere/to/be/found\"] }"),
        replaced(&password, "\"in clear\""),
        replaced(&password, "{ file = \"x\", env = \"y\" }"),
        format!("{good}mailboxes = []\n"),
        format!("{good}idle_refresh = \"30m\"\n"),
        format!("{good}[outputs.x]\ntype = \"nothing\"\n"),
        format!("{good}[outputs.x]\ntype = \"file\"\npath = \"/nowhere/x\"\n"),
        format!("{good}[filters.x]\naction = \"drop\"\n"),
        format!("{good}[no_such_section]\n"),
    ];
    for (number, text) in bad.iter().enumerate() {
        monitor.configure(text);
        reload(&monitor, REFUSED);
        let log = monitor.log();
        let told = log.lines().filter(|line| line.contains("idlewatch.toml:")).count();
        assert!(told > number, "no place for {text}");
        assert_eq!(connections(&monitor, server.addr().port()), before, "{text}");
    }
    server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    server.store().deliver("b", "INBOX", b"Subject: x\r\n\r\n");
    let events = monitor.wait("told", |events| told(events, "a").len() == 1 && told(events, "b").len() == 1);
    assert_eq!((states(&events, "a").len(), states(&events, "b").len()), (1, 1), "{events:#?}");
    let check = monitor.command().args(["check", "--no-network"]).output().unwrap();
    assert_eq!(check.status.code(), Some(78));
    // Two that are right again.
    monitor.configure(&good);
    reload(&monitor, DONE);
    assert_eq!(connections(&monitor, server.addr().port()), before);
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!monitor.log().contains(PASSWORD));
}

/// L16: removed with LOGOUT, and resumed where it was; the others keep their connections.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_come_and_go_and_resume() {
    let server = server(&["a", "b", "c"]).await;
    let (a, b, c) = (account(&server, "a"), account(&server, "b"), account(&server, "c"));
    let mut monitor = Monitor::new(&(a.clone() + &b));
    monitor.start();
    online(&monitor, &["a", "b"]);
    server.store().deliver("b", "INBOX", b"Subject: before\r\n\r\n");
    monitor.wait("told", |events| told(events, "b") == [1]);
    let port = server.addr().port();
    let both = connections(&monitor, port);

    monitor.configure(&(a.clone() + &c));
    reload(&monitor, "1 accounts added, 1 removed, 0 changed, 1 as before");
    online(&monitor, &["a", "c"]);
    let events = monitor.events();
    assert_eq!(states(&events, "b"), ["online", "removed"]);
    let kept = connections(&monitor, port);
    assert_eq!((kept.len(), kept.intersection(&both).count()), (2, 1));
    server.store().deliver("b", "INBOX", b"Subject: unseen\r\n\r\n");
    server.store().deliver("c", "INBOX", b"Subject: new\r\n\r\n");
    monitor.wait("told", |events| told(events, "c") == [1]);

    monitor.configure(&(a.clone() + &b + "labels = { team = \"x\" }\n" + &c + "enabled = false\n"));
    reload(&monitor, "1 accounts added, 1 removed, 0 changed, 1 as before");
    let events = monitor.wait("resumed", |events| told(events, "b") == [1, 2]);
    assert_eq!(states(&events, "c"), ["online", "disabled"]);
    assert!(states(&events, "a").len() == 1 && connections(&monitor, port).is_superset(&(&kept & &both)));

    // Only what is said of it changes: it starts again with it, and what it told stays told.
    monitor.configure(&(a + &b + "labels = { team = \"y\" }\n"));
    reload(&monitor, "0 accounts added, 0 removed, 1 changed, 1 as before");
    server.store().deliver("b", "INBOX", b"Subject: third\r\n\r\n");
    let events = monitor.wait("told", |events| told(events, "b") == [1, 2, 3]);
    let last = events.iter().rfind(|event| action(event) == "message.new").unwrap();
    assert_eq!(last["labels"]["team"], "y");
    let ids: BTreeSet<_> = events.iter().map(|event| event["event"]["id"].as_str()).collect();
    assert_eq!(ids.len(), events.len(), "told twice");
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_take_effect_at_once_and_other_sections_say_that_they_wait() {
    let server = server(&["a"]).await;
    let text = account(&server, "a");
    let mut monitor = Monitor::new(&text);
    monitor.start();
    online(&monitor, &["a"]);
    let before = connections(&monitor, server.addr().port());
    monitor.configure(&format!("{text}[filters.x]\naction = \"drop\"\nany = [{{ from = \"noise@*\" }}]\n[journal]\nmax_bytes = \"2MiB\"\n"));
    reload(&monitor, "wait for the next start: [journal]");
    server.store().deliver("a", "INBOX", b"From: noise@example.org\r\n\r\n");
    server.store().deliver("a", "INBOX", b"From: alice@example.org\r\n\r\n");
    monitor.wait("told", |events| told(events, "a") == [2]);
    assert_eq!(connections(&monitor, server.addr().port()), before);
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(monitor.log().contains("1 messages were dropped by filters"));
}

/// A FETCH that dribbles on for longer than an account has to leave: its connection is cut before the successor begins,
/// which tells what it did not.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_does_not_leave_in_time_is_cut() {
    static CUT: AtomicBool = AtomicBool::new(false);
    let server = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        if peer.number > 1 {
            return peer.behave().await;
        }
        let idle = peer.until("IDLE").await?;
        peer.set_messages(1);
        peer.say("+ idling\r\n* 1 EXISTS\r\n").await?;
        peer.until("DONE").await?;
        peer.say(&format!("{idle} OK done\r\n")).await?;
        let tag = peer.until("UID FETCH").await?;
        for _ in 0..60 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Err(error) = peer.say("* OK still here\r\n").await {
                CUT.store(true, Ordering::SeqCst);
                return Err(error);
            }
        }
        peer.say(&format!("{}{tag} OK done\r\n", message(1))).await
    })
    .await;
    let account = |labels: &str| {
        format!(
            "[[accounts]]\nid = \"a\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nuser = \"a\"\npassword = {{ inline = \"{PASSWORD}\" }}\n{labels}",
            server.port()
        )
    };
    let mut monitor = Monitor::new(&account(""));
    monitor.start();
    online(&monitor, &["a"]);
    monitor.wait("fetching", |_| server.commands().iter().any(|command| command.starts_with("UID FETCH")));
    monitor.configure(&account("labels = { team = \"x\" }\n"));
    reload(&monitor, "0 accounts added, 0 removed, 1 changed, 0 as before");
    let events = monitor.wait("told", |events| CUT.load(Ordering::SeqCst) && !told(events, "a").is_empty());
    assert_eq!(told(&events, "a"), [1]);
    assert_eq!(monitor.stop().code(), Some(0));
    assert_eq!(told(&monitor.events(), "a"), [1]);
}

/// Mail arrives while accounts are added, changed and removed on a real server: nothing is lost, nothing is told twice.
#[test]
fn reloads_under_traffic_on_dovecot_lose_nothing() {
    let server = Dovecot::start(6);
    let users = users(6);
    let everybody = accounts(&server, &users, "");
    let mut monitor = Monitor::new(&everybody);
    monitor.start();
    monitor.wait("online", |events| online_all(events, &users));
    for round in 0..8 {
        let (stay, change) = (round % 5 + 1, (round + 2) % 5 + 1);
        let some: Vec<_> =
            users.iter().enumerate().filter(|(n, _)| *n != stay).map(|(_, user)| user.clone()).collect();
        let changed = format!("id = \"user{}\"\n", change + 1);
        let text = accounts(&server, &some, "");
        monitor.configure(&text.replace(&changed, &format!("{changed}labels = {{ round = \"{round}\" }}\n")));
        monitor.signal("HUP");
        server.deliver(&users, &format!("round {round}"));
        reload(&monitor, DONE);
    }
    monitor.configure(&everybody);
    reload(&monitor, DONE);
    let expected: Vec<u64> = (1..=8).collect();
    let events = monitor.wait("all told", |events| users.iter().all(|user| told(events, user) == expected));
    assert_eq!(states(&events, "user1"), ["online"], "never touched");
    assert!(users.iter().any(|user| states(&events, user).contains(&"removed".to_owned())));
    assert_eq!(monitor.stop().code(), Some(0));
}
