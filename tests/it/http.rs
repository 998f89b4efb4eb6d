//! `http.listen` with a token, and what the description of its paths promises.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use data_encoding::BASE64;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::admin::{PASSWORD, accounts, address, ask, http, online, server, text};
use crate::support::monitor::{Monitor, states};

const TOKEN: &str = "CANARY-token-0123456789";

/// One that listens to other hosts, too.
fn guarded(more: &str) -> Monitor {
    let monitor =
        Monitor::new(&format!("[http]\nlisten = \"0.0.0.0:0\"\ntoken = {{ file = \"token\" }}\n{more}"));
    write_token(&monitor, TOKEN);
    monitor
}

fn write_token(monitor: &Monitor, token: &str) {
    std::fs::write(monitor.dir.path().join("token"), format!("{token}\n")).unwrap();
}

/// Status and the whole answer.
fn send(monitor: &Monitor, method: &str, path: &str, authorization: Option<&str>) -> (u16, String) {
    let shown = authorization.map(|shown| format!("Authorization: {shown}\r\n")).unwrap_or_default();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: monitor.example\r\n{shown}Connection: close\r\n\r\n");
    let answer = http(address(monitor), &request);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, answer)
}

fn bearer() -> String {
    format!("Bearer {TOKEN}")
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_token_may_read_and_change_and_nobody_else() {
    let server = server(&["a"]).await;
    let mut monitor = guarded(&accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    let (bearer, password) = (bearer(), format!("Basic {}", BASE64.encode(format!("me:{TOKEN}").as_bytes())));
    for (method, path, shown, status) in [
        ("GET", "/livez", None, 200),
        ("GET", "/readyz", None, 200),
        ("GET", "/", None, 401),
        ("GET", "/metrics", None, 401),
        ("GET", "/api/v1/accounts/a", Some("Bearer x"), 401),
        ("POST", "/-/reload", None, 401),
        ("GET", "/metrics", Some(bearer.as_str()), 200),
        ("GET", "/", Some(&password), 200),
        ("GET", "/api/v1/status", Some(&password), 200),
        ("POST", "/-/reload", Some(&password), 403),
        ("POST", "/api/v1/accounts/a/resume", Some(&password), 403),
        ("POST", "/api/v1/outputs/file/retry", Some(&password), 403),
        ("POST", "/api/v1/outputs/file/retry", None, 401),
        ("POST", "/api/v1/outputs/file/retry", Some(&bearer), 200),
        ("POST", "/api/v1/accounts/a/resume", Some(&bearer), 200),
        ("POST", "/-/reload", Some(&bearer), 200),
    ] {
        let (answered, answer) = send(&monitor, method, path, shown);
        assert_eq!(answered, status, "{method} {path} {shown:?}: {answer}");
        assert!(status != 401 || answer.to_lowercase().contains("www-authenticate: basic"), "{answer}");
        assert!(!answer.contains(TOKEN), "{answer}");
    }
    // There are few places, and a stranger keeps none of them.
    for (shown, kept) in [(None, false), (Some("Bearer x"), false), (Some(bearer.as_str()), true)] {
        let answer = head_of_the_first_of_many(&monitor, "/livez", shown);
        assert_eq!(!answer.contains("connection: close"), kept, "{shown:?}: {answer}");
    }
    // Guessing.
    let guess = || send(&monitor, "GET", "/api/v1/status", Some("Bearer guess")).0;
    let guesses: Vec<u16> = (0..12).map(|_| guess()).collect();
    assert_eq!((guesses[0], guesses[11]), (401, 429), "{guesses:?}");
    let (status, answer) = send(&monitor, "GET", "/api/v1/status", Some("Bearer guess"));
    assert!(status == 429 && answer.to_lowercase().contains("retry-after: 60"), "{answer}");
    let (status, _) = send(&monitor, "GET", "/api/v1/status", Some(&bearer));
    assert_eq!(status, 200, "whoever guesses does not lock out others behind the same proxy");
    for (method, path, told) in [
        ("GET", "/api/v1/accounts?limit=x", "limit: expected a number up to 1000, found \\\"x\\\""),
        ("GET", "/api/v1/accounts?state=up", "state: expected one of "),
        ("POST", "/api/v1/accounts/a/replay?since=yesterday", "since: expected an age like 24h"),
        ("POST", "/api/v1/accounts/a/replay?since=1h&from_uid=0", "from_uid: expected a UID"),
    ] {
        let (status, answer) = send(&monitor, method, path, Some(&bearer));
        assert!(status == 400 && answer.contains(told), "{answer}");
    }
    let (status, answer) = send(&monitor, "POST", "/api/v1/accounts/a/replay?since=1h", Some(&bearer));
    assert!(status == 200 && answer.contains("\"settled\":true"), "{answer}");
    assert_eq!(send(&monitor, "GET", "/livez", None).0, 200);
    assert_eq!(ask(&monitor, &["status"]).status.code(), Some(0), "the socket is another entrance");
    let log = monitor.log();
    assert_eq!(log.matches("127.0.0.1 has shown too many wrong tokens").count(), 1, "{log}");
    assert!(!log.contains(TOKEN) && !log.contains("Bearer guess"), "{log}");
    assert_eq!(monitor.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_token_there_is_no_start() {
    let server = server(&["a"]).await;
    let mut monitor = guarded(&accounts(&server, &["a"]));
    write_token(&monitor, "short");
    monitor.start();
    assert_eq!(monitor.wait_end().code(), Some(71));
    assert!(
        monitor.log().contains("http.token: the token is shorter than 16 characters"),
        "{}",
        monitor.log()
    );
    std::fs::remove_file(monitor.dir.path().join("token")).unwrap();
    monitor.start();
    assert_eq!(monitor.wait_end().code(), Some(71));
    assert!(monitor.log().contains("http.token: the secret file "), "{}", monitor.log());
}

/// Many more than there are places, each with a header that goes on byte by byte and never ends.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_never_end_keep_nobody_out() {
    let server = server(&["a"]).await;
    let mut monitor = guarded(&accounts(&server, &["a"]));
    monitor.start();
    online(&monitor, &["a"]);
    let address = address(&monitor);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let dripping = std::thread::spawn(move || {
        let mut slow: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
        for stream in &mut slow {
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nX: ");
        }
        while stopped.recv_timeout(Duration::from_millis(200))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            for stream in &mut slow {
                let _ = stream.write_all(b"x");
            }
        }
    });
    assert_eq!(send(&monitor, "GET", "/api/v1/status", Some(&bearer())).0, 200);
    drop(stop);
    dripping.join().unwrap();
    assert_eq!(monitor.stop().code(), Some(0));
}

/// The head of an answer to one who means to ask again on the same connection.
fn head_of_the_first_of_many(monitor: &Monitor, path: &str, authorization: Option<&str>) -> String {
    let mut stream = TcpStream::connect(address(monitor)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let authorization = authorization.map(|shown| format!("Authorization: {shown}\r\n")).unwrap_or_default();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{authorization}\r\n").as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    lines.by_ref().take_while(|line| !line.is_empty()).collect::<Vec<_>>().join("\n").to_lowercase()
}

/// The description of the paths, as it is served; nothing may be in an answer that it does not name.
pub(crate) struct Description(Value);

impl Description {
    pub(crate) fn new(served: &str) -> Self {
        let mut description = serde_json::from_str(served).unwrap();
        close(&mut description);
        Self(description)
    }

    /// Whether an answer is one that is described.
    pub(crate) fn check(&self, method: &str, path: &str, status: u16, answer: &str) {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let described = &self.0["paths"][path][method.to_lowercase()]["responses"][status.to_string()];
        let content = described["content"].as_object();
        let content =
            content.unwrap_or_else(|| panic!("{method} {path}: {status} is not described: {answer}"));
        let (kind, described) = content.iter().next().unwrap();
        assert!(head.to_lowercase().contains(&format!("content-type: {kind}")), "{method} {path}: {head}");
        if kind != "application/json" {
            return;
        }
        let mut schema = described["schema"].clone();
        schema["components"] = self.0["components"].clone();
        let validator: Validator = jsonschema::validator_for(&schema).unwrap();
        let body: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {answer}"));
        let wrong: Vec<_> = validator.iter_errors(&body).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{method} {path} {status}: {wrong:?}: {body}");
    }
}

/// Objects with named properties have no others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            object.values_mut().for_each(close);
            if object.contains_key("properties") && object.get("type") == Some(&"object".into()) {
                object.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_answers_as_it_is_described() {
    let server = server(&["a", "b", "c"]).await;
    server.store().set_password("b", "another");
    let config = accounts(&server, &["a", "b", "c"]) + "enabled = false\nlabels = { team = \"x\" }\n";
    let mut monitor = guarded(&config);
    monitor.start();
    online(&monitor, &["a"]);
    monitor.wait("refused", |events| states(events, "b") == ["auth_failed"]);
    server.store().deliver("a", "INBOX", b"Subject: x\r\n\r\n");
    monitor.wait("told", |events| events.iter().any(|event| event["event"]["action"] == "message.new"));
    let bearer = bearer();
    let (_, served) = send(&monitor, "GET", "/api/v1/openapi.json", Some(&bearer));
    let description = Description::new(served.split_once("\r\n\r\n").unwrap().1);
    let ask = |method: &str, path: &str, described: &str, shown: Option<&str>| {
        let (status, answer) = send(&monitor, method, path, shown);
        description.check(method, described, status, &answer);
        status
    };
    let paths = description.0["paths"].as_object().unwrap();
    let mut asked = 0;
    for (described, methods) in paths.iter().filter(|(path, _)| *path != "/live") {
        for method in methods.as_object().unwrap().keys() {
            for id in ["a", "b", "c", "nobody"] {
                let output = if id == "nobody" { id } else { "file" };
                let path = described.replace("{id}", id).replace("{name}", output);
                let path = path.replace("{wish}", "resume");
                let status = ask(&method.to_uppercase(), &path, described, Some(&bearer));
                let expected = match path.as_str() {
                    path if path.ends_with("/replay") => 400,
                    // Its journal is a file.
                    "/api/v1/cluster" => 404,
                    path if path.contains("nobody") || path.ends_with("/c/resume") => 404,
                    _ => 200,
                };
                assert_eq!(status, expected, "{path}");
                let health = ["/livez", "/readyz"].contains(&described.as_str());
                assert_eq!(
                    ask(&method.to_uppercase(), &path, described, None),
                    if health { 200 } else { 401 }
                );
                asked += 1;
            }
        }
    }
    assert!(asked >= 17 * 4 - 4, "{asked}");
    let wish = "/api/v1/accounts/{id}/{wish}";
    assert_eq!(ask("POST", "/api/v1/accounts/a/reconnect", wish, Some(&bearer)), 202);
    let replay = "/api/v1/accounts/{id}/replay";
    for (query, status) in
        [("a/replay?from_uid=1", 200), ("c/replay?from_uid=1", 404), ("a/replay?from_uid=1&output=x", 400)]
    {
        assert_eq!(
            ask("POST", &format!("/api/v1/accounts/{query}"), replay, Some(&bearer)),
            status,
            "{query}"
        );
    }
    assert_eq!(ask("GET", "/api/v1/accounts?limit=x", "/api/v1/accounts", Some(&bearer)), 400);
    monitor.configure("[[accounts]\n");
    assert_eq!(ask("POST", "/-/reload", "/-/reload", Some(&bearer)), 422);
    // The one that does not end.
    let mut live = TcpStream::connect(address(&monitor)).unwrap();
    let request = format!("GET /live HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\r\n");
    live.write_all(request.as_bytes()).unwrap();
    live.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut head = [0; 2048];
    let length = live.read(&mut head).unwrap();
    description.check("GET", "/live", 200, &String::from_utf8_lossy(&head[..length]));
    drop(live);
    assert!(!text(&crate::admin::ask(&monitor, &["status", "--json"])).contains(PASSWORD));
    assert_eq!(monitor.stop().code(), Some(0));
}
