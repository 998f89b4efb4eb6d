//! What is known of the open mailbox, and the one decision that is taken again and again: what next?

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::changes::{Changes, Flagged, Found, Look, Told, WantedChanges, is_hint};
use super::conversation::{Action, Delivery, Finding, Phase, Shared, Until, Watch};
use super::fetch::{CHUNK, Fetching};
use super::idle::{Idle, Polling};
use super::looking::Looking;
use super::notify::{Notifying, Pushes};
use super::reply::{Code, FetchItems, MAX_MODSEQ, Reply, Status};
use super::rounds;
use super::search::{Criteria, Searching};
use super::select::{Located, Locating};
use super::stops::Numbers;
use super::tally::Tally;
use crate::event::{
    Cursor, Expunged, FlagsChange, GapReason, MailboxName, MessageSummary, NewMessage, Role, Source,
};
use crate::journal::Receipt;
use crate::memory::Fingerprint;
use crate::uid_set::UidSet;

/// UIDs below the cursor that a check round still looks at: late-visible ones come soon, or never.
pub(super) const LOOK_BACK: u32 = 1_000;

/// The most ranges of a seen-set.
const MOST_RANGES: usize = 128;

/// How long the journal may take before the connection is kept alive by IDLE meanwhile.
const PATIENCE_WITH_JOURNAL: Duration = Duration::from_secs(20);

/// Check rounds in a row that find what IDLE did not tell, after which IDLE is not believed any more.
const DEAF_AFTER: u8 = 2;

/// Conversations in a row that ended in a search or a FETCH, after which nothing is searched for: it may be the cause.
const NO_SEARCH_AFTER: u8 = 3;

/// The server pushes nothing any more (RFC 5465 section 5.8).
const OVERFLOW: &str = "NOTIFICATIONOVERFLOW";

/// Times that a server may end IDLE by itself before it is polled instead.
const MOST_EARLY_ENDS: u8 = 3;

/// An open mailbox, before it is held against a checkpoint.
#[derive(Debug)]
pub(super) struct Position {
    pub(super) located: Located,
    pub(super) tally: Tally,
    /// HIGHESTMODSEQ
    pub(super) modseq: Option<u64>,
    /// The changes that are wanted, and that the server can tell.
    pub(super) changes: WantedChanges,
}

/// The open mailbox.
#[derive(Debug)]
pub(super) struct Selected {
    located: Located,
    tally: Tally,
    /// As journalled; only a receipt moves it.
    cursor: Cursor,
    stored: Stored,
    /// A delivery has no receipt yet.
    outstanding: bool,
    /// Known to be there, and not told yet.
    pending: UidSet,
    /// What is searched for; `None` where everything is fetched.
    search: Option<Arc<Criteria>>,
    /// Known to be there; whether it is wanted is not.
    unsearched: UidSet,
    /// The search left it out: it counts as seen once that is durable.
    unwanted: UidSet,
    until: Until,
    /// Every UID below it is seen, pending, or not there.
    asked_to: u32,
    /// UIDNEXT as told; 0 where it was not.
    told_next: u32,
    /// There may be more above `asked_to` than the tally knows of.
    ask_top: bool,
    sweep_due: bool,
    sweep_at: Option<Instant>,
    /// CHANGEDSINCE for the next check round.
    modseq: Option<u64>,
    source: Source,
    /// How little is asked for at once: see [`super::fetch`].
    caution: u8,
    /// Holes below are no news: they were there before the first contact.
    gap_floor: u32,
    announced: bool,
    epoch_ended: bool,
    /// What was told before the UIDs were given anew.
    known: HashSet<Fingerprint>,
    /// Messages told since EXAMINE.
    recovered: u64,
    /// UIDs were passed over since EXAMINE: nobody knows whether they ever were messages.
    passed_over: bool,
    idle: IdleTrust,
    pushes: Pushes,
    /// `None` where changes are not told.
    changes: Option<Box<Changes>>,
}

/// What the journal holds in place of the cursor, as long as it does not hold that.
#[derive(Debug)]
enum Stored {
    Same,
    Nothing,
    Other(Box<Cursor>),
}

