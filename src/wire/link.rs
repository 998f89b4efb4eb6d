//! One connection as replies and commands: async-imap's client over the guard.

use std::fmt::Debug;
use std::io;

use async_imap::Client;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::frame::LimitExceeded;
use super::guard::Guard;
use crate::imap::reply::{Reply, Status};
use crate::imap::{parse, tolerant};

/// A connection.
#[derive(Debug)]
pub struct Link<S: AsyncRead + AsyncWrite + Unpin + Send + Debug> {
    client: Client<Guard<S>>,
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
    /// The server says more than it may.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Debug> Link<S> {
    /// Over a fresh stream.
    pub fn new(stream: S) -> Self {
        Self { client: Client::new(Guard::new(stream)) }
    }

    /// The next reply. Cancel-safe.
    ///
    /// # Errors
    /// When the connection is over: an end of the stream is never a success.
    pub async fn next(&mut self) -> Result<Reply, LinkError> {
        let reply = match self.client.read_response().await {
            Ok(Some(response)) => parse::reply(response.parsed()),
            Ok(None) => return Err(LinkError::Closed),
            Err(error) => return Err(self.broken(&error)),
        };
        let parked = match &reply {
            Reply::Untagged { status: Status::Ok, text } if text.code.is_none() => {
                self.client.get_mut().unpark(&text.text)
            }
            _ => None,
        };
        Ok(parked.map_or(reply, |frame| tolerant::read(&frame)))
    }

    /// Sends a whole command in one write: one TLS record.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn send(&mut self, line: &[u8]) -> Result<(), LinkError> {
        let stream = self.client.get_mut();
        let written = match stream.write_all(line).await {
            Ok(()) => stream.flush().await,
            Err(error) => Err(error),
        };
        written.map_err(|error| self.broken(&error))
    }

    /// The text of an error may hold what was received (async-imap's parse errors do): only its kind goes on.
    fn broken(&self, error: &io::Error) -> LinkError {
        match self.client.get_ref().exceeded() {
            Some(limit) => LinkError::Limit(limit),
            None => LinkError::Io(error.kind()),
        }
    }

    /// The login is done: the bounds are wider now.
    pub fn logged_in(&mut self) {
        self.client.get_mut().logged_in();
    }

    /// Whether bytes were received that no reply was made of.
    pub fn has_buffered(&self) -> bool {
        self.client.get_ref().has_buffered()
    }

    /// The bytes received so far.
    pub fn bytes_in(&self) -> u64 {
        self.client.get_ref().bytes_in()
    }

    /// The stream itself; what was received and not read is dropped.
    pub fn into_stream(self) -> S {
        self.client.into_inner().into_inner()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;
    use crate::imap::reply::StatusText;

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
    async fn a_server_cannot_speak_as_the_guard() {
        let (heard, _) = replies(true, b"* OK IDLEWATCH-PARKED-0000000000000000\r\n").await;
        assert!(matches!(&heard[0], Reply::Untagged { text: StatusText { code: None, .. }, .. }));
    }

    #[tokio::test]
    async fn what_is_too_much_ends_the_connection_by_name() {
        let line = [b"* OK ".as_slice(), &vec![b'a'; 300_000]].concat();
        assert_eq!(replies(true, &line).await.1, LinkError::Limit(LimitExceeded::Line));
        assert_eq!(replies(false, b"* LIST () {9}\r\n").await.1, LinkError::Limit(LimitExceeded::Literal));
    }
}
