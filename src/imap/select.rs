//! Opening a mailbox: its name on the wire, EXAMINE, and what its numbers mean against the checkpoint.

use std::time::Instant;

use jiff::Timestamp;

use super::capability::Capabilities;
use super::changes::WantedChanges;
use super::command::{Command, UidRange};
use super::conversation::{Action, Finding, Phase, Shared, ToldFrom, Watch};
use super::ending::Ending;
use super::fetch::MOST_RANGES;
use super::refusal::{Refusal, Why};
use super::reply::{Code, FetchItems, ListEntry, MAX_MODSEQ, Reply, Status, StatusText};
use super::summary::internal_date;
use super::tally::Tally;
use super::utf7;
use super::watch::{Position, Selected, epoch_gap};
use crate::event::{Cursor, MailboxName, Role};
use crate::memory::{self, Memory};
use crate::uid_set::UidSet;

/// A mailbox as the server knows it.
#[derive(Clone, Debug)]
pub(super) struct Located {
    pub(super) mailbox: MailboxName,
    pub(super) wire_name: Vec<u8>,
    pub(super) role: Option<Role>,
    /// LIST has it.
    pub(super) listed: bool,
}

impl Located {
    fn inbox() -> Self {
        Self {
            mailbox: MailboxName::inbox(),
            wire_name: b"INBOX".to_vec(),
            role: Some(Role::Inbox),
            listed: true,
        }
    }
}

/// Awaits LIST: first the hierarchy delimiter, then the mailbox itself with its attributes.
#[derive(Debug)]
pub(super) struct Locating {
    watch: Watch,
    step: LocatingStep,
    entry: Option<ListEntry>,
}

#[derive(Debug)]
enum LocatingStep {
    Delimiter,
    Mailbox { wire_name: Vec<u8> },
}

impl Locating {
    pub(super) fn begin(shared: &mut Shared, watch: Watch, now: Instant) -> Phase {
        if watch.mailbox.is_inbox() {
            return Examining::begin(shared, watch, Located::inbox(), now);
        }
        let phase = Self { watch, step: LocatingStep::Delimiter, entry: None };
        let command = Command::List { pattern: b"", special_use: false, statuses: None };
        shared.send_then(&command, now, Phase::Locating(Box::new(phase)))
    }

    pub(super) fn listed(&mut self, entry: ListEntry) {
        self.entry.get_or_insert(entry);
    }

    pub(super) fn completed(
        self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        if status != Status::Ok {
            return shared.refused("LIST", text);
        }
        match self.step {
            LocatingStep::Delimiter => {
                let delimiter = self.entry.and_then(|entry| entry.delimiter);
                let wire_name = wire_name(&self.watch.mailbox, delimiter, shared.capabilities);
                let special_use = shared.capabilities.lists_special_use();
                let command = Command::List { pattern: &wire_name.clone(), special_use, statuses: None };
                let step = LocatingStep::Mailbox { wire_name };
                shared.send_then(
                    &command,
                    now,
                    Phase::Locating(Box::new(Self { watch: self.watch, step, entry: None })),
                )
            }
            LocatingStep::Mailbox { wire_name } => {
                let listed = self.entry.is_some();
                let attributes = self.entry.map(|entry| entry.attributes).unwrap_or_default();
                let role = attributes.iter().find_map(|attribute| Role::from_attribute(attribute));
                let located = Located { mailbox: self.watch.mailbox.clone(), wire_name, role, listed };
                Examining::begin(shared, self.watch, located, now)
            }
        }
    }
}

/// `/` becomes the server's delimiter, the rest modified UTF-7, or stays UTF-8 where that is enabled.
pub(super) fn wire_name(
    mailbox: &MailboxName,
    delimiter: Option<char>,
    capabilities: Capabilities,
) -> Vec<u8> {
    let name = match delimiter {
        Some(delimiter) if delimiter != '/' => {
            mailbox.as_str().replace('/', delimiter.encode_utf8(&mut [0; 4]))
        }
        _ => mailbox.as_str().to_owned(),
    };
    if capabilities.needs_utf8() { name } else { utf7::encode(&name) }.into_bytes()
}

