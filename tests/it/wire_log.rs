//! `[log] wire`: what is said on connections, in the log, and what is never in it.

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::dovecot::{Dovecot, GOOD};
use crate::support::monitor::Monitor;
use crate::support::scripted::Scripted;

const PASSWORD: &str = "CANARY-wire-81";

const MAIL: &[u8] = b"From: Eve <eve@example.org>\r\nSubject: a\x1b[2J subject\r\n\r\nhi\r\n";

fn config(port: u16, more: &str) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"{PASSWORD}\" }}\n[log]\nlevel = \"error\"\n{more}"
    )
}

/// The log of a command that looks at the mailbox once.
fn log(config: &str) -> String {
    let output = Monitor::new(config).command().args(["titles"]).env_remove("RUST_LOG").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let encoded = data_encoding::BASE64.encode(PASSWORD.as_bytes());
    assert!(!log.contains("CANARY") && !log.contains(&encoded) && !log.contains('\x1b'), "{log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_is_in_the_log_without_its_secrets() {
    let store = Store::new([("bob".to_owned(), PASSWORD.to_owned())]);
    let server = Server::start(store, Behaviour::default()).await.unwrap();
    server.store().deliver("bob", "INBOX", MAIL);
    let port = server.addr().port();
    let told = log(&config(port, "wire = \"w*\""));
    for said in [
        "-: connected to",
        "C: ",
        "[not shown]",
        "S: * OK",
        "EXAMINE",
        "subject",
        "account=work connection=1",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
    let private = log(&config(port, "wire = \"w*\"\n[privacy]\nsubject = \"omit\""));
    assert!(private.contains("EXAMINE") && !private.contains("subject"), "{private}");
    for silent in ["wire = \"other\"", ""] {
        assert!(!log(&config(port, silent)).contains("EXAMINE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_the_server_repeats_is_not_in_the_log() {
    let server = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        let tag = peer.until("LOGIN").await?;
        let login = peer.shared.last_command();
        peer.say(&format!("* OK you said {login}\r\n{tag} NO [AUTHENTICATIONFAILED] {login}\r\n")).await?;
        peer.silence().await
    })
    .await;
    let told = log(&config(server.port(), "wire = \"work\""));
    assert!(told.contains("C: ") && told.contains("LOGIN [not shown]"), "{told}");
    assert!(told.contains("S: * OK you said LOGIN \"bob\" \"[secret]\""), "{told}");
}

/// STARTTLS: the record goes on inside; the password here is a word that servers say, too.
#[test]
fn a_conversation_with_dovecot_is_recorded_through_starttls() {
    let server = Dovecot::start(1);
    server.deliver(&["user1".to_owned()], "recorded");
    let config = config(
        server.imap,
        &format!("wire = \"work\"\n[defaults.tls_options]\nca_file = {:?}", server.ca_file()),
    )
    .replace("tls = \"none\"", "tls = \"starttls\"")
    .replace("\"127.0.0.1\"", &format!("\"{GOOD}\""))
    .replace("\"bob\"", "\"user1\"")
    .replace(PASSWORD, "secret");
    let told = log(&config);
    for said in
        ["STARTTLS", "AUTHENTICATE PLAIN [not shown]", "Logged in", "Subject: recorded", "connection=1"]
    {
        assert!(told.contains(said), "{said}: {told}");
    }
    let response = data_encoding::BASE64.encode(b"\0user1\0secret");
    assert!(!told.contains(&response) && !told.contains("secret "), "{told}");
}
