//! `idlewatch check`: what it says of accounts, on the small server and on real ones.

use std::process::Output;
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use serde_json::Value;

use crate::support::dovecot::{Dovecot, EXPIRED, GOOD, LOGIN_DISABLED, WRONG_HOST};
use crate::support::monitor::{Monitor, states};
use crate::support::process::free_port;

const PASSWORD: &str = "CANARY-check-57";

async fn server(users: &[&str]) -> Server {
    let store = Store::new(users.iter().map(|user| ((*user).to_owned(), PASSWORD.to_owned())));
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn account(id: &str, port: u16, more: &str) -> String {
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"{id}\"\npassword = {{ inline = \"{PASSWORD}\" }}\n{more}"
    )
}

fn check(config: &str, arguments: &[&str]) -> Output {
    let monitor = Monitor::new(config);
    monitor.command().arg("check").args(arguments).output().unwrap()
}

/// What is on stdout as JSON.
fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn of<'a>(report: &'a Value, account: &str) -> &'a Value {
    let accounts = report["accounts"].as_array().unwrap();
    accounts.iter().find(|own| own["account"] == account).unwrap()
}

fn all(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_screen_shows_every_account_and_each_trouble_with_what_helps() {
    let server = server(&["alice", "bob", "carol", "dave"]).await;
    for _ in 0..3 {
        server.store().deliver("alice", "INBOX", b"Subject: x\r\n\r\n");
    }
    server.store().set_password("carol", "another");
    let port = server.addr().port();
    let config = account("alice", port, "")
        + &account("bob", port, "mailboxes = [\"INBOX\", \"Projects\"]\n")
        + &account("carol", port, "")
        + &account("dave", port, "mailboxes = [\"Sales/**\"]\n");
    let output = check(&config, &["--color", "never"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let screen = String::from_utf8_lossy(&output.stdout).replace(&port.to_string(), "PORT");
    let screen = screen.split("configuration:").next().unwrap();
    insta::assert_snapshot!(screen, @r"
      account  server           TLS   watched  mailboxes
    ✓ alice    127.0.0.1:PORT  none  IDLE     1 of 1: INBOX (3)
    ✗ bob      127.0.0.1:PORT  none  IDLE     1 of 1: INBOX (0), Projects (missing)
    ✗ carol    127.0.0.1:PORT  -     -        auth (AUTHENTICATIONFAILED)
    ! dave     127.0.0.1:PORT  none  IDLE     0 of 1

    failed: carol at 127.0.0.1:PORT: auth [AUTHENTICATIONFAILED]: wrong user name or password
      hint: is `user` right (the whole address, or the part before the @), and is it the password for IMAP rather than for the web?

    failed: bob at 127.0.0.1:PORT: mailbox [NONEXISTENT]: Projects: there is no such mailbox
      hint: `idlewatch mailboxes` lists the names as they are here

    warning: dave at 127.0.0.1:PORT: there is no mailbox that `mailboxes` names, so nothing is watched until one appears; `idlewatch mailboxes` lists those that there are

    plan: 5 connections to 1 host, set up within a second or two
    failed: 2 of 4 accounts
    ");
    assert!(!all(&output).contains(PASSWORD));
    assert_eq!(server.changing_commands(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_tells_whether_it_concerns_every_account() {
    let server = server(&["alice", "bob"]).await;
    let (port, nobody) = (server.addr().port(), free_port());
    let code = |config: &str, arguments: &[&str]| check(config, arguments).status.code();
    let good = account("alice", port, "");
    let refused = account("eve", port, "");
    let away = account("away", nobody, "");
    assert_eq!(code(&good, &[]), Some(0));
    assert_eq!(code(&(good.clone() + &refused), &[]), Some(1));
    assert_eq!(code(&(good.clone() + &refused), &["--account", "al*"]), Some(0));
    assert_eq!(code(&refused, &[]), Some(77));
    assert_eq!(code(&away, &[]), Some(69));
    assert_eq!(code(&(refused + &away), &[]), Some(1));
    assert_eq!(code(&good, &["--account", "nobody"]), Some(78));
    assert_eq!(code("[[accounts]]\nid = \"x\"\n", &[]), Some(78));
    assert_eq!(code(&(away + "enabled = false\n" + &good), &[]), Some(0), "who is not watched is not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_tried_once_and_the_monitors_own_refusals_are_told() {
    let server = server(&["alice"]).await;
    server.store().set_password("alice", "another");
    let mut monitor = Monitor::new(&account("alice", server.addr().port(), ""));
    monitor.start();
    monitor.wait("refused", |events| states(events, "alice").contains(&"auth_failed".to_owned()));
    let output = monitor.command().args(["check", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(77));
    let report = json(&output);
    let warning = of(&report, "alice")["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("1 logins refused") || warning.contains("a login refused"), "{warning}");
    assert!(of(&report, "alice")["hint"].as_str().unwrap().contains("is `user` right"));
    assert_eq!(report["summary"]["failures"][0]["type"], "auth");
    assert!(monitor.is_alive());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_can_be_denied() {
    let store = Store::new([("alice".to_owned(), PASSWORD.to_owned())]);
    let behaviour = Behaviour { idle: false, ..Behaviour::default() };
    let server = Server::start(store, behaviour).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("password");
    std::fs::write(&secret, PASSWORD).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, mode).unwrap();
    let inline = format!("{{ inline = \"{PASSWORD}\" }}");
    let config =
        account("alice", server.addr().port(), "").replace(&inline, &format!("{{ file = {secret:?} }}"));
    let output = check(&config, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = json(&output);
    assert_eq!(of(&report, "alice")["watched_by"], "poll");
    assert!(of(&report, "alice")["warnings"][0].as_str().unwrap().contains("no IDLE"));
    assert_eq!(check(&config, &["--deny-warnings"]).status.code(), Some(1));
}

/// Everything that is wrong with a server is told apart, and nothing secret leaves before it is known to be the one.
#[test]
fn a_real_dovecot_is_looked_at_by_every_way_in() {
    let dovecot = Dovecot::start(3);
    dovecot.adm(&["mailbox", "create", "-u", "user1", "Projects/A"]);
    dovecot.deliver(&["user1".to_owned()], "hello");
    let (imap, imaps, ca) = (dovecot.imap, dovecot.imaps, dovecot.ca_file());
    let one = |id: &str, host: &str, port: u16, tls: &str, user: &str, password: &str, more: &str| {
        format!(
            "[[accounts]]\nid = \"{id}\"\nhost = \"{host}\"\nport = {port}\ntls = \"{tls}\"\nuser = \"{user}\"\npassword = {{ inline = \"{password}\" }}\ntls_options = {{ ca_file = {ca:?} }}\nallow_plaintext = true\n{more}\n"
        )
    };
    let config = [
        one(
            "implicit",
            "localhost",
            imaps,
            "implicit",
            "user1",
            "secret",
            "mailboxes = [\"INBOX\", \"Projects/A\"]",
        ),
        one("starttls", "localhost", imap, "starttls", "user2", "secret", ""),
        one(
            "missing",
            "localhost",
            imaps,
            "implicit",
            "user3",
            "secret",
            "mailboxes = [\"INBOX\", \"Gone\"]",
        ),
        one("password", GOOD, imap, "none", "user1", "wrong", ""),
        one("expired", EXPIRED, imaps, "implicit", "user1", "secret", ""),
        one("name", WRONG_HOST, imaps, "implicit", "user1", "secret", ""),
        one("disabled", LOGIN_DISABLED, imap, "none", "user1", "secret", ""),
        one("port", "localhost", imap, "implicit", "user1", "secret", ""),
        one("turned", "localhost", imaps, "starttls", "user1", "secret", "connect_timeout = \"2s\""),
        one("dns", "no-such-host.invalid", imaps, "implicit", "user1", "secret", ""),
    ]
    .concat();
    let output = check(&config, &["--json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report = json(&output);
    let good = of(&report, "implicit");
    assert_eq!(good["ok"], true, "{good:#}");
    assert_eq!((&good["tls"]["version"], &good["watched_by"]), (&Value::from("1.3"), &Value::from("notify")));
    assert!(good["tls"]["days_left"].as_i64().unwrap() > 30, "{good:#}");
    assert_eq!(good["mailboxes"]["opened"][0]["messages"], 1);
    assert_eq!(good["mailboxes"]["opened"][1]["name"], "Projects/A");
    assert!(good["capabilities"].as_array().unwrap().contains(&"IDLE".into()));
    assert_eq!(of(&report, "starttls")["tls"]["version"], "1.3");
    for (account, kind, hint) in [
        ("password", "auth", "is `user` right"),
        ("expired", "tls", "has to renew it"),
        ("name", "tls", "a name that the certificate has"),
        ("disabled", "auth", "LOGINDISABLED"),
        ("port", "tls", "starttls"),
        ("turned", "", "TLS from the first byte"),
        ("dns", "dns", "spelled right"),
    ] {
        let own = of(&report, account);
        assert_eq!(own["ok"], false, "{own:#}");
        assert!(kind.is_empty() || own["error"]["type"] == kind, "{own:#}");
        assert!(own["hint"].as_str().is_some_and(|told| told.contains(hint)), "{own:#}");
    }
    let missing = of(&report, "missing");
    assert_eq!((&missing["logged_in"], &missing["ok"]), (&true.into(), &false.into()));
    assert_eq!(missing["mailboxes"]["failed"][0]["name"], "Gone");
    assert!(!all(&output).contains("secret\""));
}

/// A server that never answers costs its own account some seconds, and no other one.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_holds_up_nobody() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = server(&["alice"]).await;
    let config = account("silent", silent.local_addr().unwrap().port(), "connect_timeout = \"1s\"\n")
        + &account("alice", server.addr().port(), "");
    let monitor = Monitor::new(&config);
    let mut command = tokio::process::Command::from(monitor.command());
    let ended =
        tokio::time::timeout(Duration::from_secs(60), command.args(["check", "--json"]).output()).await;
    let output = ended.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = json(&output);
    assert_eq!(
        (&of(&report, "alice")["ok"], &of(&report, "silent")["error"]["type"]),
        (&true.into(), &"timeout".into())
    );
}
