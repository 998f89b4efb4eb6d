//! What a server may say: owned, small, already bounded.
//!
//! `wire::Link` makes these from complete frames; the conversation never sees bytes. A server's text is hostile:
//! it is at most [`MAX_TEXT`] bytes here, and still has to be made harmless before it is shown (`crate::text`).

use crate::text::cap;
use crate::uid_set::UidSet;

/// The most flags kept of a message.
const MOST_FLAGS: usize = 64;

/// The most ranges of UIDs kept of one VANISHED.
pub(super) const MOST_VANISHED: usize = 5_000;

/// The most bytes kept of a server's human-readable text.
pub const MAX_TEXT: usize = 512;

/// One complete response (RFC 9051 section 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The completion of a command.
    Tagged {
        /// The command's tag.
        tag: String,
        /// OK, NO or BAD.
        status: Status,
        /// Code and text.
        text: StatusText,
    },
    /// An untagged OK, NO, BAD, PREAUTH or BYE.
    Untagged {
        /// Which of the five.
        status: Status,
        /// Code and text.
        text: StatusText,
    },
    /// `+`: the server waits for more of a command. The text is base64 during AUTHENTICATE.
    Continue(String),
    /// CAPABILITY: the tokens as sent.
    Capability(Vec<String>),
    /// `n EXISTS`
    Exists(u32),
    /// `n EXPUNGE`
    Expunge(u32),
    /// VANISHED (RFC 7162).
    Vanished {
        /// With `(EARLIER)`: it answers a SELECT or FETCH, and sequence numbers are not concerned.
        earlier: bool,
        /// The UIDs that it names, the highest 5,000 ranges of them at most.
        uids: UidSet,
        /// How many more it names.
        beyond: u64,
    },
    /// FETCH.
    Fetch(Box<FetchItems>),
    /// LIST or LSUB.
    List(ListEntry),
    /// STATUS (RFC 9051 section 7.3.4).
    MailboxStatus(Box<MailboxStatus>),
    /// SEARCH (RFC 3501 section 7.2.5): sequence numbers or UIDs, as asked for.
    Search {
        /// As sent; never 0.
        numbers: Vec<u32>,
        /// Whether all of it could be read.
        whole: bool,
    },
    /// ID (RFC 2971): the name that the server gives itself, at most 64 bytes; empty where it gives none.
    Id(String),
    /// A response that matters to nobody here: FLAGS, RECENT, ENABLED ... The keyword.
    Other(&'static str),
    /// A complete frame that could not be read. Counted; never fatal by itself.
    Unreadable {
        /// The beginning, with control characters escaped, at most 80 bytes; for debug logs only.
        excerpt: String,
    },
}

/// The five status responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Success, or information.
    Ok,
    /// Failure of the operation.
    No,
    /// A command that the server did not understand or does not allow.
    Bad,
    /// Greeting: already authenticated.
    PreAuth,
    /// The server closes.
    Bye,
}

/// `resp-text`: a code in brackets and a human-readable text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusText {
    /// The code.
    pub code: Option<Code>,
    /// The text, at most [`MAX_TEXT`] bytes of UTF-8 (lossy), without the code.
    pub text: String,
}

impl StatusText {
    /// From the text after OK, NO and the like, its code included.
    pub fn parse(text: &str) -> Self {
        let coded = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        match coded {
            Some((code, rest)) => {
                let text = cap(rest.trim_start_matches(' '), MAX_TEXT).to_owned();
                Self { code: Some(Code::parse(code)), text }
            }
            None => Self { code: None, text: cap(text, MAX_TEXT).to_owned() },
        }
    }
}

/// The largest mod-sequence (RFC 7162 section 7: 63 bits).
pub const MAX_MODSEQ: u64 = i64::MAX as u64;

/// `resp-text-code`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// CAPABILITY
    Capability(Vec<String>),
    /// UIDVALIDITY; 0 where the server says 0.
    UidValidity(u32),
    /// UIDNEXT
    UidNext(u32),
    /// HIGHESTMODSEQ; at most [`MAX_MODSEQ`].
    HighestModSeq(u64),
    /// Any other: its name in capitals (`ALERT`, `AUTHENTICATIONFAILED`, `NOMODSEQ`, ...), at most 64 bytes.
    Named(String),
}