impl Stored {
    fn new(checkpoint: Option<&Cursor>, cursor: &Cursor) -> Self {
        match checkpoint {
            Some(checkpoint) if checkpoint == cursor => Self::Same,
            Some(checkpoint) => Self::Other(Box::new(checkpoint.clone())),
            None => Self::Nothing,
        }
    }
}

/// How far the server's IDLE is to be trusted.
#[derive(Debug, Default)]
struct IdleTrust {
    refused: bool,
    silent_finds: u8,
    early_ends: u8,
}

impl Selected {
    pub(super) fn new(position: Position, cursor: Cursor, watch: &Watch) -> Box<Self> {
        let changes = position.modseq.filter(|_| position.changes.any());
        // Nothing is told of what was before the first look, nor before mod-sequences that went backwards.
        let told = changes.map(|highest| cursor.changes.filter(|&told| told <= highest).unwrap_or(highest));
        let gone = cursor.gone.filter(|_| told.is_some() && position.changes.expunges);
        let cursor = Cursor { changes: told, gone, ..cursor };
        Box::new(Self {
            changes: changes.map(|_| Box::new(Changes::new(position.changes))),
            located: position.located,
            tally: position.tally,
            asked_to: cursor.uid_next,
            modseq: cursor.modseq,
            stored: Stored::new(watch.checkpoint.as_ref(), &cursor),
            cursor,
            outstanding: false,
            pending: UidSet::new(),
            search: watch.search.clone().filter(|_| watch.caution < NO_SEARCH_AFTER),
            unsearched: UidSet::new(),
            unwanted: UidSet::new(),
            until: watch.until,
            told_next: 0,
            ask_top: false,
            sweep_due: false,
            sweep_at: None,
            source: Source::Sync,
            caution: watch.caution,
            gap_floor: 0,
            announced: false,
            epoch_ended: false,
            known: HashSet::new(),
            recovered: 0,
            passed_over: false,
            idle: IdleTrust::default(),
            pushes: Pushes::default(),
        })
    }

    /// The server's UIDNEXT and HIGHESTMODSEQ at EXAMINE, against the cursor's.
    pub(super) fn resume(&mut self, uid_next: u32, modseq: Option<u64>, now: Instant) {
        self.told_next = uid_next;
        self.ask_top = uid_next > self.cursor.uid_next;
        // Nothing changed since, so nothing came late: all that could be is looked at (RFC 7162 section 3.1.2.1).
        let unchanged = modseq.is_some() && modseq == self.modseq && self.cursor.look_back.is_none();
        // There will be no check round later.
        self.sweep_due = self.until != Until::Stopped && !unchanged;
        self.gap_floor = self.cursor.look_back.unwrap_or(0);
        // A HIGHESTMODSEQ that went backwards, or away, says nothing any more (RFC 7162 section 3.1.2.2).
        self.modseq = match (self.modseq, modseq) {
            (Some(known), Some(told)) if known <= told => Some(known),
            (_, told) => told,
        };
        let changed = modseq > self.cursor.changes;
        self.changes.iter_mut().filter(|_| changed).for_each(|changes| changes.hinted(now));
    }

    /// Nothing that is there is looked for.
    pub(super) fn needs_no_check(&mut self) {
        self.sweep_due &= self.until != Until::Visited;
    }

    /// A first contact that tells what is there already, `from` one UID on: holes below `uid_next` are none.
    pub(super) fn backfill(&mut self, from: u32, uid_next: u32) {
        self.told_next = uid_next;
        self.gap_floor = uid_next;
        self.ask_top = true;
        self.asked_to = from;
    }

