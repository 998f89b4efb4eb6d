//! Records of TLS cost, too: those with nothing in them would keep a core busy, and nobody above TLS would see them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::allowance::Allowance;

/// A connection below TLS, on which no more is read than one connection may cost.
#[derive(Debug)]
pub struct Metered<S> {
    stream: S,
    allowance: Allowance,
    records: Records,
}

impl<S> Metered<S> {
    /// Over a fresh stream.
    pub fn new(stream: S) -> Self {
        Self { stream, allowance: Allowance::new(), records: Records::default() }
    }

    /// What it is over.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }
}

/// Where records begin (RFC 8446 section 5.1): five bytes, the last two of which are the length of the rest. Pure.
#[derive(Debug, Default)]
struct Records {
    /// Bytes of a header that were seen.
    header: u8,
    length: usize,
    /// What is left of the record.
    rest: usize,
}

const HEADER: u8 = 5;

impl Records {
    /// How many headers end in these bytes.
    fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut found = 0;
        while let Some((&byte, others)) = bytes.split_first() {
            if self.rest > 0 {
                let skipped = self.rest.min(bytes.len());
                self.rest -= skipped;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            bytes = others;
            self.header += 1;
            self.length = (self.length << 8 | usize::from(byte)) & 0xffff;
            if self.header == HEADER {
                *self = Self { rest: self.length, ..Self::default() };
                found += 1;
            }
        }
        found
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.allowance.poll_left(cx));
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        this.allowance.read(read.len());
        (0..this.records.count(read)).for_each(|_| this.allowance.response());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_counted_wherever_they_are_cut() {
        let record = |length: u16| {
            let mut record = vec![23, 3, 3];
            record.extend(length.to_be_bytes());
            record.resize(5 + usize::from(length), 0x17);
            record
        };
        let whole = [record(0), record(17), record(0x4001), record(1), record(0)].concat();
        for piece in [1, 2, 3, 7, 1000, whole.len()] {
            let mut records = Records::default();
            let found: usize = whole.chunks(piece).map(|bytes| records.count(bytes)).sum();
            assert_eq!(found, 5, "in pieces of {piece}");
        }
    }
}
