//! The whole program on a real Dovecot.

use std::fmt::Write;

use crate::support::certificates;
use crate::support::cyrus::Cyrus;
use crate::support::dovecot::{Dovecot, EXPIRED, GOOD, LOGIN_DISABLED, WRONG_HOST};
use crate::support::imap4d::Imap4d;
use crate::support::monitor::{Monitor, states, told};
use crate::support::process::{Server, free_port, open_dir};

pub fn users(count: usize) -> Vec<String> {
    (1..=count).map(|n| format!("user{n}")).collect()
}

pub fn accounts(server: &Dovecot, users: &[String], more: &str) -> String {
    let mut text = format!(
        "[connections]\nper_host = {{ max_connecting = 50, rate = \"100/s\" }}\n[defaults]\nhost = \"{GOOD}\"\nport = {}\npassword = {{ inline = \"secret\" }}\n{more}\n[defaults.tls_options]\nca_file = {:?}\n",
        server.imaps,
        server.ca_file()
    );
    for user in users {
        write!(text, "[[accounts]]\nid = \"{user}\"\nuser = \"{user}\"\n").unwrap();
    }
    text
}

pub fn online(events: &[serde_json::Value], users: &[String]) -> bool {
    users.iter().all(|user| states(events, user).last().is_some_and(|state| state == "online"))
}

/// Delivered while running, while stopped, while killed, while the server restarts: each once, none missing.
#[test]
fn every_message_is_told_once_whatever_is_restarted() {
    let mut server = Dovecot::start(20);
    let users = users(20);
    let mut monitor = Monitor::new(&accounts(&server, &users, ""));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    server.deliver(&users, "while running");
    monitor.wait("running", |events| users.iter().all(|user| told(events, user).len() == 1));
    assert_eq!(monitor.stop().code(), Some(0));
    server.deliver(&users, "while stopped");
    for round in 0..5 {
        monitor.start();
        server.deliver(&users, &format!("while killed {round}"));
        std::thread::sleep(std::time::Duration::from_millis(120 * round));
        monitor.kill();
    }
    monitor.start();
    monitor.wait("after kills", |events| users.iter().all(|user| told(events, user).len() >= 7));
    server.restart();
    server.deliver(&users, "while the server restarts");
    let events =
        monitor.wait("after restart", |events| users.iter().all(|user| told(events, user).len() >= 8));
    for user in &users {
        let mut uids = told(&events, user);
        uids.sort_unstable();
        assert_eq!(uids, server.uids(user), "{user}");
    }
    monitor.stop();
    assert!(!monitor.log().contains("secret\""), "a password in the log");
    assert!(!monitor.log().contains("c2VjcmV0"), "an encoded password in the log");
}

#[test]
fn each_trouble_has_its_state_and_leaves_the_others_alone() {
    let server = Dovecot::start(4);
    let mut text = accounts(&server, &["user1".to_owned()], "");
    for (id, host, tls, port, password) in [
        ("wrong-password", GOOD, "implicit", server.imaps, "no"),
        ("expired", EXPIRED, "implicit", server.imaps, "secret"),
        ("wrong-host", WRONG_HOST, "implicit", server.imaps, "secret"),
        ("starttls", GOOD, "starttls", server.imap, "secret"),
        ("native", GOOD, "implicit", server.imaps, "secret"),
        ("login-disabled", LOGIN_DISABLED, "none", server.imap, "secret"),
    ] {
        let backend = if id == "native" { "native" } else { "rustls" };
        write!(text, "[[accounts]]\nid = \"{id}\"\nuser = \"user2\"\nhost = \"{host}\"\ntls = \"{tls}\"\nport = {port}\npassword = {{ inline = \"{password}\" }}\n[accounts.tls_options]\nca_file = {:?}\nbackend = \"{backend}\"\n", server.ca_file()).unwrap();
    }
    let mut monitor = Monitor::new(&text);
    monitor.start();
    let settled = |events: &[serde_json::Value]| {
        ["user1", "wrong-password", "expired", "wrong-host", "starttls", "native", "login-disabled"]
            .iter()
            .all(|id| !states(events, id).is_empty())
    };
    let events = monitor.wait("settled", settled);
    let of = |id: &str| {
        let event = events
            .iter()
            .find(|event| {
                event["idlewatch"]["account"]["id"] == id
                    && event["idlewatch"]["account"]["state"].is_string()
            })
            .unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&event["idlewatch"]["account"]["state"]),
            text(&event["error"]["type"]),
            text(&event["error"]["code"]),
        )
    };
    let told = |state: &str, kind: &str, code: &str| (state.to_owned(), kind.to_owned(), code.to_owned());
    assert_eq!(of("user1"), told("online", "", ""));
    assert_eq!(of("starttls"), told("online", "", ""));
    assert_eq!(of("native"), told("online", "", ""));
    assert_eq!(of("wrong-password"), told("auth_failed", "auth", "AUTHENTICATIONFAILED"));
    assert_eq!(of("expired"), told("tls_failed", "tls", "certificate_expired"));
    assert_eq!(of("wrong-host"), told("tls_failed", "tls", "certificate_wrong_host"));
    assert_eq!(of("login-disabled"), told("auth_failed", "auth", "auth_mechanism"));
    server.deliver(&["user1".to_owned()], "still here");
    monitor.wait("the healthy one goes on", |events| {
        events.iter().any(|event| event["email"]["subject"] == "still here")
    });
}

