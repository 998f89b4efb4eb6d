//! A real Chromium without a screen, driven over the WebDriver protocol (W3C) by Debian's chromium-driver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::process::{Server, free_port};

const PATIENCE: Duration = Duration::from_secs(90);

/// One window.
pub struct Browser {
    port: u16,
    session: String,
    driver: Server,
    _dir: tempfile::TempDir,
}

impl Browser {
    /// `scripts`: whether pages may run theirs.
    pub fn start(scripts: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let command = format!("chromedriver --port={port}");
        let home = dir.path().to_str().unwrap();
        let driver = Server::start(
            &command,
            &[("HOME", home), ("TMPDIR", home)],
            &[port],
            &dir.path().join("driver.log"),
        );
        let arguments = [
            "--headless=new",
            // Its sandbox wants more than a test run by root has.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--no-proxy-server",
            "--disable-background-networking",
            "--window-size=1280,900",
        ];
        let content = "profile.managed_default_content_settings.javascript";
        let options = json!({ "args": arguments, "prefs": { content: if scripts { 1 } else { 2 } } });
        let wanted = json!({ "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" } });
        let mut browser = Self { port, session: String::new(), driver, _dir: dir };
        let answer = browser.ask("POST", "/session", &json!({ "capabilities": { "alwaysMatch": wanted } }));
        browser.session =
            answer["sessionId"].as_str().unwrap_or_else(|| panic!("no browser: {answer}")).to_owned();
        browser
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer: Value = serde_json::from_slice(&body_of(stream)).unwrap();
        answer["value"].take()
    }

    fn tell(&self, command: &str, body: &Value) -> Value {
        let answer = self.ask("POST", &format!("/session/{}/{command}", self.session), body);
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer
    }

    /// Until it is loaded.
    pub fn open(&self, url: &str) {
        self.tell("url", &json!({ "url": url }));
    }

    /// The text of the page, as a person sees it.
    pub fn text(&self) -> String {
        let element = self.element("body");
        let path = format!("/session/{}/element/{element}/text", self.session);
        self.ask("GET", &path, &Value::Null).as_str().unwrap_or_default().to_owned()
    }

    fn element(&self, selector: &str) -> String {
        let found = self.tell("element", &json!({ "using": "css selector", "value": selector }));
        let found = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str);
        found.unwrap_or_else(|| panic!("no {selector}")).to_owned()
    }

    /// Types into a field; `\u{e007}` is the enter key.
    pub fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.tell(&format!("element/{element}/value"), &json!({ "text": text }));
    }

    /// What a function's body returns on the page.
    pub fn evaluate(&self, script: &str) -> Value {
        self.tell("execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Makes the window so narrow, in pixels; Chromium's own least width does not hold.
    pub fn narrow(&self, width: u32) {
        let metrics = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": true });
        let command = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.tell("goog/cdp/execute", &command);
    }

    /// Until the page shows this.
    pub fn wait_for(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.text().contains(text) {
            assert!(Instant::now() < end, "{text:?} is not on the page: {}", self.text());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What pages complained of: errors of scripts, breaches of the policy.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.tell("se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].to_string()).collect()
    }
}

/// The driver keeps connections open, whatever it is asked.
fn body_of(stream: TcpStream) -> Vec<u8> {
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the driver hung up");
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().unwrap();
            }
            None if line.trim().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    body
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        self.driver.kill_what_is_left();
    }
}
