//! Who is measured, and how it is started.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ChildStdout;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::child::Kept;
use super::load::{Load, Server};
use super::{Result, proc, wait_for};
use crate::clock;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Candidate {
    /// Fixed bytes on bare tokio.
    Floor,
    /// The monitor.
    Idlewatch,
    /// ImapFlow on Node.
    Imapflow,
    /// Twisted on Python.
    Twisted,
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of `server` and `floor`.
    pub programs: PathBuf,
    /// The monitor's binary.
    pub idlewatch: PathBuf,
    /// Where `run` installs the peers.
    pub peers: PathBuf,
    /// For states and outputs, on a disk.
    pub disk: PathBuf,
    /// Where the soak draws what it saw.
    pub picture: PathBuf,
}

/// How a candidate is to work.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Accounts.
    pub users: u32,
    /// Whether with TLS.
    pub tls: bool,
    /// Whether waiting messages are told too.
    pub all: bool,
    /// Whether idlewatch writes to a file, in place of stdout.
    pub to_file: bool,
    /// Whether idlewatch keeps its state in memory (tmpfs).
    pub state_in_memory: bool,
}

impl Work {
    /// So many accounts, with TLS, to stdout, state on disk.
    pub fn new(users: u32) -> Self {
        Self { users, tls: true, all: false, to_file: false, state_in_memory: false }
    }
}

/// A line of a candidate: the message, and when it was read.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// User and UID.
    pub message: (u32, u32),
    /// CLOCK_MONOTONIC.
    pub at: u64,
}

/// A server, and a candidate that watches all of it.
#[derive(Debug)]
pub struct Run {
    // The candidate ends first.
    child: Kept,
    /// The server.
    pub server: Server,
    /// When the candidate was started.
    pub started_at: u64,
    lines: Lines,
    _folders: [Folder; 2],
}

impl Candidate {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Floor, Self::Idlewatch, Self::Imapflow, Self::Twisted];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Idlewatch => "idlewatch",
            Self::Imapflow => "imapflow",
            Self::Twisted => "twisted",
        }
    }

    /// Whether it is one of the others.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Imapflow | Self::Twisted)
    }

    /// Peers are measured with a tenth of the accounts: what is told is per account.
    pub fn share(self, users: u32) -> u32 {
        if self.is_peer() { (users / 10).max(10) } else { users }
    }

    /// Whether it is there.
    pub fn is_installed(self, places: &Places) -> bool {
        self.program(places).0.exists()
    }

    fn program(self, places: &Places) -> (PathBuf, Vec<String>) {
        let peer = |interpreter: PathBuf, script: PathBuf| (interpreter, vec![script.display().to_string()]);
        match self {
            Self::Floor => (places.programs.join("floor"), Vec::new()),
            Self::Idlewatch => (places.idlewatch.clone(), Vec::new()),
            Self::Imapflow => {
                let folder = places.peers.join("imapflow");
                peer(folder.join("node"), folder.join("peer.mjs"))
            }
            Self::Twisted => {
                let folder = places.peers.join("twisted");
                peer(folder.join("venv/bin/python"), folder.join("peer.py"))
            }
        }
    }

    /// Starts a server, and then the candidate.
    ///
    /// # Errors
    /// Where one of them does not start.
    pub fn run(self, places: &Places, load: &Load, work: &Work) -> Result<Run> {
        let disk = Folder::new(&places.disk)?;
        let memory = Folder::new(Path::new("/dev/shm"))?;
        let server = Server::start(&places.programs.join("server"), disk.path(), load)?;
        let state = if work.state_in_memory { memory.path() } else { disk.path() };
        let (program, mut args) = self.program(places);
        match self {
            Self::Idlewatch => args.extend(idlewatch_args(disk.path(), state, &server, work)?),
            _ => args.extend(common_args(&server, work)),
        }
        let started_at = clock::nanos();
        let mut child = Kept::start(&program, &args)?;
        let lines = match self {
            Self::Idlewatch if work.to_file => Lines::of_file(output(disk.path())),
            _ => Lines::of_pipe(child.stdout().ok_or("no stdout")?),
        };
        Ok(Run { child, server, started_at, lines, _folders: [disk, memory] })
    }
}

