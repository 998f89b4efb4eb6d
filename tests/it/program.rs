//! The program as a black box, on its own small server.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;

use crate::support::monitor::{Monitor, states, told};
use crate::support::scripted::Scripted;
use crate::support::{action, event};

fn accounts(server: &Server) -> String {
    account(server.addr().port())
}

fn account(port: u16) -> String {
    format!(
        "[[accounts]]\nid = \"work\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"bob\"\npassword = {{ inline = \"CANARY-pw\" }}\n"
    )
}

async fn server(behaviour: Behaviour) -> Server {
    Server::start(Store::new([("bob".to_owned(), "CANARY-pw".to_owned())]), behaviour).await.unwrap()
}

const MAIL: &[u8] = b"From: Eve <eve@example.org>\r\nSubject: a\x1b[2J\xe2\x80\xae{\"fake\":1}\r\n\r\nhi\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn hostile_mail_is_one_harmless_line_and_the_mailbox_is_never_changed() {
    let server = server(Behaviour::default()).await;
    let mut monitor = Monitor::new(&accounts(&server));
    monitor.start();
    monitor.wait("online", |events| !states(events, "work").is_empty());
    server.store().deliver("bob", "INBOX", MAIL);
    monitor.wait("told", |events| told(events, "work") == [1]);
    server.drop_connections();
    server.store().deliver("bob", "INBOX", MAIL);
    monitor.wait("told after a cut", |events| told(events, "work") == [1, 2]);
    assert_eq!(monitor.stop().code(), Some(0));
    let text = std::fs::read_to_string(monitor.output()).unwrap();
    assert!(!text.contains(['\x1b', '\u{202e}']));
    assert_eq!(server.changing_commands(), 0);
    assert!(!format!("{text}{}", monitor.log()).contains("CANARY-pw"));
}

/// Each output has lines as long as it takes.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_with_shorter_lines_says_what_it_left_out() {
    let server = server(Behaviour::default()).await;
    let second = "[outputs.second]\ntype = \"file\"\npath = \"second.jsonl\"\nmax_bytes = 2000\n";
    let mut monitor = Monitor::new(&format!("{second}{}", accounts(&server)));
    monitor.start();
    monitor.wait("online", |events| !states(events, "work").is_empty());
    let people: Vec<_> = (0..20).map(|n| format!("{}{n}@example.org", "x".repeat(50))).collect();
    let mail = format!("To: {}\r\nSubject: {}\r\n\r\nhi\r\n", people.join(", "), "y".repeat(900));
    server.store().deliver("bob", "INBOX", mail.as_bytes());
    let new = |path: &std::path::Path| {
        let events = crate::support::monitor::events(path);
        events.into_iter().find(|event| action(event) == "message.new")
    };
    let second = monitor.dir.path().join("second.jsonl");
    monitor.wait("both have it", |_| new(&monitor.output()).is_some() && new(&second).is_some());
    let (whole, short) = (new(&monitor.output()).unwrap(), new(&second).unwrap());
    let length = |event: &serde_json::Value| event["email"]["to"]["address"].as_array().unwrap().len();
    assert_eq!((length(&whole), length(&short)), (20, 5));
    let cut = serde_json::json!(["email.to.address", "email.subject"]);
    assert_eq!(
        (&whole["idlewatch"]["truncated"], &short["idlewatch"]["truncated"]),
        (&serde_json::Value::Null, &cut)
    );
    let text = std::fs::read_to_string(&second).unwrap();
    assert!(text.lines().all(|line| line.len() <= 2000), "{text}");
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_idle_is_polled() {
    let server = server(Behaviour { idle: false, pushes: false, searches: true }).await;
    let text = accounts(&server).replace("user =", "poll_interval = \"1s\"\nuser =");
    let mut monitor = Monitor::new(&text);
    monitor.start();
    monitor.wait("online", |events| !states(events, "work").is_empty());
    server.store().deliver("bob", "INBOX", MAIL);
    let events = monitor.wait("told", |events| told(events, "work") == [1]);
    let told = events.iter().find(|event| action(event) == "message.new").unwrap();
    assert_eq!(told["idlewatch"]["source"], "poll");
}