    /// Mailbox data, whichever phase it comes in.
    pub(super) fn told(&mut self, reply: &Reply, now: Instant) {
        self.changes.iter_mut().filter(|_| is_hint(reply)).for_each(|changes| changes.hinted(now));
        match reply {
            Reply::Exists(n) => self.tally.told_exists(*n),
            Reply::Expunge(seq) => self.tally.told_expunge(*seq),
            Reply::Vanished { earlier: false, uids, beyond } => {
                self.tally.told_vanished(uids.len().saturating_add(*beyond));
            }
            Reply::Untagged { status: Status::Ok, text } => {
                if let Some(Code::UidValidity(n)) = text.code {
                    self.epoch_ended |= n != self.cursor.uid_validity;
                }
                if text.code.as_ref().is_some_and(|code| code.name() == OVERFLOW) {
                    self.pushes = Pushes::Off;
                }
            }
            _ => {}
        }
    }

    /// What next? Asked after everything that may have changed the answer.
    pub(super) fn proceed(mut self: Box<Self>, shared: &mut Shared, now: Instant) -> Phase {
        if self.outstanding {
            return self.await_receipt(shared, now);
        }
        if shared.stopping {
            return shared.log_out(now);
        }
        if self.epoch_ended {
            return self.examine_again(shared, now);
        }
        self.announce(shared);
        if self.knows_not_who_is_gone() || self.has_settled_many(now) {
            Looking::begin(self, shared, now)
        } else if !self.pending.is_empty() {
            Fetching::chunk(self, shared, now)
        } else if !self.unsearched.is_empty() {
            Searching::begin(self, shared, now)
        } else if self.ask_top || self.tally.news() > 0 {
            Fetching::top(self, shared, now)
        } else if std::mem::take(&mut self.sweep_due) {
            Fetching::sweep(self, shared, now)
        } else if self.is_to_be_looked_at(now) {
            Looking::begin(self, shared, now)
        } else if matches!(self.stored, Stored::Other(_)) {
            let cursor = self.cursor.clone();
            self.deliver(shared, Vec::new(), cursor, now)
        } else if self.cursor.look_back.is_some() {
            self.tell_looked_back(shared, now)
        } else if let Some(since) = self.cursor.blind_since {
            self.tell_blindness(shared, since, now)
        } else {
            match self.until {
                Until::CaughtUp => shared.log_out(now),
                Until::Visited => rounds::caught_up(self, shared, now),
                Until::Stopped => self.rest(shared, now),
            }
        }
    }

    /// What the new epoch holds of the last day is told; of what came and went in between nobody knows.
    fn tell_looked_back(mut self: Box<Self>, shared: &mut Shared, now: Instant) -> Phase {
        let gap = epoch_gap(self.located.role, Some(self.recovered));
        self.known = HashSet::new();
        self.passed_over = true;
        let cursor = Cursor { look_back: None, ..self.cursor.clone() };
        self.deliver(shared, vec![gap], cursor, now)
    }

    /// All that came while nobody watched is told: says so, and what may be missing.
    fn tell_blindness(self: Box<Self>, shared: &mut Shared, since: Timestamp, now: Instant) -> Phase {
        let cursor = Cursor { blind_since: None, ..self.cursor.clone() };
        if self.until == Until::CaughtUp || shared.looks_in() {
            // Whoever looks in now and then is away in between: that is no news.
            return self.deliver(shared, Vec::new(), cursor, now);
        }
        let gap = Finding::Gap {
            role: self.located.role,
            uid_first: None,
            uid_last: None,
            since: Some(since),
            recovered: Some(self.recovered),
            lost: (!self.passed_over).then_some(0),
            reason: GapReason::Offline,
        };
        self.deliver(shared, vec![gap], cursor, now)
    }

    /// Whether there is something to do that IDLE must be left for.
    pub(super) fn has_work(&self) -> bool {
        let work = self.epoch_ended || self.ask_top || self.tally.news() > 0 || self.waiting().is_some();
        (work || self.until == Until::CaughtUp) && !self.outstanding
    }

    /// Whether all that there is to do is to ask for a few new messages, known by number.
    pub(super) fn has_few_new(&self) -> bool {
        let news = (1..=CHUNK).contains(&self.tally.news());
        news && self.is_settled() && !self.outstanding
    }

