//! The least that a monitor can be: fixed bytes on bare tokio and rustls, one task per account, one line per message.

use std::error::Error;
use std::future::poll_fn;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::ready;
use std::time::Duration;

use clap::Parser;
use idlewatch_bench::tls;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

/// Watches user1 to userN.
#[derive(Debug, Parser)]
struct Args {
    /// How many accounts.
    #[arg(long)]
    users: u32,
    /// The server's addresses; accounts are spread over them.
    #[arg(long, value_delimiter = ',')]
    hosts: Vec<IpAddr>,
    /// Its port.
    #[arg(long)]
    port: u16,
    /// TLS, with this CA; else none.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Connections that are set up at the same time.
    #[arg(long, default_value_t = 200)]
    connecting: usize,
    /// Waiting messages are told too.
    #[arg(long)]
    all: bool,
}

struct Shared {
    all: bool,
    port: u16,
    tls: Option<TlsConnector>,
    gate: Semaphore,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let args = Args::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    let tls = args.ca.as_deref().map(tls::client).transpose()?.map(TlsConnector::from);
    let shared =
        Arc::new(Shared { all: args.all, port: args.port, tls, gate: Semaphore::new(args.connecting) });
    for (user, host) in (1..=args.users).zip(args.hosts.iter().copied().cycle()) {
        tokio::spawn(watch(user, host, shared.clone()));
    }
    std::future::pending().await
}

/// One account, for ever.
async fn watch(user: u32, host: IpAddr, shared: Arc<Shared>) {
    let mut known = shared.all.then_some(0);
    loop {
        let _ = match &shared.tls {
            Some(tls) => watch_tls(user, host, tls, &shared, &mut known).await,
            None => watch_plain(user, host, &shared, &mut known).await,
        };
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn watch_plain(user: u32, host: IpAddr, shared: &Shared, known: &mut Option<u32>) -> io::Result<()> {
    let (stream, told) = {
        let _place = shared.gate.acquire().await;
        let mut stream = connect(host, shared.port).await?;
        let told = Box::pin(begin(&mut stream, user)).await?;
        (stream, told)
    };
    tell_news(stream, told, known.get_or_insert(told)).await
}

async fn watch_tls(
    user: u32,
    host: IpAddr,
    tls: &TlsConnector,
    shared: &Shared,
    known: &mut Option<u32>,
) -> io::Result<()> {
    let (stream, told) = {
        let _place = shared.gate.acquire().await;
        let stream = connect(host, shared.port).await?;
        // Boxed: the state of the set-up must not stay with the connection.
        let mut stream = Box::pin(tls.connect(host.into(), stream)).await?;
        let told = Box::pin(begin(&mut stream, user)).await?;
        (stream, told)
    };
    tell_news(stream, told, known.get_or_insert(told)).await
}

async fn connect(host: IpAddr, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Logs in and idles; answers with EXISTS as it was told.
async fn begin<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, user: u32) -> io::Result<u32> {
    until(stream, "* OK").await?;
    say(stream, format!("a LOGIN user{user} pw\r\n").as_bytes()).await?;
    until(stream, "a OK").await?;
    say(stream, b"b EXAMINE INBOX\r\n").await?;
    let opened = until(stream, "b OK").await?;
    say(stream, b"c IDLE\r\n").await?;
    let idling = until(stream, "+").await?;
    Ok(opened.lines().chain(idling.lines()).filter_map(exists).max().unwrap_or(0))
}

/// Reads until a line begins with `start`.
async fn until<S: AsyncRead + Unpin>(stream: &mut S, start: &str) -> io::Result<String> {
    let mut text = String::new();
    while !text.lines().any(|line| line.starts_with(start)) || !text.ends_with('\n') {
        read(stream, &mut text).await?;
    }
    Ok(text)
}

/// Answers EXISTS with DONE, FETCH and IDLE in one write, and prints what comes.
async fn tell_news<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    told: u32,
    known: &mut u32,
) -> io::Result<()> {
    let (mut text, mut count) = (String::new(), told);
    loop {
        if count > *known {
            say(&mut stream, fetch(*known + 1).as_bytes()).await?;
            *known = count;
        }
        read(&mut stream, &mut text).await?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let rest = text.split_off(whole);
        let lines = std::mem::replace(&mut text, rest);
        print_ids(&lines)?;
        count = lines.lines().filter_map(exists).max().unwrap_or(0);
    }
}

fn fetch(from: u32) -> String {
    let items = "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])";
    format!("DONE\r\nd UID FETCH {from}:* {items}\r\nc IDLE\r\n")
}

/// All of one read in one write.
fn print_ids(lines: &str) -> io::Result<()> {
    let ids = lines.lines().filter_map(|line| line.strip_prefix("Message-ID: "));
    let out: String = ids.flat_map(|id| ["new ", id, "\n"]).collect();
    if out.is_empty() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(out.as_bytes())?;
    stdout.flush()
}

fn exists(line: &str) -> Option<u32> {
    line.strip_prefix("* ")?.strip_suffix(" EXISTS")?.parse().ok()
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Adds what there is to read; the buffer is on the stack only while it is filled.
async fn read<S: AsyncRead + Unpin>(stream: &mut S, text: &mut String) -> io::Result<()> {
    poll_fn(|context| {
        let mut room = [0; 4096];
        let mut buffer = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into()).into();
        }
        text.push_str(&String::from_utf8_lossy(buffer.filled()));
        Ok(()).into()
    })
    .await
}
