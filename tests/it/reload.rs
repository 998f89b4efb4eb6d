//! The configuration is read again while the monitor runs: a wrong one changes nothing, a right one touches only what
//! it changes.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use rustix::fs::OFlags;

use crate::admin::{ask, text};
use crate::real_servers::{accounts, online as online_all, users};
use crate::support::action;
use crate::support::dovecot::Dovecot;
use crate::support::monitor::{Monitor, events, states, told};
use crate::support::receiver::{Answer, Receiver, SECRET};
use crate::support::scripted::{Peer, Scripted, message};

const PASSWORD: &str = "CANARY-reload-77";

async fn server(users: &[&str]) -> Server {
    let store = Store::new(users.iter().map(|user| ((*user).to_owned(), PASSWORD.to_owned())));
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn account(server: &Server, id: &str) -> String {
    account_at(server.addr().port(), id)
}

fn account_at(port: u16, id: &str) -> String {
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"{id}\"\npassword = {{ inline = \"{PASSWORD}\" }}\n"
    )
}

/// Until the first `UID FETCH`, before which one message has come.
async fn until_fetched(peer: &mut Peer) -> std::io::Result<String> {
    let idle = peer.until("IDLE").await?;
    peer.set_messages(1);
    peer.say("+ idling\r\n* 1 EXISTS\r\n").await?;
    peer.until("DONE").await?;
    peer.say(&format!("{idle} OK done\r\n")).await?;
    peer.until("UID FETCH").await
}

fn online(monitor: &Monitor, accounts: &[&str]) {
    monitor.wait("online", |events| {
        accounts.iter().all(|id| states(events, id).last().is_some_and(|state| state == "online"))
    });
}

/// The local ports of the connections to `port` that are established.
pub fn connections(monitor: &Monitor, port: u16) -> BTreeSet<u16> {
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
    // A warning keeps nobody from anything, and is no error.
    let told =
        |level: &str| monitor.log().lines().any(|line| line.contains(level) && line.contains(": warning: "));
    assert!(told("WARN") && !told("ERROR"), "{}", monitor.log());
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
    reload(&monitor, "1 account added, 1 removed, 0 changed, 1 as before");
    online(&monitor, &["a", "c"]);
    let events = monitor.events();
    assert_eq!(states(&events, "b"), ["online", "removed"]);
    let kept = connections(&monitor, port);
    assert_eq!((kept.len(), kept.intersection(&both).count()), (2, 1));
    server.store().deliver("b", "INBOX", b"Subject: unseen\r\n\r\n");
    server.store().deliver("c", "INBOX", b"Subject: new\r\n\r\n");
    monitor.wait("told", |events| told(events, "c") == [1]);

    monitor.configure(&(a.clone() + &b + "labels = { team = \"x\" }\n" + &c + "enabled = false\n"));
    reload(&monitor, "1 account added, 1 removed, 0 changed, 1 as before");
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
    assert!(monitor.log().contains("dropped by filters: 1 message"));
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
        let tag = until_fetched(&mut peer).await?;
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
    let account = |labels: &str| account_at(server.port(), "a") + labels;
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

/// An account that is taken away amid a FETCH: it is gone, the message that it had not told is told when it comes back, and the
/// other one notices nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_is_removed_amid_a_fetch_tells_the_message_when_it_comes_back() {
    let server = server(&["b"]).await;
    let fetched = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        if peer.number > 1 {
            return peer.behave().await;
        }
        until_fetched(&mut peer).await?;
        // Half of an answer, and never the rest.
        let half = message(1);
        peer.say(&half[..half.len() / 2]).await?;
        peer.until("never asked").await.map(drop)
    })
    .await;
    let (a, b) = (account_at(fetched.port(), "a"), account(&server, "b"));
    let mut monitor = Monitor::new(&format!("{a}{b}"));
    monitor.start();
    online(&monitor, &["a", "b"]);
    let before = connections(&monitor, server.addr().port());
    monitor.wait("fetching", |_| fetched.commands().iter().any(|command| command.starts_with("UID FETCH")));
    monitor.configure(&b);
    reload(&monitor, "0 accounts added, 1 removed, 0 changed, 1 as before");
    monitor.wait("gone", |events| states(events, "a").last().is_some_and(|state| state == "removed"));
    server.store().deliver("b", "INBOX", b"Subject: x\r\n\r\n");
    monitor.wait("the other one goes on", |events| told(events, "b") == [1]);
    assert_eq!(told(&monitor.events(), "a"), [0; 0]);
    monitor.configure(&format!("{a}{b}"));
    reload(&monitor, "1 account added, 0 removed, 0 changed, 1 as before");
    monitor.wait("told", |events| told(events, "a") == [1]);
    assert_eq!(connections(&monitor, server.addr().port()), before);
    assert_eq!(monitor.stop().code(), Some(0));
    assert_eq!(told(&monitor.events(), "a"), [1]);
}

