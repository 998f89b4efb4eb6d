//! Fetching what is new, and accounting for every UID: told, or proven absent, or reported as unreadable.
//!
//! Caution: after each failure less is asked for at once, so that one message that the server or we cannot take
//! costs itself only. 0: a hundred at once; 1: without BODYSTRUCTURE; 2: one at a time; 3: what is still there and
//! does not come is told with what is known; from 5 on (conversations that died in the middle of a FETCH) the first
//! one is not even asked for.

use std::time::Instant;

use super::command::{Command, UidRange, event_items};
use super::conversation::{Phase, Shared};
use super::idle::Idle;
use super::refusal::{Refusal, Why};
use super::reply::{FetchItems, Status, StatusText};
use super::summary::{Wanted, fetch_header_fields, summarize, unreadable_message};
use super::watch::{Got, LOOK_BACK, Selected};
use crate::event::MessageSummary;
use crate::uid_set::UidSet;

/// Messages in one FETCH.
pub(super) const CHUNK: u32 = 100;

/// Messages that one FETCH may answer with; more are asked for again.
const MOST_AT_ONCE: usize = 256;

/// Ranges of UIDs that one answer may name: what goes beyond is asked for again.
pub(super) const MOST_RANGES: usize = 50_000;

const WITHOUT_STRUCTURE: u8 = 1;
const ONE_AT_A_TIME: u8 = 2;
const GIVE_UP: u8 = 3;
const DO_NOT_ASK: u8 = 5;

/// Awaits a UID FETCH.
#[derive(Debug)]
pub(super) struct Fetching {
    selected: Box<Selected>,
    place: Place,
    asked: Asked,
    got: Got,
    present: UidSet,
    /// There was no room for all that was told.
    overflowed: bool,
}

/// Which other commands went out with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Alone,
    /// IDLE's completion comes first, and IDLE is behind.
    BetweenIdles,
    /// IDLE is behind.
    BeforeIdle,
}

/// What came of a FETCH, and the UIDs that it left out: whether they are gone is still to be asked.
#[derive(Debug)]
pub(super) struct Unchecked {
    got: Got,
    missing: UidSet,
}

/// What was asked for.
#[derive(Debug)]
enum Asked {
    /// All of every message from a UID on; `expected` where the tally knows how many.
    Top { from: u32, expected: Option<u32> },
    /// The UIDs only, from one on.
    TopUids { from: u32 },
    /// All of these messages.
    Chunk(UidSet),
    /// The UIDs of the latest messages, or of the changed ones: what came without being told?
    Sweep,
    /// The UIDs of those of these that did not come: are they there?
    Check(UidSet),
}

impl Fetching {
    /// The lowest of the pending messages.
    pub(super) fn chunk(mut selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        let most = if selected.caution() >= ONE_AT_A_TIME { 1 } else { CHUNK };
        let uids = selected.take_pending(most);
        if selected.caution() >= DO_NOT_ASK {
            return Self::check(selected, Got::default(), uids, shared, now);
        }
        let structure = shared.plan.wanted.attachments && selected.caution() < WITHOUT_STRUCTURE;
        Self::send(selected, Asked::Chunk(uids), Got::default(), structure, shared, now)
    }

    /// Everything above what was asked for so far: at once where it is little, by UID first where it may be much.
    pub(super) fn top(mut selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        let from = selected.asked_to();
        let expected = selected.ask_for_top();
        let span = selected.told_next().saturating_sub(from);
        let little = expected.unwrap_or(if span == 0 { u32::MAX } else { span }) <= CHUNK;
        let asked = if little && selected.caution() == 0 && selected.search().is_none() {
            Asked::Top { from, expected }
        } else {
            Asked::TopUids { from }
        };
        let structure = shared.plan.wanted.attachments;
        Self::send(selected, asked, Got::default(), structure, shared, now)
    }

    /// The few messages that IDLE told of, in one write with what leaves IDLE and what enters it again.
    pub(super) fn between_idles(mut selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        let asked = Asked::Top { from: selected.asked_to(), expected: selected.ask_for_top() };
        let phase = Self::new(selected, Place::BetweenIdles, asked, Got::default());
        let fields = fetch_header_fields(&shared.plan.wanted);
        let items = event_items(shared.capabilities, &fields, shared.plan.wanted.attachments);
        let sent = shared.send_between_idles(&phase.command(&items), now);
        match sent {
            Ok(()) => Phase::Fetching(phase),
            Err(ending) => shared.end(ending),
        }
    }

    /// Asks whether what a FETCH left out is there.
    pub(super) fn check_left_out(
        selected: Box<Selected>,
        unchecked: Unchecked,
        shared: &mut Shared,
        now: Instant,
    ) -> Phase {
        Self::check(selected, unchecked.got, unchecked.missing, shared, now)
    }

