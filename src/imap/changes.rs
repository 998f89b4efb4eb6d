//! What becomes of messages that were told: flags and expunges. When is the mailbox looked at, and what is told then? Pure.
//!
//! What a server says of them unasked is a hint only: it may be by sequence number, without a mod-sequence, or of
//! messages that were not told yet. The truth is one look: what has changed since a mod-sequence (RFC 7162).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::fetch::MOST_RANGES;
use super::reply::{FetchItems, MAX_MODSEQ, MOST_VANISHED, Reply};
use super::summary::harmless_flags;
use crate::event::Action;
use crate::uid_set::UidSet;

/// From one look to the next, whatever the server hints at meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Changes that one look tells one by one; of more it is told how many there are.
const MOST_CHANGES: usize = 1_000;

/// Ranges of UIDs that are known to be gone; of the lowest beyond, a server that forgets may have some told again.
const MOST_GONE: usize = 1_000;

/// Messages that were told since the last look; then it is time for the next.
const MOST_SETTLED: usize = 1_000;

/// Which changes are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WantedChanges {
    /// `message.flags`; needs CONDSTORE.
    pub flags: bool,
    /// `message.expunged`; needs QRESYNC.
    pub expunges: bool,
}

impl WantedChanges {
    /// As far as these actions are told.
    pub fn of(actions: &[Action]) -> Self {
        Self {
            flags: actions.contains(&Action::MessageFlags),
            expunges: actions.contains(&Action::MessageExpunged),
        }
    }

    /// Whether there are any.
    pub fn any(self) -> bool {
        self.flags || self.expunges
    }

    /// Why a server cannot tell some of them.
    pub fn untold(self, condstore: bool, qresync: bool) -> impl Iterator<Item = &'static str> {
        let flags = self.flags && !condstore;
        let expunges = self.expunges && !qresync;
        let flags = flags.then_some("the server has no CONDSTORE, which message.flags needs");
        flags.into_iter().chain(expunges.then_some("the server has no QRESYNC, which message.expunged needs"))
    }

    /// Those of them that a server can tell.
    pub(super) fn with(self, condstore: bool, qresync: bool) -> Self {
        Self { flags: self.flags && condstore, expunges: self.expunges && qresync }
    }
}

/// When the open mailbox is looked at again, and what a look is not to tell.
#[derive(Debug)]
pub(super) struct Changes {
    wanted: WantedChanges,
    /// There is something to look for, and from then on it may be.
    due: Option<Instant>,
    looked_at: Option<Instant>,
    /// With which mod-sequences messages were told since the last look: as they were then is no change.
    settled: BTreeMap<u32, u64>,
}

impl Changes {
    pub(super) fn new(wanted: WantedChanges) -> Self {
        Self { wanted, due: None, looked_at: None, settled: BTreeMap::new() }
    }

    pub(super) fn wanted(&self) -> WantedChanges {
        self.wanted
    }

    /// The server says that something is different now.
    pub(super) fn hinted(&mut self, now: Instant) {
        let at = self.looked_at.map_or(now, |at| now.max(at + LOOK_EVERY));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// A message is told with this mod-sequence, while all up to `told` is.
    pub(super) fn settled(&mut self, uid: u32, modseq: u64, told: u64, now: Instant) {
        if modseq <= told {
            return;
        }
        self.settled.insert(uid, modseq);
        // Once a look has passed it, it need not be remembered, and a restart does not ask for it again.
        let full = self.settled.len() >= MOST_SETTLED;
        let at = if full { now } else { now + LOOK_EVERY };
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// So many that it is time to look.
    pub(super) fn has_settled_many(&self) -> bool {
        self.settled.len() >= MOST_SETTLED
    }

    /// From when on it is to be looked; `None` where there is nothing to look for.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// A look has come to its end; `again` where it may have been too early.
    pub(super) fn looked(&mut self, again: bool, now: Instant) {
        self.looked_at = Some(now);
        self.due = again.then(|| now + LOOK_EVERY);
        if self.has_settled_many() {
            // Its messages have mod-sequences that the mailbox itself has not reached: they mean nothing.
            self.settled.clear();
        }
    }
}

/// Whether it says that flags changed, or that messages went.
pub(super) fn is_hint(reply: &Reply) -> bool {
    match reply {
        Reply::Expunge(_) | Reply::Vanished { earlier: false, .. } => true,
        Reply::Fetch(items) => {
            items.flags.is_some() && items.header.is_none() && items.internal_date.is_none()
        }
        _ => false,
    }
}

/// `\Recent` is of a session, not of a message (RFC 3501 section 2.3.2).
fn kept_flags(flags: &[String]) -> Vec<String> {
    let mut kept = harmless_flags(flags);
    kept.retain(|flag| !flag.eq_ignore_ascii_case("\\Recent"));
    kept
}

/// A change of flags that a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flagged {
    pub(super) uid: u32,
    pub(super) modseq: u64,
    pub(super) flags: Vec<String>,
}

/// What is known of the messages that were told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    /// All of them.
    pub(super) seen: &'a UidSet,
    /// Those that are gone, and known to be.
    pub(super) gone: &'a UidSet,
    pub(super) changes: &'a Changes,
}

