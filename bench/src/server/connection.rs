//! One connection: reads, answers, and a delay line in each direction that plays the distance.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::ready;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use super::session::{Output, Session};
use super::world::World;

/// Bytes of answers in one write.
const CHUNK: usize = 32 << 10;

/// Answers under way to a client, at most.
const MOST_UNDER_WAY: usize = 64;

/// Takes connections for ever, with TLS where there is an acceptor.
///
/// # Errors
/// When the listener fails; a lack of descriptors is waited out.
pub async fn listen(listener: TcpListener, tls: Option<TlsAcceptor>, world: Arc<World>) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(accepted(stream, tls.clone(), world.clone()))),
            Err(error) if error.raw_os_error() == Some(24) => {
                tokio::time::sleep(Duration::from_millis(10)).await
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

async fn accepted(stream: TcpStream, tls: Option<TlsAcceptor>, world: Arc<World>) {
    let _ = stream.set_nodelay(true);
    let _here = Here::new(&world.counters.connections);
    let _ = match tls {
        Some(acceptor) => {
            // Boxed: the state of a handshake must not stay with the connection.
            let Ok(mut stream) = Box::pin(acceptor.accept(stream)).await else { return };
            let served = until_reset(&mut stream, &world).await;
            cut_if(&served, stream.get_ref().0)
        }
        None => {
            let mut stream = stream;
            let served = until_reset(&mut stream, &world).await;
            cut_if(&served, &stream)
        }
    };
}

async fn until_reset<S>(stream: &mut S, world: &Arc<World>) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut reset = world.on_reset();
    tokio::select! {
        _ = serve(stream, world) => Ended::Over,
        _ = reset.changed() => Ended::Reset,
    }
}

enum Ended {
    Over,
    Reset,
}

/// A close without lingering is a RST.
fn cut_if(ended: &Ended, stream: &TcpStream) -> io::Result<()> {
    match ended {
        Ended::Reset => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
        Ended::Over => Ok(()),
    }
}

/// Counts one for as long as it lives.
struct Here<'a>(&'a AtomicU64);

impl<'a> Here<'a> {
    fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Relaxed);
        Self(counter)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What is under way, and when it arrives.
struct Way<T>(VecDeque<(Instant, T)>);

impl<T> Way<T> {
    fn send(&mut self, item: T, travel: Duration) {
        self.0.push_back((Instant::now() + travel, item));
    }

    fn arrived(&mut self) -> Option<T> {
        let (at, _) = self.0.front()?;
        if *at > Instant::now() {
            return None;
        }
        let item = self.0.pop_front().map(|(_, item)| item);
        if self.0.is_empty() {
            // An idle connection keeps no room for what it once sent.
            self.0 = VecDeque::new();
        }
        item
    }

    fn next(&self) -> Option<Instant> {
        self.0.front().map(|(at, _)| *at)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, world: &Arc<World>) -> io::Result<()> {
    let mut session = Session::new(world.clone());
    let (mut inward, mut outward) = (Way::<Vec<u8>>(VecDeque::new()), Way(VecDeque::new()));
    outward.send(session.greeting(), world.half_trip);
    let mut resting = None;
    loop {
        while let Some(bytes) = inward.arrived() {
            session.hear(&bytes);
        }
        while answer(&mut session, &mut outward, world) {
            write_arrived(stream, &mut outward, &session, world).await?;
        }
        write_arrived(stream, &mut outward, &session, world).await?;
        if session.is_closed() && outward.next().is_none() {
            return stream.shutdown().await;
        }
        if session.is_resting() != resting.is_some() {
            resting = session.is_resting().then(|| Resting::new(world));
        }
        let alarm = [inward.next(), outward.next()].into_iter().flatten().min();
        tokio::select! {
            bytes = read(stream) => match bytes? {
                bytes if bytes.is_empty() => return Ok(()),
                bytes => {
                    world.counters.bytes_in.fetch_add(bytes.len() as u64, Relaxed);
                    inward.send(bytes, world.half_trip);
                }
            },
            () = news(&mut session) => {}
            () = sleep_until(alarm.unwrap_or_else(Instant::now)), if alarm.is_some() => {}
        }
    }
}

/// Counts a connection that waits for news.
struct Resting<'a>(#[expect(dead_code, reason = "it is there to be dropped")] Here<'a>);

impl<'a> Resting<'a> {
    fn new(world: &'a World) -> Self {
        world.counters.rests();
        // `rests` has counted it.
        Self(Here(&world.counters.resting))
    }
}

/// One chunk of answers goes on its way.
fn answer(session: &mut Session, outward: &mut Way<Output>, world: &World) -> bool {
    let mut out = Output::default();
    while outward.0.len() < MOST_UNDER_WAY && out.bytes.len() < CHUNK && session.step(&mut out) {}
    let any = !out.bytes.is_empty();
    if any {
        outward.send(out, world.half_trip);
    }
    any
}

async fn write_arrived<S: AsyncWrite + Unpin>(
    stream: &mut S,
    outward: &mut Way<Output>,
    session: &Session,
    world: &World,
) -> io::Result<()> {
    while let Some(out) = outward.arrived() {
        if let Some(uids) = out.told {
            world.telling(session.user(), uids);
        }
        world.counters.bytes_out.fetch_add(out.bytes.len() as u64, Relaxed);
        stream.write_all(&out.bytes).await?;
        stream.flush().await?;
    }
    Ok(())
}

/// What there is to read; the buffer is on the stack only while it is filled. Empty at the end.
async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Vec<u8>> {
    poll_fn(|context| {
        let mut room = [0; 4096];
        let mut buffer = ReadBuf::new(&mut room);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
        Ok(buffer.filled().to_vec()).into()
    })
    .await
}

/// Waits for mail, where the client does.
async fn news(session: &mut Session) {
    match session.news() {
        Some(exists) => drop(exists.changed().await),
        None => std::future::pending().await,
    }
}

/// Runs all of these until one fails.
///
/// # Errors
/// The first that there is.
pub async fn all<F>(listeners: Vec<F>) -> io::Result<()>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    listeners.into_iter().for_each(|listener| drop(tasks.spawn(listener)));
    match tasks.join_next().await {
        Some(ended) => ended.map_err(io::Error::other)?,
        None => Ok(()),
    }
}