    fn new(selected: Box<Selected>, place: Place, asked: Asked, got: Got) -> Self {
        Self { selected, place, asked, got, present: UidSet::new(), overflowed: false }
    }

    /// A check round: messages that came without being told, or became visible late.
    pub(super) fn sweep(selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
        Self::send(selected, Asked::Sweep, Got::default(), false, shared, now)
    }

    fn check(selected: Box<Selected>, got: Got, missing: UidSet, shared: &mut Shared, now: Instant) -> Phase {
        Self::send(selected, Asked::Check(missing), got, false, shared, now)
    }

    fn send(
        selected: Box<Selected>,
        asked: Asked,
        got: Got,
        structure: bool,
        shared: &mut Shared,
        now: Instant,
    ) -> Phase {
        let phase = Self::new(selected, Place::Alone, asked, got);
        let fields = fetch_header_fields(&shared.plan.wanted);
        let full = event_items(shared.capabilities, &fields, structure);
        let items = if phase.is_full() { full.as_str() } else { "(UID)" };
        let sent = shared.send(&phase.command(items), now);
        match sent {
            Ok(()) => Phase::Fetching(phase),
            Err(ending) => shared.end(ending),
        }
    }

    fn command<'a>(&'a self, items: &'a str) -> Command<'a> {
        let (uids, changed_since) = match &self.asked {
            Asked::Top { from, .. } | Asked::TopUids { from } => (UidRange::From(*from), None),
            Asked::Chunk(uids) | Asked::Check(uids) => (UidRange::Set(uids), None),
            Asked::Sweep => match self.selected.modseq() {
                Some(modseq) => (UidRange::From(1), Some(modseq)),
                None => (UidRange::From(self.sweep_from()), None),
            },
        };
        Command::UidFetch { uids, items, changed_since, vanished: false }
    }

    fn sweep_from(&self) -> u32 {
        self.selected.uid_next().saturating_sub(LOOK_BACK).max(1)
    }

    /// Whether messages are being fetched, not only their UIDs.
    pub(super) fn is_full(&self) -> bool {
        matches!(self.asked, Asked::Top { .. } | Asked::Chunk(_))
    }

    pub(super) fn selected(&mut self) -> &mut Selected {
        &mut self.selected
    }

    /// One FETCH response: ours, or one that the server sends unasked (then it has no header, or nothing new).
    pub(super) fn told(&mut self, items: &FetchItems, wanted: &Wanted) {
        let Some(uid) = items.uid else { return };
        if let (Asked::Sweep, Some(modseq)) = (&self.asked, items.modseq) {
            self.selected.saw_modseq(modseq);
        }
        if !self.asks_for(uid) {
            return;
        }
        if self.present.ranges().len() >= MOST_RANGES {
            self.overflowed = true;
            return;
        }
        self.present.insert(uid);
        if matches!(self.asked, Asked::Top { .. } | Asked::TopUids { .. }) {
            // It came after the FETCH was issued, and needs no other.
            self.selected.told_unasked(items.seq);
        }
        let answers = items.header.is_some() || items.unreadable.contains(&"BODY");
        if self.is_full() && answers && self.got.0.len() < MOST_AT_ONCE && !self.got.holds(uid) {
            self.got.0.push((uid, summarize(items, wanted)));
        }
    }

    /// `n:*` answers with the last message even below `n`, and some servers answer what nobody asked for.
    fn asks_for(&self, uid: u32) -> bool {
        match &self.asked {
            Asked::Top { from, .. } | Asked::TopUids { from } => uid >= *from && !self.selected.is_seen(uid),
            Asked::Chunk(uids) | Asked::Check(uids) => uids.contains(uid),
            Asked::Sweep => !self.selected.is_seen(uid),
        }
    }

    pub(super) fn completed(
        mut self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        if self.place == Place::BetweenIdles {
            return self.idle_completed(shared, status);
        }
        if status == Status::Bad {
            shared.pipelining_broke();
        }
        if status != Status::Ok {
            return self.refused(shared, text, now);
        }
        match std::mem::replace(&mut self.asked, Asked::Sweep) {
            Asked::Top { from, expected } => self.top_done(from, expected, shared, now),
            Asked::TopUids { .. } => self.top_uids_done(shared, now),
            Asked::Chunk(uids) => self.chunk_done(uids, shared, now),
            Asked::Sweep => self.sweep_done(shared, now),
            Asked::Check(missing) => self.check_done(&missing, shared, now),
        }
    }

    /// The completion of the IDLE that was left for this.
    fn idle_completed(mut self, shared: &mut Shared, status: Status) -> Phase {
        if status != Status::Ok {
            shared.pipelining_broke();
        }
        self.place = Place::BeforeIdle;
        Phase::Fetching(self)
    }