/// A LIST name as events show it: decoded, `/` between levels, INBOX in capitals.
pub(super) fn shown_name(entry: &ListEntry) -> MailboxName {
    let name = utf7::decode(&entry.name);
    let name = match entry.delimiter {
        Some(delimiter) if delimiter != '/' => name.replace(delimiter, "/"),
        _ => name,
    };
    if name.eq_ignore_ascii_case("INBOX") { MailboxName::inbox() } else { MailboxName::new(name) }
}

/// The numbers that a server tells of a mailbox while it opens it.
#[derive(Debug, Default)]
pub(super) struct Opened {
    exists: u32,
    uid_validity: Option<u32>,
    uid_next: Option<u32>,
    modseq: Option<u64>,
}

impl Opened {
    pub(super) fn told(&mut self, reply: &Reply) {
        match reply {
            Reply::Exists(n) => self.exists = *n,
            Reply::Untagged { status: Status::Ok, text } => self.told_code(text.code.as_ref()),
            _ => {}
        }
    }

    /// Some servers tell a number only with the completion.
    pub(super) fn told_code(&mut self, code: Option<&Code>) {
        match code {
            Some(Code::UidValidity(n)) => self.uid_validity = Some(*n).filter(|&n| n > 0),
            Some(Code::UidNext(n)) => self.uid_next = Some(*n).filter(|&n| n > 0),
            Some(Code::HighestModSeq(n)) => self.modseq = Some(*n).filter(|n| (1..=MAX_MODSEQ).contains(n)),
            _ => {}
        }
    }

    pub(super) fn exists(&self) -> u32 {
        self.exists
    }

    pub(super) fn uid_validity(&self) -> Option<u32> {
        self.uid_validity
    }
}

/// Awaits EXAMINE.
#[derive(Debug)]
pub(super) struct Examining {
    watch: Watch,
    located: Located,
    opened: Opened,
}

impl Examining {
    pub(super) fn begin(shared: &mut Shared, watch: Watch, located: Located, now: Instant) -> Phase {
        let wire_name = located.wire_name.clone();
        let condstore = shared.capabilities.has("CONDSTORE");
        let phase = Self { watch, located, opened: Opened::default() };
        shared.send_then(
            &Command::Examine { mailbox: &wire_name, condstore },
            now,
            Phase::Examining(Box::new(phase)),
        )
    }

    pub(super) fn told(&mut self, reply: &Reply) {
        self.opened.told(reply);
    }

    pub(super) fn completed(
        mut self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        if status != Status::Ok {
            return shared.cannot_open(&self.watch.mailbox, refused(text, self.located.listed), now);
        }
        self.opened.told_code(text.code.as_ref());
        let Some(uid_validity) = self.opened.uid_validity else {
            return shared.cannot_open(&self.watch.mailbox, Ending::NoUidValidity, now);
        };
        let opened = OpenedMailbox { located: self.located, opened: self.opened, uid_validity };
        let known = self.watch.checkpoint.as_ref().filter(|cursor| cursor.uid_validity == uid_validity);
        match opened.opened.uid_next {
            // Stale, or a mailbox that was restored from a backup: the last message tells.
            Some(uid_next)
                if opened.opened.exists > 0 && known.is_some_and(|cursor| uid_next < cursor.uid_next) =>
            {
                ProbingUidNext::begin(shared, self.watch, opened, now)
            }
            Some(uid_next) => contact(shared, self.watch, opened, uid_next, now),
            None if opened.opened.exists == 0 => {
                let known = self.watch.checkpoint.as_ref().map_or(1, |cursor| cursor.uid_next);
                contact(shared, self.watch, opened, known, now)
            }
            None => ProbingUidNext::begin(shared, self.watch, opened, now),
        }
    }
}

