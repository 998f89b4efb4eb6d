//! `run --once`, `--since` and `--dry-run`, as a black box.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::{Message, Store};
use serde_json::Value;

use crate::real_servers::{accounts, users};
use crate::support::cyrus::Cyrus;
use crate::support::dovecot::{Dovecot, GOOD};
use crate::support::monitor::{Monitor, events, states, told};
use crate::support::process::free_port;
use crate::support::receiver::{Receiver, SECRET};
use crate::support::scripted::Scripted;
use crate::support::{action, event};

async fn server() -> Server {
    let store = Store::new([("ann".to_owned(), "pw".to_owned()), ("bob".to_owned(), "pw".to_owned())]);
    Server::start(store, Behaviour::default()).await.unwrap()
}

fn account(id: &str, user: &str, port: u16) -> String {
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"{user}\"\npassword = {{ inline = \"pw\" }}\n"
    )
}

fn deliver(server: &Server, user: &str, subject: &str) {
    server.store().deliver(
        user,
        "INBOX",
        format!("From: a@example.org\r\nSubject: {subject}\r\n\r\nhi\r\n").as_bytes(),
    );
}

fn run(monitor: &Monitor, arguments: &[&str]) -> Output {
    monitor.command().arg("run").args(arguments).output().unwrap()
}

