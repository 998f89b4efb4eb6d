//! What those who look after the monitor ask it, and those who should not.

use std::fs::DirEntry;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use serde_json::Value;

use crate::support::monitor::{Monitor, states, told};
use crate::support::process::open_dir;
use crate::support::receiver::{Answer, Receiver, SECRET};

pub(crate) const PASSWORD: &str = "CANARY-admin-31";

pub(crate) async fn server(users: &[&str]) -> Server {
    let store = Store::new(users.iter().map(|user| ((*user).to_owned(), PASSWORD.to_owned())));
    Server::start(store, Behaviour::default()).await.unwrap()
}

pub(crate) fn accounts(server: &Server, ids: &[&str]) -> String {
    let port = server.addr().port();
    let account = |id: &&str| {
        format!(
            "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nuser = \"{id}\"\npassword = {{ inline = \"{PASSWORD}\" }}\n"
        )
    };
    ids.iter().map(account).collect()
}

pub(crate) fn online(monitor: &Monitor, ids: &[&str]) {
    monitor.wait("online", |events| {
        ids.iter().all(|id| states(events, id).last().is_some_and(|state| state == "online"))
    });
}

pub(crate) fn ask(monitor: &Monitor, arguments: &[&str]) -> Output {
    monitor.command().args(arguments).output().unwrap()
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Threads of the HTTP server.
fn answering(monitor: &Monitor) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", monitor.pid())).unwrap();
    let name = |thread: DirEntry| std::fs::read_to_string(thread.path().join("comm")).ok();
    threads.flatten().filter_map(name).filter(|name| name.starts_with("actix-server")).count()
}