/// NO to EXAMINE: the mailbox's own trouble, unless the server says that it is a matter of patience. Neither Dovecot 2.3
/// nor Cyrus 3.6 has a code for one that is not there: that it is not listed either says so.
fn refused(text: &StatusText, listed: bool) -> Ending {
    let refusal = Refusal::of(text);
    match refusal.why {
        Why::Patience => Ending::CommandRefused { command: "EXAMINE", refusal },
        _ if !listed && refusal.code.is_none() => Ending::MailboxRefused(refusal.nonexistent()),
        _ => Ending::MailboxRefused(refusal),
    }
}

#[derive(Debug)]
pub(super) struct OpenedMailbox {
    located: Located,
    opened: Opened,
    uid_validity: u32,
}

/// Awaits the UID of the last message: 163.com and Winmail send no UIDNEXT.
#[derive(Debug)]
pub(super) struct ProbingUidNext {
    watch: Watch,
    opened: OpenedMailbox,
    last: u32,
    /// Where replies about the mailbox go meanwhile.
    selected: Box<Selected>,
}

impl ProbingUidNext {
    fn begin(shared: &mut Shared, watch: Watch, opened: OpenedMailbox, now: Instant) -> Phase {
        let exists = opened.opened.exists;
        let cursor = Cursor::baseline(opened.uid_validity, 1, None);
        let selected = Selected::new(opened.position(WantedChanges::default()), cursor, &watch);
        let phase = Self { watch, opened, last: 0, selected };
        let command = Command::Fetch { first: exists, last: exists, items: "(UID)" };
        shared.send_then(&command, now, Phase::ProbingUidNext(Box::new(phase)))
    }

    pub(super) fn selected(&mut self) -> &mut Selected {
        &mut self.selected
    }

    pub(super) fn told(&mut self, items: &FetchItems) {
        self.last = self.last.max(items.uid.unwrap_or(0));
    }

    pub(super) fn completed(
        mut self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        if status != Status::Ok {
            return shared.refused("FETCH", text);
        }
        if self.last == 0 {
            // The last message went meanwhile; its UID will not be known, so nothing may be taken for old.
            return shared.refused("FETCH", &StatusText { code: None, text: "told no UID".into() });
        }
        self.opened.opened.exists = self.selected.exists();
        let told = self.opened.opened.uid_next.unwrap_or(0);
        contact(shared, self.watch, self.opened, self.last.saturating_add(1).max(told), now)
    }
}

impl OpenedMailbox {
    fn position(&self, changes: WantedChanges) -> Position {
        let (tally, modseq) = (Tally::new(self.opened.exists), self.opened.modseq);
        Position { located: self.located.clone(), tally, modseq, changes }
    }
}

/// The mailbox is open and its numbers are known: what do they mean against the checkpoint?
fn contact(shared: &mut Shared, watch: Watch, opened: OpenedMailbox, uid_next: u32, now: Instant) -> Phase {
    let position = opened.position(watch.changes.with(shared.capabilities.has("CONDSTORE"), shared.qresync));
    if position.changes.any() && position.modseq.is_none() {
        shared.act(Action::ChangesUntold("the mailbox has no mod-sequences"));
    }
    let (validity, modseq, exists) = (opened.uid_validity, opened.opened.modseq, opened.opened.exists);
    let told = opened.opened.uid_next.is_some();
    // A UIDNEXT that is below what was seen gives UIDs anew as well, whatever UIDVALIDITY says.
    let goes_on = |cursor: &Cursor| cursor.uid_validity == validity && !(told && uid_next < cursor.uid_next);
    match &watch.checkpoint {
        Some(cursor) if goes_on(cursor) => {
            let mut selected = Selected::new(position, cursor.clone(), &watch);
            selected.resume(uid_next, modseq, now);
            match cursor.look_back {
                Some(_) => Recalling::begin(shared, selected, None, now),
                None => selected.proceed(shared, now),
            }
        }
        Some(_) if shared.is_another_epoch() => shared.unexpected("another UIDVALIDITY"),
        Some(cursor) => {
            let blind_since = cursor.blind_since;
            let baseline = Cursor { blind_since, ..Cursor::baseline(validity, uid_next, modseq) };
            let reset = Reset { role: position.located.role, previous: cursor.uid_validity, exists };
            let mut selected = Selected::new(position, baseline.clone(), &watch);
            selected.resume(uid_next, modseq, now);
            selected.has_passed_over();
            Recalling::begin(shared, selected, Some(NewEpoch { reset, baseline }), now)
        }
        None => match shared.inherits(validity, uid_next) {
            Some(cursor) => {
                let mut selected = Selected::new(position, cursor.clone(), &watch);
                selected.resume(uid_next, modseq, now);
                selected.deliver(shared, Vec::new(), cursor, now)
            }
            None => first_contact(shared, watch, position, Cursor::baseline(validity, uid_next, modseq), now),
        },
    }
}