/// Which messages are still there, by UID, as far up as there is room for; in whatever order they are told.
#[derive(Debug)]
pub(super) struct Living {
    /// Of what is above it nothing is known.
    last: u32,
    uids: UidSet,
}

impl Living {
    /// None yet, of those up to `last`.
    pub(super) fn up_to(last: u32) -> Self {
        Self { last, uids: UidSet::new() }
    }

    pub(super) fn told(&mut self, uid: u32) {
        if uid <= self.last {
            self.uids.insert(uid);
            if let Some(forgotten) = self.uids.keep_lowest(MOST_RANGES) {
                self.last = forgotten - 1;
            }
        }
    }

    /// The UIDs that no message has.
    pub(super) fn gone(&self) -> UidSet {
        let mut gone = UidSet::range(1, self.last);
        gone.subtract(&self.uids);
        gone.keep_highest(MOST_GONE);
        gone
    }
}

/// What a look has found so far. Bounded: what goes beyond is counted.
#[derive(Debug)]
pub(super) struct Look {
    wanted: WantedChanges,
    /// All up to here was told before.
    since: u64,
    /// The mailbox's, as it was before the look.
    highest: u64,
    /// The highest that is told of a message.
    told: u64,
    /// HIGHESTMODSEQ, where the server says it meanwhile: that counts, even if it told of more (RFC 7162 section 3.2.5.2).
    said: Option<u64>,
    flagged: BTreeMap<u32, (u64, Vec<String>)>,
    vanished: UidSet,
    /// How many are named that were known to be gone.
    named_again: u64,
    untold: u64,
    /// Something happened while it was looked.
    disturbed: bool,
}

/// What a look tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) flagged: Vec<Flagged>,
    pub(super) expunged: Vec<u32>,
    /// How many more changes there are.
    pub(super) untold: u64,
    /// All up to here is told then.
    pub(super) up_to: u64,
}

impl Look {
    pub(super) fn new(wanted: WantedChanges, since: u64, highest: u64) -> Self {
        Self {
            wanted,
            since,
            highest,
            told: highest,
            said: None,
            flagged: BTreeMap::new(),
            vanished: UidSet::new(),
            named_again: 0,
            untold: 0,
            disturbed: false,
        }
    }

    /// FETCH
    pub(super) fn fetched(&mut self, items: &FetchItems, told: Told<'_>) {
        let (Some(uid), Some(modseq)) = (items.uid, items.modseq.filter(|&n| n <= MAX_MODSEQ)) else {
            self.disturbed |= items.flags.is_some();
            return;
        };
        self.told = self.told.max(modseq);
        let Some(flags) = items.flags.as_ref().filter(|_| self.wanted.flags) else { return };
        let is_old =
            modseq <= self.since || told.changes.settled.get(&uid).is_some_and(|&told| modseq <= told);
        if is_old || !told.seen.contains(uid) {
            return;
        }
        if self.flagged.len() < MOST_CHANGES || self.flagged.contains_key(&uid) {
            self.flagged.insert(uid, (modseq, kept_flags(flags)));
        } else {
            self.untold += 1;
        }
    }

    /// VANISHED.
    pub(super) fn vanished(&mut self, earlier: bool, uids: &UidSet, beyond: u64, told: Told<'_>) {
        self.disturbed |= !earlier;
        if !self.wanted.expunges {
            return;
        }
        self.untold += beyond;
        let mut news = uids.clone();
        news.intersect(told.seen);
        let named = news.len();
        news.subtract(told.gone);
        self.named_again += named - news.len();
        self.vanished.extend(&news);
        let all = self.vanished.len();
        self.vanished.keep_highest(MOST_VANISHED);
        self.untold += all - self.vanished.len();
    }

    /// The server forgot when messages went, and names all of them; perhaps more than are known to be gone: neighbours
    /// that go make ranges fewer.
    fn forgets(&self, gone: &UidSet) -> bool {
        gone.ranges().len() >= MOST_GONE / 2 && self.named_again >= gone.len() / 2
    }

