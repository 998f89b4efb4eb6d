//! A response as imap-proto parsed it -> the small owned [`Reply`].
//!
//! imap-proto leaves quoted strings escaped and response codes that it does not know in the text; both are mended here.

use std::borrow::Cow;

use async_imap::imap_proto::{
    AttributeValue, BodyContentCommon, BodyStructure, Capability, MailboxDatum, NameAttribute, Outcome,
    Response, ResponseCode, Status as ProtoStatus, StatusAttribute,
};

use super::reply::{
    AttachmentPart, Code, FetchItems, ListEntry, MAX_TEXT, MOST_VANISHED, MailboxStatus, Reply, Status,
    StatusText, Structure, cap_flags,
};
use crate::event::MOST_ATTACHMENTS;
use crate::text::cap;
use crate::uid_set::UidSet;

/// The reply that `response` is.
pub fn reply(response: &Response<'_>) -> Reply {
    match response {
        Response::Capabilities(tokens) => Reply::Capability(capabilities(tokens)),
        Response::Continue(outcome) => Reply::Continue(
            outcome.information.as_deref().map(|text| cap(text, MAX_TEXT)).unwrap_or_default().to_owned(),
        ),
        Response::Done { tag, status, outcome } => {
            Reply::Tagged { tag: tag.0.clone(), status: self::status(status), text: text(outcome) }
        }
        Response::Data { status, outcome } => {
            Reply::Untagged { status: self::status(status), text: text(outcome) }
        }
        Response::Expunge(seq) => Reply::Expunge(*seq),
        Response::Vanished { earlier, uids } => {
            let (uids, beyond) = vanished(uids.iter().map(|range| (*range.start(), *range.end())));
            Reply::Vanished { earlier: *earlier, uids, beyond }
        }
        Response::Fetch(seq, attributes) => Reply::Fetch(Box::new(fetch(*seq, attributes))),
        Response::MailboxData(MailboxDatum::Exists(n)) => Reply::Exists(*n),
        Response::MailboxData(MailboxDatum::List(list)) => Reply::List(ListEntry {
            attributes: list.name_attributes.iter().map(attribute_name).collect(),
            delimiter: list.delimiter.as_ref().and_then(|delimiter| delimiter.chars().next()),
            name: cap(&unescaped(&list.name), 1024).as_bytes().to_vec(),
        }),
        Response::MailboxData(MailboxDatum::Search(numbers)) => {
            Reply::Search { whole: !numbers.contains(&0), numbers: numbers.clone() }
        }
        Response::MailboxData(MailboxDatum::Status { mailbox, status }) => {
            Reply::MailboxStatus(Box::new(mailbox_status(mailbox, status)))
        }
        Response::Id(fields) => {
            let fields = fields.iter().flatten();
            let name = fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case("name"));
            Reply::Id(name.map_or_else(String::new, |(_, name)| cap(name, 64).to_owned()))
        }
        Response::MailboxData(_) => Reply::Other("mailbox data"),
        _ => Reply::Other("data"),
    }
}

/// So much of it that memory is bounded, and how much more there is. In order, whatever order it came in: that is quick.
fn vanished(ranges: impl Iterator<Item = (u32, u32)>) -> (UidSet, u64) {
    let mut ranges: Vec<_> = ranges.map(|(one, other)| (one.min(other), one.max(other))).collect();
    ranges.sort_unstable();
    let kept = ranges.split_off(ranges.len().saturating_sub(MOST_VANISHED));
    let beyond = ranges.iter().map(|&(first, last)| u64::from(last - first) + 1).sum();
    let mut uids = UidSet::new();
    kept.into_iter().for_each(|(first, last)| uids.insert_range(first, last));
    (uids, beyond)
}

fn mailbox_status(name: &str, attributes: &[StatusAttribute]) -> MailboxStatus {
    let name = cap(&unescaped(name), 1024).as_bytes().to_vec();
    let mut status = MailboxStatus { name, ..MailboxStatus::default() };
    for attribute in attributes {
        match attribute {
            StatusAttribute::HighestModSeq(n) => status.item("HIGHESTMODSEQ", *n),
            StatusAttribute::Messages(n) => status.item("MESSAGES", u64::from(*n)),
            StatusAttribute::UidNext(n) => status.item("UIDNEXT", u64::from(*n)),
            StatusAttribute::UidValidity(n) => status.item("UIDVALIDITY", u64::from(*n)),
            _ => {}
        }
    }
    status
}

