//! One connection as replies and commands.

use std::fmt::Debug;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::allowance::Allowance;
use super::frame::{Frame, Framer, LimitExceeded, Limits};
use super::guard;
use super::tls;
use super::transcript::Transcript;
use crate::imap::reply::Reply;

/// Bytes of one read: a TLS record.
const READ: usize = 16 << 10;

/// A connection. While nothing is said it holds no buffer.
#[derive(Debug)]
pub struct Link<S> {
    stream: S,
    limits: Limits,
    /// Received, and not looked at yet.
    unread: BytesMut,
    framer: Framer,
    bytes_in: u64,
    /// Received and sent since [`Self::take_traffic`].
    traffic: (u64, u64),
    allowance: Allowance,
    transcript: Option<Box<Transcript>>,
}

/// How a connection breaks. Never holds what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The server closed.
    #[error("the server closed the connection")]
    Closed,
    /// The network did.
    #[error("the connection broke: {0}")]
    Io(io::ErrorKind),
    /// In TLS 1.3, servers that want to know who we are say so only now.
    #[error("the server wants another certificate of us, or any: tls_options.client_cert")]
    CertificateRefused,
    /// The server says more than it may.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        if tls::refuses_our_certificate(&error) {
            return Self::CertificateRefused;
        }
        Self::Io(error.kind())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Debug> Link<S> {
    /// Over a fresh stream, with the bounds of a server that nobody has logged in to.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            limits: Limits::BEFORE_LOGIN,
            unread: BytesMut::new(),
            framer: Framer::default(),
            bytes_in: 0,
            traffic: (0, 0),
            allowance: Allowance::new(),
            transcript: None,
        }
    }

    /// With a record of what is said on it, where there is to be one.
    pub fn recorded(mut self, transcript: Option<Box<Transcript>>) -> Self {
        self.transcript = transcript;
        self
    }

    /// The next reply. Cancel-safe.
    ///
    /// # Errors
    /// When the connection is over: an end of the stream is never a success.
    pub async fn next(&mut self) -> Result<Reply, LinkError> {
        let frame = poll_fn(|cx| self.poll_frame(cx)).await;
        if let Some(transcript) = &self.transcript {
            match &frame {
                Ok(frame) => transcript.received(&frame.bytes),
                Err(error) => transcript.note(&error.to_string()),
            }
        }
        Ok(guard::read(&frame?))
    }

    /// The next complete response. After an error there is none.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, LinkError>> {
        loop {
            ready!(self.allowance.poll_left(cx));
            if let Some(frame) = self.frame()? {
                self.allowance.response();
                return Poll::Ready(Ok(frame));
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    /// The next complete response of what was received.
    fn frame(&mut self) -> Result<Option<Frame>, LimitExceeded> {
        let (taken, frame) = self.framer.feed(&self.unread, &self.limits)?;
        self.unread.advance(taken);
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        Ok(frame)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        // Filled by nobody but the reader: to set it to zero for each look would cost more than many a reply.
        let mut chunk = [MaybeUninit::uninit(); READ];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
        let received = chunk.filled();
        if received.is_empty() {
            return Poll::Ready(Err(LinkError::Closed));
        }
        self.bytes_in += received.len() as u64;
        self.traffic.0 += received.len() as u64;
        self.allowance.read(received.len());
        self.unread.extend_from_slice(received);
        Poll::Ready(Ok(()))
    }

    /// Sends it in one write: one TLS record.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn send(&mut self, line: &[u8]) -> Result<(), LinkError> {
        if let Some(transcript) = &self.transcript {
            transcript.sent(line);
        }
        self.stream.write_all(line).await?;
        self.traffic.1 += line.len() as u64;
        Ok(self.stream.flush().await?)
    }

    /// The login is done: the bounds are wider now.
    pub fn logged_in(&mut self) {
        self.limits = Limits::LOGGED_IN;
        self.transcript.iter_mut().for_each(|transcript| transcript.logged_in());
    }

    /// Whether bytes were received that no reply was made of.
    pub fn has_buffered(&self) -> bool {
        !self.unread.is_empty() || self.framer.is_inside()
    }

    /// The bytes received so far.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in
    }

    /// The bytes received and sent since this was asked last.
    pub fn take_traffic(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.traffic)
    }

    /// The stream itself, and its record; what was received and not read is dropped.
    pub fn into_parts(self) -> (S, Option<Box<Transcript>>) {
        (self.stream, self.transcript)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    async fn replies(logged_in: bool, said: &[u8]) -> (Vec<Reply>, LinkError) {
        let (ours, mut theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(1 << 20);
        let mut link = Link::new(ours);
        if logged_in {
            link.logged_in();
        }
        theirs.write_all(said).await.unwrap();
        drop(theirs);
        let mut heard = Vec::new();
        loop {
            match link.next().await {
                Ok(reply) => heard.push(reply),
                Err(error) => return (heard, error),
            }
        }
    }

    #[tokio::test]
    async fn a_response_that_nobody_can_parse_costs_itself_only() {
        let deep = format!("* 1 FETCH (UID 9 BODYSTRUCTURE {}\r\n", "(".repeat(5000));
        let said = [
            b"* OK hello\r\n".as_slice(),
            deep.as_bytes(),
            b"* 2 FETCH (INTERNALDATE NIL)\r\n* METADATA \"\xff\" /shared/comment\r\n* OK [ALERT]\xc3\xa9\r\n",
            b"* 3 EXISTS junk\r\n\r\n* 4 EXISTS\n",
        ]
        .concat();
        let (heard, end) = replies(true, &said).await;
        assert_eq!(end, LinkError::Closed);
        assert!(matches!(&heard[1], Reply::Fetch(items) if items.uid == Some(9)), "{heard:?}");
        assert!(matches!(&heard[2], Reply::Fetch(items) if items.unreadable == ["INTERNALDATE"]));
        assert_eq!(heard[3], Reply::Other("data"));
        assert!(matches!(&heard[4], Reply::Untagged { text, .. } if text.text == "é"));
        assert_eq!(heard.last(), Some(&Reply::Exists(4)));
    }

    #[tokio::test]
    async fn no_subject_and_no_name_of_a_file_costs_the_attachments() {
        let header = "Subject: [Liste]Änderung INTERNALDATE NIL\r\n\r\n";
        let said = format!(
            "* 1 FETCH (UID 7 BODYSTRUCTURE (\"text\" \"plain\" (\"name\" \"a\\\" INTERNALDATE NIL \") NIL NIL \"8bit\" 1 1) BODY[HEADER.FIELDS (SUBJECT)] {{{}}}\r\n{header})\r\n",
            header.len()
        );
        let (heard, _) = replies(true, said.as_bytes()).await;
        let told =
            |items: &crate::imap::reply::FetchItems| items.structure.is_some() && items.unreadable.is_empty();
        assert!(matches!(&heard[0], Reply::Fetch(items) if told(items)), "{heard:?}");
    }

    #[tokio::test]
    async fn what_is_too_much_ends_the_connection_by_name() {
        let line = [b"* OK ".as_slice(), &vec![b'a'; 300_000]].concat();
        assert_eq!(replies(true, &line).await.1, LinkError::Limit(LimitExceeded::Line));
        assert_eq!(replies(false, b"* LIST () {9}\r\n").await.1, LinkError::Limit(LimitExceeded::Literal));
    }
}