    /// `seq EXPUNGE`: of whom, only the next look can say.
    pub(super) fn expunged(&mut self) {
        self.disturbed = true;
    }

    /// HIGHESTMODSEQ in a response code.
    pub(super) fn highest_said(&mut self, modseq: u64) {
        self.said = Some(modseq).filter(|n| (1..=MAX_MODSEQ).contains(n));
    }

    /// It is over. A message that is gone has no flags; `gone` learns of it.
    pub(super) fn finish(mut self, changes: &mut Changes, gone: &mut UidSet, now: Instant) -> Found {
        self.flagged.retain(|uid, _| !self.vanished.contains(*uid));
        if self.forgets(gone) {
            // Whatever is below those that are known went long ago, most likely: it would be told again and again.
            self.vanished.subtract(&UidSet::range(1, gone.first().unwrap_or(1).saturating_sub(1)));
            self.untold = 0;
        }
        let up_to = self.said.unwrap_or(self.told).max(self.highest);
        gone.extend(&self.vanished);
        gone.keep_highest(MOST_GONE);
        let most = u32::try_from(MOST_CHANGES).unwrap_or(u32::MAX);
        let expunged: Vec<u32> = self.vanished.take_lowest(most).iter().collect();
        let room = MOST_CHANGES.saturating_sub(expunged.len());
        let left = self.flagged.len().saturating_sub(room) as u64;
        let untold = self.untold + self.vanished.len() + left;
        let flagged = self.flagged.into_iter().take(room);
        let flagged: Vec<_> = flagged.map(|(uid, (modseq, flags))| Flagged { uid, modseq, flags }).collect();
        changes.settled.retain(|_, modseq| *modseq > up_to);
        let ahead = flagged.iter().filter(|change| change.modseq > up_to);
        changes.settled.extend(ahead.map(|change| (change.uid, change.modseq)));
        changes.looked(self.disturbed, now);
        Found { flagged, expunged, untold, up_to }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const ALL: WantedChanges = WantedChanges { flags: true, expunges: true };

    fn fetch(uid: u32, modseq: u64, flags: &[&str]) -> FetchItems {
        let flags = Some(flags.iter().map(|&flag| flag.to_owned()).collect());
        FetchItems { uid: Some(uid), modseq: Some(modseq), flags, ..FetchItems::default() }
    }

    fn told<'a>(seen: &'a UidSet, gone: &'a UidSet, changes: &'a Changes) -> Told<'a> {
        Told { seen, gone, changes }
    }

    fn seen() -> UidSet {
        UidSet::range(1, 5_000)
    }

    #[test]
    fn a_hint_is_followed_at_once_and_then_every_five_seconds() {
        let now = Instant::now();
        let mut changes = Changes::new(ALL);
        assert_eq!(changes.due_at(), None, "who hears nothing does nothing");
        changes.hinted(now);
        assert!(changes.is_due(now));
        changes.looked(false, now);
        assert_eq!(changes.due_at(), None);
        let soon = now + Duration::from_secs(1);
        (0..1_000).for_each(|_| changes.hinted(soon));
        assert_eq!(changes.due_at(), Some(now + LOOK_EVERY));
        changes.looked(true, soon);
        assert_eq!(changes.due_at(), Some(soon + LOOK_EVERY), "it was disturbed");
    }

    #[test]
    fn a_message_that_is_told_is_looked_past_a_little_later() {
        let now = Instant::now();
        let mut changes = Changes::new(ALL);
        changes.settled(11, 50, 50, now);
        assert_eq!(changes.due_at(), None, "a look has passed it");
        changes.settled(11, 51, 50, now);
        assert_eq!(changes.due_at(), Some(now + LOOK_EVERY));
        changes.hinted(now);
        assert!(changes.is_due(now));
        for uid in 0..u32::try_from(MOST_SETTLED).unwrap() {
            changes.settled(uid, 60, 50, now);
        }
        assert!(changes.has_settled_many());
        let found = Look::new(ALL, 50, 60).finish(&mut changes, &mut UidSet::new(), now);
        assert!(found.up_to == 60 && !changes.has_settled_many(), "they need not be remembered any more");
    }

    #[test]
    fn a_look_tells_a_thousand_changes_and_how_many_more_there_are() {
        let now = Instant::now();
        let mut changes = Changes::new(ALL);
        let mut look = Look::new(ALL, 1, 9_000);
        for uid in 1..=3_000 {
            look.fetched(&fetch(uid, 8_000, &["\\Seen"]), told(&seen(), &UidSet::new(), &changes));
        }
        look.vanished(true, &UidSet::range(4_001, 4_600), 0, told(&seen(), &UidSet::new(), &changes));
        let mut gone = UidSet::new();
        let found = look.finish(&mut changes, &mut gone, now);
        assert_eq!((found.expunged.len(), found.flagged.len()), (600, 400), "what is gone goes first");
        assert_eq!(found.untold, 2_600);

        let mut look = Look::new(ALL, 1, 9_000);
        look.vanished(true, &UidSet::range(1, u32::MAX), 7, told(&seen(), &gone, &Changes::new(ALL)));
        let found = look.finish(&mut changes, &mut gone, now);
        assert_eq!((found.expunged.len(), found.untold), (1_000, 3_407), "only what was told can be missed");
        assert_eq!(gone, seen(), "a server that forgets may name them all again");
    }

    fn gone_beside(living: impl IntoIterator<Item = u32>, last: u32) -> UidSet {
        let mut told = Living::up_to(last);
        living.into_iter().for_each(|uid| told.told(uid));
        told.gone()
    }

    /// Nothing is taken for gone because there was no room to remember that it is there, in whatever order it was told.
    #[test]
    fn of_what_there_is_no_room_for_nothing_is_known() {
        let last = 3 * u32::try_from(MOST_RANGES).unwrap();
        let living = || (1..=last / 2).map(|n| 2 * n);
        let ascending = gone_beside(living(), last);
        assert_eq!(ascending, gone_beside(living().rev(), last));
        assert!(living().all(|uid| !ascending.contains(uid)));
        assert_eq!(ascending.last(), Some(2 * u32::try_from(MOST_RANGES).unwrap() + 1));
        assert_eq!(gone_beside([3, 9], 5), [1, 2, 4, 5].into_iter().collect());
    }

    /// An old mailbox has more holes than are remembered, and some servers name all of them whenever a message goes.
    #[test]
    fn a_server_that_forgets_tells_no_old_hole_again_and_again() {
        let seen = UidSet::range(1, 20_000);
        let mut gone = gone_beside((1..=10_000).map(|n| 2 * n), 20_000);
        assert_eq!(gone.ranges().len(), MOST_GONE);
        let all: UidSet = (0..10_000).map(|n| 2 * n + 1).collect();
        let named = |more: u32, gone: &mut UidSet| {
            let mut uids = all.clone();
            uids.insert(more);
            uids.keep_highest(MOST_VANISHED);
            let mut changes = Changes::new(ALL);
            let mut look = Look::new(ALL, 1, 9);
            look.vanished(true, &uids, 5_000, told(&seen, gone, &changes));
            let found = look.finish(&mut changes, gone, Instant::now());
            (found.expunged, found.untold)
        };
        assert_eq!(named(19_998, &mut gone), (vec![19_998], 0));
        assert_eq!(named(19_996, &mut gone), (vec![19_996], 0));
        // A server that knows when messages went is believed.
        let mut changes = Changes::new(ALL);
        let mut look = Look::new(ALL, 1, 9);
        look.vanished(true, &UidSet::range(4, 4), 0, told(&seen, &gone, &changes));
        assert_eq!(look.finish(&mut changes, &mut gone, Instant::now()).expunged, [4]);
    }

    #[test]
    fn mod_sequences_that_no_look_ever_passes_fill_no_memory() {
        let now = Instant::now();
        let mut changes = Changes::new(ALL);
        for uid in 1..=100_000 {
            changes.settled(uid, 1_000, 50, now);
            if changes.has_settled_many() {
                changes.looked(false, now);
            }
            assert!(changes.settled.len() <= MOST_SETTLED);
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_told() {
        let only = |flags, expunges| {
            let wanted = WantedChanges { flags, expunges };
            let mut changes = Changes::new(wanted);
            let mut look = Look::new(wanted, 1, 9);
            look.fetched(&fetch(1, 9, &["\\Seen"]), told(&seen(), &UidSet::new(), &changes));
            look.vanished(true, &UidSet::range(2, 2), 0, told(&seen(), &UidSet::new(), &changes));
            let found = look.finish(&mut changes, &mut UidSet::new(), Instant::now());
            (found.flagged.len(), found.expunged.len())
        };
        assert_eq!((only(true, false), only(false, true)), ((1, 0), (0, 1)));
    }

    #[test]
    fn a_mod_sequence_beyond_all_bounds_is_none() {
        let mut changes = Changes::new(ALL);
        let mut look = Look::new(ALL, 1, 9);
        look.fetched(&fetch(1, u64::MAX, &[]), told(&seen(), &UidSet::new(), &changes));
        look.highest_said(u64::MAX);
        look.highest_said(0);
        assert_eq!(look.finish(&mut changes, &mut UidSet::new(), Instant::now()).up_to, 9);
    }

    /// A mailbox whose every change has a mod-sequence, and what a monitor tells of it that looks now and then.
    #[derive(Clone, Debug)]
    enum Step {
        Arrive,
        Flag(u8),
        Expunge(u8),
        Fetch,
        Look { before: bool },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Arrive),
            any::<u8>().prop_map(Step::Flag),
            any::<u8>().prop_map(Step::Expunge),
            Just(Step::Fetch),
            any::<bool>().prop_map(|before| Step::Look { before }),
        ];
        prop::collection::vec(step, 0..80)
    }

    #[derive(Default)]
    struct Server {
        modseq: u64,
        messages: BTreeMap<u32, u64>,
        gone: BTreeMap<u32, u64>,
        next: u32,
    }

    impl Server {
        fn pick(&self, at: u8) -> Option<u32> {
            let at = usize::from(at) % self.messages.len().max(1);
            self.messages.keys().nth(at).copied()
        }

        fn change(&mut self, uid: u32) {
            self.modseq += 1;
            self.messages.insert(uid, self.modseq);
        }
    }

    proptest! {
        /// Whatever changes, and whenever it is looked: each change of a message that was told is told, or a later
        /// one of it; nothing twice; nothing of messages that were not told.
        #[test]
        fn each_change_is_told_once(steps in steps(), forgets in any::<bool>()) {
            let now = Instant::now();
            let mut server = Server { modseq: 1, next: 1, ..Server::default() };
            let (mut changes, mut up_to, mut seen) = (Changes::new(ALL), 1, UidSet::new());
            let mut gone = UidSet::new();
            let (mut flags, mut expunged) = (BTreeSet::new(), BTreeSet::new());
            // With which mod-sequence each message was told last.
            let mut known = BTreeMap::new();
            for step in steps.into_iter().chain([Step::Fetch, Step::Look { before: false }]) {
                match step {
                    Step::Arrive => {
                        let uid = server.next;
                        server.next += 1;
                        server.change(uid);
                    }
                    Step::Flag(at) => server.pick(at).into_iter().for_each(|uid| server.change(uid)),
                    Step::Expunge(at) => {
                        if let Some(uid) = server.pick(at) {
                            server.messages.remove(&uid);
                            server.modseq += 1;
                            server.gone.insert(uid, server.modseq);
                        }
                    }
                    Step::Fetch => {
                        for (&uid, &modseq) in &server.messages {
                            if seen.insert(uid) {
                                changes.settled(uid, modseq, up_to, now);
                                known.insert(uid, modseq);
                            }
                        }
                    }
                    Step::Look { before } => {
                        let highest = server.modseq;
                        // It may happen between the two questions of a look.
                        if let Some(uid) = server.pick(0).filter(|_| before) {
                            server.messages.remove(&uid);
                            server.modseq += 1;
                            server.gone.insert(uid, server.modseq);
                            server.pick(0).into_iter().for_each(|uid| server.change(uid));
                        }
                        if highest == up_to {
                            continue;
                        }
                        let mut look = Look::new(ALL, up_to, highest);
                        // Some servers do not know any more when a message went, and name them all.
                        let named = server.gone.iter().filter(|(_, modseq)| forgets || **modseq > up_to);
                        look.vanished(true, &named.map(|(uid, _)| *uid).collect(), 0, told(&seen, &gone, &changes));
                        for (&uid, &modseq) in server.messages.iter().filter(|(_, modseq)| **modseq > up_to) {
                            look.fetched(&fetch(uid, modseq, &[]), told(&seen, &gone, &changes));
                        }
                        let found = look.finish(&mut changes, &mut gone, now);
                        for Flagged { uid, modseq, .. } in found.flagged {
                            prop_assert!(flags.insert((uid, modseq)) && seen.contains(uid));
                            prop_assert!(known.insert(uid, modseq) < Some(modseq), "told as it was already");
                        }
                        for uid in found.expunged {
                            prop_assert!(expunged.insert(uid) && seen.contains(uid), "{uid} twice");
                        }
                        up_to = found.up_to;
                    }
                }
            }
            for (uid, modseq) in server.messages.iter().filter(|(uid, _)| seen.contains(**uid)) {
                prop_assert_eq!(known.get(uid), Some(modseq));
            }
            for uid in server.gone.keys().filter(|uid| seen.contains(**uid)) {
                prop_assert!(expunged.contains(uid));
            }
        }
    }
}