impl Run {
    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Waits until all of these are in IDLE.
    ///
    /// # Errors
    /// Where they do not come to rest.
    pub fn wait_for_rest(&mut self, users: u32) -> Result<()> {
        self.wait_for_rest_after(users.into(), users)
    }

    /// The same, after so many logins in all.
    ///
    /// # Errors
    /// Where they do not come to rest.
    pub fn wait_for_rest_after(&mut self, logins: u64, users: u32) -> Result<()> {
        wait_for(&format!("{users} accounts in IDLE"), 120, || {
            self.child.lives()?;
            self.server.is_at_rest(logins, users.into())
        })
    }

    /// Waits until so many messages were told in all.
    ///
    /// # Errors
    /// Where they are not.
    pub fn wait_for_lines(&mut self, count: u64, seconds: u64) -> Result<()> {
        let mut told = 0;
        let waited = wait_for("lines", seconds, || {
            self.child.lives()?;
            told = self.lines.count()?;
            Ok(told >= count)
        });
        waited.map_err(|error| format!("{error}: {told} of {count}").into())
    }

    /// How many messages were told.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn count(&mut self) -> Result<u64> {
        self.lines.count()
    }

    /// What was told on stdout, and when.
    pub fn seen(&self) -> Vec<Seen> {
        self.lines.seen()
    }

    /// The same, without the first ones.
    pub fn seen_after(&self, count: usize) -> Vec<Seen> {
        self.lines.seen().split_off(count)
    }

    /// KiB.
    ///
    /// # Errors
    /// See [`proc::private_kib`].
    pub fn private_kib(&self) -> Result<f64> {
        proc::private_kib(self.child.pid())
    }

    /// CPU so far.
    ///
    /// # Errors
    /// See [`proc::cpu_millis`].
    pub fn cpu_millis(&self) -> Result<f64> {
        proc::cpu_millis(self.child.pid())
    }

    /// CPU so far.
    ///
    /// # Errors
    /// See [`proc::fine_cpu_millis`].
    pub fn fine_cpu_millis(&self) -> Result<f64> {
        proc::fine_cpu_millis(self.child.pid())
    }
}

/// The command line of the floor and the peers.
fn common_args(server: &Server, work: &Work) -> Vec<String> {
    let mut args = vec![format!("--users={}", work.users), format!("--hosts={}", Server::hosts().join(","))];
    if work.tls {
        args.push(format!("--port={}", server.tls_port));
        args.push(format!("--ca={}", server.ca.display()));
    } else {
        args.push(format!("--port={}", server.plain_port));
    }
    args.extend(work.all.then(|| "--all".to_owned()));
    args
}

fn idlewatch_args(folder: &Path, state: &Path, server: &Server, work: &Work) -> Result<Vec<String>> {
    let file = folder.join("idlewatch.toml");
    fs::write(&file, configuration(folder, state, server, work)?)?;
    Ok(vec!["-c".into(), file.display().to_string(), "-q".into(), "run".into()])
}

fn output(folder: &Path) -> PathBuf {
    folder.join("events.jsonl")
}

/// The gate is wide open: how fast a host may be asked is not what is measured.
fn configuration(folder: &Path, state: &Path, server: &Server, work: &Work) -> Result<String> {
    let output = match work.to_file {
        true => format!("type = \"file\"\npath = \"{}\"", output(folder).display()),
        false => "type = \"stdout\"\nformat = \"ecs\"".to_owned(),
    };
    let (port, tls) = if work.tls { (server.tls_port, "implicit") } else { (server.plain_port, "none") };
    let mut text = format!(
        "[monitor]\ninstance = \"bench\"\nstate_dir = \"{state}/state\"\n\
         [defaults]\nport = {port}\ntls = \"{tls}\"\npassword = {{ env = \"BENCH_PASSWORD\" }}\n\
         idle_refresh = \"28m\"\ninitial = \"{initial}\"\ntls_options = {{ ca_file = \"{ca}\" }}\n\
         [connections]\nmax_connecting = 200\nper_host = {{ max_connecting = 200, rate = \"10000/s\" }}\n\
         [events]\ninclude = [\"message.new\"]\n[outputs.out]\n{output}\n",
        state = state.display(),
        initial = if work.all { "all" } else { "baseline" },
        ca = server.ca.display(),
    );
    for (user, host) in (1..=work.users).zip(Server::hosts().iter().cycle()) {
        write!(text, "[[accounts]]\nid = \"user{user}\"\nhost = \"{host}\"\nuser = \"user{user}\"\n")?;
    }
    Ok(text)
}