/// Forty ask at once, again and again, while the files change under them: each is answered, and in the end what stands in the
/// files is in force.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_reloads_ends_with_what_stands_in_the_files() {
    let server = server(&["a", "b", "c"]).await;
    let [a, b, c] = ["a", "b", "c"].map(|id| account(&server, id));
    let mut monitor = Monitor::new(&a);
    monitor.start();
    online(&monitor, &["a"]);
    let before = connections(&monitor, server.addr().port());
    let config = fs::read_to_string(monitor.config()).unwrap();
    let (head, _) = config.split_once("[[accounts]]").unwrap();
    let storm = |accounts: &str| {
        // A reload of the storm before may still read: it finds the one file or the other.
        let next = monitor.dir.path().join("next");
        fs::write(&next, format!("{head}{accounts}")).unwrap();
        fs::rename(&next, monitor.config()).unwrap();
        std::thread::scope(|scope| {
            let asked: Vec<_> = (0..40).map(|_| scope.spawn(|| ask(&monitor, &["reload"]))).collect();
            for answer in asked {
                let answer = answer.join().unwrap();
                let told = text(&answer);
                let done = answer.status.success() && told.contains(" as before");
                let busy =
                    answer.status.code() == Some(1) && told.contains("it will be read again after that");
                let wrong = answer.status.code() == Some(78) && told.contains("the old one stays in force");
                assert!(done || busy || wrong, "{answer:?}");
            }
        });
    };
    for accounts in [
        format!("{a}{b}"),
        "[[accounts]]\nid = 3\n".to_owned(),
        format!("{a}{c}"),
        a.clone(),
        format!("{a}{b}{c}"),
    ] {
        storm(&accounts);
    }
    monitor.wait("all of them", |events| {
        ["a", "b", "c"].iter().all(|id| states(events, id).last().is_some_and(|state| state == "online"))
    });
    assert!(before.is_subset(&connections(&monitor, server.addr().port())), "a was never touched");
    assert_eq!(states(&monitor.events(), "a"), ["online"]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// What changes while the files are read may have been read before: whoever asks then is told that they are read again, and they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_is_asked_for_while_another_reads_has_all_read_once_more() {
    let server = server(&["a", "b"]).await;
    let (a, b) = (account(&server, "a"), account(&server, "b"));
    let mut monitor = Monitor::new(&a);
    monitor.start();
    online(&monitor, &["a"]);
    // A list that is slow to read: what reads from a pipe waits for its writer.
    let list = monitor.dir.path().join("slow.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&list).status().unwrap().success());
    monitor.configure(&(a.clone() + "[[account_lists]]\npath = \"slow.jsonl\"\n"));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| ask(&monitor, &["reload"]));
        // It can be opened once its reader is there, and then the file that names it has been read.
        let (never_blocks, writer) = (OFlags::NONBLOCK.bits().cast_signed(), OnceCell::new());
        let open = || fs::OpenOptions::new().write(true).custom_flags(never_blocks).open(&list);
        monitor.wait("reading", |_| open().is_ok_and(|opened| writer.set(opened).is_ok()));
        monitor.configure(&(a + &b));
        let second = ask(&monitor, &["reload"]);
        assert_eq!(second.status.code(), Some(1), "{second:?}");
        assert!(text(&second).contains("it will be read again after that"), "{second:?}");
        drop(writer);
        let first = first.join().unwrap();
        assert!(first.status.success() && text(&first).contains("0 accounts added"), "{first:?}");
    });
    online(&monitor, &["a", "b"]);
    assert_eq!(states(&monitor.events(), "a"), ["online"]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// A journal that is full holds fetching up, and not a reload: it may be what makes room.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_taken_while_the_journal_is_full_and_may_make_room() {
    let server = server(&["a", "b"]).await;
    let receiver = Receiver::start(std::iter::repeat_n(Answer::status(503), 10_000));
    let hook = format!(
        "[outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\nsecret = {{ inline = \"{SECRET}\" }}\n",
        receiver.port
    );
    let bound = "[journal]\nmax_bytes = \"1MiB\"\n";
    let [a, b] = ["a", "b"].map(|id| account(&server, id));
    let mut monitor = Monitor::new(&format!("{bound}{hook}{a}"));
    monitor.start();
    online(&monitor, &["a"]);
    let large = format!("From: Eve <eve@example.org>\r\nSubject: {}\r\n\r\n", "news ".repeat(300));
    for _ in 0..1000 {
        server.store().deliver("a", "INBOX", large.as_bytes());
    }
    monitor.wait_log("the journal is full");
    monitor.configure(&format!("{bound}{hook}{a}{b}"));
    reload(&monitor, "1 account added, 0 removed, 0 changed, 1 as before");
    monitor.configure(&format!("{bound}{a}{b}"));
    reload(&monitor, "0 accounts added, 0 removed, 0 changed, 2 as before; outputs: ");
    let expected: Vec<u64> = (1..=1000).collect();
    monitor.wait("all told", |events| told(events, "a") == expected);
    online(&monitor, &["b"]);
    assert_eq!(monitor.stop().code(), Some(0));
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

/// The UIDs in another file of the monitor's directory.
fn in_file(monitor: &Monitor, name: &str) -> Vec<u64> {
    told(&events(&monitor.dir.path().join(name)), "a")
}

/// By command: what it says.
fn asked_to_reload(monitor: &Monitor, config: &str) -> (Option<i32>, String) {
    monitor.configure(config);
    let output = ask(monitor, &["reload"]);
    (output.status.code(), text(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_come_change_and_go_and_no_connection_notices() {
    let server = server(&["a"]).await;
    let accounts = account(&server, "a");
    let mut monitor = Monitor::new(&accounts);
    monitor.start();
    online(&monitor, &["a"]);
    let before = connections(&monitor, server.addr().port());
    let mail = || server.store().deliver("a", "INBOX", b"Subject: secret words\r\n\r\n");
    mail();
    monitor.wait("told", |events| told(events, "a") == [1]);
    let second =
        |path: &str, more: &str| format!("[outputs.second]\ntype = \"file\"\npath = \"{path}\"\n{more}\n");
    let (code, said) = asked_to_reload(&monitor, &format!("{}{accounts}", second("second.jsonl", "")));
    assert!(code == Some(0) && said.contains("1 as before; outputs: second added\n"), "{said}");
    mail();
    monitor.wait("both", |events| {
        told(events, "a") == [1, 2] && in_file(&monitor, "second.jsonl").ends_with(&[2])
    });
    // The file of the first stays open, and knows less; the second is another file.
    let more = second("third.jsonl", "") + "[outputs.file.privacy]\nsubject = \"omit\"\n";
    let (code, said) = asked_to_reload(&monitor, &format!("{more}{accounts}"));
    assert!(code == Some(0) && said.contains("file, second changed\n"), "{said}");
    mail();
    let events = monitor
        .wait("both", |events| told(events, "a") == [1, 2, 3] && in_file(&monitor, "third.jsonl") == [3]);
    let subject = |uid: u64| {
        let of = events.iter().find(|event| event["idlewatch"]["imap"]["uid"] == uid).unwrap();
        of["email"]["subject"].as_str().map(str::to_owned)
    };
    assert_eq!((subject(2).as_deref(), subject(3)), (Some("secret words"), None));
    // One that cannot be had changes nothing, not even the accounts.
    let busy = std::fs::File::create(monitor.dir.path().join("busy.jsonl")).unwrap();
    busy.lock().unwrap();
    let gone = accounts.replace("id = \"a\"", "id = \"b\"");
    let (code, said) = asked_to_reload(&monitor, &format!("{}{gone}", second("busy.jsonl", "")));
    assert!(code == Some(78) && said.contains("outputs.second: "), "{said}");
    mail();
    monitor.wait("as before", |events| {
        told(events, "a").ends_with(&[4]) && in_file(&monitor, "third.jsonl") == [3, 4]
    });
    drop(busy);
    let (code, said) = asked_to_reload(&monitor, &accounts);
    assert!(code == Some(0) && said.contains("file changed; second removed\n"), "{said}");
    let status = text(&ask(&monitor, &["status"]));
    assert!(status.contains("output    file ok") && !status.contains("second"), "{status}");
    mail();
    monitor.wait("told", |events| told(events, "a").ends_with(&[5]));
    assert_eq!(in_file(&monitor, "third.jsonl"), [3, 4]);
    assert_eq!(connections(&monitor, server.addr().port()), before);
    // What the first has, it has once, whatever becomes of the process.
    monitor.kill();
    mail();
    monitor.start();
    monitor.wait("told", |events| told(events, "a") == [1, 2, 3, 4, 5, 6]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// With its password in a file of its own, as `docs/configuration.md` would have it changed.
fn set_secret(monitor: &Monitor, id: &str, password: &str) {
    let (new, name) = (monitor.dir.path().join("new"), monitor.dir.path().join(id));
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&new).unwrap();
    file.write_all(password.as_bytes()).unwrap();
    fs::rename(new, name).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_is_noticed_by_its_account_alone() {
    let ids = ["a", "b", "c"];
    let server = server(&ids).await;
    let port = server.addr().port();
    let in_files = ids.map(|id| {
        account(&server, id).replace(&format!("inline = \"{PASSWORD}\""), &format!("file = \"{id}\""))
    });
    let mut monitor = Monitor::new(&in_files.concat());
    for id in ids {
        set_secret(&monitor, id, PASSWORD);
    }
    monitor.start();
    online(&monitor, &ids);
    let first = connections(&monitor, port);
    let mail = || server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    let logged_in = |times| {
        let events = monitor.wait("online again", |events| states(events, "a").len() == times);
        assert_eq!(states(&events, "a").last().unwrap(), "online", "{events:#?}");
    };

    // On the server, then in the file: it is of no consequence until a connection is made anew.
    server.store().set_password("a", "CANARY-reload-78");
    set_secret(&monitor, "a", "CANARY-reload-78");
    reload(&monitor, "0 accounts added, 0 removed, 0 changed, 3 as before");
    mail();
    monitor.wait("told", |events| told(events, "a") == [1]);
    assert_eq!(connections(&monitor, port), first);
    assert_eq!(ask(&monitor, &["reconnect", "-a", "a"]).status.code(), Some(0));
    mail();
    monitor.wait("told", |events| told(events, "a") == [1, 2]);
    let second = connections(&monitor, port);
    assert_eq!((second.len(), second.intersection(&first).count()), (3, 2));

    // A login that comes between is refused, and tried again by itself as soon as the file has the new one.
    server.store().set_password("a", "CANARY-reload-79");
    ask(&monitor, &["reconnect", "-a", "a"]);
    monitor.wait("refused", |events| states(events, "a").last().is_some_and(|state| state == "auth_failed"));
    let so_far = states(&monitor.events(), "a").len();
    mail();
    set_secret(&monitor, "a", "CANARY-reload-79");
    logged_in(so_far + 1);
    let events = monitor.wait("told", |events| told(events, "a") == [1, 2, 3]);
    let third = connections(&monitor, port);
    let others = &first & &second;
    assert!(third.len() == 3 && third.is_superset(&others), "{third:?} {others:?}");
    assert!(["b", "c"].iter().all(|id| states(&events, id) == ["online"]), "{events:#?}");
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!format!("{}{:?}", monitor.log(), monitor.events()).contains("CANARY"));
}

/// Whatever waits for an output that does not answer goes to the place that the configuration names now.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_in_trouble_goes_on_at_its_new_place_with_all_that_waits() {
    let server = server(&["a"]).await;
    let dead = Receiver::start(std::iter::repeat_n(Answer::status(401), 1000));
    let alive = Receiver::start([]);
    let config = |receiver: &Receiver| {
        format!(
            "[outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\nsecret = {{ inline = \"{SECRET}\" }}\ninclude = [\"message.new\"]\n{}",
            receiver.port,
            account(&server, "a")
        )
    };
    let mut monitor = Monitor::new(&config(&dead));
    monitor.start();
    online(&monitor, &["a"]);
    for _ in 0..3 {
        server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    }
    monitor.wait("told", |events| told(events, "a") == [1, 2, 3]);
    monitor.wait_log("events wait in the journal");
    let (code, said) = asked_to_reload(&monitor, &config(&alive));
    assert!(code == Some(0) && said.contains("hook changed\n"), "{said}");
    monitor.wait("there", |_| told(&alive.taken(), "a") == [1, 2, 3]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// As a ConfigMap of Kubernetes: the file is a link through a link, which is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_is_noticed_behind_links_and_a_wrong_one_changes_nothing() {
    let server = server(&["a", "b"]).await;
    let mut monitor = Monitor::new(&format!("reload_on_change = true\n{}", account(&server, "a")));
    let dir = monitor.dir.path().to_owned();
    let path = |name: &str| dir.join(name);
    let text = fs::read_to_string(monitor.config()).unwrap();
    let versions = [text.clone(), text.replace("id =", "ib ="), text + &account(&server, "b")];
    let turn = |version: usize| {
        fs::create_dir(path(&version.to_string())).unwrap();
        fs::write(path(&version.to_string()).join("idlewatch.toml"), &versions[version]).unwrap();
        std::os::unix::fs::symlink(version.to_string(), path("next")).unwrap();
        fs::rename(path("next"), path("data")).unwrap();
    };
    turn(0);
    fs::remove_file(monitor.config()).unwrap();
    std::os::unix::fs::symlink("data/idlewatch.toml", monitor.config()).unwrap();
    monitor.start();
    online(&monitor, &["a"]);
    turn(1);
    let monitor_log = |monitor: &Monitor, word: &str| monitor.wait(word, |_| monitor.log().contains(word));
    monitor_log(&monitor, "accounts[0].ib: unknown key");
    assert!(monitor.is_alive());
    turn(2);
    online(&monitor, &["b"]);
    assert_eq!(states(&monitor.events(), "a"), ["online"], "nothing happened to it");
    assert_eq!(monitor.stop().code(), Some(0));
}