/// Each way has a server of its own, from the first question on.
#[tokio::test(flavor = "multi_thread")]
async fn no_server_runs_until_somebody_asks() {
    let server = server(&["a"]).await;
    let mut monitor =
        Monitor::new(&("[http]\nlisten = \"127.0.0.1:0\"\n".to_owned() + &accounts(&server, &["a"])));
    monitor.start();
    online(&monitor, &["a"]);
    assert_eq!(answering(&monitor), 0);
    assert!(http(address(&monitor), &request("GET", "/livez", "localhost")).contains("200 OK"));
    let one = answering(&monitor);
    assert!(one > 0);
    assert_eq!(ask(&monitor, &["status"]).status.code(), Some(0));
    assert_eq!(answering(&monitor), 2 * one);
    assert_eq!(ask(&monitor, &["status"]).status.code(), Some(0));
    assert_eq!(answering(&monitor), 2 * one);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// A mailbox that cannot be opened is told of until it can be, though its account is well; with one connection and with many.
#[tokio::test(flavor = "multi_thread")]
async fn status_tells_of_mailboxes_that_are_not_there() {
    let server = server(&["a", "b"]).await;
    let config = accounts(&server, &["a"])
        + "mailboxes = [\"INBOX\", \"Lists\"]\n"
        + &accounts(&server, &["b"])
        + "mailboxes = [\"INBOX\", \"Lists\"]\nmax_connections = 1\n";
    let mut monitor = Monitor::new(&config);
    monitor.start();
    online(&monitor, &["a", "b"]);
    let shows = |what: &str, arguments: &[&str], is_there: &dyn Fn(&str) -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let shown = text(&ask(&monitor, arguments));
            if is_there(&shown) {
                return;
            }
            assert!(Instant::now() < end, "{what}: {shown}\n{}", monitor.log());
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let told =
        |shown: &str| shown.contains("trouble   2 × mailbox: ") && shown.contains("(a/Lists, for one)");
    shows("both", &["status"], &told);
    let listed = |shown: &str| shown.lines().filter(|line| line.contains("  Lists: ")).count() == 2;
    shows("both", &["accounts", "list"], &listed);
    server.store().deliver("b", "Lists", b"Subject: x\r\n\r\n");
    assert_eq!(ask(&monitor, &["reconnect", "-a", "b"]).status.code(), Some(0));
    shows("one", &["status"], &|shown: &str| shown.contains("trouble   1 × mailbox: "));
    monitor.configure(&config.replacen(", \"Lists\"", "", 1));
    assert_eq!(ask(&monitor, &["reload"]).status.code(), Some(0));
    shows("none", &["status"], &|shown: &str| shown.contains("online 2") && !shown.contains("trouble"));
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_again_and_again_ends_with_whoever_reads_it() {
    let server = server(&["a"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    let mut watch = monitor.command();
    let mut watch = watch.args(["status", "--watch"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut first = [0; 9];
    watch.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"idlewatch");
    let end = Instant::now() + Duration::from_secs(60);
    while watch.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            watch.kill().unwrap();
            panic!("it goes on for nobody");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(watch.wait().unwrap().code(), Some(0));
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_how_all_accounts_are() {
    let server = server(&["a", "b", "c"]).await;
    let config = accounts(&server, &["a", "b", "c"]) + "enabled = false\n";
    let mut monitor = Monitor::new(&config);
    let not_running = ask(&monitor, &["status"]);
    assert_eq!(not_running.status.code(), Some(3), "{not_running:?}");
    assert_eq!(ask(&monitor, &["--quiet", "status"]).status.code(), Some(3));
    server.store().set_password("b", "another");
    monitor.start();
    online(&monitor, &["a"]);
    monitor.wait("refused", |events| !states(events, "b").is_empty());
    let socket = monitor.dir.path().join("state/idlewatch.sock");
    assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let status = ask(&monitor, &["status"]);
    assert_eq!(status.status.code(), Some(0), "{status:?}");
    let shown = text(&status);
    assert!(shown.contains("accounts  auth_failed 1 · disabled 1 · online 1"), "{shown}");
    assert!(shown.contains("trouble   1 × auth_failed:") && shown.contains("(b, for one)"), "{shown}");
    assert!(ask(&monitor, &["--quiet", "status"]).stdout.is_empty());
    let json: Value = serde_json::from_slice(&ask(&monitor, &["status", "--json"]).stdout).unwrap();
    assert_eq!(
        (&json["accounts"]["online"], &json["ready"], &json["instance"]),
        (&1.into(), &true.into(), &"test".into())
    );
    assert_eq!(
        (&json["troubles"][0]["error"]["type"], &json["troubles"][0]["example"]),
        (&"auth".into(), &"b".into())
    );

    let painted = text(&ask(&monitor, &["--color", "always", "status", "--state", "auth_failed"]));
    assert!(painted.contains("\x1b[32monline 1\x1b[0m"), "{painted:?}");
    assert!(painted.contains("\nb        \x1b[1m\x1b[31mauth_failed\x1b[0m  "), "{painted:?}");

    monitor.signal("USR2");
    monitor.wait_log("3 accounts: auth_failed 1 · disabled 1 · online 1");
    let list = text(&ask(&monitor, &["accounts", "list"]));
    let mut lines = list.lines();
    assert_eq!(lines.next(), Some("ACCOUNT  STATE           SINCE  NEXT TRY  ERROR"), "{list}");
    let of_b = lines.clone().nth(1).unwrap();
    assert!(
        of_b.starts_with("b        auth_failed  ") && of_b.split_whitespace().nth(3).unwrap().ends_with('m'),
        "{list}"
    );
    assert_eq!(lines.count(), 3, "{list}");
    let failed = ask(&monitor, &["accounts", "list", "--state", "auth_failed", "--json"]);
    let account: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert_eq!((&account["id"], &account["mailboxes"][0]["state"]), (&"b".into(), &"waiting".into()));
    assert!(account["next_login_at"].is_string() && account["last_proven_alive"].is_null(), "{account}");
    let online = ask(&monitor, &["accounts", "list", "--state", "online", "--json"]);
    let account: Value = serde_json::from_slice(&online.stdout).unwrap();
    assert!(account["last_proven_alive"].is_string(), "{account}");
    assert_eq!(account["history"].as_array().unwrap().len(), 1, "{account}");
    let only_b = text(&ask(&monitor, &["accounts", "list", "-a", "[bx]*"]));
    assert!(only_b.lines().count() == 2 && only_b.contains("\nb        auth_failed  "), "{only_b}");
    assert_eq!(ask(&monitor, &["accounts", "list", "-a", "[b"]).status.code(), Some(2));
    assert_eq!(ask(&monitor, &["accounts", "list", "--state", "happy"]).status.code(), Some(2));
    assert_eq!(monitor.stop().code(), Some(0));
    assert!(!socket.exists());
    assert!(!(shown + &list + &account.to_string() + &monitor.log()).contains(PASSWORD));
}

/// That this user may not ask is another thing than that there is nobody to be asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_of_another_user_is_not_said_to_be_gone() {
    let server = server(&["a"]).await;
    let dir = open_dir();
    // Where the program was built, not everybody may go.
    let program = dir.path().join("idlewatch");
    std::fs::copy(env!("CARGO_BIN_EXE_idlewatch"), &program).unwrap();
    let mut monitor = Monitor::in_dir(dir, &accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    for command in
        [&["status"][..], &["--quiet", "status"], &["reload"], &["replay", "-a", "a", "--since", "1d"]]
    {
        let mut other = Command::new("setpriv");
        other.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(&program);
        let refused = other.arg("-c").arg(monitor.config()).args(command).output().unwrap();
        let said = text(&refused);
        assert_eq!(refused.status.code(), Some(77), "{command:?}: {said}");
        assert!(said.contains("may not be opened by this user") && !said.contains("no monitor"), "{said}");
    }
    assert_eq!(monitor.stop().code(), Some(0));
}

/// A refused login waits for minutes, and for ever after six; a person who knows better need not.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_have_an_account_tried_again() {
    let server = server(&["a"]).await;
    server.store().set_password("a", "another");
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    monitor.start();
    monitor.wait("refused", |events| states(events, "a") == ["auth_failed"]);
    let in_vain = ask(&monitor, &["resume", "-a", "a"]);
    assert_eq!(in_vain.status.code(), Some(1), "{in_vain:?}");
    assert!(text(&in_vain).starts_with("a is auth_failed, next try in "), "{in_vain:?}");
    server.store().set_password("a", PASSWORD);
    let unknown = ask(&monitor, &["resume", "-a", "nobody"]);
    assert!(unknown.status.code() == Some(1) && text(&unknown).contains("there is no account \"nobody\""));
    let resumed = ask(&monitor, &["resume", "-a", "a"]);
    assert_eq!((resumed.status.code(), text(&resumed).as_str()), (Some(0), "a is online\n"));
    monitor.wait("online", |events| states(events, "a") == ["auth_failed", "online"]);
    // It is forgotten for good: a later refusal begins at its beginning, after a restart too.
    monitor.kill();
    monitor.start();
    monitor.wait("online", |events| states(events, "a").len() == 3);
    assert_eq!(states(&monitor.events(), "a"), ["auth_failed", "online", "online"]);
}

/// It asked us to wait for an hour; a person who knows better need not.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_have_an_output_tried_again() {
    let server = server(&["a"]).await;
    let busy = || Answer::Status(503, "Retry-After: 3600\r\n".to_owned());
    let receiver = Receiver::start([busy(), busy()]);
    let hook = format!(
        "[outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/mail\"\nsecret = {{ inline = \"{SECRET}\" }}\ninclude = [\"message.new\"]\n",
        receiver.port
    );
    let mut monitor = Monitor::new(&(accounts(&server, &["a"]) + &hook));
    monitor.start();
    online(&monitor, &["a"]);
    server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    monitor.wait("it waits", |_| text(&ask(&monitor, &["outputs", "list"])).contains("next try in "));
    let in_vain = ask(&monitor, &["outputs", "retry", "hook"]);
    assert_eq!(in_vain.status.code(), Some(1), "{in_vain:?}");
    assert!(text(&in_vain).contains("503") && text(&in_vain).contains("; next try in "), "{in_vain:?}");
    let retried = ask(&monitor, &["outputs", "retry", "hook"]);
    assert_eq!(retried.status.code(), Some(0), "{retried:?}");
    assert!(text(&retried).starts_with("hook ok · 1 delivered · "), "{retried:?}");
    assert_eq!(told(&receiver.taken(), "a"), [1]);
    let well = ask(&monitor, &["outputs", "retry", "hook"]);
    assert!(well.status.success() && text(&well).starts_with("hook ok"), "{well:?}");
    let unknown = ask(&monitor, &["outputs", "retry", "nothing"]);
    assert!(unknown.status.code() == Some(1) && text(&unknown).contains("there is no output \"nothing\""));
    let listed = ask(&monitor, &["outputs", "list", "--json"]);
    assert_eq!(text(&listed).lines().filter(|line| line.contains("\"name\":\"hook\"")).count(), 1);
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_is_not_required_is_told_to_lose_the_oldest_and_gets_the_newest() {
    let server = server(&["a"]).await;
    let receiver = Receiver::start([Answer::Status(503, "Retry-After: 3600\r\n".to_owned())]);
    let hook = format!(
        "[outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/mail\"\nsecret = {{ inline = \"{SECRET}\" }}\n\
         required = false\nqueue = {{ max_events = 5 }}\nbatch = {{ max_events = 10 }}\n",
        receiver.port
    );
    let mut monitor = Monitor::new(&(accounts(&server, &["a"]) + &hook));
    monitor.start();
    online(&monitor, &["a"]);
    for _ in 0..20 {
        server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    }
    monitor.wait("all told", |events| told(events, "a").last() == Some(&20));
    monitor.wait_log("not required: events are dropped for it");
    // Once the other output has them for good: so long nothing is lost.
    let lost = monitor.events().len() - 5;
    let expected = format!("hook retrying · 0 delivered · 5 waiting · {lost} dropped: ");
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let listed = text(&ask(&monitor, &["outputs", "list"]));
        if listed.contains(&expected) {
            break;
        }
        assert!(Instant::now() < end, "{expected}{listed}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(ask(&monitor, &["outputs", "retry", "hook"]).status.code(), Some(0));
    monitor.wait("it has the newest", |_| told(&receiver.taken(), "a").last() == Some(&20));
    assert!(told(&receiver.taken(), "a").ends_with(&[17, 18, 19, 20]), "{:?}", receiver.taken());
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Six refusals, of an earlier process at that. To want new connections is not to want another login.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_account_is_resumed() {
    let server = server(&["a"]).await;
    server.store().set_password("a", "another");
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    monitor.start();
    monitor.wait("refused", |events| states(events, "a") == ["auth_failed"]);
    assert_eq!(ask(&monitor, &["reconnect", "-a", "a"]).status.code(), Some(0));
    monitor.kill();
    let journal = rusqlite::Connection::open(monitor.dir.path().join("state/journal.db")).unwrap();
    assert_eq!(
        journal.execute("UPDATE refusals SET logins = json_set(logins, '$.count', 6)", []).unwrap(),
        1
    );
    drop(journal);
    monitor.start();
    let expected = ["auth_failed", "suspended"];
    monitor.wait("suspended", |events| states(events, "a") == expected);
    server.store().set_password("a", PASSWORD);
    assert_eq!(ask(&monitor, &["resume", "-a", "a"]).status.code(), Some(0));
    let expected = ["auth_failed", "suspended", "online"];
    monitor.wait("online", |events| states(events, "a") == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_may_have_connections_made_anew() {
    let server = server(&["a"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    let logins = || monitor.log().matches("session ended").count();
    assert_eq!(ask(&monitor, &["reconnect", "-a", "a"]).status.code(), Some(0));
    monitor.wait("left", |_| logins() == 1);
    server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    let events = monitor.wait("told", |events| told(events, "a") == [1]);
    assert_eq!(states(&events, "a"), ["online"], "it is no trouble");
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_answers_what_it_did() {
    let server = server(&["a", "b"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    monitor.configure(&(accounts(&server, &["a", "b"]) + "prt = 1\n"));
    let refused = ask(&monitor, &["reload"]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(text(&refused).contains("did you mean \"port\"?"), "{refused:?}");
    // A wrong configuration is no reason not to be told how things are.
    let status = ask(&monitor, &["status"]);
    assert!(text(&status).contains("the last reload was refused"), "{status:?}");
    // Not even one that is no TOML: the monitor itself says what is wrong, and knows that it was refused.
    monitor.configure("[[accounts]\n");
    let command = |argument: &str| {
        let mut command = monitor.command();
        command.arg(argument).env("RUNTIME_DIRECTORY", monitor.dir.path().join("state")).output().unwrap()
    };
    assert_eq!(command("reload").status.code(), Some(78));
    assert_eq!(command("status").status.code(), Some(0));
    monitor.configure(&accounts(&server, &["a", "b"]));
    let done = ask(&monitor, &["reload"]);
    assert_eq!(text(&done), "1 account added, 0 removed, 0 changed, 1 as before\n");
    online(&monitor, &["a", "b"]);
    assert!(!text(&ask(&monitor, &["status"])).contains("refused"));
    monitor.stop();
    assert_eq!(ask(&monitor, &["reload"]).status.code(), Some(69));
}

/// The address of http.listen, as the log has it.
pub(crate) fn address(monitor: &Monitor) -> SocketAddr {
    let log = monitor.log();
    let (_, rest) = log.split_once("status and health at http://").unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

/// The whole answer to a request.
pub(crate) fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn request(method: &str, path: &str, host: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// L28
#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_over_tcp_may_read_and_nobody_hinders_the_others() {
    let server = server(&["a"]).await;
    let mut monitor =
        Monitor::new(&format!("[http]\nlisten = \"127.0.0.1:0\"\n{}", accounts(&server, &["a"])));
    monitor.start();
    online(&monitor, &["a"]);
    let address = address(&monitor);
    let ask_http = |method, path, host| http(address, &request(method, path, host));
    for path in
        ["/livez", "/readyz", "/api/v1/status", "/api/v1/accounts?limit=1&state=online", "/api/v1/accounts/a"]
    {
        let answer = ask_http("GET", path, "localhost");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("no-store"), "{path}: {answer}");
    }
    assert!(ask_http("GET", "/api/v1/accounts/a", "localhost").contains("\"last_proven_alive\":\"2"));
    for (method, path, host, code) in [
        ("GET", "/api/v1/status", "evil.example", 421),
        ("POST", "/-/reload", "localhost", 403),
        ("POST", "/api/v1/accounts/a/reconnect", "localhost", 403),
        ("POST", "/api/v1/outputs/file/retry", "localhost", 403),
        ("GET", "/../../../../etc/passwd", "localhost", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", "localhost", 404),
        ("GET", "/api/v1/accounts/%2e%2e%2fstate", "localhost", 404),
        ("GET", "/api/v1/accounts/%1b%5b2J", "localhost", 404),
        ("GET", "/api/v1/accounts?limit=-1", "localhost", 400),
        ("GET", "/api/v1/accounts?sort=since", "localhost", 200),
        ("GET", "/api/v1/accounts?sort=bogus", "localhost", 400),
        ("DELETE", "/api/v1/accounts/a", "localhost", 403),
    ] {
        let answer = ask_http(method, path, host);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{method} {path}: {answer}");
        assert!(!answer.contains('\x1b') && !answer.contains("root:"), "{answer}");
    }
    assert!(ask_http("HEAD", "/livez", "localhost").starts_with("HTTP/1.1 200 "));
    assert!(ask_http("GET", "/api/v1/accounts?state=bogus", "localhost").contains("{\"error\":\""));
    // A link is followed; a page of another site that asks for itself gets no answer, and no stream.
    for (site, mode, code) in [
        ("cross-site", "navigate", 200),
        ("none", "navigate", 200),
        ("same-origin", "cors", 200),
        ("cross-site", "no-cors", 403),
        ("same-site", "cors", 403),
    ] {
        let asked = format!(
            "GET /live.js HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: {site}\r\nSec-Fetch-Mode: {mode}\r\nConnection: close\r\n\r\n"
        );
        let answer = http(address, &asked);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{site} {mode}: {answer}");
    }
    // Whoever speaks something else writes nothing into our log, however often.
    for odd in ["\x16\x03\x01\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n", "GET /\r\n\r\n"] {
        assert!(http(address, odd).starts_with("HTTP/1.1 400 "), "{odd}");
    }
    let log = monitor.log();
    assert!(!log.contains("parse error") && !log.contains("stream error"), "{log}");
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(!http(address, &long).starts_with("HTTP/1.1 200"));

    // Two hundred that say one byte and no more.
    let memory = monitor.memory();
    let slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(b"G");
            stream
        })
        .collect();
    assert_eq!(ask(&monitor, &["status"]).status.code(), Some(0), "the socket is another entrance");
    server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    monitor.wait("told", |events| told(events, "a") == [1]);
    assert!(ask_http("GET", "/livez", "localhost").starts_with("HTTP/1.1 200 "), "they were shown the door");
    assert!(monitor.memory() < memory + (16 << 20));
    drop(slow);

    // Another monitor finds the port taken, and says so.
    let mut other = Monitor::new(&format!("[http]\nlisten = \"{address}\"\n{}", accounts(&server, &["a"])));
    other.start();
    assert_eq!(other.wait_end().code(), Some(71));
    assert!(other.log().contains(&format!("http.listen: {address}")), "{}", other.log());
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_listens_to_other_hosts_without_a_token() {
    let server = server(&["a"]).await;
    for listen in ["0.0.0.0:9464", "[::]:9464", "192.0.2.1:9464"] {
        let monitor = Monitor::new(&format!("[http]\nlisten = \"{listen}\"\n{}", accounts(&server, &["a"])));
        let refused = ask(&monitor, &["check", "--no-network"]);
        assert_eq!(refused.status.code(), Some(78), "{refused:?}");
        assert!(
            text(&refused).contains("http.listen: without http.token only loopback is served"),
            "{refused:?}"
        );
    }
}

/// A socket of a monitor that was killed, a file of that name, and a path that is too long.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_cannot_be_had_is_a_warning() {
    let server = server(&["a"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    monitor.kill();
    monitor.start();
    monitor.wait("online again", |events| states(events, "a").len() == 2);
    assert_eq!(ask(&monitor, &["status"]).status.code(), Some(0));
    monitor.stop();
    let long = "x".repeat(120);
    for (runs, (name, why)) in
        [("file", "there is something else of this name"), (&long, "path must be shorter")]
            .into_iter()
            .enumerate()
    {
        if name == "file" {
            std::fs::write(monitor.dir.path().join(name), "x").unwrap();
        }
        monitor.configure(&format!("[http]\nsocket = \"{name}\"\n{}", accounts(&server, &["a"])));
        monitor.start();
        monitor.wait_log("cannot ask this monitor");
        monitor.wait_log(why);
        monitor.wait("online", |events| states(events, "a").len() == runs + 3);
        assert_eq!(monitor.stop().code(), Some(0));
    }
    assert_eq!(std::fs::read_to_string(monitor.dir.path().join("file")).unwrap(), "x");
}

/// promtool has no complaint, labels are closed lists, and an account has series of its own only where that was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_what_prometheus_expects() {
    let ids: Vec<String> = (0..30).map(|number| format!("user{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let server = server(&ids).await;
    let head = "[http]\nlisten = \"127.0.0.1:0\"\n[metrics]\nper_account = [\"user7\"]\n";
    let filters = "[filters.x]\naction = \"drop\"\nany = [{ from = \"noise@*\" }]\n";
    let mut monitor = Monitor::new(&format!("{head}{filters}{}", accounts(&server, &ids)));
    server.store().set_password("user8", "another");
    monitor.start();
    monitor.wait("refused", |events| states(events, "user8") == ["auth_failed"]);
    let well: Vec<&str> = ids.iter().copied().filter(|id| *id != "user8").collect();
    online(&monitor, &well);
    server.store().deliver("user1", "INBOX", b"From: noise@example.org\r\n\r\n");
    server.store().deliver("user1", "INBOX", b"Subject: x\r\n\r\n");
    monitor.wait("told", |events| told(events, "user1") == [2]);
    let answer = http(address(&monitor), &request("GET", "/metrics", "localhost"));
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    let text: String = text.replace("\r\n", "\n");
    for line in [
        "idlewatch_accounts{provider=\"other\",state=\"online\"} 29",
        "idlewatch_accounts{provider=\"other\",state=\"auth_failed\"} 1",
        "idlewatch_imap_connections{provider=\"other\"} 29",
        "idlewatch_imap_connection_attempts_total{provider=\"other\",result=\"success\"} 29",
        "idlewatch_imap_connection_attempts_total{provider=\"other\",result=\"error\"} 1",
        "idlewatch_imap_errors_total{provider=\"other\",type=\"auth\"} 1",
        "idlewatch_events_total{action=\"message.new\"} 1",
        "idlewatch_events_filtered_total 1",
        "idlewatch_liveness_age_seconds_count 29",
        "idlewatch_config_last_reload_successful 1",
        "idlewatch_output_queue_events{output=\"file\"} 0",
        "idlewatch_output_retries_total{output=\"file\"} 0",
        "idlewatch_account_state{account=\"user7\",state=\"online\"} 1",
        "idlewatch_mailboxes{mode=\"idle\"} 29",
        "idlewatch_imap_command_duration_seconds_count{command=\"EXAMINE\"} 29",
        "idlewatch_events_truncated_total 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line} in {text}");
    }
    assert!(
        text.contains("idlewatch_account_last_proven_alive_timestamp_seconds{account=\"user7\"} "),
        "{text}"
    );
    assert!(text.contains("idlewatch_imap_command_duration_seconds_count{command=\"UID FETCH\"} "), "{text}");
    assert!(text.contains("idlewatch_output_delivery_duration_seconds_bucket{le=\"0.01\",output=\"file\"} "));
    monitor.wait("every byte is counted", |_| {
        let text = http(address(&monitor), &request("GET", "/metrics", "localhost"));
        let written = std::fs::metadata(monitor.output()).unwrap().len();
        text.contains(&format!("idlewatch_output_bytes_total{{output=\"file\"}} {written}\r\n"))
            || text.contains(&format!("idlewatch_output_bytes_total{{output=\"file\"}} {written}\n"))
    });
    assert!(!text.contains("user1") && !text.contains("127.0.0.1") && !text.contains("INBOX"), "{text}");
    let promtool = concat!(env!("CARGO_MANIFEST_DIR"), "/target/prometheus/usr/bin/promtool");
    let scraped = monitor.dir.path().join("metrics");
    std::fs::write(&scraped, &text).unwrap();
    let checked = std::process::Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&scraped).unwrap())
        .output()
        .expect("promtool: scripts/unpack prometheus usr/bin/promtool prometheus");
    assert!(
        checked.status.success() && checked.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
    assert_eq!(monitor.stop().code(), Some(0));
}

/// A required output that takes nothing: the monitor is alive, and not ready.
#[tokio::test(flavor = "multi_thread")]
async fn an_output_that_fails_makes_a_monitor_degraded() {
    let server = server(&["a"]).await;
    let out = "[outputs.second]\ntype = \"file\"\npath = \"there/second.jsonl\"\n";
    let config = format!("{out}[http]\nlisten = \"127.0.0.1:0\"\n{}", accounts(&server, &["a"]));
    let mut monitor = Monitor::new(&config);
    let there = monitor.dir.path().join("there");
    std::fs::create_dir(&there).unwrap();
    monitor.start();
    online(&monitor, &["a"]);
    let get = |path| http(address(&monitor), &request("GET", path, "localhost"));
    assert!(get("/readyz").starts_with("HTTP/1.1 200 "));
    std::fs::remove_dir_all(&there).unwrap();
    monitor.signal("USR1");
    server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    monitor.wait_log("events wait in the journal");
    assert!(get("/livez").starts_with("HTTP/1.1 200 "));
    let unready = get("/readyz");
    assert!(unready.starts_with("HTTP/1.1 503 ") && unready.contains("outputs.second: "), "{unready}");
    let status = ask(&monitor, &["status"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    assert!(text(&status).contains("output    second retrying"), "{status:?}");
    std::fs::create_dir(&there).unwrap();
    monitor.wait("ready", |_| get("/readyz").starts_with("HTTP/1.1 200 "));
    let outputs = get("/api/v1/outputs");
    assert!(outputs.contains("\"last_error\":\"") && outputs.contains("\"state\":\"ok\""), "{outputs}");
    assert_eq!(monitor.stop().code(), Some(0));
}

/// What a service manager is told (sd_notify), line by line. It always listens: whoever tells it something waits for that.
struct Manager(mpsc::Receiver<String>);

impl Manager {
    /// It listens beside the monitor's configuration.
    fn of(monitor: &Monitor) -> Self {
        let socket = UnixDatagram::bind(monitor.dir.path().join("notify")).unwrap();
        let (told, hears) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                for line in String::from_utf8_lossy(&buffer[..length]).lines() {
                    if told.send(line.to_owned()).is_err() {
                        return;
                    }
                }
            }
        });
        Self(hears)
    }

    /// As a service, with a watchdog.
    fn start(&self, monitor: &mut Monitor) {
        let mut command = monitor.command();
        command.arg("run").env("NOTIFY_SOCKET", monitor.dir.path().join("notify"));
        command.env("WATCHDOG_USEC", "1000000");
        monitor.start_by(command);
    }

    /// Waits for this line.
    fn hear(&self, wanted: &str) {
        let end = Instant::now() + Duration::from_secs(60);
        let mut heard = Vec::new();
        while heard.last().is_none_or(|line| line != wanted) {
            let line = self.0.recv_timeout(end.saturating_duration_since(Instant::now()));
            heard.push(line.unwrap_or_else(|error| panic!("{wanted}: {error}: {heard:?}")));
        }
    }
}

/// What a service manager hears: ready once the outputs are open, how many are online, that all threads live, and the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_manager_is_told() {
    let server = server(&["a", "b"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a", "b"]));
    let manager = Manager::of(&monitor);
    manager.start(&mut monitor);
    manager.hear("READY=1");
    manager.hear("STATUS=online 2/2");
    manager.hear("WATCHDOG=1");
    manager.hear("WATCHDOG=1");
    server.store().set_password("b", "another");
    server.drop_connections();
    manager.hear("STATUS=online 1/2, 1 in trouble");
    monitor.signal("TERM");
    manager.hear("STOPPING=1");
    assert_eq!(monitor.wait_end().code(), Some(0));
}

/// A journal without room waits for an output, for a night perhaps: a start that took so long would be ended by the manager.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_with_a_full_journal_has_started() {
    let server = server(&["a"]).await;
    let receiver = Receiver::start(std::iter::repeat_n(Answer::status(503), 10_000));
    let hook = format!(
        "[journal]\nmax_bytes = \"1MiB\"\n[outputs.hook]\ntype = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\nsecret = {{ inline = \"{SECRET}\" }}\n",
        receiver.port
    );
    let mut monitor = Monitor::new(&format!("{hook}{}", accounts(&server, &["a"])));
    let manager = Manager::of(&monitor);
    manager.start(&mut monitor);
    online(&monitor, &["a"]);
    let large = format!("From: Eve <eve@example.org>\r\nSubject: {}\r\n\r\n", "news ".repeat(300));
    for _ in 0..1000 {
        server.store().deliver("a", "INBOX", large.as_bytes());
    }
    monitor.wait_log("the journal is full");
    monitor.signal("TERM");
    manager.hear("STOPPING=1");
    assert_eq!(monitor.wait_end().code(), Some(0));
    manager.start(&mut monitor);
    manager.hear("READY=1");
    manager.hear("STATUS=online 0/0, not ready");
    manager.hear("WATCHDOG=1");
    let status = ask(&monitor, &["status"]);
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    assert_eq!(monitor.stop().code(), Some(0));
}

/// As `LoadCredential=` hands it over: a file of the service's alone, in a directory that the environment names. A new password in it is
/// noticed while the old one is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_of_the_service_manager_is_the_password() {
    let server = server(&["a"]).await;
    let inline = format!("{{ inline = \"{PASSWORD}\" }}");
    let config = accounts(&server, &["a"]).replace(&inline, "{ credential = \"work\" }");
    let mut monitor = Monitor::new(&config);
    let without = monitor.command().args(["check", "--no-network"]).output().unwrap();
    assert_eq!(without.status.code(), Some(78));
    assert!(text(&without).contains("the credential work: $CREDENTIALS_DIRECTORY is not set"), "{without:?}");
    let credentials = monitor.dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    let hand_over = |password: &str| std::fs::write(credentials.join("work"), password).unwrap();
    hand_over("not this");
    let mut command = monitor.command();
    command.arg("run").env("CREDENTIALS_DIRECTORY", &credentials);
    monitor.start_by(command);
    monitor.wait("refused", |events| states(events, "a") == ["auth_failed"]);
    hand_over(PASSWORD);
    online(&monitor, &["a"]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// The unit that is shipped: nothing to say for systemd's own checker, and little for its security audit.
#[test]
fn the_unit_is_sound_and_hardened() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/idlewatch.service");
    let dir = tempfile::tempdir().unwrap();
    // The programs that it names are not installed here.
    let shipped = std::fs::read_to_string(unit).unwrap();
    let named = shipped.replace("/usr/bin/idlewatch", env!("CARGO_BIN_EXE_idlewatch"));
    let path = dir.path().join("idlewatch.service");
    std::fs::write(&path, named).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&path).output().unwrap();
        (output.status.success(), text(&output))
    };
    let (sound, said) = analyze(&["verify", "--man=no"]);
    assert!(sound && !said.contains("idlewatch.service"), "{said}");
    let (hardened, said) = analyze(&["security", "--offline=true", "--threshold=15"]);
    assert!(hardened, "{said}");
}

/// What the unit says by this key.
fn of_the_unit(key: &str) -> Vec<String> {
    let unit = include_str!("../../packaging/idlewatch.service");
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned).collect()
}

/// Its lines of this key, for another configuration.
fn by_the_unit(key: &str, monitor: &Monitor) -> Vec<Command> {
    let command = |line: String| {
        let line = line.replace("/etc/idlewatch/idlewatch.toml", &monitor.config().display().to_string());
        let line = line.replace("/usr/bin/idlewatch", env!("CARGO_BIN_EXE_idlewatch"));
        let line = line.replace("$MAINPID", &monitor.pid_if_any().unwrap_or_default().to_string());
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        command
    };
    of_the_unit(key).into_iter().map(command).collect()
}

/// systemd gives credentials to the main process, and to none of those that reload it (seen with 252 and 257).
#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_reloaded_without_its_credentials_at_hand() {
    let server = server(&["a", "b"]).await;
    let inline = format!("{{ inline = \"{PASSWORD}\" }}");
    let config = |ids| accounts(&server, ids).replace(&inline, "{ credential = \"work\" }");
    let mut monitor = Monitor::new(&config(&["a"]));
    let credentials = tempfile::tempdir().unwrap();
    std::fs::write(credentials.path().join("work"), PASSWORD).unwrap();
    let mut start = by_the_unit("ExecStart", &monitor).pop().unwrap();
    start.env("CREDENTIALS_DIRECTORY", credentials.path());
    monitor.start_by(start);
    online(&monitor, &["a"]);
    let reload = |monitor: &Monitor| {
        let ended = |mut line: Command| line.output().unwrap();
        by_the_unit("ExecReload", monitor).into_iter().map(ended).find(|done| !done.status.success())
    };
    monitor.configure(&config(&["a", "b"]));
    assert!(reload(&monitor).is_none_or(|refused| panic!("{}", text(&refused))));
    online(&monitor, &["b"]);
    monitor.configure(&config(&["a", "a"]));
    let refused = reload(&monitor).expect("a wrong one");
    assert_eq!(refused.status.code(), Some(78), "{}", text(&refused));
    assert!(text(&refused).contains("is the id of another account already"), "{}", text(&refused));
    assert_eq!(monitor.stop().code(), Some(0));
}

/// As in an image that has none (a static program needs nothing else to be asked).
#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_is_asked_where_there_are_no_root_certificates() {
    let server = server(&["a"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    let mut status = monitor.command();
    status.arg("status").env("SSL_CERT_FILE", "/dev/null").env("SSL_CERT_DIR", monitor.dir.path());
    let status = status.output().unwrap();
    assert_eq!(status.status.code(), Some(0), "{}", text(&status));
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Everything that the unit does at a start: one secret that is not there keeps no other account from being watched.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_keeps_the_service_from_no_start() {
    let server = server(&["a", "b"]).await;
    let inline = format!("{{ inline = \"{PASSWORD}\" }}");
    let missing = accounts(&server, &["b"]).replace(&inline, "{ file = \"missing\" }");
    let mut monitor = Monitor::new(&(accounts(&server, &["a"]) + &missing));
    for mut check in by_the_unit("ExecStartPre", &monitor) {
        let done = check.output().unwrap();
        assert!(done.status.success(), "{check:?}: {}", text(&done));
    }
    let start = by_the_unit("ExecStart", &monitor).pop().unwrap();
    monitor.start_by(start);
    online(&monitor, &["a"]);
    monitor.wait("told", |events| states(events, "b") == ["auth_failed"]);
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Only how the main process ends keeps systemd from another start (RestartPreventExitStatus=): a check before it would be made, and
/// refused, every five seconds.
#[test]
fn a_wrong_configuration_ends_the_service_for_good() {
    let monitor = Monitor::new("[monitr]\n");
    assert_eq!(ask(&monitor, &["run"]).status.code(), Some(78));
    assert!(of_the_unit("RestartPreventExitStatus")[0].split(' ').any(|code| code == "78"));
    assert_eq!(of_the_unit("ExecStartPre"), [""; 0]);
}

/// Syslog by UDP and `source_address` bind to port 0. `any` means that too, where systemd has BPF (it has in Debian 13).
#[test]
fn the_unit_leaves_the_ports_that_the_kernel_chooses() {
    let denied = of_the_unit("SocketBindDeny");
    assert!(!denied.is_empty());
    for rule in denied {
        let ports = rule.rsplit(':').next().unwrap();
        let first = ports.split('-').next().unwrap().parse::<u16>();
        assert!(first.is_ok_and(|port| port > 0), "{rule}");
    }
}

/// Looked at without a browser: everything that is promised stands in the HTML itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_how_all_are_without_any_script() {
    let ids: Vec<String> = (0..150).map(|number| format!("user{number:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let server = server(&ids).await;
    server.store().set_password("user149", "another");
    let pace =
        "[connections.per_host]\nmax_connecting = 50\nrate = \"1000/s\"\n[http]\nlisten = \"127.0.0.1:0\"\n";
    let mut monitor = Monitor::new(&format!("{pace}{}", accounts(&server, &ids)));
    monitor.start();
    online(&monitor, &ids[..149]);
    monitor.wait("refused", |events| states(events, "user149") == ["auth_failed"]);
    server.store().deliver("user001", "INBOX", b"Subject: CANARY-subject\r\n\r\n");
    monitor.wait("told", |events| told(events, "user001") == [1]);
    let get = |path: &str| http(address(&monitor), &request("GET", path, "localhost"));
    let page = get("/");
    for wanted in [
        "<b>150</b>",
        "auth_failed",
        "user149",
        "1 in the last hour",
        "/user099\"",
        "after=user099",
        "content-security-policy: default-src 'none';",
    ] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    assert!(!page.contains("CANARY") && !page.contains("/user100\""), "{page}");
    assert!(get("/?after=user099").contains("/user148\""));
    let found = get("/?q=user12");
    assert!(found.contains("/user120\"") && !found.contains("/user119\""), "{found}");
    assert!(!get("/?state=auth_failed").contains("/user001\""));
    let one = get("/accounts/user149");
    assert!(one.contains("next try") && one.contains("INBOX") && one.contains("waiting"), "{one}");
    assert!(get("/style.css").contains("color-scheme") && get("/live.js").contains("EventSource"));
    // Those who are told what is new are told so, and are few.
    let open = || {
        let mut stream = TcpStream::connect(address(&monitor)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request("GET", "/live", "localhost").as_bytes()).unwrap();
        let mut head = [0; 4096];
        let length = stream.read(&mut head).unwrap();
        (stream, String::from_utf8_lossy(&head[..length]).into_owned())
    };
    let streams: Vec<_> = (0..16).map(|_| open()).collect();
    assert!(
        streams
            .iter()
            .all(|(_, head)| head.starts_with("HTTP/1.1 200 ") && head.contains("text/event-stream"))
    );
    let refused = open().1;
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("connection: close"), "{refused}");
    let mut first = std::io::BufReader::new(&streams[0].0);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut first, &mut line).unwrap() > 0);
    }
    drop(streams);
    monitor.wait("others may be told", |_| open().1.starts_with("HTTP/1.1 200 "));
    assert_eq!(monitor.stop().code(), Some(0));
}

/// Each outage once, with where and why, and its end: not each try.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_in_the_log_once_and_so_is_its_end() {
    let server = server(&["a"]).await;
    let mut monitor = Monitor::new(&accounts(&server, &["a"]));
    let mut command = monitor.command();
    command.arg("run").env("RUST_LOG", "info");
    monitor.start_by(command);
    online(&monitor, &["a"]);
    assert!(!monitor.log().contains("account=a"), "that all goes well is no news: {}", monitor.log());
    server.store().set_password("a", "another");
    server.drop_connections();
    monitor.wait("refused", |events| states(events, "a").last().is_some_and(|state| state == "auth_failed"));
    ask(&monitor, &["resume", "-a", "a"]);
    server.store().set_password("a", PASSWORD);
    assert_eq!(ask(&monitor, &["resume", "-a", "a"]).status.code(), Some(0));
    monitor.wait_log("online again");
    let log = monitor.log();
    let refused: Vec<_> = log.lines().filter(|line| line.contains("auth_failed: ")).collect();
    assert!(
        refused.len() == 1 && refused[0].contains("WARN") && refused[0].contains("host=127.0.0.1"),
        "{log}"
    );
    let again = log.lines().find(|line| line.contains("online again")).unwrap();
    assert!(again.contains("INFO") && again.contains("account=a"), "{log}");
    assert_eq!(monitor.stop().code(), Some(0));
}

/// As it is seen on a narrow and low screen: nothing wraps, nothing scrolls, and a new size is heeded.
#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_watched_fits_its_terminal() {
    let names: Vec<String> = (0..40).map(|n| format!("a-rather-long-name-of-an-account-{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let server = server(&names).await;
    let mut monitor = Monitor::new(&accounts(&server, &names));
    monitor.start();
    online(&monitor, &names);
    let script = format!(
        "stty cols 30 rows 10; {} -c {} status --watch --state online",
        env!("CARGO_BIN_EXE_idlewatch"),
        monitor.config().display()
    );
    let mut command = std::process::Command::new("bash");
    command.args(["--norc", "-c", &script]).env("TERM", "xterm");
    let mut session = rexpect::session::spawn_command(command, Some(60_000)).unwrap();
    let screen = |session: &mut rexpect::session::PtySession| {
        let screen = session.exp_string("\x1b[J").unwrap();
        screen
            .lines()
            .map(|line| {
                line.replace("\x1b[H", "")
                    .replace("\x1b[K", "")
                    .replace(|c: char| c == '\r' || !c.is_ascii(), "")
            })
            .collect::<Vec<_>>()
    };
    let painted = screen(&mut session);
    assert_eq!(painted[1], "accounts  \x1b[32monline 40\x1b[0m");
    let plain = |line: &String| line.replace("\x1b[32m", "").replace("\x1b[0m", "");
    let first: Vec<String> = painted.iter().map(plain).collect();
    assert!(first.len() == 9 && first.iter().all(|line| line.chars().count() <= 30), "{first:?}");
    assert!(first[8] == " and 36 more lines" && first[0].starts_with("idlewatch "), "{first:?}");
    assert!(!first.concat().contains('\x1b'), "{first:?}");
    let terminal = session.process().get_file_handle().unwrap();
    std::process::Command::new("stty").args(["cols", "100", "rows", "60"]).stdin(terminal).status().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while screen(&mut session).len() < 42 {
        assert!(std::time::Instant::now() < deadline, "the new size is not heeded");
    }
    assert_eq!(monitor.stop().code(), Some(0));
}
