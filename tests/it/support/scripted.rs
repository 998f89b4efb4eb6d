//! A server that behaves until its script makes it misbehave.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running server; gone when dropped.
pub struct Scripted {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What all its connections share.
#[derive(Default)]
pub struct Shared {
    connections: AtomicU32,
    /// The UIDs of INBOX are 1 to this.
    messages: AtomicU32,
    uid_validity: AtomicU32,
    logins: Mutex<Vec<Instant>>,
    commands: Mutex<Vec<String>>,
}

/// One client.
pub struct Peer {
    /// The how many-th connection this is, from 1.
    pub number: u32,
    pub shared: Arc<Shared>,
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Scripted {
    /// Runs `script` for each connection.
    pub async fn start<F, T>(script: F) -> Self
    where
        F: Fn(Peer) -> T + Send + Sync + 'static,
        T: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared { uid_validity: 7.into(), ..Shared::default() });
        let state = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let number = state.connections.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(script(Peer::new(tcp, number, state.clone())));
            }
        });
        Self { port, shared, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connections(&self) -> u32 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// When each login was tried.
    pub fn logins(&self) -> Vec<Instant> {
        self.shared.logins.lock().unwrap().clone()
    }

    /// All that clients said, without tags.
    pub fn commands(&self) -> Vec<String> {
        self.shared.commands.lock().unwrap().clone()
    }
}

impl Shared {
    /// What a client said last.
    pub fn last_command(&self) -> String {
        self.commands.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    fn new(tcp: TcpStream, number: u32, shared: Arc<Shared>) -> Self {
        tcp.set_nodelay(true).unwrap();
        let (reader, writer) = tcp.into_split();
        Self { number, shared, reader: BufReader::new(reader), writer }
    }

    pub async fn say(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(text.as_bytes()).await
    }

    pub async fn greet(&mut self) -> io::Result<()> {
        self.say("* OK [CAPABILITY IMAP4rev1 IDLE] ready\r\n").await
    }

    /// Answers as a server should until a command begins with `verb`: its tag.
    pub async fn until(&mut self, verb: &str) -> io::Result<String> {
        let mut idle = String::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = line.trim_end();
            let (tag, command) = line.split_once(' ').unwrap_or((idle.as_str(), line));
            self.shared.commands.lock().unwrap().push(command.to_owned());
            if command.starts_with("LOGIN") || command.starts_with("AUTHENTICATE") {
                self.shared.logins.lock().unwrap().push(Instant::now());
            }
            if command.starts_with(verb) {
                return Ok(tag.to_owned());
            }
            let answer = self.answer(tag, command);
            idle = tag.to_owned();
            self.say(&answer).await?;
        }
    }

    pub async fn say_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes).await
    }

    /// Says nothing more, until the client goes.
    pub async fn silence(mut self) -> io::Result<()> {
        tokio::io::copy(&mut self.reader, &mut tokio::io::sink()).await.map(drop)
    }

    /// Ends the connection by a RST.
    pub fn reset(self) -> io::Result<()> {
        let tcp = self.reader.into_inner().reunite(self.writer).unwrap();
        socket2::SockRef::from(&tcp).set_linger(Some(Duration::ZERO))
    }

    pub fn messages(&self) -> u32 {
        self.shared.messages.load(Ordering::SeqCst)
    }

    /// INBOX holds `n` messages from now on; nobody is told.
    pub fn set_messages(&self, n: u32) {
        self.shared.messages.store(n, Ordering::SeqCst);
    }

    /// As a server should, for ever.
    pub async fn behave(&mut self) -> io::Result<()> {
        self.until("-").await.map(drop)
    }

    fn answer(&self, tag: &str, command: &str) -> String {
        let count = self.shared.messages.load(Ordering::SeqCst);
        let done = format!("{tag} OK done\r\n");
        match command.split(' ').next().unwrap() {
            "CAPABILITY" => format!("* CAPABILITY IMAP4rev1 IDLE\r\n{done}"),
            "EXAMINE" => format!(
                "* {count} EXISTS\r\n* OK [UIDVALIDITY {}] ok\r\n* OK [UIDNEXT {}] ok\r\n{done}",
                self.shared.uid_validity.load(Ordering::SeqCst),
                count + 1
            ),
            "IDLE" => "+ idling\r\n".to_owned(),
            "UID" => format!("{}{done}", self.fetched(command, count)),
            "LOGOUT" => format!("* BYE\r\n{done}"),
            _ => done,
        }
    }

    /// The messages that `UID FETCH first:last` names, each as its own literal.
    fn fetched(&self, command: &str, count: u32) -> String {
        let range = command.split(' ').nth(2).unwrap();
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        let (first, last) = (first.parse().unwrap_or(count), last.parse().unwrap_or(count).min(count));
        (first.min(last).max(1)..=last).map(message).collect()
    }
}

/// A FETCH response for message `uid` of INBOX.
pub fn message(uid: u32) -> String {
    let header = format!("From: Eve <eve@example.org>\r\nSubject: message {uid}\r\n\r\n");
    format!(
        "* {uid} FETCH (UID {uid} FLAGS () INTERNALDATE \"01-Nov-2026 10:00:00 +0000\" RFC822.SIZE 100 BODY[HEADER.FIELDS (FROM)]<0> {{{}}}\r\n{header})\r\n",
        header.len()
    )
}