fn ends(monitor: &Monitor, arguments: &[&str]) -> Option<i32> {
    run(monitor, arguments).status.code()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> Vec<Value> {
    String::from_utf8_lossy(&output.stdout).lines().map(event).collect()
}

fn subjects(output: &Output) -> Vec<String> {
    let subject = |event: &Value| event["email"]["subject"].as_str().map(str::to_owned);
    printed(output).iter().filter_map(subject).collect()
}

/// Every file of the state, as it is.
fn state(monitor: &Monitor) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(monitor.dir.path().join("state")).unwrap().map(Result::unwrap);
    let read = |path: &Path| std::fs::read(path).unwrap_or_default();
    let mut files: Vec<_> = files
        .map(|file| (file.file_name().to_string_lossy().into_owned(), read(&file.path())))
        // What SQLite needs to read beside a writer holds nothing of ours.
        .filter(|(name, bytes)| !(name.ends_with("-shm") || name.ends_with("-wal") && bytes.is_empty()))
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pass_tells_what_is_new_since_the_last() {
    let server = server().await;
    deliver(&server, "ann", "before the first contact");
    let port = server.addr().port();
    let monitor = Monitor::new(&(account("ann", "ann", port) + &account("bob", "bob", port)));
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    deliver(&server, "ann", "two");
    deliver(&server, "bob", "one");
    for _ in 0..2 {
        assert_eq!(ends(&monitor, &["--once"]), Some(0));
        let events = monitor.events();
        assert_eq!((told(&events, "ann"), told(&events, "bob")), (vec![2], vec![1]));
    }
    // That somebody looks in is no news; that there was no state is.
    let told = monitor.events();
    let others: Vec<_> = told.iter().filter(|event| action(event) != "message.new").collect();
    assert!(others.len() == 1 && others[0]["idlewatch"]["monitor"]["state"] == "state_new", "{others:#?}");
    assert_eq!(server.changing_commands(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_in_trouble_costs_itself_only() {
    let server = server().await;
    let port = server.addr().port();
    let refused = account("refused", "bob", port).replace("\"pw\"", "\"other\"");
    let missing =
        account("missing", "bob", port).replace("user =", "mailboxes = [\"Gone\", \"INBOX\"]\nuser =");
    let text =
        account("well", "ann", port) + &refused + &missing + &account("unreachable", "bob", free_port());
    let monitor = Monitor::new(&text);
    ends(&monitor, &["--once"]);
    deliver(&server, "ann", "one");
    deliver(&server, "bob", "one");
    let output = run(&monitor, &["--once"]);
    assert_eq!(output.status.code(), Some(1));
    let events = monitor.events();
    assert_eq!((told(&events, "well"), told(&events, "missing")), (vec![1], vec![1]));
    for id in ["refused", "missing", "unreachable"] {
        assert!(said(&output).contains(&format!("account={id}")), "{}", said(&output));
    }
    assert_eq!(ends(&monitor, &["--once", "-a", "unreachable"]), Some(69));
    assert_eq!(ends(&monitor, &["--once", "-a", "missing"]), Some(1));
    assert_eq!(ends(&monitor, &["--once", "-a", "missing", "-m", "inbox"]), Some(0));
    assert_eq!(ends(&monitor, &["--once", "-m", "Nowhere"]), Some(78));
}

/// A pass a minute must lock nobody out; another secret is tried at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_is_not_tried_again_by_the_next_pass() {
    let server = server().await;
    let text = account("refused", "bob", server.addr().port());
    let monitor = Monitor::new(&text.replace("\"pw\"", "\"other\""));
    let first = run(&monitor, &["--once"]);
    assert_eq!(first.status.code(), Some(77));
    assert!(!said(&first).contains("not tried again"), "{}", said(&first));
    let second = run(&monitor, &["--once"]);
    assert_eq!(second.status.code(), Some(77));
    assert!(said(&second).contains("not tried again yet"), "{}", said(&second));
    monitor.configure(&text);
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_prints_and_leaves_no_trace() {
    let server = server().await;
    let mut monitor = Monitor::new(&account("ann", "ann", server.addr().port()));
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    deliver(&server, "ann", "one");
    let (before, out) = (state(&monitor), std::fs::read(monitor.output()).unwrap());
    for _ in 0..2 {
        let output = run(&monitor, &["--once", "--dry-run"]);
        assert_eq!(
            (output.status.code(), subjects(&output)),
            (Some(0), vec!["one".to_owned()]),
            "{}",
            said(&output)
        );
    }
    assert!(state(&monitor) == before && std::fs::read(monitor.output()).unwrap() == out);
    // Beside a monitor that holds the state.
    monitor.start();
    monitor.wait("told for good", |events| told(events, "ann") == [1]);
    monitor.wait("online", |events| states(events, "ann") == ["online"]);
    let beside = run(&monitor, &["--once", "--dry-run"]);
    assert_eq!((beside.status.code(), subjects(&beside)), (Some(0), vec![]), "{}", said(&beside));
    assert_eq!(monitor.stop().code(), Some(0));
    assert_eq!(ends(&monitor, &["--dry-run", "--output", "file"]), Some(78));
    assert_eq!(ends(&monitor, &["--dry-run", "--new-state"]), Some(2));
}

/// It goes on until it is stopped, and who has seen enough may leave.
#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_goes_on_while_somebody_reads() {
    use std::io::{BufRead, BufReader};
    let server = server().await;
    let monitor = Monitor::new(&account("ann", "ann", server.addr().port()));
    let mut child = monitor.command().args(["run", "--dry-run"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(|line| event(&line.unwrap()));
    lines.find(|event| event["idlewatch"]["account"]["state"] == "online").unwrap();
    deliver(&server, "ann", "while it runs");
    assert_eq!(
        lines.find(|event| action(event) == "message.new").unwrap()["email"]["subject"],
        "while it runs"
    );
    drop(lines);
    deliver(&server, "ann", "nobody reads this");
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(!monitor.dir.path().join("state/journal.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn since_tells_again_and_touches_no_state_unless_it_is_saved() {
    let server = server().await;
    for (uid, day) in [(1, "20"), (2, "21"), (3, "22")] {
        let received = format!("2026-11-{day}T10:00:00Z").parse().unwrap();
        let bytes = format!("Subject: of {day}\r\n\r\nhi\r\n").into_bytes();
        server.store().change("ann", "INBOX", |mailbox| {
            mailbox.messages.push(Message { uid, bytes: bytes.into(), received });
            mailbox.uid_next = uid + 1;
        });
    }
    let monitor = Monitor::new(&account("ann", "ann", server.addr().port()));
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    let before = state(&monitor);
    let since = |since: &str, more: &[&str]| run(&monitor, &[&["--once", "--since", since], more].concat());
    assert_eq!(subjects(&since("2026-11-21T00:00:00Z", &[])), ["of 21", "of 22"]);
    assert_eq!(subjects(&since("2", &[])), ["of 21", "of 22"]);
    assert_eq!(subjects(&since("90000d", &["--format", "ecs"])), ["of 20", "of 21", "of 22"]);
    assert_eq!(subjects(&since("2027-01-01T00:00:00Z", &[])), [""; 0]);
    assert!(state(&monitor) == before && told(&monitor.events(), "ann").is_empty());
    assert_eq!(since("3", &["--output", "file"]).status.code(), Some(78), "a file goes with the state");
    assert_eq!(since("3", &["--save", "--dry-run"]).status.code(), Some(2));
    assert_eq!(ends(&monitor, &["--since", "1d", "--save"]), Some(2));
    // Saved: told to the outputs, and gone on from there.
    assert_eq!(since("2", &["--save"]).status.code(), Some(0));
    assert_eq!(told(&monitor.events(), "ann"), [2, 3]);
    deliver(&server, "ann", "new");
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    assert_eq!(told(&monitor.events(), "ann"), [2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_uid_is_of_one_mailbox() {
    let server = server().await;
    let text = account("ann", "ann", server.addr().port())
        .replace("user =", "mailboxes = [\"INBOX\", \"A/B\"]\nuser =");
    let monitor = Monitor::new(&text);
    assert_eq!(ends(&monitor, &["--once", "--since", "7"]), Some(78));
    assert_eq!(ends(&monitor, &["--once", "--since", "7", "--mailbox", "INBOX"]), Some(0));
}

/// What an output is not told this time waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_are_not_named_lose_nothing() {
    let server = server().await;
    let second = "[outputs.second]\ntype = \"file\"\npath = \"second.jsonl\"\ninclude = [\"message.new\"]\n";
    let monitor = Monitor::new(&(account("ann", "ann", server.addr().port()) + second));
    let uids = |name: &str| told(&events(&monitor.dir.path().join(name)), "ann");
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    deliver(&server, "ann", "one");
    assert_eq!(ends(&monitor, &["--once", "--output", "second"]), Some(0));
    assert_eq!((uids("events.jsonl"), uids("second.jsonl")), (vec![], vec![1]));
    deliver(&server, "ann", "two");
    let output = run(&monitor, &["--once", "--output", "stdout", "--output", "second"]);
    assert_eq!(subjects(&output), ["one", "two"], "a new output begins with what waits: {}", said(&output));
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    assert_eq!((uids("events.jsonl"), uids("second.jsonl")), (vec![1, 2], vec![1, 2]));
    assert_eq!(ends(&monitor, &["--once", "--output", "thrid"]), Some(78));
}

/// 74, and the next pass delivers.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_takes_nothing_is_no_success() {
    let server = server().await;
    let hook = |include: &str| {
        let account = account("ann", "ann", server.addr().port());
        format!(
            "shutdown_timeout = \"1s\"\n{account}[outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\n{include}",
            free_port()
        )
    };
    let monitor = Monitor::new(&hook("include = [\"message.new\"]\n"));
    assert_eq!(ends(&monitor, &["--once"]), Some(0), "there was nothing to take");
    deliver(&server, "ann", "one");
    let failed = run(&monitor, &["--once"]);
    assert_eq!(failed.status.code(), Some(74), "{}", said(&failed));
    assert!(said(&failed).contains("output=hook"), "{}", said(&failed));
    assert_eq!(told(&monitor.events(), "ann"), [1], "the other output has it");
    assert_eq!(ends(&monitor, &["--once", "--output", "file"]), Some(0), "nobody asked the hook");
    monitor.configure(&hook("include = [\"message.new\"]\nrequired = false\n"));
    assert_eq!(ends(&monitor, &["--once"]), Some(0), "nobody needs it");
}

/// Nor does it wait for ever where there is no room for more: 74, and the rest comes later.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_stays_full_ends_the_pass() {
    let server = server().await;
    let config = |url: &str| {
        let account = account("ann", "ann", server.addr().port());
        let hook = format!(
            "[outputs.hook]\ntype = \"webhook\"\nurl = \"{url}\"\nsecret = {{ inline = \"{SECRET}\" }}\n\
             include = [\"message.new\"]\n"
        );
        format!("shutdown_timeout = \"1s\"\n{account}{hook}[journal]\nmax_bytes = \"1MiB\"\n")
    };
    let monitor = Monitor::new(&config(&format!("http://127.0.0.1:{}/", free_port())));
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    (0..4000).for_each(|n| deliver(&server, "ann", &format!("number {n}")));
    let failed = run(&monitor, &["--once"]);
    assert_eq!(failed.status.code(), Some(74), "{}", said(&failed));
    assert!(said(&failed).contains("the journal is full"), "{}", said(&failed));
    let taker = Receiver::start([]);
    monitor.configure(&config(&format!("http://127.0.0.1:{}/", taker.port)));
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    assert_eq!(told(&monitor.events(), "ann"), (1..=4000).collect::<Vec<_>>(), "each once");
}

/// Whoever wanted one line only has it: of a dry run that is all right; of a pass with the state the rest comes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_is_a_failure_only_where_the_state_moves() {
    let server = server().await;
    let text = account("ann", "ann", server.addr().port());
    let monitor = Monitor::new("");
    std::fs::write(monitor.config(), format!("[monitor]\nstate_dir = \"state\"\n{text}")).unwrap();
    run(&monitor, &["--once"]);
    deliver(&server, "ann", "one");
    let ends_unread = |arguments: &[&str]| {
        let mut child = monitor.command().arg("run").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        child.wait().unwrap().code()
    };
    assert_eq!(ends_unread(&["--once", "--dry-run"]), Some(0));
    assert_eq!(ends_unread(&["--once", "--since", "1d"]), Some(0));
    assert_eq!(ends_unread(&["--once"]), Some(74));
    assert_eq!(subjects(&run(&monitor, &["--once"])), ["one"]);
}

/// More accounts than there are connections, all of them before the one that is well.
#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_hang_hold_up_no_other() {
    let hangs = Scripted::start(|peer| peer.silence()).await;
    let server = server().await;
    deliver(&server, "ann", "told all the same");
    let slow: String = (0..300).map(|n| account(&format!("slow{n}"), "bob", hangs.port())).collect();
    let well = account("well", "ann", server.addr().port()).replace("127.0.0.1", "localhost");
    let text = format!("[defaults]\nconnect_timeout = \"60s\"\n{slow}{well}initial = \"all\"\n");
    let mut monitor = Monitor::new(&text);
    let mut command = monitor.command();
    command.args(["run", "--once"]);
    monitor.start_by(command);
    monitor.wait("told", |events| told(events, "well") == [1]);
    assert!(monitor.is_alive() && hangs.connections() < 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_that_is_stopped_says_so() {
    let server = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        peer.until("EXAMINE").await?;
        std::future::pending().await
    })
    .await;
    let monitor = Monitor::new(&account("ann", "ann", server.port()));
    let mut child = monitor.command().args(["run", "--once"]).stderr(Stdio::null()).spawn().unwrap();
    let end = std::time::Instant::now() + Duration::from_secs(60);
    while !server.commands().iter().any(|command| command.starts_with("EXAMINE")) {
        assert!(std::time::Instant::now() < end, "{:?}", server.commands());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(1));
}

/// A message at which the server hangs up holds up nobody: the sessions of one pass become more careful.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_ends_every_session_is_passed_over_in_one_pass() {
    let server = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        if peer.number == 1 {
            return peer.behave().await;
        }
        peer.set_messages(1);
        loop {
            let tag = peer.until("UID FETCH").await?;
            // Whoever asks for its header.
            if peer.shared.last_command().contains("BODY.PEEK") {
                return peer.reset();
            }
            peer.say(&format!("* 1 FETCH (UID 1)\r\n{tag} OK done\r\n")).await?;
        }
    })
    .await;
    let monitor = Monitor::new(&account("ann", "ann", server.port()));
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    let events = monitor.events();
    assert_eq!(told(&events, "ann"), [1]);
    let unread = events.iter().find(|event| action(event) == "message.new").unwrap();
    assert_eq!(unread["idlewatch"]["decode_errors"], serde_json::json!(["message"]));
}

/// Alerts are passed on while the session lives, and not all of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_alerts_without_end_is_heard_out_only_so_far() {
    let server = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        let tag = peer.until("EXAMINE").await?;
        let alerts: String = (0..2000).map(|n| format!("* OK [ALERT] {n} is coming\r\n")).collect();
        let opened = "* 0 EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 1] x\r\n";
        peer.say(&format!("{alerts}{opened}{tag} OK done\r\n")).await?;
        peer.behave().await
    })
    .await;
    let monitor = Monitor::new(&account("ann", "ann", server.port()));
    let output = run(&monitor, &["--once"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(said(&output).matches("is coming").count(), 16);
}

/// A mailbox that ends every connection is one mailbox in trouble: those behind it are looked at in the same pass.
#[tokio::test(flavor = "multi_thread")]
async fn a_mailbox_that_ends_every_session_hides_none_behind_it() {
    let server = Scripted::start(|mut peer| async move {
        peer.greet().await?;
        let tag = peer.until("LIST").await?;
        let list = |name| format!("* LIST () \"/\" {name}\r\n");
        let names: String = ["INBOX", "bad", "good", "well"].into_iter().map(list).collect();
        peer.say(&format!("{names}{tag} OK done\r\n")).await?;
        peer.until("EXAMINE \"bad\"").await?;
        peer.reset()
    })
    .await;
    let account = account("ann", "ann", server.port()) + "mailboxes = [\"INBOX\", \"*\"]\n";
    let monitor = Monitor::new(&account);
    let output = run(&monitor, &["--once"]);
    assert_ne!(output.status.code(), Some(0), "{}", said(&output));
    let commands = server.commands();
    for mailbox in ["INBOX", "good", "well"] {
        assert!(commands.contains(&format!("EXAMINE \"{mailbox}\"")), "{mailbox}: {commands:?}");
    }
}

/// Passes that are killed at any moment, on two real servers: each message once, none missing.
#[test]
fn passes_that_are_killed_lose_and_repeat_nothing() {
    let (dovecot, cyrus) = (Dovecot::start(5), Cyrus::start());
    let users = users(5);
    let text = format!(
        "{}[[accounts]]\nid = \"cyrus\"\nhost = \"{GOOD}\"\nport = {}\nuser = \"user1\"\npassword = {{ inline = \"secret\" }}\n[accounts.tls_options]\nca_file = {:?}\n",
        accounts(&dovecot, &users, ""),
        cyrus.imaps,
        cyrus.dir.path().join("ca.pem")
    );
    let monitor = Monitor::new(&text);
    assert_eq!(ends(&monitor, &["--once"]), Some(0));
    for round in 0..10 {
        dovecot.deliver(&users, &format!("round {round}"));
        cyrus.deliver(&format!("round {round}"));
        let mut child = monitor.command().args(["run", "--once"]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(60 * round));
        let _ = child.kill();
        child.wait().unwrap();
    }
    let last = run(&monitor, &["--once"]);
    assert_eq!(last.status.code(), Some(0), "{}", said(&last));
    let events = monitor.events();
    for account in users.iter().map(String::as_str).chain(["cyrus"]) {
        let mut uids = told(&events, account);
        uids.sort_unstable();
        assert_eq!(uids, (1..=10).collect::<Vec<_>>(), "{account}");
    }
}