/// Writes a configuration of so many accounts.
///
/// # Errors
/// Where it cannot be written.
pub fn write_configuration(folder: &Path, server: &Server, users: u32) -> Result<PathBuf> {
    let file = folder.join("idlewatch.toml");
    fs::write(&file, configuration(folder, folder, server, &Work::new(users))?)?;
    Ok(file)
}

/// A folder of this run only, which goes with it.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(parent: &Path) -> Result<Self> {
        let path = parent.join(format!("idlewatch-bench-{}-{}", std::process::id(), clock::nanos()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a candidate told.
#[derive(Debug)]
enum Lines {
    Pipe(Arc<Mutex<Vec<Seen>>>),
    File { path: PathBuf, file: Option<File>, count: u64 },
}

impl Lines {
    fn of_pipe(pipe: ChildStdout) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let lines = seen.clone();
        thread::spawn(move || read_pipe(pipe, &lines));
        Self::Pipe(seen)
    }

    fn of_file(path: PathBuf) -> Self {
        Self::File { path, file: None, count: 0 }
    }

    fn seen(&self) -> Vec<Seen> {
        match self {
            Self::Pipe(seen) => seen.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Self::File { .. } => Vec::new(),
        }
    }

    fn count(&mut self) -> Result<u64> {
        match self {
            Self::Pipe(seen) => Ok(seen.lock().unwrap_or_else(PoisonError::into_inner).len() as u64),
            Self::File { path, file, count } => {
                if file.is_none() {
                    *file = File::open(path).ok();
                }
                *count += file.as_mut().map_or(Ok(0), new_lines)?;
                Ok(*count)
            }
        }
    }
}

fn new_lines(file: &mut File) -> Result<u64> {
    let (mut room, mut lines) = (vec![0; 1 << 20], 0);
    loop {
        let length = file.read(&mut room)?;
        if length == 0 {
            return Ok(lines);
        }
        lines += room.iter().take(length).filter(|&&byte| byte == b'\n').count() as u64;
    }
}

/// Every line has the time of the read that brought its end.
fn read_pipe(mut pipe: ChildStdout, seen: &Mutex<Vec<Seen>>) {
    let (mut room, mut rest) = (vec![0; 64 << 10], Vec::new());
    while let Ok(length @ 1..) = pipe.read(&mut room) {
        let at = clock::nanos();
        rest.extend(room.iter().take(length));
        let whole = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = rest.drain(..whole).collect();
        let messages = lines.split(|&byte| byte == b'\n').filter_map(message);
        let messages = messages.map(|message| Seen { message, at });
        seen.lock().unwrap_or_else(PoisonError::into_inner).extend(messages);
    }
}

/// User and UID of a line: `new <uid.user@...>`, or idlewatch's event.
fn message(line: &[u8]) -> Option<(u32, u32)> {
    let line = std::str::from_utf8(line).ok()?;
    let id = match line.split_once("\"message_id\":\"") {
        Some((_, id)) => id,
        None => line.strip_prefix("new ")?,
    };
    let (uid, user) = id.trim_start_matches('<').split_once('@')?.0.split_once('.')?;
    Some((user.parse().ok()?, uid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_its_message() {
        assert_eq!(message(b"new <9.2@bench.example>"), Some((2, 9)));
        assert_eq!(message(br#"{"email":{"message_id":"<9.2@bench.example>"}}"#), Some((2, 9)));
        assert_eq!(message(br#"{"message":"started"}"#), None);
    }
}
