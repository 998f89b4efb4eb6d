//! The header section of a message -> the fields of its event, by mail-parser.

use jiff::Timestamp;
use jiff::tz::Offset;
use mail_parser::{Addr, DateTime, HeaderName, HeaderValue, Message, MessageParser};

use super::command::MAX_HEADER;
use super::header_text::{decoded, is_undecoded, readable};
use super::summary::{Wanted, cut, failed, is_plausible};
use crate::event::{Address, AskedHeader, MessageSummary};
use crate::text::{cap, harmless};

const SUBJECT_CHARS: usize = 1_000;
const ADDRESS: usize = 320;
const NAME: usize = 256;
const ID: usize = 256;
const VALUE: usize = 1_000;
const MOST_IDS: usize = 20;
const MOST_VALUES: usize = 10;

const FROM_NAME: &str = "idlewatch.message.from_name";

/// Adds to `summary` what `header` tells.
pub(super) fn tell(header: &[u8], wanted: &Wanted, summary: &mut MessageSummary) {
    let text = readable(header);
    if header.len() >= MAX_HEADER as usize {
        cut(summary, "message");
    }
    match MessageParser::default().parse_headers(&text) {
        Some(message) if has_known_header(&message, wanted) => {
            Headers { message: &message, wanted, summary }.tell();
        }
        // Nothing there is how servers tell that none of the fields is; anything else is no header.
        _ if header.iter().all(u8::is_ascii_whitespace) => {}
        _ => failed(summary, "message"),
    }
}

fn has_known_header(message: &Message<'_>, wanted: &Wanted) -> bool {
    message.headers().iter().any(|header| match &header.name {
        HeaderName::Other(name) => {
            wanted.headers.iter().chain(&wanted.asked_headers).any(|known| known.eq_ignore_ascii_case(name))
        }
        _ => true,
    })
}

struct Headers<'m, 'x> {
    message: &'m Message<'x>,
    wanted: &'m Wanted,
    summary: &'m mut MessageSummary,
}

impl<'m, 'x> Headers<'m, 'x> {
    fn tell(&mut self) {
        self.subject();
        self.addresses();
        self.ids();
        self.date();
        self.further();
        self.asked();
    }

    /// The first of several; more than one is worth telling (RFC 5322 section 3.6).
    fn first(&mut self, name: &HeaderName<'static>, field: &str) -> Option<&'m HeaderValue<'x>> {
        let mut values = self.message.headers().iter().filter(|header| header.name == *name);
        let first = values.next();
        if values.next().is_some() {
            failed(self.summary, field);
        }
        first.map(|header| &header.value)
    }

    /// At most `most` bytes of `text`, harmless. What was cut or could not be decoded is told of `field`.
    fn value(&mut self, text: &str, most: usize, field: &str) -> Option<String> {
        let text = text.trim();
        let kept = cap(text, most);
        if kept.len() < text.len() {
            cut(self.summary, field);
        }
        if kept.contains(char::REPLACEMENT_CHARACTER) || is_undecoded(kept) {
            failed(self.summary, field);
        }
        Some(harmless(kept).into_owned()).filter(|kept| !kept.is_empty())
    }

    fn subject(&mut self) {
        let field = "email.subject";
        let Some(HeaderValue::Text(text)) = self.first(&HeaderName::Subject, field) else { return };
        let most = text.trim().char_indices().nth(SUBJECT_CHARS).map_or(usize::MAX, |(at, _)| at);
        self.summary.subject = self.value(text, most, field);
    }

    fn addresses(&mut self) {
        self.summary.from = self.list(&HeaderName::From, "email.from.address").0;
        self.summary.reply_to = self.list(&HeaderName::ReplyTo, "email.reply_to.address").0;
        self.summary.sender = self.list(&HeaderName::Sender, "email.sender.address").0.into_iter().next();
        let (to, cc, bcc) = (
            self.list(&HeaderName::To, "email.to.address"),
            self.list(&HeaderName::Cc, "email.cc.address"),
            self.list(&HeaderName::Bcc, "email.bcc.address"),
        );
        self.summary.recipient_count = u32::try_from(to.1 + cc.1 + bcc.1).unwrap_or(u32::MAX);
        (self.summary.to, self.summary.cc, self.summary.bcc) = (to.0, cc.0, bcc.0);
    }