/// logrotate renames and sends HUP; a mailbox that is not there leaves its account online; a zero-byte journal is damage.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_reopened_and_damage_is_not_taken_for_a_first_start() {
    let server = server(Behaviour::default()).await;
    let text = accounts(&server).replace("user =", "mailboxes = [\"INBOX\", \"Gone\"]\nuser =");
    let mut monitor = Monitor::new(&text);
    monitor.start();
    let missing =
        |events: &[serde_json::Value]| events.iter().any(|event| event["error"]["code"] == "mailbox_missing");
    let events = monitor.wait("missing", |events| missing(events) && !states(events, "work").is_empty());
    assert!(states(&events, "work").iter().all(|state| state == "online"), "{events:#?}");
    std::fs::rename(monitor.output(), monitor.dir.path().join("rotated")).unwrap();
    monitor.signal("HUP");
    server.store().deliver("bob", "INBOX", MAIL);
    monitor.wait("told in the new file", |events| told(events, "work") == [1]);
    assert_eq!(monitor.stop().code(), Some(0));
    let state = monitor.dir.path().join("state");
    std::fs::write(state.join("journal.db"), "").unwrap();
    let refused = monitor.command().arg("run").output().unwrap();
    assert_eq!(refused.status.code(), Some(71));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--new-state"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_monitor_on_the_same_state_is_refused() {
    let server = server(Behaviour::default()).await;
    let mut monitor = Monitor::new(&accounts(&server));
    monitor.start();
    monitor.wait("online", |events| !states(events, "work").is_empty());
    let second = monitor.command().arg("run").output().unwrap();
    assert_eq!(second.status.code(), Some(75));
    assert!(String::from_utf8_lossy(&second.stderr).contains("locked by another idlewatch (pid "));
}

#[test]
fn too_few_descriptors_are_told_before_anything_starts() {
    let accounts: String = (0..100).map(|n| account(1).replace("\"work\"", &format!("\"a{n}\""))).collect();
    let monitor = Monitor::new(&accounts);
    let program = format!("ulimit -n 300; exec \"$0\" -c {} run", monitor.config().display());
    let output = std::process::Command::new("bash")
        .args(["-c", &program, env!("CARGO_BIN_EXE_idlewatch")])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(71), "{told}");
    assert!(told.contains("356") && told.contains("300") && told.contains("max_total"), "{told}");
}

/// Nobody else reads the memory: not by a core dump, and not by another process of the user.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_is_closed_to_others() {
    let server = server(Behaviour::default()).await;
    let mut monitor = Monitor::new(&accounts(&server));
    monitor.start();
    monitor.wait("online", |events| !states(events, "work").is_empty());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", monitor.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    for name in ["cmdline", "environ"] {
        let text = std::fs::read(format!("/proc/{}/{name}", monitor.pid())).unwrap();
        assert!(!String::from_utf8_lossy(&text).contains("CANARY-pw"), "{name}");
    }
}