    /// Whether nothing is unknown but what comes next.
    fn is_settled(&self) -> bool {
        let else_nothing = !self.epoch_ended && !self.ask_top && !self.sweep_due;
        let known = self.cursor.look_back.is_none() && self.cursor.blind_since.is_none();
        let whole = self.search.is_none() && self.caution == 0 && self.until == Until::Stopped;
        else_nothing && known && whole && self.waiting().is_none()
    }

    /// Whether IDLE must be left, for this mailbox or for others.
    pub(super) fn is_wanted(&self, shared: &Shared, now: Instant) -> bool {
        let look = || self.is_look_due(now) || shared.is_called_away(self.mailbox(), now);
        self.has_work() || (!self.outstanding && look())
    }

    /// Its numbers, now that all that is new is told.
    pub(super) fn numbers(&self) -> Numbers {
        Numbers {
            uid_validity: self.cursor.uid_validity,
            uid_next: self.told_next.max(self.cursor.uid_next),
            messages: self.tally.exists(),
            changes: self.cursor.changes,
        }
    }

    /// The lowest UID that is there and not told.
    fn waiting(&self) -> Option<u32> {
        [&self.pending, &self.unsearched].into_iter().filter_map(UidSet::first).min()
    }

    /// IDLE, or a pause between two NOOPs.
    pub(super) fn rest(mut self: Box<Self>, shared: &mut Shared, now: Instant) -> Phase {
        self.sweep_at.get_or_insert(now + shared.plan.idle_refresh);
        if self.idles(shared) {
            self.source = Source::Idle;
            if self.is_to_be_notified(shared) {
                return Notifying::begin(self, shared, now);
            }
            Idle::begin(self, shared, now)
        } else {
            self.source = Source::Poll;
            Polling::begin(self, shared, now)
        }
    }

    /// What is searched for is not pushed, nor where less is asked for than usual.
    fn is_to_be_notified(&self, shared: &Shared) -> bool {
        // NOTIFY would leave changes of flags out.
        let unasked = self.pushes == Pushes::Unasked
            && self.search.is_none()
            && self.caution == 0
            && self.changes.is_none();
        // A connection for many mailboxes has a NOTIFY of its own, which this would replace.
        unasked && shared.rounds.is_none() && shared.capabilities.has("NOTIFY")
    }

    fn idles(&self, shared: &Shared) -> bool {
        shared.capabilities.has("IDLE") && !self.idle.refused && self.idle.silent_finds < DEAF_AFTER
    }

    fn announce(&mut self, shared: &mut Shared) {
        if !std::mem::replace(&mut self.announced, true) && shared.is_newly_watched(self.mailbox()) {
            shared.act(Action::Watching(self.located.mailbox.clone()));
        }
    }

    fn examine_again(self, shared: &mut Shared, now: Instant) -> Phase {
        let watch = Watch {
            mailbox: self.located.mailbox,
            changes: self.changes.map(|changes| changes.wanted()).unwrap_or_default(),
            checkpoint: Some(self.cursor),
            told_from: None,
            caution: self.caution,
            search: self.search,
            until: self.until,
        };
        Locating::begin(shared, watch, now)
    }

    /// Hands `findings` over, and waits for the receipt.
    pub(super) fn deliver(
        mut self: Box<Self>,
        shared: &mut Shared,
        findings: Vec<Finding>,
        cursor: Cursor,
        now: Instant,
    ) -> Phase {
        self.hand_over(shared, findings, cursor);
        self.await_receipt(shared, now)
    }

    fn hand_over(&mut self, shared: &mut Shared, findings: Vec<Finding>, cursor: Cursor) {
        let changes = cursor.changes.or(self.cursor.changes);
        let gone = cursor.gone.or_else(|| self.cursor.gone.clone());
        let cursor = Cursor { changes, gone, ..cursor };
        let mailbox = self.located.mailbox.clone();
        let before = match &self.stored {
            Stored::Same => Some(Box::new(self.cursor.clone())),
            Stored::Nothing => None,
            Stored::Other(cursor) => Some(cursor.clone()),
        };
        shared.act(Action::Deliver(Delivery { mailbox, findings, cursor, before }));
        self.outstanding = true;
    }