    /// At most as many as are wanted, groups flattened, and how many there were.
    fn list(&mut self, name: &HeaderName<'static>, field: &str) -> (Vec<Address>, usize) {
        let Some(value) = self.first(name, field) else { return (Vec::new(), 0) };
        let Some(addresses) = value.as_address() else {
            if !matches!(value, HeaderValue::Empty) {
                failed(self.summary, field);
            }
            return (Vec::new(), 0);
        };
        let (mut kept, mut count) = (Vec::new(), 0);
        for addr in addresses.iter() {
            let Some(raw) = addr.address.as_deref().map(str::trim).filter(|raw| !raw.is_empty()) else {
                // A phrase without an address is no recipient, but the header is not what it should be.
                failed(self.summary, field);
                continue;
            };
            count += 1;
            if kept.len() < self.wanted.max_addresses {
                kept.extend(self.address(raw, addr, field));
            }
        }
        if count > self.wanted.max_addresses {
            cut(self.summary, field);
        }
        (kept, count)
    }

    /// The domain in lower case, the local part as it is.
    fn address(&mut self, raw: &str, addr: &Addr<'_>, field: &str) -> Option<Address> {
        let address = match raw.rsplit_once('@') {
            Some((local, domain)) => {
                self.value(&format!("{local}@{}", domain.to_lowercase()), ADDRESS, field)
            }
            None => self.value(raw, ADDRESS, field),
        };
        let name = addr.name.as_deref().unwrap_or_default();
        let name = match field {
            "email.from.address" => self.value(name, NAME, FROM_NAME),
            // No event tells the others.
            _ => None,
        };
        address.map(|address| Address { name, address })
    }

    fn ids(&mut self) {
        let field = "email.message_id";
        let ids = self.first(&HeaderName::MessageId, field).map(id_list).unwrap_or_default();
        self.summary.message_id = ids.first().and_then(|id| self.value(id, ID, field));

        let field = "idlewatch.message.in_reply_to";
        let ids = self.first(&HeaderName::InReplyTo, field).map(id_list).unwrap_or_default();
        if ids.len() > MOST_IDS {
            cut(self.summary, field);
        }
        self.summary.in_reply_to =
            ids.iter().take(MOST_IDS).filter_map(|id| self.value(id, ID, field)).collect();

        let field = "idlewatch.message.references_count";
        let ids = self.first(&HeaderName::References, field).map(id_list).unwrap_or_default();
        self.summary.references_count = u32::try_from(ids.len()).ok().filter(|&count| count > 0);

        let field = "idlewatch.message.list_id";
        let list_id = self.first(&HeaderName::ListId, field).and_then(list_id);
        self.summary.list_id = list_id.and_then(|id| self.value(&id, ID, field));
    }

    fn date(&mut self) {
        let field = "email.origination_timestamp";
        let Some(date) = self.first(&HeaderName::Date, field) else { return };
        self.summary.sent_at = match date {
            HeaderValue::DateTime(at) if !self.has_year_before_1970() => timestamp(at),
            _ => None,
        };
        if self.summary.sent_at.is_none() {
            failed(self.summary, field);
        }
    }

    /// mail-parser reads a small year as one of two digits: `0000` would be 2000.
    fn has_year_before_1970(&self) -> bool {
        let date = self.message.headers().iter().find(|header| header.name == HeaderName::Date);
        let raw = date.and_then(|header| {
            self.message.raw_message.get(header.offset_start as usize..header.offset_end as usize)
        });
        raw.unwrap_or_default()
            .split(u8::is_ascii_whitespace)
            .find(|token| token.len() == 4 && token.iter().all(u8::is_ascii_digit))
            .is_some_and(|year| year < b"1970".as_slice())
    }