/// A server that never answers DONE holds the first signal's orderly end up; the second does not wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let server = Scripted::start(|mut peer| async move {
            peer.greet().await?;
            peer.until("DONE").await?;
            std::future::pending().await
        })
        .await;
        let mut monitor = Monitor::new(&format!("shutdown_timeout = \"1h\"\n{}", account(server.port())));
        monitor.start();
        monitor.wait("online", |events| !states(events, "work").is_empty());
        monitor.signal(signal);
        let end = Instant::now() + Duration::from_secs(30);
        while !server.commands().iter().any(|command| command == "DONE") {
            assert!(Instant::now() < end, "{:?}", server.commands());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Two at once are one wish.
        tokio::time::sleep(Duration::from_millis(700)).await;
        monitor.signal(signal);
        assert_eq!(monitor.wait_end().code(), Some(code));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_stdout_ends_it_with_74_and_nothing_is_lost() {
    let server = server(Behaviour::default()).await;
    let monitor = Monitor::new("");
    let text = format!("[monitor]\nstate_dir = \"state\"\n{}", accounts(&server));
    std::fs::write(monitor.config(), text).unwrap();
    let start = || monitor.command().arg("run").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut child = start();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while action(&event(&lines.next().unwrap().unwrap())) != "account.state" {}
    drop(lines);
    server.store().deliver("bob", "INBOX", MAIL);
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(74));
    let mut child = start();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while action(&event(&lines.next().unwrap().unwrap())) != "message.new" {}
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn titles_and_mailboxes_are_listed() {
    let server = server(Behaviour::default()).await;
    server.store().deliver("bob", "INBOX", b"From: a@example.org\r\nSubject: first\r\n\r\n");
    server.store().deliver("bob", "INBOX", b"From: a@example.org\r\nSubject: second\r\n\r\n");
    let monitor = Monitor::new(&accounts(&server));
    let run = |arguments: &[&str]| {
        let output = monitor.command().args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, titles) = run(&["titles", "-n", "1"]);
    assert!(code == Some(0) && titles.contains("second") && !titles.contains("first"), "{titles}");
    let (_, lines) = run(&["titles", "--json"]);
    assert_eq!(lines.lines().map(event).count(), 2);
    assert_eq!(run(&["mailboxes"]).1, format!("* {:<40} inbox      connection  INBOX\n", "INBOX"));
    server.store().set_password("bob", "other");
    assert_eq!(run(&["titles"]).0, Some(77));
}

#[test]
fn a_question_to_one_of_several_accounts_names_it() {
    let account = |id| {
        format!(
            "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\ntls = \"none\"\nuser = \"u\"\npassword = {{ inline = \"p\" }}\n"
        )
    };
    let monitor = Monitor::new(&(account("bob") + &account("alice")));
    for command in [["mailboxes"].as_slice(), &["oauth", "show"]] {
        let output = monitor.command().args(command).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("name one with --account: bob, alice"), "{told}");
    }
}

#[test]
fn ten_mistakes_are_ten_located_errors() {
    let monitor = Monitor::new("");
    let text = "[monitr]\nx = 1\n[log]\nformat = \"yaml\"\n[events]\nmax_bytes = \"8000\"\n[outputs.a]\ntype = \"fil\"\n\
                [[accounts]]\nid = \"UPPER\"\nhost = \"h\"\nport = 0\ntls = \"ssl\"\nuser = \"\"\npassword = \"CANARY-pw\"\nidle_refresh = \"0s\"\ninitial = \"some\"\n";
    std::fs::write(monitor.config(), text).unwrap();
    let output = monitor.command().args(["check", "--no-network"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78));
    let located = told.lines().filter(|line| line.contains("idlewatch.toml:")).count();
    assert!(located >= 10, "{told}");
    assert!(!told.contains("CANARY-pw"));
}

