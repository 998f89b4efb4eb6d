//! The monitor as its users run it: a configuration in, lines out.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tempfile::TempDir;

use super::event;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// SIGTERM in a mask of signals.
const TERMINATE: u64 = 1 << 14;

/// A directory with a configuration, a state and an output file, and the process on it.
pub struct Monitor {
    pub dir: TempDir,
    child: Option<Child>,
}

impl Monitor {
    /// `accounts` is the configuration but for the state and the output; it begins within `[monitor]`.
    pub fn new(accounts: &str) -> Self {
        Self::in_dir(tempfile::tempdir().unwrap(), accounts)
    }

    /// In this directory.
    pub fn in_dir(dir: TempDir, accounts: &str) -> Self {
        fs::DirBuilder::new().mode(0o700).create(dir.path().join("state")).unwrap();
        let monitor = Self { dir, child: None };
        monitor.configure(accounts);
        monitor
    }

    pub fn configure(&self, accounts: &str) {
        let head = "[outputs.file]\ntype = \"file\"\npath = \"events.jsonl\"\n[monitor]\ninstance = \"test\"\nstate_dir = \"state\"\n";
        fs::write(self.config(), format!("{head}{accounts}")).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("idlewatch.toml")
    }

    pub fn output(&self) -> PathBuf {
        self.dir.path().join("events.jsonl")
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_idlewatch"));
        command.arg("-c").arg(self.config());
        command
    }

    pub fn start(&mut self) {
        self.start_under(&[]);
    }

    /// As the child of another program, which ends as it does.
    pub fn start_under(&mut self, program: &[&str]) {
        let own = self.command();
        let mut command = match program {
            [] => own,
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(own.get_program()).args(own.get_args());
                command
            }
        };
        command.arg("run");
        self.start_by(command);
    }

    /// Starts it by a command of the test's own.
    pub fn start_by(&mut self, mut command: Command) {
        let log = fs::File::options().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        if !command.get_envs().any(|(name, _)| name == "RUST_LOG") {
            command.env("RUST_LOG", "trace");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// How it ended, if it has.
    pub fn end(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().unwrap().try_wait().unwrap()
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&self) -> bool {
        // A zombie has no memory.
        fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .is_ok_and(|status| status.contains("VmRSS"))
    }

    /// What it holds of memory now, in bytes.
    pub fn memory(&self) -> u64 {
        self.of_status("VmRSS:")
    }

    /// `kill -9` where another program is between, unless it has just ended by itself.
    pub fn kill_child(&mut self) {
        let between = self.pid().to_string();
        let _ = Command::new("pkill").args(["-KILL", "-P", &between]).status();
        self.wait_end();
    }

    /// The most bytes of memory that the process ever held.
    pub fn peak_memory(&self) -> u64 {
        self.of_status("VmHWM:")
    }

    fn of_status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub fn pid(&self) -> u32 {
        self.pid_if_any().unwrap()
    }

    pub fn pid_if_any(&self) -> Option<u32> {
        Some(self.child.as_ref()?.id())
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Ends it as an operator does.
    pub fn stop(&mut self) -> ExitStatus {
        self.wait_for_ears();
        self.signal("TERM");
        self.wait_end()
    }

    /// Until it hears a SIGTERM, or has ended: what it told in an earlier life does not show that this one has come so far.
    fn wait_for_ears(&self) {
        let end = Instant::now() + PATIENCE;
        while self.is_alive() && self.caught_signals() & TERMINATE == 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The mask of the signals that have a handler.
    fn caught_signals(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or_default();
        u64::from_str_radix(mask.trim(), 16).unwrap_or_default()
    }

    pub fn wait_end(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < end, "it does not end: {}", self.last_words());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// `kill -9`
    pub fn kill(&mut self) {
        self.signal("KILL");
        let _ = self.child.take().unwrap().wait();
    }

    /// Killed `rounds` times, with 1 to 19 messages by `deliver` before each and a pause of less than `pause` after them; how
    /// many messages that were.
    pub async fn kill_again_and_again(
        &mut self,
        seed: u64,
        rounds: u32,
        pause: Duration,
        mut deliver: impl FnMut(),
    ) -> u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut sent = 0;
        for _ in 0..rounds {
            for _ in 0..random.random_range(1..20) {
                deliver();
                sent += 1;
            }
            tokio::time::sleep(pause.mul_f64(random.random_range(0.0..1.0))).await;
            self.kill();
            self.start();
        }
        sent
    }

    /// `kill -9`, unless it has ended by itself.
    pub fn kill_if_alive(&mut self) {
        let mut child = self.child.take().unwrap();
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The lines that are complete so far.
    pub fn events(&self) -> Vec<Value> {
        events(&self.output())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until so many lines hold `text`: for files that are too long to be read through again and again.
    pub fn wait_for_lines(&self, text: &str, count: usize) {
        let mut found = 0;
        let mut progress = Instant::now();
        loop {
            let now = fs::read_to_string(self.output()).unwrap_or_default().matches(text).count();
            if now >= count {
                return;
            }
            if now > found {
                (found, progress) = (now, Instant::now());
            }
            assert!(progress.elapsed() < 2 * PATIENCE, "{found} of {count} lines with {text}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the events are as wanted.
    pub fn wait(&self, what: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let end = Instant::now() + PATIENCE;
        loop {
            let events = self.events();
            if wanted(&events) {
                return events;
            }
            assert!(Instant::now() < end, "{what}: {events:#?}\n{}", self.last_words());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until its log has this.
    pub fn wait_log(&self, text: &str) {
        self.wait(text, |_| self.log().contains(text));
    }

    fn last_words(&self) -> String {
        self.log().lines().rev().take(30).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The complete lines of an output file.
pub fn events(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(event).collect()
}

/// The states that an account went through.
pub fn states(events: &[Value], account: &str) -> Vec<String> {
    let own = events.iter().filter(|event| event["idlewatch"]["account"]["id"] == account);
    own.filter_map(|event| Some(event["idlewatch"]["account"]["state"].as_str()?.to_owned())).collect()
}

/// The UIDs that an account's `message.new` events tell.
pub fn told(events: &[Value], account: &str) -> Vec<u64> {
    let own = events.iter().filter(|event| event["idlewatch"]["account"]["id"] == account);
    own.filter(|event| event["event"]["action"] == "message.new")
        .map(|event| event["idlewatch"]["imap"]["uid"].as_u64().unwrap())
        .collect()
}