    /// All values of a header that the configuration names, repeated or not.
    fn further(&mut self) {
        let field = "idlewatch.message.headers";
        let (message, wanted) = (self.message, self.wanted);
        for name in &wanted.headers {
            let raw: Vec<&str> = raw_values(message, name).take(MOST_VALUES + 1).collect();
            if raw.len() > MOST_VALUES {
                cut(self.summary, field);
            }
            let values: Vec<String> = raw
                .iter()
                .take(MOST_VALUES)
                .filter_map(|raw| self.value(&decoded(cap(raw, 4 * VALUE).as_bytes()), VALUE, field))
                .collect();
            if !values.is_empty() {
                self.summary.headers.insert(name.to_ascii_lowercase(), values);
            }
        }
    }

    /// What filters ask for. Nothing of it is told, and so nothing of what had to be cut.
    fn asked(&mut self) {
        for name in &self.wanted.asked_headers {
            let mut asked = AskedHeader::default();
            for raw in raw_values(self.message, name) {
                let text = decoded(cap(raw, 4 * VALUE).as_bytes());
                let kept = cap(text.trim(), VALUE);
                asked.cut |= kept.len() < text.trim().len() || raw.len() > 4 * VALUE;
                if asked.values.len() == MOST_VALUES {
                    asked.cut = true;
                    break;
                }
                asked.values.push(harmless(kept).into_owned());
            }
            if !asked.values.is_empty() {
                self.summary.asked_headers.insert(name.to_ascii_lowercase(), asked);
            }
        }
    }
}

/// All values of a header, as they stand there.
fn raw_values<'m>(message: &'m Message<'_>, name: &str) -> impl Iterator<Item = &'m str> {
    let of_name = move |(known, value): (&str, &'m str)| known.eq_ignore_ascii_case(name).then_some(value);
    message.headers_raw().filter_map(of_name)
}

/// Without `<>`.
fn id_list<'v>(value: &'v HeaderValue<'_>) -> Vec<&'v str> {
    let ids: Vec<&str> = match value {
        HeaderValue::Text(text) => vec![text.as_ref()],
        HeaderValue::TextList(list) => list.iter().map(AsRef::as_ref).collect(),
        _ => Vec::new(),
    };
    ids.into_iter().map(|id| id.trim_matches(['<', '>', ' '])).filter(|id| !id.is_empty()).collect()
}

/// What stands in `<>` (RFC 2919); mail-parser reads it as an address.
fn list_id(value: &HeaderValue<'_>) -> Option<String> {
    let text = match value {
        HeaderValue::Text(text) => text.to_string(),
        HeaderValue::TextList(list) => list.first()?.to_string(),
        HeaderValue::Address(addresses) => {
            let first = addresses.first()?;
            first.address.as_ref().or(first.name.as_ref())?.to_string()
        }
        _ => return None,
    };
    Some(text.rsplit_once('<').map_or(text.as_str(), |(_, id)| id.trim_end_matches('>')).to_owned())
}

fn timestamp(at: &DateTime) -> Option<Timestamp> {
    let small = |n: u8| i8::try_from(n).ok();
    let local = jiff::civil::DateTime::new(
        i16::try_from(at.year).ok()?,
        small(at.month)?,
        small(at.day)?,
        small(at.hour)?,
        small(at.minute)?,
        // A leap second.
        small(at.second.min(59))?,
        0,
    )
    .ok()?;
    let seconds = i32::from(at.tz_hour) * 3600 + i32::from(at.tz_minute) * 60;
    let offset = Offset::from_seconds(if at.tz_before_gmt { -seconds } else { seconds }).ok()?;
    offset.to_timestamp(local).ok().filter(|at| is_plausible(*at))
}