    fn await_receipt(self: Box<Self>, shared: &mut Shared, now: Instant) -> Phase {
        shared.wait("the journal", PATIENCE_WITH_JOURNAL, PATIENCE_WITH_JOURNAL, now);
        Phase::AwaitReceipt(self)
    }

    /// The only place where the cursor moves.
    pub(super) fn delivered(&mut self, receipt: &Receipt, shared: &mut Shared) {
        if let Some(cursor) = receipt.cursor() {
            self.cursor = cursor.clone();
            self.stored = Stored::Same;
            self.unwanted = UidSet::new();
        }
        self.outstanding = false;
        self.announce(shared);
    }

    /// All that `got` holds will have been told: delivers it, with the gaps that are left behind.
    pub(super) fn tell(mut self: Box<Self>, shared: &mut Shared, got: Got, now: Instant) -> Phase {
        if self.report(shared, got, now) {
            self.await_receipt(shared, now)
        } else {
            self.proceed(shared, now)
        }
    }

    /// As [`Self::tell`], and the phase stays. Whether there is anything to deliver.
    pub(super) fn report(&mut self, shared: &mut Shared, mut got: Got, now: Instant) -> bool {
        self.settle(&got, now);
        let (cursor, holes) = self.advance(&got.uids());
        let missed = u64::from(self.tally.take_missed());
        let mut findings = Vec::with_capacity(got.0.len() + 1);
        self.passed_over |= !holes.is_empty();
        if !holes.is_empty() {
            findings.push(Finding::Gap {
                role: self.located.role,
                uid_first: holes.first(),
                uid_last: holes.last(),
                since: None,
                recovered: None,
                lost: Some(holes.len()).filter(|&lost| lost <= missed),
                reason: GapReason::Expunged,
            });
        }
        got.0.sort_unstable_by_key(|(uid, _)| *uid);
        let told = got.0.into_iter().filter_map(|(uid, summary)| self.news(uid, summary));
        findings.extend(told.map(Finding::Message));
        self.recovered +=
            findings.iter().filter(|finding| matches!(finding, Finding::Message(_))).count() as u64;
        if findings.is_empty() && cursor.uid_next == self.cursor.uid_next && cursor.seen == self.cursor.seen {
            return false;
        }
        self.hand_over(shared, findings, cursor);
        true
    }

    /// The cursor once `got` is told, and the UIDs passed over because nothing is there.
    fn advance(&self, got: &UidSet) -> (Cursor, UidSet) {
        let mut cursor = Cursor { modseq: self.modseq, ..self.cursor.clone() };
        cursor.seen.extend(got);
        cursor.seen.extend(&self.unwanted);
        let accounted = self.waiting().unwrap_or(self.asked_to).min(self.asked_to);
        let mut holes = UidSet::new();
        if accounted > cursor.uid_next {
            holes.insert_range(cursor.uid_next.max(self.gap_floor), accounted - 1);
            holes.subtract(&cursor.seen);
            cursor.uid_next = accounted;
        }
        // Holes from `uid_next` on may be messages that are still to be told.
        cursor.seen.collapse(cursor.uid_next.saturating_sub(LOOK_BACK), cursor.uid_next, MOST_RANGES);
        (cursor, holes)
    }

    /// The message as it is told; `None` for one that was told before the UIDs were given anew.
    fn news(&self, uid: u32, summary: MessageSummary) -> Option<Box<NewMessage>> {
        let epoch_changed = self.cursor.look_back.is_some_and(|below| uid < below);
        if epoch_changed && Fingerprint::of(&summary).is_some_and(|known| self.known.contains(&known)) {
            return None;
        }
        Some(Box::new(NewMessage {
            mailbox: self.located.mailbox.clone(),
            role: self.located.role,
            messages: Some(self.tally.exists()),
            uid_validity: self.cursor.uid_validity,
            uid,
            source: self.source,
            epoch_changed,
            summary,
        }))
    }
}