#[test]
fn a_changed_uidvalidity_and_an_expunged_message_are_told() {
    let server = Dovecot::start(1);
    let users = users(1);
    let mut monitor = Monitor::new(&accounts(&server, &users, ""));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    monitor.stop();
    server.deliver(&users, "soon gone");
    server.deliver(&users, "stays");
    server.adm(&["expunge", "-u", "user1", "mailbox", "INBOX", "subject", "soon gone"]);
    monitor.start();
    let events = monitor.wait("told", |events| !told(events, "user1").is_empty());
    let gap = events.iter().find(|event| event["event"]["action"] == "mailbox.gap").unwrap();
    assert_eq!(
        (&gap["idlewatch"]["gap"]["uid_first"], &gap["idlewatch"]["gap"]["uid_last"]),
        (&1.into(), &1.into())
    );
    monitor.stop();
    server.deliver(&users, "came meanwhile");
    server.adm(&["mailbox", "update", "--uid-validity", "4242", "-u", "user1", "INBOX"]);
    monitor.start();
    let events = monitor
        .wait("reset", |events| events.iter().any(|event| event["event"]["action"] == "mailbox.reset"));
    let reset = events.iter().find(|event| event["event"]["action"] == "mailbox.reset").unwrap();
    assert_eq!(reset["idlewatch"]["imap"]["uid_validity"], 4242);
    // What was told before is known again; what came meanwhile is not lost.
    let is_epoch_gap = |event: &serde_json::Value| event["idlewatch"]["gap"]["reason"] == "uidvalidity";
    let events = monitor.wait("looked back", |events| events.iter().any(is_epoch_gap));
    let subjects = |subject: &str| events.iter().filter(|event| event["email"]["subject"] == subject).count();
    assert_eq!((subjects("stays"), subjects("came meanwhile")), (1, 1), "{events:#?}");
    let found = events.iter().find(|event| event["email"]["subject"] == "came meanwhile").unwrap();
    assert_eq!(found["idlewatch"]["epoch_changed"], true, "{found:#?}");
}

/// GNU imap4d never pushes: the check round at each re-issue of IDLE finds what came.
#[test]
fn a_server_that_announces_idle_and_never_pushes_is_still_told() {
    let server = Imap4d::start();
    let text = format!(
        "[[accounts]]\nid = \"gnu\"\nhost = \"{GOOD}\"\nport = {}\ntls = \"starttls\"\nuser = \"user1@example.test\"\n\
         password = {{ inline = \"secret\" }}\nidle_refresh = \"2s\"\n[accounts.tls_options]\nca_file = {:?}\n",
        server.imap,
        server.dir.path().join("ca.pem")
    );
    let mut monitor = Monitor::new(&text);
    monitor.start();
    monitor.wait("online", |events| !states(events, "gnu").is_empty());
    server.deliver("found by a check round");
    monitor.wait("told", |events| {
        events.iter().any(|event| event["email"]["subject"] == "found by a check round")
    });
}