/// A mailbox whose UIDs were given anew.
#[derive(Debug)]
struct Reset {
    role: Option<Role>,
    previous: u32,
    exists: u32,
}

impl Reset {
    fn finding(&self) -> Finding {
        Finding::Reset { role: self.role, previous: self.previous }
    }

    /// Nothing of the new epoch can be told from what was told already: it begins with a baseline, and says so.
    fn without_look_back(&self) -> Vec<Finding> {
        let gap = (self.exists > 0).then(|| epoch_gap(self.role, None));
        std::iter::once(self.finding()).chain(gap).collect()
    }
}

/// The epoch that begins, before anything of it is durable.
#[derive(Debug)]
struct NewEpoch {
    reset: Reset,
    baseline: Cursor,
}

/// Awaits what was told of the mailbox lately: at the begin of an epoch, or where a look back was interrupted.
#[derive(Debug)]
pub(super) struct Recalling {
    selected: Box<Selected>,
    epoch: Option<NewEpoch>,
}

impl Recalling {
    fn begin(shared: &mut Shared, selected: Box<Selected>, epoch: Option<NewEpoch>, now: Instant) -> Phase {
        shared.act(Action::Recall(selected.mailbox().clone()));
        let timeout = shared.plan.command_timeout;
        shared.wait("the journal", timeout, timeout * 10, now);
        Phase::Recalling(Box::new(Self { selected, epoch }))
    }

    pub(super) fn selected(&mut self) -> &mut Selected {
        &mut self.selected
    }

    pub(super) fn recalled(mut self, shared: &mut Shared, memory: Memory, now: Instant) -> Phase {
        match (self.epoch, memory.from) {
            (None, _) => {
                self.selected.remember(memory.known);
                self.selected.proceed(shared, now)
            }
            (Some(epoch), Some(from)) if epoch.reset.exists > 0 => {
                self.selected.remember(memory.known);
                let NewEpoch { reset, baseline } = epoch;
                Dating::begin(shared, self.selected, Some(reset), baseline, from, now)
            }
            (Some(NewEpoch { reset, baseline }), _) => {
                self.selected.deliver(shared, reset.without_look_back(), baseline, now)
            }
        }
    }
}

fn first_contact(
    shared: &mut Shared,
    watch: Watch,
    position: Position,
    baseline: Cursor,
    now: Instant,
) -> Phase {
    let uid_next = baseline.uid_next;
    match watch.told_from {
        Some(ToldFrom::Time(from)) if uid_next > 1 => {
            let mut selected = Selected::new(position, baseline.clone(), &watch);
            selected.resume(uid_next, baseline.modseq, now);
            Dating::begin(shared, selected, None, baseline, from, now)
        }
        Some(from) => {
            let first = match from {
                ToldFrom::Uid(uid) => uid.clamp(1, uid_next),
                ToldFrom::Time(_) => 1,
            };
            let rest = Cursor { uid_next: first, seen: UidSet::range(1, first - 1), ..baseline };
            let mut selected = Selected::new(position, rest.clone(), &watch);
            selected.backfill(first, uid_next);
            selected.deliver(shared, Vec::new(), rest, now)
        }
        None => {
            let mut selected = Selected::new(position, baseline.clone(), &watch);
            selected.resume(uid_next, baseline.modseq, now);
            selected.needs_no_check();
            selected.deliver(shared, Vec::new(), baseline, now)
        }
    }
}