/// The UIDs were given anew: whether messages were missed cannot be known.
pub(super) fn epoch_gap(role: Option<Role>, recovered: Option<u64>) -> Finding {
    Finding::Gap {
        role,
        uid_first: None,
        uid_last: None,
        since: None,
        recovered,
        lost: None,
        reason: GapReason::UidValidity,
    }
}

/// For the phases that fetch.
impl Selected {
    pub(super) fn remember(&mut self, known: HashSet<Fingerprint>) {
        self.known = known;
    }

    /// It cannot be known what came between two epochs.
    pub(super) fn has_passed_over(&mut self) {
        self.passed_over = true;
    }

    pub(super) fn is_epoch_ended(&self) -> bool {
        self.epoch_ended
    }

    pub(super) fn wire_name(&self) -> &[u8] {
        &self.located.wire_name
    }

    pub(super) fn mailbox(&self) -> &MailboxName {
        &self.located.mailbox
    }

    pub(super) fn exists(&self) -> u32 {
        self.tally.exists()
    }

    pub(super) fn asked_to(&self) -> u32 {
        self.asked_to
    }

    pub(super) fn told_next(&self) -> u32 {
        self.told_next
    }

    pub(super) fn uid_next(&self) -> u32 {
        self.cursor.uid_next
    }

    pub(super) fn modseq(&self) -> Option<u64> {
        self.modseq
    }

    pub(super) fn forget_modseq(&mut self) {
        self.modseq = None;
    }

    pub(super) fn saw_modseq(&mut self, modseq: u64) {
        let modseq = modseq.min(MAX_MODSEQ);
        self.modseq = self.modseq.map(|known| known.max(modseq));
    }

    pub(super) fn caution(&self) -> u8 {
        self.caution
    }

    pub(super) fn set_caution(&mut self, caution: u8) {
        self.caution = caution;
    }

    pub(super) fn is_seen(&self, uid: u32) -> bool {
        self.cursor.seen.contains(uid)
    }

    pub(super) fn seen(&self) -> &UidSet {
        &self.cursor.seen
    }

    /// A FETCH of all that is new is issued: how many messages the tally expects of it, and whether it knows.
    pub(super) fn ask_for_top(&mut self) -> Option<u32> {
        let expected = self.tally.ask();
        self.pushes.asked();
        let certain = !std::mem::take(&mut self.ask_top);
        certain.then_some(expected)
    }

    pub(super) fn ask_top_again(&mut self) {
        self.ask_top = true;
    }

    pub(super) fn take_pending(&mut self, most: u32) -> UidSet {
        self.pending.take_lowest(most)
    }

    /// `present` is there; what of it is unseen has to be told, if it is wanted. Returns whether there is any.
    pub(super) fn found(&mut self, present: &UidSet) -> bool {
        let mut unseen = present.clone();
        unseen.subtract(&self.cursor.seen);
        match self.search {
            Some(_) => self.unsearched.extend(&unseen),
            None => self.pending.extend(&unseen),
        }
        !unseen.is_empty()
    }

    /// What is searched for.
    pub(super) fn search(&self) -> Option<Arc<Criteria>> {
        self.search.clone()
    }

    /// Those of the messages that were not searched yet whose UIDs lie within `span` of the lowest one.
    pub(super) fn take_unsearched(&mut self, span: u32) -> UidSet {
        let first = self.unsearched.first().unwrap_or(1);
        let mut taken = self.unsearched.clone();
        self.unsearched.subtract(&UidSet::range(first, first.saturating_add(span - 1)));
        taken.subtract(&self.unsearched);
        taken
    }

    /// These are to be told.
    pub(super) fn wanted(&mut self, uids: &UidSet) {
        self.pending.extend(uids);
    }

    /// These are not.
    pub(super) fn unwanted(&mut self, uids: &UidSet) {
        self.unwanted.extend(uids);
    }

    pub(super) fn search_no_more(&mut self) {
        self.search = None;
    }

    /// Every UID below `uid` is accounted for.
    pub(super) fn asked_below(&mut self, uid: u32) {
        self.asked_to = self.asked_to.max(uid);
    }

