//! `idlewatch init`, as somebody at a terminal meets it, and without one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use rexpect::session::{PtySession, spawn_command};
use tempfile::TempDir;

use crate::support::dovecot::{Dovecot, GOOD, TOKEN_KEY};
use crate::support::process::free_port;
use crate::support::token_endpoint::TokenEndpoint;

/// How long an answer may take on a busy machine, milliseconds.
const PATIENCE: u64 = 60_000;

const PASSWORD: &str = "CANARY-init-23";

fn program() -> &'static str {
    env!("CARGO_BIN_EXE_idlewatch")
}

/// `init` in a shell on a terminal that echoes, which tells afterwards how it ended and whether the terminal still echoes.
fn at_a_terminal(home: &Path, authority: &Path) -> PtySession {
    let script = format!(
        "stty echo; {} init; echo ended=$?; stty -a | grep -qE '(^| )echo( |$)' && echo echoes=yes",
        program()
    );
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", &script]).current_dir(home);
    command
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home)
        .env("SSL_CERT_FILE", authority)
        .env("TERM", "xterm");
    spawn_command(command, Some(PATIENCE)).unwrap()
}

fn answer(session: &mut PtySession, question: &str, answer: &str) {
    session.exp_string(question).unwrap_or_else(|error| panic!("{question}: {error}"));
    session.send(answer).unwrap();
    session.flush().unwrap();
}