impl Code {
    /// From the text between the brackets.
    pub fn parse(code: &str) -> Self {
        let (name, argument) = code.split_once(' ').unwrap_or((code, ""));
        let name = cap(name, 64).to_ascii_uppercase();
        let number = |n: &str| n.trim().parse().unwrap_or(0);
        match name.as_str() {
            "CAPABILITY" => {
                let tokens = argument.split_ascii_whitespace().take(256);
                Self::Capability(tokens.map(|token| cap(token, 64).to_owned()).collect())
            }
            "UIDVALIDITY" => Self::UidValidity(number(argument)),
            "UIDNEXT" => Self::UidNext(number(argument)),
            "HIGHESTMODSEQ" => Self::HighestModSeq(argument.trim().parse().unwrap_or(0)),
            _ => Self::Named(name),
        }
    }

    /// The code's name in capitals.
    pub fn name(&self) -> &str {
        match self {
            Self::Capability(_) => "CAPABILITY",
            Self::UidValidity(_) => "UIDVALIDITY",
            Self::UidNext(_) => "UIDNEXT",
            Self::HighestModSeq(_) => "HIGHESTMODSEQ",
            Self::Named(name) => name,
        }
    }
}

/// The items of one FETCH response. Absent means not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchItems {
    /// The sequence number: valid for this connection and this moment only.
    pub seq: u32,
    /// UID; never 0.
    pub uid: Option<u32>,
    /// FLAGS as sent.
    pub flags: Option<Vec<String>>,
    /// INTERNALDATE as sent.
    pub internal_date: Option<String>,
    /// RFC822.SIZE.
    pub size: Option<u64>,
    /// MODSEQ.
    pub modseq: Option<u64>,
    /// EMAILID, or X-GM-MSGID as decimal text.
    pub email_id: Option<String>,
    /// THREADID, or X-GM-THRID as decimal text.
    pub thread_id: Option<String>,
    /// BODY[HEADER.FIELDS ...]: raw bytes, at most what was asked for. `Some(empty)` where the server says `NIL` or `{0}`.
    pub header: Option<Vec<u8>>,
    /// BODYSTRUCTURE.
    pub structure: Option<Structure>,
    /// Items whose value was there and could not be read, by their IMAP name (`BODYSTRUCTURE`, `INTERNALDATE`, ...).
    pub unreadable: Vec<&'static str>,
}

/// What is kept of a BODYSTRUCTURE. Texts are raw as sent: `imap::summary` decodes them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// The top-level media type, lower case: `multipart/mixed`.
    pub content_type: String,
    /// Parts that are attachments, at most 20.
    pub attachments: Vec<AttachmentPart>,
}

/// One part that is an attachment: disposition `attachment`, or a file name, or neither text nor multipart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttachmentPart {
    /// `filename` of the disposition, else `name` of the type; raw (RFC 2047 or RFC 2231 encoded as sent, with `encoded` telling of RFC 2231).
    pub name: Option<Vec<u8>>,
    /// Lower case `type/subtype`.
    pub mime_type: String,
    /// Octets.
    pub size: Option<u64>,
}

/// What STATUS tells of a mailbox that is not open. Absent means not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxStatus {
    /// The name as on the wire, at most 1,024 bytes.
    pub name: Vec<u8>,
    /// MESSAGES
    pub messages: Option<u32>,
    /// UIDNEXT; never 0.
    pub uid_next: Option<u32>,
    /// UIDVALIDITY; never 0.
    pub uid_validity: Option<u32>,
    /// HIGHESTMODSEQ (RFC 7162 section 3.1.7); 0 where the mailbox has no mod-sequences.
    pub highest_modseq: Option<u64>,
}

impl MailboxStatus {
    /// Takes one item in; those that nobody asks for are passed over.
    pub(super) fn item(&mut self, name: &str, value: u64) {
        let number = u32::try_from(value).ok();
        let told = number.filter(|&value| value > 0);
        match name.to_ascii_uppercase().as_str() {
            "HIGHESTMODSEQ" => self.highest_modseq = Some(value).filter(|&value| value <= MAX_MODSEQ),
            "MESSAGES" => self.messages = number,
            "UIDNEXT" => self.uid_next = told,
            "UIDVALIDITY" => self.uid_validity = told,
            _ => {}
        }
    }
}

/// One LIST entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Attributes as sent: `\HasNoChildren`, `\Sent`, `\Noselect` ...
    pub attributes: Vec<String>,
    /// The hierarchy delimiter; `None` for NIL.
    pub delimiter: Option<char>,
    /// The name as on the wire (unescaped, still modified UTF-7), at most 1,024 bytes.
    pub name: Vec<u8>,
}

/// As many flags as anybody needs, each of a sane length.
pub(super) fn cap_flags<'a>(flags: impl Iterator<Item = &'a str>) -> Vec<String> {
    flags.take(MOST_FLAGS).map(|flag| cap(flag, 64).to_owned()).collect()
}
