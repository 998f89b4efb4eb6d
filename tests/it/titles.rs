//! `idlewatch titles`, as a black box.

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::{Message, Store};
use jiff::Timestamp;

use crate::real_servers::{accounts, users};
use crate::support::cyrus::Cyrus;
use crate::support::dovecot::{Dovecot, GOOD};
use crate::support::event;
use crate::support::monitor::Monitor;
use crate::support::process::free_port;

async fn server(behaviour: Behaviour) -> Server {
    let store = Store::new([("ann".to_owned(), "pw".to_owned()), ("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, behaviour).await.unwrap()
}

fn account(id: &str, user: &str, port: u16) -> String {
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"{user}\"\npassword = {{ inline = \"pw\" }}\n"
    )
}

/// What it says on stdout and on stderr, and how it ends.
fn run(monitor: &Monitor, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = monitor.command().arg("titles").args(arguments).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn subjects(told: &str) -> Vec<String> {
    told.lines().map(|line| event(line)["email"]["subject"].as_str().unwrap().to_owned()).collect()
}

fn receive(server: &Server, user: &str, received: &str, header: &str) {
    let received: Timestamp = received.parse().unwrap();
    let bytes = format!("{header}\r\n\r\nhello\r\n").into_bytes();
    server.store().change(user, "INBOX", |mailbox| {
        mailbox.messages.push(Message { uid: mailbox.uid_next, bytes: bytes.into(), received });
        mailbox.uid_next += 1;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_of_all_accounts_come_first() {
    let server = server(Behaviour::default()).await;
    receive(&server, "ann", "2026-11-20T10:00:00Z", "From: a@example.org\r\nSubject: first");
    receive(&server, "bob", "2026-11-21T10:00:00Z", "From: a@example.org\r\nSubject: second ticket");
    receive(&server, "ann", "2026-11-22T10:00:00Z", "From: a@example.org\r\nSubject: third ticket");
    let port = server.addr().port();
    let monitor = Monitor::new(&(account("ann", "ann", port) + &account("bob", "bob", port)));
    let told = |arguments: &[&str]| {
        let (code, told, said) = run(&monitor, &[&["--json"], arguments].concat());
        assert_eq!(code, Some(0), "{said}");
        subjects(&told)
    };
    assert_eq!(told(&[]), ["third ticket", "second ticket", "first"]);
    assert_eq!(told(&["-n", "2"]), ["third ticket", "second ticket"]);
    assert_eq!(told(&["-a", "b*"]), ["second ticket"]);
    assert_eq!(told(&["--since", "2026-11-21T00:00:00Z"]), ["third ticket", "second ticket"]);
    assert_eq!(told(&["--search", "ticket third"]), ["third ticket"]);
    assert_eq!(told(&["--search", "ticket", "--since", "2026-11-21T12:00:00Z"]), ["third ticket"]);
    assert_eq!(told(&["--search", "nobody wrote this"]), [""; 0]);
    let (_, rows, _) = run(&monitor, &[]);
    assert!(rows.lines().next().unwrap().contains("ann") && rows.lines().count() == 3, "{rows}");
    assert_eq!(server.changing_commands(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_filters_would_do_is_shown() {
    let server = server(Behaviour::default()).await;
    receive(&server, "ann", "2026-11-20T10:00:00Z", "From: a@news.example.net\r\nSubject: one");
    receive(&server, "ann", "2026-11-21T10:00:00Z", "From: a@example.org\r\nX-Kind: x\r\nSubject: two");
    let filters = "[filters.news]\naction = \"drop\"\nany = [{ from = \"*@news.*\" }]\n\
                   [filters.kind]\naction = \"tag\"\nany = [{ header_exists = \"X-Kind\" }]\nlabels = { kind = \"x\" }\n";
    let monitor = Monitor::new(&(account("ann", "ann", server.addr().port()) + filters));
    let (_, rows, _) = run(&monitor, &[]);
    let rows: Vec<_> = rows.lines().collect();
    assert!(rows[0].ends_with("two  [kind]") && rows[1].ends_with("one  [dropped by news]"), "{rows:?}");
    let (_, lines, _) = run(&monitor, &["--json"]);
    let events: Vec<_> = lines.lines().map(event).collect();
    assert_eq!(
        (&events[0]["labels"]["kind"], &events[1]["idlewatch"]["filter"]["dropped"]),
        (&"x".into(), &true.into())
    );
}

/// Beside a healthy account; alone each has its exit code.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_in_trouble_costs_itself_only() {
    let server = server(Behaviour::default()).await;
    receive(&server, "ann", "2026-11-20T10:00:00Z", "From: a@example.org\r\nSubject: here");
    let port = server.addr().port();
    let refused = account("refused", "bob", port).replace("\"pw\"", "\"other\"");
    let monitor = Monitor::new(
        &(account("well", "ann", port) + &refused + &account("unreachable", "bob", free_port())),
    );
    let (code, told, said) = run(&monitor, &["--json"]);
    assert_eq!((code, subjects(&told)), (Some(1), vec!["here".to_owned()]), "{said}");
    assert!(said.contains("account=refused") && said.contains("account=unreachable"), "{said}");
    let ends = |arguments: &[&str]| run(&monitor, arguments).0;
    assert_eq!(ends(&["-a", "refused"]), Some(77));
    assert_eq!(ends(&["-a", "unreachable"]), Some(69));
    assert_eq!(ends(&["-a", "refused", "-a", "unreachable"]), Some(1));
    assert_eq!(ends(&["-a", "well", "-m", "Missing"]), Some(1));
    assert_eq!(ends(&["-a", "nobody"]), Some(78));
    assert_eq!(ends(&["--since", "tomorrow"]), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_is_refused_is_not_an_empty_one() {
    let server = server(Behaviour { searches: false, ..Behaviour::default() }).await;
    receive(&server, "ann", "2026-11-20T10:00:00Z", "From: a@example.org\r\nSubject: here");
    let monitor = Monitor::new(&account("ann", "ann", server.addr().port()));
    let (code, told, said) = run(&monitor, &["--search", "here"]);
    assert_eq!((code, told.as_str()), (Some(1), ""));
    assert!(said.contains("there is no such search here"), "{said}");
    assert_eq!(run(&monitor, &["--since", "2026-11-19"]).0, Some(0), "dates are looked at, not searched for");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let server = Dovecot::start(1);
    server.deliver(&users(1), "hello");
    let monitor = Monitor::new(&accounts(&server, &users(1), ""));
    let mut child = monitor.command().arg("titles").stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn dovecot_and_cyrus_are_asked_by_word_and_date() {
    let (dovecot, cyrus) = (Dovecot::start(1), Cyrus::start());
    for subject in ["one ticket", "two", "=?utf-8?q?Gr=C3=B6=C3=9Fe?= ticket"] {
        dovecot.deliver(&users(1), subject);
        cyrus.deliver(subject);
    }
    let text = format!(
        "{}[[accounts]]\nid = \"cyrus\"\nhost = \"{GOOD}\"\nport = {}\nuser = \"user1\"\npassword = {{ inline = \"secret\" }}\n[accounts.tls_options]\nca_file = {:?}\n",
        accounts(&dovecot, &users(1), ""),
        cyrus.imaps,
        cyrus.dir.path().join("ca.pem")
    );
    let monitor = Monitor::new(&text);
    for account in ["user1", "cyrus"] {
        let told = |arguments: &[&str]| {
            let (code, told, said) = run(&monitor, &[&["--json", "-a", account], arguments].concat());
            assert_eq!(code, Some(0), "{said}");
            subjects(&told)
        };
        assert_eq!(told(&["-n", "1"]), ["Größe ticket"], "{account}");
        assert_eq!(told(&["--search", "ticket"]), ["Größe ticket", "one ticket"], "{account}");
        assert_eq!(told(&["--search", "größe ticket", "--since", "1h"]), ["Größe ticket"], "{account}");
        assert_eq!(told(&["--since", "1h", "-n", "2"]), ["Größe ticket", "two"], "{account}");
        assert_eq!(told(&["--since", "2099-01-01"]), [""; 0], "{account}");
    }
}