    pub(super) fn found_by_check(&mut self) {
        self.source = Source::Poll;
        self.heard_nothing();
    }
}

/// What became of messages that were told.
impl Selected {
    pub(super) fn wanted_changes(&self) -> WantedChanges {
        self.changes.as_ref().map(|changes| changes.wanted()).unwrap_or_default()
    }

    /// The mod-sequence up to which changes are told.
    pub(super) fn changes_told(&self) -> Option<u64> {
        self.cursor.changes
    }

    fn is_look_due(&self, now: Instant) -> bool {
        self.changes.as_ref().is_some_and(|changes| changes.is_due(now))
    }

    /// Whoever may leave looks at once: with which mod-sequences messages were told is not known afterwards.
    fn is_to_be_looked_at(&self, now: Instant) -> bool {
        let leaves = self.until != Until::Stopped;
        self.is_look_due(now) || (leaves && self.look_due_at().is_some())
    }

    /// A look is due even before all that is new is told.
    fn has_settled_many(&self, now: Instant) -> bool {
        self.changes.as_ref().is_some_and(|changes| changes.has_settled_many() && changes.is_due(now))
    }

    pub(super) fn look_due_at(&self) -> Option<Instant> {
        self.changes.as_ref()?.due_at()
    }

    /// With what these messages are told, that is no change.
    fn settle(&mut self, got: &Got, now: Instant) {
        let (Some(changes), Some(told)) = (&mut self.changes, self.cursor.changes) else { return };
        for (uid, summary) in &got.0 {
            summary.modseq.into_iter().for_each(|modseq| changes.settled(*uid, modseq, told, now));
        }
    }

    /// Expunges are wanted, and this would be the first look.
    pub(super) fn knows_not_who_is_gone(&self) -> bool {
        self.wanted_changes().expunges && self.cursor.gone.is_none()
    }

    /// These are known to be gone, and are not told.
    pub(super) fn keep_gone(self: Box<Self>, gone: UidSet, shared: &mut Shared, now: Instant) -> Phase {
        let cursor = Cursor { gone: Some(gone), ..self.cursor.clone() };
        self.deliver(shared, Vec::new(), cursor, now)
    }

    pub(super) fn looks(&self, look: impl FnOnce(Told<'_>)) {
        let nobody = UidSet::new();
        let gone = self.cursor.gone.as_ref().unwrap_or(&nobody);
        if let Some(changes) = &self.changes {
            look(Told { seen: &self.cursor.seen, gone, changes });
        }
    }

    pub(super) fn look_no_more(&mut self) {
        self.changes = None;
    }

    /// Nothing has changed.
    pub(super) fn looked_in_vain(&mut self, now: Instant) {
        self.changes.iter_mut().for_each(|changes| changes.looked(false, now));
    }

    /// Nothing is told of what was until now.
    pub(super) fn begin_changes_anew(
        mut self: Box<Self>,
        highest: u64,
        shared: &mut Shared,
        now: Instant,
    ) -> Phase {
        self.looked_in_vain(now);
        let cursor = Cursor { changes: Some(highest), ..self.cursor.clone() };
        self.deliver(shared, Vec::new(), cursor, now)
    }

    /// What a look found becomes durable together with how far it saw.
    pub(super) fn tell_changes(mut self: Box<Self>, look: Look, shared: &mut Shared, now: Instant) -> Phase {
        let Some(changes) = self.changes.as_mut().filter(|_| !self.epoch_ended) else {
            return self.proceed(shared, now);
        };
        let mut cursor = self.cursor.clone();
        let mut gone = cursor.gone.unwrap_or_default();
        let found = look.finish(changes, &mut gone, now);
        cursor.changes = Some(found.up_to);
        cursor.gone = Some(gone).filter(|_| changes.wanted().expunges);
        let findings = self.findings_of(found);
        self.deliver(shared, findings, cursor, now)
    }

    fn findings_of(&self, Found { flagged, expunged, untold, .. }: Found) -> Vec<Finding> {
        let Located { mailbox, role, .. } = &self.located;
        let (uid_validity, source) = (self.cursor.uid_validity, self.source);
        let flags = flagged.into_iter().map(|Flagged { uid, modseq, flags }| {
            let (mailbox, role) = (mailbox.clone(), *role);
            let change = FlagsChange { mailbox, role, uid_validity, uid, flags, modseq, source };
            Finding::Flags(Box::new(change))
        });
        let expunged = expunged.into_iter().map(|uid| {
            Finding::Expunged(Expunged { mailbox: mailbox.clone(), role: *role, uid_validity, uid, source })
        });
        let gap = (untold > 0).then(|| changes_gap(*role, untold));
        flags.chain(expunged).chain(gap).collect()
    }
}

/// There is more than is told one by one.
fn changes_gap(role: Option<Role>, untold: u64) -> Finding {
    Finding::Gap {
        role,
        uid_first: None,
        uid_last: None,
        since: None,
        recovered: None,
        lost: Some(untold),
        reason: GapReason::Changes,
    }
}

/// For the phases that rest.
impl Selected {
    /// The answer to NOTIFY.
    pub(super) fn notified(&mut self, accepted: bool) {
        self.pushes = if accepted { Pushes::EXPECTED } else { Pushes::Off };
    }

