//! `idlewatch init`, as somebody at a terminal meets it, and without one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use regex::Regex;
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

/// What is on the screen up to there, without colours and moves of the cursor.
fn screen_up_to(session: &mut PtySession, words: &str) -> String {
    let shown = session.exp_string(words).unwrap_or_else(|error| panic!("{words}: {error}"));
    // A character for each byte is what comes.
    let shown: Vec<u8> = (shown + words).chars().filter_map(|byte| u8::try_from(byte).ok()).collect();
    let shown = String::from_utf8_lossy(&shown);
    Regex::new("\x1b\\[[0-9;?]*[a-zA-Z]|\r").unwrap().replace_all(&shown, "").into_owned()
}

/// The screen that a document shows of a command.
fn documented(command: &str) -> String {
    let document = include_str!("../../docs/getting-started.md");
    let screen = document.split("```\n").find_map(|block| block.strip_prefix(&format!("$ {command}\n")));
    screen.unwrap_or_else(|| panic!("{command} is not shown")).to_owned()
}

fn answer(session: &mut PtySession, question: &str, answer: &str) -> String {
    let screen = screen_up_to(session, question);
    session.send(answer).unwrap();
    session.flush().unwrap();
    screen
}

/// Whoever types before the echo is off is not heard.
fn password(session: &mut PtySession, password: &str) -> String {
    let screen = screen_up_to(session, "Password (not shown)");
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
    screen
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn files(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

/// The server's questions, answered.
fn up_to_the_password(session: &mut PtySession, port: u16) -> String {
    let port = format!("{port}\r");
    let answers = [
        ("E-mail address", "user1@example.test\r"),
        ("IMAP server", "localhost\r"),
        ("Connection", "\r"),
        ("Port", &port),
        ("User name", "user1\r"),
    ];
    answers.iter().map(|(question, own)| answer(session, question, own)).collect()
}

#[test]
fn the_whole_dialogue_on_a_real_dovecot_with_a_wrong_password_first() {
    let dovecot = Dovecot::start(1);
    dovecot.adm(&["mailbox", "create", "-u", "user1", "Projects"]);
    dovecot.deliver(&["user1".to_owned()], "the latest subject");
    let home = TempDir::new().unwrap();
    let config = home.path().join("idlewatch/idlewatch.toml");
    let mut session = at_a_terminal(home.path(), &dovecot.ca_file());
    let session = &mut session;
    let screen = [
        up_to_the_password(session, dovecot.imaps),
        password(session, "wrong\r"),
        answer(session, "What now?", "\r"),
        password(session, "secret\r"),
        answer(session, "Mailboxes to watch", "j \r"),
        answer(session, "Write the configuration to", &format!("{}\r", config.display())),
        answer(session, "Where should the password be?", "\r"),
        screen_up_to(session, "ended=0"),
    ]
    .concat();
    let port = format!("localhost:{}", dovecot.imaps);
    let dir = config.parent().unwrap().display().to_string();
    let days = Regex::new("for [0-9]+ more days?").unwrap();
    let screen = screen.replace(&port, "localhost:31313").replace(&dovecot.imaps.to_string(), "31313");
    let screen = screen.replace(&dir, "/home/bob/.config/idlewatch");
    let screen = days.replace_all(&screen, "for 89 more days");
    for line in documented("idlewatch init").lines() {
        assert!(screen.contains(line), "{line:?} is not on the screen: {screen}");
    }
    session.exp_string("echoes=yes").unwrap();
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("mailboxes = [\"INBOX\", \"Projects\"]") && !text.contains("secret"), "{text}");
    let secret = config.with_file_name("user1.password");
    assert_eq!((mode(&config), mode(&secret)), (0o600, 0o600));
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    let check = Command::new(program())
        .arg("check")
        .env("SSL_CERT_FILE", dovecot.ca_file())
        .env("XDG_CONFIG_HOME", home.path())
        .env("XDG_STATE_HOME", home.path())
        .output()
        .unwrap();
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    let screen = String::from_utf8(check.stdout).unwrap().replace(&port, "localhost:31313");
    let state = home.path().join("idlewatch").display().to_string();
    let screen = screen.replace(&state, "/home/bob/.local/state/idlewatch");
    let screen = Regex::new("1.3 [0-9,]+ d").unwrap().replace(&screen, "1.3 89 d").into_owned();
    let blanks = Regex::new(" +").unwrap();
    let [screen, documented] = [screen, documented("idlewatch check")];
    assert_eq!(blanks.replace_all(&screen, " "), blanks.replace_all(&documented, " "));
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