    /// Where the messages end that the answer tells of.
    fn end(&self) -> u32 {
        let told = self.present.last().map_or(0, |uid| uid.saturating_add(1));
        if self.overflowed { told } else { told.max(self.selected.told_next()) }
    }

    fn top_done(mut self, from: u32, expected: Option<u32>, shared: &mut Shared, now: Instant) -> Phase {
        if self.place == Place::BeforeIdle && self.selected.is_epoch_ended() {
            return Idle::await_acceptance(self.selected, None, shared, now);
        }
        let end = self.end();
        // There, but its header did not come, or there was no room: next time.
        let mut left = self.present.clone();
        left.subtract(&self.got.uids());
        self.selected.found(&left);
        let mut holes = UidSet::range(from, end.saturating_sub(1));
        holes.subtract(&self.present);
        holes.subtract(self.selected.seen());
        self.selected.asked_below(end);
        if expected.is_some_and(|expected| u64::from(expected) > self.present.len()) {
            // Fewer than EXISTS said. Gone, most likely; but a message may have been left out.
            self.selected.ask_top_again();
        }
        match (holes.is_empty(), self.place) {
            (true, Place::BeforeIdle) => {
                self.selected.report(shared, self.got, now);
                Idle::await_acceptance(self.selected, None, shared, now)
            }
            (false, Place::BeforeIdle) => {
                let unchecked = Unchecked { got: self.got, missing: holes };
                Idle::await_acceptance(self.selected, Some(Box::new(unchecked)), shared, now)
            }
            (true, _) => self.selected.tell(shared, self.got, now),
            (false, _) => Self::check(self.selected, self.got, holes, shared, now),
        }
    }

    fn top_uids_done(mut self, shared: &mut Shared, now: Instant) -> Phase {
        self.selected.asked_below(self.end());
        if self.overflowed {
            self.selected.ask_top_again();
        }
        if self.selected.found(&self.present) {
            self.selected.proceed(shared, now)
        } else {
            self.selected.tell(shared, Got::default(), now)
        }
    }

    fn chunk_done(mut self, uids: UidSet, shared: &mut Shared, now: Instant) -> Phase {
        let mut missing = uids;
        missing.subtract(&self.got.uids());
        if missing.is_empty() {
            self.selected.set_caution(0);
            self.selected.tell(shared, self.got, now)
        } else {
            Self::check(self.selected, self.got, missing, shared, now)
        }
    }

    /// What is there and did not come is asked for again, more cautiously, until it is given up.
    fn check_done(mut self, missing: &UidSet, shared: &mut Shared, now: Instant) -> Phase {
        let caution = self.selected.caution();
        if self.present.is_empty() {
            self.selected.set_caution(0);
        } else if caution >= GIVE_UP && missing.len() == 1 {
            let unreadable = |uid| (uid, MessageSummary { ..unreadable_message() });
            self.got.0.extend(self.present.iter().map(unreadable));
            self.selected.set_caution(0);
        } else {
            self.selected.wanted(&self.present);
            self.selected.set_caution(caution.saturating_add(1));
        }
        self.selected.tell(shared, self.got, now)
    }

    fn sweep_done(mut self, shared: &mut Shared, now: Instant) -> Phase {
        let end = self.present.last().map_or(0, |uid| uid.saturating_add(1));
        self.selected.asked_below(end);
        if self.selected.found(&self.present) {
            self.selected.found_by_check();
        }
        self.selected.proceed(shared, now)
    }

    /// NO or BAD: nothing of the answer counts. A server that is only busy is left alone; else less is asked for.
    fn refused(mut self, shared: &mut Shared, text: &StatusText, now: Instant) -> Phase {
        let caution = self.selected.caution();
        if Refusal::of(text).why == Why::Patience {
            return shared.refused("UID FETCH", text);
        }
        match self.asked {
            Asked::Chunk(uids) if caution >= GIVE_UP => {
                Self::check(self.selected, Got::default(), uids, shared, now)
            }
            Asked::Chunk(uids) => {
                self.selected.set_caution(caution.saturating_add(1));
                self.selected.wanted(&uids);
                self.selected.proceed(shared, now)
            }
            Asked::Top { .. } => {
                self.selected.set_caution(caution.saturating_add(1));
                self.selected.ask_top_again();
                match self.place {
                    Place::BeforeIdle => Idle::await_acceptance(self.selected, None, shared, now),
                    _ => self.selected.proceed(shared, now),
                }
            }
            Asked::Sweep if self.selected.modseq().is_some() => {
                // CHANGEDSINCE was promised by CONDSTORE; without it the latest UIDs are compared.
                self.selected.forget_modseq();
                Self::sweep(self.selected, shared, now)
            }
            Asked::Sweep | Asked::TopUids { .. } | Asked::Check(_) => shared.refused("UID FETCH", text),
        }
    }
}