fn status(status: &ProtoStatus) -> Status {
    match status {
        ProtoStatus::Ok => Status::Ok,
        ProtoStatus::No => Status::No,
        ProtoStatus::Bad => Status::Bad,
        ProtoStatus::PreAuth => Status::PreAuth,
        ProtoStatus::Bye => Status::Bye,
    }
}

fn capabilities(tokens: &[Capability<'_>]) -> Vec<String> {
    let token = |token: &Capability<'_>| match token {
        Capability::Imap4rev1 => "IMAP4rev1".to_owned(),
        Capability::Auth(mechanism) => format!("AUTH={}", cap(mechanism, 64)),
        Capability::Atom(atom) => cap(atom, 64).to_owned(),
    };
    tokens.iter().take(256).map(token).collect()
}

fn attribute_name(attribute: &NameAttribute<'_>) -> String {
    match attribute {
        NameAttribute::NoInferiors => "\\Noinferiors",
        NameAttribute::NoSelect => "\\Noselect",
        NameAttribute::Marked => "\\Marked",
        NameAttribute::Unmarked => "\\Unmarked",
        NameAttribute::All => "\\All",
        NameAttribute::Archive => "\\Archive",
        NameAttribute::Drafts => "\\Drafts",
        NameAttribute::Flagged => "\\Flagged",
        NameAttribute::Junk => "\\Junk",
        NameAttribute::Sent => "\\Sent",
        NameAttribute::Trash => "\\Trash",
        NameAttribute::Extension(name) => return cap(name, 64).to_owned(),
        _ => "",
    }
    .to_owned()
}

fn text(outcome: &Outcome<'_>) -> StatusText {
    let information = outcome.information.as_deref().unwrap_or_default();
    match &outcome.code {
        Some(code) => {
            StatusText { code: Some(self::code(code)), text: cap(information, MAX_TEXT).to_owned() }
        }
        None => StatusText::parse(information),
    }
}

fn code(code: &ResponseCode<'_>) -> Code {
    let name = match code {
        ResponseCode::Capabilities(tokens) => return Code::Capability(capabilities(tokens)),
        ResponseCode::HighestModSeq(n) => return Code::HighestModSeq(*n),
        ResponseCode::UidNext(n) => return Code::UidNext(*n),
        ResponseCode::UidValidity(n) => return Code::UidValidity(*n),
        ResponseCode::Alert => "ALERT",
        ResponseCode::BadCharset(_) => "BADCHARSET",
        ResponseCode::Parse => "PARSE",
        ResponseCode::PermanentFlags(_) => "PERMANENTFLAGS",
        ResponseCode::ReadOnly => "READ-ONLY",
        ResponseCode::ReadWrite => "READ-WRITE",
        ResponseCode::TryCreate => "TRYCREATE",
        ResponseCode::Unseen(_) => "UNSEEN",
        ResponseCode::UidNotSticky => "UIDNOTSTICKY",
        _ => "OTHER",
    };
    Code::Named(name.to_owned())
}