/// Awaits the dates of all messages: which of them are young enough to be told at a first contact, or to be looked at
/// again in a new epoch?
#[derive(Debug)]
pub(super) struct Dating {
    selected: Box<Selected>,
    reset: Option<Reset>,
    baseline: Cursor,
    from: Timestamp,
    young: UidSet,
}

impl Dating {
    fn begin(
        shared: &mut Shared,
        selected: Box<Selected>,
        reset: Option<Reset>,
        baseline: Cursor,
        from: Timestamp,
        now: Instant,
    ) -> Phase {
        let phase = Self { selected, reset, baseline, from, young: UidSet::new() };
        let command = Command::UidFetch {
            uids: UidRange::From(1),
            items: "(UID INTERNALDATE)",
            changed_since: None,
            vanished: false,
        };
        shared.send_then(&command, now, Phase::Dating(Box::new(phase)))
    }

    pub(super) fn selected(&mut self) -> &mut Selected {
        &mut self.selected
    }

    pub(super) fn told(&mut self, items: &FetchItems) {
        let Some(uid) = items.uid else { return };
        // A date that is missing or cannot be read does not make a message old.
        let date = items.internal_date.as_deref().and_then(internal_date);
        let young = date.is_none_or(|date| date >= self.from);
        if !young || uid >= self.baseline.uid_next {
            return;
        }
        match self.young.last() {
            // No room for more ranges: rather tell some that are old than lose one that is not.
            Some(last) if self.young.ranges().len() >= MOST_RANGES => {
                self.young.insert_range(uid.min(last), uid.max(last));
            }
            _ => drop(self.young.insert(uid)),
        }
    }

    pub(super) fn completed(
        mut self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        if status != Status::Ok {
            return shared.refused("UID FETCH", text);
        }
        let uid_next = self.baseline.uid_next;
        let too_many = self.reset.is_some() && self.young.len() > u64::from(memory::MOST);
        let Some(first) = self.young.first().filter(|_| !too_many) else {
            let findings = self.reset.map_or_else(Vec::new, |reset| reset.without_look_back());
            return self.selected.deliver(shared, findings, self.baseline, now);
        };
        let look_back = self.reset.is_some().then_some(uid_next);
        let mut cursor = Cursor { uid_next: first, look_back, ..self.baseline };
        cursor.seen.subtract(&self.young);
        self.selected.backfill(first, uid_next);
        let findings = self.reset.iter().map(Reset::finding).collect();
        self.selected.deliver(shared, findings, cursor, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_use_the_servers_delimiter_on_the_wire_and_a_slash_in_events() {
        let mailbox = MailboxName::from("Lists/Größe");
        let wire = wire_name(&mailbox, Some('.'), Capabilities::default());
        assert_eq!(wire, b"Lists.Gr&APYA3w-e");
        let entry = ListEntry { attributes: Vec::new(), delimiter: Some('.'), name: wire };
        assert_eq!(shown_name(&entry), mailbox);
        assert_eq!(wire_name(&mailbox, None, Capabilities::default()), b"Lists/Gr&APYA3w-e");
    }

    #[test]
    fn inbox_is_one_mailbox_in_whatever_case() {
        let entry = ListEntry { attributes: Vec::new(), delimiter: None, name: b"inbox".to_vec() };
        assert!(shown_name(&entry).is_inbox());
    }
}
