//! Stands between TLS and async-imap: hands over one complete, bounded, parseable response at a time.
//!
//! async-imap gives up on a connection at the first response that it cannot parse, and its parser overflows the stack
//! or panics on some. What it cannot take is parked here, and a marker takes its place, so that order and wake-ups
//! stay right.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_imap::imap_proto::{AttributeValue, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::allowance::Allowance;
use super::frame::{Frame, Framer, LimitExceeded, Limits, takes_literals};

/// More than any honest response has (an envelope with many addresses apart), and far from the stack's end.
const MOST_OPENS: usize = 128;

/// Parked responses that nobody has asked for yet.
const MOST_PARKED: usize = 64;

const READ: usize = 4096;

/// A stream of responses that async-imap can take.
#[derive(Debug)]
pub struct Guard<S> {
    inner: S,
    limits: Limits,
    /// Read, and not looked at yet. Empty while nothing is said.
    unread: Vec<u8>,
    framer: Framer,
    /// A response on its way to async-imap.
    ready: Vec<u8>,
    handed: usize,
    parked: VecDeque<Vec<u8>>,
    marker: String,
    exceeded: Option<LimitExceeded>,
    bytes_in: u64,
    allowance: Allowance,
}

impl<S> Guard<S> {
    /// Around `inner`, with the bounds of a server that nobody has logged in to.
    pub fn new(inner: S) -> Self {
        let marker = format!("IDLEWATCH-PARKED-{:016x}", rand::random::<u64>());
        Self {
            inner,
            limits: Limits::BEFORE_LOGIN,
            unread: Vec::new(),
            framer: Framer::default(),
            ready: Vec::new(),
            handed: 0,
            parked: VecDeque::new(),
            marker,
            exceeded: None,
            bytes_in: 0,
            allowance: Allowance::new(),
        }
    }

    /// The login is done: the bounds are wider now.
    pub fn logged_in(&mut self) {
        self.limits = Limits::LOGGED_IN;
    }

    /// Whether bytes were received that async-imap has not seen.
    pub fn has_buffered(&self) -> bool {
        !self.unread.is_empty() || self.framer.is_inside() || self.handed < self.ready.len()
    }

    /// The stream itself.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// The bytes received so far.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// The bound that ended the stream.
    pub fn exceeded(&self) -> Option<LimitExceeded> {
        self.exceeded
    }

    /// The parked response that a status response with this text stands for. No server can guess the text.
    pub fn unpark(&mut self, text: &str) -> Option<Vec<u8>> {
        if text == self.marker { self.parked.pop_front() } else { None }
    }

    /// Makes the next complete response ready, if there is one in what was read.
    fn frame(&mut self) -> Result<bool, LimitExceeded> {
        let (taken, frame) = self.framer.feed(&self.unread, &self.limits)?;
        self.unread.drain(..taken);
        if self.unread.is_empty() {
            self.unread = Vec::new();
        }
        let Some(frame) = frame else { return Ok(false) };
        self.allowance.response();
        self.handed = 0;
        self.ready = if is_parseable(&frame) {
            frame.bytes
        } else if self.parked.len() < MOST_PARKED {
            self.parked.push_back(frame.bytes);
            format!("* OK {}\r\n", self.marker).into_bytes()
        } else {
            return Err(LimitExceeded::Frame);
        };
        Ok(true)
    }

    fn hand_over(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = self.ready.get(self.handed..).unwrap_or_default();
        let part = rest.get(..rest.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(part);
        self.handed += part.len();
        if self.handed >= self.ready.len() {
            self.ready = Vec::new();
            self.handed = 0;
        }
    }

    fn exceed(&mut self, limit: LimitExceeded) -> io::Error {
        self.exceeded = Some(limit);
        self.unread = Vec::new();
        self.framer = Framer::default();
        io::Error::new(io::ErrorKind::InvalidData, limit)
    }
}

/// Whether imap-proto takes the whole of it, and understands every item. A panic in it is a "no".
fn is_parseable(frame: &Frame) -> bool {
    if frame.opens > MOST_OPENS || frame.nil_date || is_known_to_panic(&frame.bytes) {
        return false;
    }
    let parsed = catch_unwind(AssertUnwindSafe(|| match Response::parse(&frame.bytes) {
        Ok((rest, Response::Fetch(_, items))) => {
            rest.is_empty() && !items.iter().any(|item| matches!(item, AttributeValue::Unknown))
        }
        Ok((rest, _)) => rest.is_empty(),
        Err(_) => false,
    }));
    parsed.unwrap_or(false)
}

/// imap-proto 0.17 panics on these; not asking it spares a backtrace per line.
fn is_known_to_panic(frame: &[u8]) -> bool {
    let head: &[u8] = frame.get(..frame.len().min(64)).unwrap_or_default();
    // "[ALERT]é": the text is cut one byte after the bracket.
    // Only in status responses: a subject like "[list]é" in a header literal is nobody's trouble.
    let cut_inside_a_character = !takes_literals(frame)
        && frame.windows(2).any(|pair| matches!(pair, [b']', second] if !second.is_ascii()));
    cut_inside_a_character || head.windows(8).any(|window| window.eq_ignore_ascii_case(b"METADATA"))
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if let Some(limit) = this.exceeded {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, limit)));
            }
            if this.handed < this.ready.len() {
                this.hand_over(buf);
                return Poll::Ready(Ok(()));
            }
            ready!(this.allowance.poll_left(cx));
            if !this.unread.is_empty() {
                match this.frame() {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(limit) => return Poll::Ready(Err(this.exceed(limit))),
                }
            }
            let mut chunk = [0; READ];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.bytes_in += chunk.filled().len() as u64;
            this.allowance.read(chunk.filled().len());
            this.unread.extend_from_slice(chunk.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