#[test]
fn cyrus_tells_over_implicit_tls_and_over_starttls() {
    let server = Cyrus::start();
    let mut text = String::new();
    for (id, tls, port) in [("implicit", "implicit", server.imaps), ("starttls", "starttls", server.imap)] {
        let ca_file = server.dir.path().join("ca.pem");
        write!(text, "[[accounts]]\nid = \"{id}\"\nhost = \"{GOOD}\"\ntls = \"{tls}\"\nport = {port}\nuser = \"user1\"\npassword = {{ inline = \"secret\" }}\n[accounts.tls_options]\nca_file = {ca_file:?}\n").unwrap();
    }
    let mut monitor = Monitor::new(&text);
    monitor.start();
    monitor.wait("online", |events| online(events, &["implicit".to_owned(), "starttls".to_owned()]));
    server.deliver("told by Cyrus");
    monitor.wait("told", |events| {
        events.iter().filter(|event| event["email"]["subject"] == "told by Cyrus").count() == 2
    });
}

/// A mailbox that is deleted under an idling session is that mailbox's trouble; one of the same name is another one.
#[test]
fn a_mailbox_that_is_deleted_while_it_is_watched_leaves_its_account_alone() {
    let server = Dovecot::start(1);
    let users = users(1);
    server.adm(&["mailbox", "create", "-u", "user1", "Work"]);
    let mut monitor = Monitor::new(&accounts(&server, &users, "mailboxes = [\"INBOX\", \"Work\"]"));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    server.adm(&["mailbox", "delete", "-u", "user1", "Work"]);
    let is_missing = |event: &serde_json::Value| {
        event["error"]["code"] == "mailbox_missing" && event["idlewatch"]["mailbox"]["name"] == "Work"
    };
    monitor.wait("missing", |events| events.iter().any(is_missing));
    server.deliver(&users, "to INBOX");
    monitor.wait("told", |events| told(events, "user1") == [1]);
    assert!(monitor.events().iter().filter(|event| is_missing(event)).count() == 1);
    let gone = || {
        let list = monitor.command().args(["state", "list", "--json"]).output().unwrap().stdout;
        let known = String::from_utf8(list).unwrap();
        let known = known.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let gone = known.filter(|known| !known["gone_since"].is_null());
        gone.map(|known| known["mailbox"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    monitor.wait("it is noted", |_| gone() == ["Work"]);
    server.adm(&["mailbox", "create", "-u", "user1", "Work"]);
    assert!(monitor.command().args(["resume", "-a", "user1"]).status().unwrap().success());
    monitor.wait("it is there again", |_| gone().is_empty());
}

/// What the monitor read is unread for everybody else.
#[test]
fn no_flag_is_changed() {
    let server = Dovecot::start(1);
    let users = users(1);
    let mut monitor = Monitor::new(&accounts(&server, &users, ""));
    monitor.start();
    monitor.wait("online", |events| online(events, &users));
    server.deliver(&users, "still unread");
    monitor.wait("told", |events| told(events, "user1") == [1]);
    monitor.stop();
    let flags = server.adm(&["fetch", "-u", "user1", "flags", "mailbox", "INBOX", "all"]);
    assert!(!flags.contains("Seen") && flags.contains("flags"), "{flags}");
}

/// A server that knows nothing newer than TLS 1.1 is refused before anything is said, by both libraries.
#[test]
fn tls_of_yesterday_is_refused() {
    let dir = open_dir();
    certificates::write(dir.path());
    let port = free_port();
    let d = dir.path().display();
    let command = format!(
        "openssl s_server -quiet -accept 127.0.0.1:{port} -cert {d}/good.pem -key {d}/good.key -tls1_1 -cipher DEFAULT@SECLEVEL=0"
    );
    let _server = Server::start(&command, &[], &[port], &dir.path().join("log"));
    let account = |backend: &str| {
        format!(
            "[[accounts]]\nid = \"{backend}\"\nhost = \"{GOOD}\"\nport = {port}\nuser = \"bob\"\npassword = {{ inline = \"CANARY-tls\" }}\n[accounts.tls_options]\nbackend = \"{backend}\"\nca_file = \"{d}/ca.pem\"\n"
        )
    };
    let mut monitor = Monitor::new(&(account("rustls") + &account("native")));
    monitor.start();
    let events = monitor.wait("refused", |events| {
        ["rustls", "native"].iter().all(|backend| !states(events, backend).is_empty())
    });
    for event in events.iter().filter(|event| event["event"]["action"] == "account.state") {
        assert_eq!(event["error"]["type"], "tls", "{event:#?}");
    }
    let heard = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    assert!(!heard.contains("CANARY-tls"));
}