    /// Whether the server is about to push all that is new.
    pub(super) fn awaits_push(&self) -> bool {
        self.pushes.are_awaited() && self.is_settled()
    }

    /// The server pushed a message: its UID, if it is the next one, so that nothing can be missing before it.
    pub(super) fn take_push(&mut self, items: &FetchItems) -> Option<u32> {
        let uid = items.uid.filter(|&uid| uid >= self.asked_to)?;
        let next = uid.checked_add(1).filter(|_| uid == self.asked_to && self.awaits_push());
        let Some(next) = next.filter(|_| self.tally.take_next(items.seq)) else {
            self.pushes.skipped();
            return None;
        };
        self.asked_to = next;
        self.pushes.came();
        Some(uid)
    }

    pub(super) fn told_unasked(&mut self, seq: u32) {
        self.tally.take_next(seq);
    }

    pub(super) fn push_stayed_away(&mut self) {
        self.pushes.stayed_away();
    }

    /// Tells what was pushed, unless a delivery is under way.
    pub(super) fn tell_pushed(&mut self, shared: &mut Shared, pushed: &mut Got, now: Instant) {
        if pushed.0.is_empty() || self.outstanding {
            return;
        }
        self.source = Source::Notify;
        self.report(shared, std::mem::take(pushed), now);
        self.source = Source::Idle;
    }

    pub(super) fn idle_was_refused(&mut self) {
        self.idle.refused = true;
    }

    pub(super) fn idle_ended_early(&mut self) {
        self.idle.early_ends += 1;
        self.idle.refused |= self.idle.early_ends >= MOST_EARLY_ENDS;
    }

    /// IDLE told something: it is to be trusted.
    pub(super) fn heard(&mut self) {
        self.idle.silent_finds = 0;
        self.idle.early_ends = 0;
    }

    /// Something came that IDLE should have told: GNU imap4d announces IDLE and never pushes.
    pub(super) fn heard_nothing(&mut self) {
        self.idle.silent_finds = self.idle.silent_finds.saturating_add(1);
    }

    /// When the next check round is due.
    pub(super) fn sweep_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    pub(super) fn sweep_is_due(&mut self, now: Instant) {
        self.sweep_due = true;
        self.sweep_at = None;
        self.source = Source::Poll;
        // Not every server says by itself that something has changed.
        self.changes.iter_mut().for_each(|changes| changes.hinted(now));
    }
}

/// Messages that were fetched and are to be told.
#[derive(Debug, Default)]
pub(super) struct Got(pub(super) Vec<(u32, MessageSummary)>);

impl Got {
    pub(super) fn uids(&self) -> UidSet {
        self.0.iter().map(|(uid, _)| *uid).collect()
    }

    pub(super) fn holds(&self, uid: u32) -> bool {
        self.0.iter().any(|(known, _)| *known == uid)
    }
}