fn fetch(seq: u32, attributes: &[AttributeValue<'_>]) -> FetchItems {
    let mut items = FetchItems { seq, ..FetchItems::default() };
    for attribute in attributes {
        match attribute {
            AttributeValue::Uid(uid) => items.uid = Some(*uid).filter(|&uid| uid > 0),
            AttributeValue::Flags(flags) => {
                items.flags = Some(cap_flags(flags.iter().map(|flag| flag.as_ref())))
            }
            AttributeValue::InternalDate(date) => items.internal_date = Some(cap(date, 64).to_owned()),
            AttributeValue::Rfc822Size(size) => items.size = Some(u64::from(*size)),
            AttributeValue::ModSeq(modseq) => items.modseq = Some(*modseq),
            AttributeValue::EmailId(id) => items.email_id = Some(cap(id, 255).to_owned()),
            AttributeValue::ThreadId(id) => {
                items.thread_id = id.as_deref().map(|id| cap(id, 255).to_owned());
            }
            AttributeValue::GmailMsgId(id) => items.email_id = Some(id.to_string()),
            AttributeValue::GmailThrId(id) => items.thread_id = Some(id.to_string()),
            AttributeValue::BodySection { data, .. } | AttributeValue::Rfc822Header(data) => {
                items.header = Some(header(data.as_deref().unwrap_or_default()));
            }
            AttributeValue::BodyStructure(body) => items.structure = Some(structure(body)),
            AttributeValue::Unknown => items.unreadable.push("item"),
            _ => {}
        }
    }
    items
}

/// Header bytes come as a literal, or, without any line break in them, as a quoted string that is still escaped.
pub(super) fn header(data: &[u8]) -> Vec<u8> {
    if data.contains(&b'\n') || !data.contains(&b'\\') {
        return data.to_vec();
    }
    unescaped_bytes(data)
}

fn unescaped_bytes(data: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(data.len());
    let mut bytes = data.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(if byte == b'\\' { bytes.next().copied().unwrap_or(b'\\') } else { byte });
    }
    plain
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    Cow::Owned(String::from_utf8_lossy(&unescaped_bytes(text.as_bytes())).into_owned())
}

fn structure(body: &BodyStructure<'_>) -> Structure {
    let (ty, _) = common(body);
    let mut structure = Structure { content_type: media_type(ty), attachments: Vec::new() };
    // The guard bounds the nesting; a stack of our own all the same.
    let mut left = vec![body];
    while let Some(part) = left.pop() {
        if let BodyStructure::Multipart { bodies, .. } = part {
            left.extend(bodies.iter().rev());
        } else if structure.attachments.len() < MOST_ATTACHMENTS {
            structure.attachments.extend(attachment(part));
        }
    }
    structure
}

fn common<'a, 'b>(body: &'a BodyStructure<'b>) -> (&'a BodyContentCommon<'b>, Option<u32>) {
    match body {
        BodyStructure::Basic { common, other, .. }
        | BodyStructure::Text { common, other, .. }
        | BodyStructure::Message { common, other, .. } => (common, Some(other.octets)),
        BodyStructure::Multipart { common, .. } => (common, None),
    }
}

fn media_type(common: &BodyContentCommon<'_>) -> String {
    format!("{}/{}", cap(&common.ty.ty, 64), cap(&common.ty.subtype, 64)).to_ascii_lowercase()
}

fn attachment(part: &BodyStructure<'_>) -> Option<AttachmentPart> {
    let (common, octets) = common(part);
    let disposition = common.disposition.as_ref();
    let name = disposition
        .and_then(|disposition| parameter(disposition.params.as_deref(), "filename"))
        .or_else(|| parameter(common.ty.params.as_deref(), "name"));
    let declared = disposition.is_some_and(|disposition| disposition.ty.eq_ignore_ascii_case("attachment"));
    let is_text = common.ty.ty.eq_ignore_ascii_case("text");
    (declared || name.is_some() || !is_text).then(|| AttachmentPart {
        name,
        mime_type: media_type(common),
        size: octets.map(u64::from),
    })
}

/// A parameter, or its RFC 2231 form, whose pieces (`filename*0*=`) are put together.
fn parameter(params: Option<&[(Cow<'_, str>, Cow<'_, str>)]>, name: &str) -> Option<Vec<u8>> {
    let params = params?;
    let find = |wanted: &str| params.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
    if let Some((_, value)) = find(name) {
        return Some(cap(&unescaped(value), 1024).as_bytes().to_vec());
    }
    if let Some((_, value)) = find(&format!("{name}*")) {
        return Some(rfc2231(value));
    }
    let mut whole = String::new();
    for part in 0..16 {
        let encoded = find(&format!("{name}*{part}*"));
        let Some((_, value)) = encoded.or_else(|| find(&format!("{name}*{part}"))) else { break };
        whole.push_str(cap(value, 1024));
    }
    (!whole.is_empty()).then(|| rfc2231(&whole))
}

/// `charset'language'percent-encoded` -> bytes; the charset is UTF-8 nearly always, and else taken for it, lossily.
fn rfc2231(value: &str) -> Vec<u8> {
    let encoded = value.splitn(3, '\'').last().unwrap_or(value);
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = cap(encoded, 1024).as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                bytes.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    bytes
}