#[test]
fn the_demo_shows_events_that_match_the_schema() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_idlewatch"))
        .args(["demo", "--for", "4s"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let events: Vec<_> = text.lines().map(event).collect();
    assert!(events.iter().any(|event| action(event) == "message.new"), "{text}");
}

/// What is shown to those who write pipelines is what they will get.
#[test]
fn samples_of_events_match_the_schema_and_each_form_is_lines() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_idlewatch")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let schema: serde_json::Value = serde_json::from_str(&run(&["event", "schema"])).unwrap();
    assert!(schema.is_object());
    let events: Vec<_> = run(&["event", "sample"]).lines().map(event).collect();
    let actions: Vec<_> = events.iter().map(|event| action(event).to_owned()).collect();
    let wanted = [
        "monitor.state",
        "message.new",
        "message.flags",
        "message.expunged",
        "account.state",
        "mailbox.reset",
        "mailbox.gap",
    ];
    assert_eq!(actions, wanted);
    for format in ["flat", "cloudevents"] {
        let lines = run(&["event", "sample", "--format", format]);
        assert!(lines.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{lines}");
    }
    assert_eq!(run(&["event", "sample", "--format", "pretty"]).lines().count(), wanted.len());
}

/// Whoever reads the log as JSON finds every problem there, also where the configuration itself asks for that form.
#[test]
fn a_wrong_configuration_is_told_in_the_form_of_the_log() {
    let wrong = account(1).replace("user =", "usr =") + "[outputs.web]\ntype = \"webhook\"\n";
    let told = |config: &str, arguments: &[&str], env: &[(&str, &str)]| {
        let monitor = Monitor::new(config);
        let output = monitor.command().args(arguments).envs(env.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(78));
        String::from_utf8(output.stderr).unwrap()
    };
    let parsed = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let in_config = format!("{wrong}[log]\nformat = \"json\"\n");
    for (config, arguments, env) in [
        (wrong.as_str(), &["run", "--log-format", "json"][..], &[][..]),
        (&wrong, &["run"], &[("IDLEWATCH_LOG__FORMAT", "json")]),
        (&in_config, &["check", "--no-network"], &[]),
    ] {
        let lines = told(config, arguments, env);
        let problems: Vec<_> = lines.lines().map(parsed).collect();
        // The password that stands there is worth a warning.
        let levels: Vec<_> = problems.iter().filter_map(|problem| problem["level"].as_str()).collect();
        assert_eq!(levels, ["error", "error", "warn", "error"], "{lines}");
        let unknown = problems.iter().find(|problem| problem["key"] == "accounts[0].usr").unwrap();
        assert_eq!((&unknown["level"], &unknown["message"]), (&"error".into(), &"unknown key".into()));
        assert!(unknown["line"].as_u64().is_some() && unknown["file"].as_str().unwrap().ends_with(".toml"));
        assert!(unknown["hint"].as_str().unwrap().contains("\"user\""));
    }
    let text = told(&account(1).replace("user =", "usr ="), &["run", "--account", "x"], &[]);
    assert!(text.ends_with("error: 2 problems in the configuration\n"), "{text}");
    let flag = told(&account(1), &["run", "--account", "x", "--log-format", "json"], &[]);
    assert_eq!(parsed(flag.lines().last().unwrap())["key"], "--account");
}

#[test]
fn a_misspelt_level_in_the_environment_is_told_and_left_out() {
    let monitor = Monitor::new(&account(1));
    let output = monitor.command().args(["titles"]).env("RUST_LOG", "inof").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("RUST_LOG: \"inof\" is left out: expected a level"), "{told}");
}

#[test]
fn a_status_that_cannot_know_where_to_ask_says_so_and_a_token_that_can_be_guessed_is_found() {
    let broken = Monitor::new(&format!("{}[[[", account(1)));
    let asked =
        |name: &str| broken.command().arg(name).env("XDG_STATE_HOME", broken.dir.path()).output().unwrap();
    for command in ["status", "reload"] {
        let output = asked(command);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
    }
    let http = |more: &str| {
        let monitor = Monitor::new(&format!("{}[http]\n{more}\n", account(1)));
        let output = monitor.command().args(["check", "--no-network"]).env("T", "short").output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, told) = http("listen = \"127.0.0.1:1\"\ntoken = { env = \"T\" }");
    assert!(code == Some(78) && told.contains("http.token: the token is shorter than 16"), "{told}");
    let (code, told) = http("token = { inline = \"0123456789abcdef\" }");
    assert!(code == Some(0) && told.contains("http.token: warning: nobody is asked for it"), "{told}");
}