/// Whoever types before the echo is off is not heard.
fn password(session: &mut PtySession, password: &str) {
    session.exp_string("Password (not shown)").unwrap();
    let end = Instant::now() + Duration::from_millis(PATIENCE);
    loop {
        let terminal = session.process().get_file_handle().unwrap();
        let state = Command::new("stty").arg("-a").stdin(terminal).output().unwrap();
        if String::from_utf8_lossy(&state.stdout).contains(" -echo ") {
            break;
        }
        assert!(Instant::now() < end, "the password is shown: {state:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    session.send(password).unwrap();
    session.flush().unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// The server's questions, answered.
fn up_to_the_password(session: &mut PtySession, port: u16) {
    answer(session, "E-mail address", "user1@example.test\r");
    answer(session, "IMAP server", "localhost\r");
    answer(session, "Connection", "\r");
    answer(session, "Port", &format!("{port}\r"));
    answer(session, "User name", "user1\r");
}

#[test]
fn the_whole_dialogue_on_a_real_dovecot_with_a_wrong_password_first() {
    let dovecot = Dovecot::start(1);
    dovecot.adm(&["mailbox", "create", "-u", "user1", "Projects"]);
    dovecot.deliver(&["user1".to_owned()], "the latest subject");
    let home = TempDir::new().unwrap();
    let config = home.path().join("new/idlewatch.toml");
    let mut session = at_a_terminal(home.path(), &dovecot.ca_file());
    up_to_the_password(&mut session, dovecot.imaps);
    password(&mut session, "wrong\r");
    session.exp_string("hint: is `user` right").unwrap();
    answer(&mut session, "What now?", "\r");
    password(&mut session, "secret\r");
    session.exp_string("the latest subject").unwrap();
    answer(&mut session, "Mailboxes to watch", "j \r");
    answer(&mut session, "Write the configuration to", &format!("{}\r", config.display()));
    answer(&mut session, "Where should the password be?", "\r");
    session.exp_string("is written. Next:").unwrap();
    session.exp_string("ended=0").unwrap();
    session.exp_string("echoes=yes").unwrap();
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("mailboxes = [\"INBOX\", \"Projects\"]") && !text.contains("secret"), "{text}");
    let secret = config.with_file_name("user1.password");
    assert_eq!((mode(&config), mode(&secret)), (0o600, 0o600));
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    let check = Command::new(program())
        .arg("-c")
        .arg(&config)
        .arg("check")
        .env("SSL_CERT_FILE", dovecot.ca_file())
        .env("XDG_STATE_HOME", home.path())
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
}

/// At the hidden password, and in a list, which hides the cursor.
#[test]
fn an_interrupt_leaves_nothing_behind_and_a_terminal_that_echoes() {
    let home = TempDir::new().unwrap();
    let port = free_port();
    let mut session = at_a_terminal(home.path(), Path::new("/dev/null"));
    up_to_the_password(&mut session, port);
    password(&mut session, "half\u{3}");
    session.exp_string("ended=130").unwrap();
    session.exp_string("echoes=yes").unwrap();
    let mut session = at_a_terminal(home.path(), Path::new("/dev/null"));
    answer(&mut session, "E-mail address", "user1@example.test\r");
    answer(&mut session, "IMAP server", "localhost\r");
    answer(&mut session, "Connection", "\u{3}");
    session.exp_string("ended=130").unwrap();
    session.exp_string("echoes=yes").unwrap();
    assert_eq!(files(home.path()), 0);
}

async fn server() -> Server {
    Server::start(Store::new([("bob".to_owned(), PASSWORD.to_owned())]), Behaviour::default()).await.unwrap()
}

fn by_flags(server: &Server, dir: &Path, more: &[&str]) -> Output {
    let port = server.addr().port().to_string();
    let output = dir.join("idlewatch.toml");
    Command::new(program())
        .args([
            "init",
            "--address",
            "bob@example.test",
            "--host",
            "127.0.0.1",
            "--port",
            &port,
            "--tls",
            "none",
        ])
        .args(["--user", "bob", "--password-env", "INIT_PASSWORD", "--output"])
        .arg(output)
        .args(more)
        .env("INIT_PASSWORD", PASSWORD)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_flags_answer_and_nothing_is_written_over_unasked() {
    let (server, dir) = (server().await, TempDir::new().unwrap());
    let config = dir.path().join("idlewatch.toml");
    let first = by_flags(&server, dir.path(), &["--mailbox", "INBOX"]);
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert!(fs::read_to_string(&config).unwrap().contains("{ env = \"INIT_PASSWORD\" }"));
    assert_eq!(mode(&config), 0o600);
    fs::write(&config, "mine").unwrap();
    assert_eq!(by_flags(&server, dir.path(), &[]).status.code(), Some(2));
    assert_eq!(fs::read_to_string(&config).unwrap(), "mine");
    assert_eq!(by_flags(&server, dir.path(), &["--yes"]).status.code(), Some(0));
    assert_ne!(fs::read_to_string(&config).unwrap(), "mine");
    assert_eq!(files(dir.path()), 1, "no draft is left");
    assert!(!String::from_utf8_lossy(&first.stderr).contains(PASSWORD));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_work_is_not_written_but_for_those_who_insist() {
    let (server, dir) = (server().await, TempDir::new().unwrap());
    server.store().set_password("bob", "another");
    let refused = by_flags(&server, dir.path(), &[]);
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--no-network writes without trying"));
    assert_eq!(files(dir.path()), 0);
    assert_eq!(by_flags(&server, dir.path(), &["--no-network"]).status.code(), Some(0));
    let missing = Command::new(program()).args(["init", "--address", "a@b.example"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("--host is needed where nobody can be asked"));
}

/// A person permits access while `init` waits; what it writes works without them.
#[test]
fn an_account_that_takes_tokens_only_is_permitted_and_tried_before_it_is_written() {
    let (dovecot, home) = (Dovecot::start(1), TempDir::new().unwrap());
    let endpoint = TokenEndpoint::start(TOKEN_KEY);
    endpoint.rotate_from("canary-nobody-has-this");
    endpoint.pending(1);
    let config = home.path().join("idlewatch.toml");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command.args(arguments).env("XDG_STATE_HOME", home.path()).env_remove("SSL_CERT_FILE");
        let output = command.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(!text.contains("canary") && !text.contains("eyJ"), "{text}");
        (output.status.code(), text)
    };
    let (port, ca_file) = (dovecot.imaps.to_string(), dovecot.ca_file());
    let (code, text) = run(&[
        "init",
        "--address",
        "user1@example.test",
        "--host",
        GOOD,
        "--port",
        &port,
        "--user",
        "user1",
        "--client-id",
        "user1",
        "--token-url",
        &endpoint.url(),
        "--device-url",
        &endpoint.device_url(),
        "--scope",
        "imap",
        "--scope",
        "offline_access",
        "--ca-file",
        ca_file.to_str().unwrap(),
        "--output",
        config.to_str().unwrap(),
    ]);
    assert!(code == Some(0) && text.contains("WDJB-MJHT") && text.contains("logged in;"), "{code:?} {text}");
    let (code, text) = run(&["-c", config.to_str().unwrap(), "check"]);
    assert!(code == Some(0) && text.contains("ok: 1 account"), "{code:?} {text}");
}

#[test]
fn what_is_needed_for_tokens_is_said_and_nothing_is_asked_of_nobody() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("idlewatch.toml");
    let init = |more: &[&str]| {
        let mut command = Command::new(program());
        command
            .args(["init", "--address", "bob@outlook.com", "--no-network", "--output"])
            .arg(&config)
            .args(more);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = init(&[]);
    assert!(
        code == Some(2) && text.contains("--client-id is needed") && text.contains("device code flow"),
        "{text}"
    );
    let (code, text) = init(&["--client-id", "1-2-3"]);
    assert!(code == Some(0) && text.contains("oauth login -a bob"), "{text}");
    let check = Command::new(program())
        .args(["-c", config.to_str().unwrap(), "check", "--no-network"])
        .env("XDG_STATE_HOME", dir.path())
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
}
