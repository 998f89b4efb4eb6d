//! What every journal promises, whatever keeps it: each test runs on all of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use futures::executor::block_on;
#[cfg(feature = "postgres")]
use idlewatch::cluster::shard::Shard;
use idlewatch::cluster::shard::{Holding, ShardSet};
use idlewatch::event::{AccountId, Cursor, Event, EventBody, MailboxKey, MailboxName, MonitorState};
#[cfg(feature = "postgres")]
use idlewatch::journal::postgres::PostgresJournal;
#[cfg(feature = "postgres")]
use idlewatch::journal::postgres::lease::Opening;
use idlewatch::journal::sqlite::SqliteJournal;
use idlewatch::journal::{
    Configured, Entry, FileEnd, Journal, JournalError, JournalHandle, JournalledEvent, LanePosition, Receipt,
    StateOrigin, Unstored,
};
use idlewatch::memory::{Fingerprint, Memory, Told};
use idlewatch::messages::{Batch, Checkpoint, Note, Replaces};
use idlewatch::refusals::Refusals;
use idlewatch::uid_set::UidSet;
use jiff::Timestamp;
use tempfile::TempDir;

#[cfg(feature = "postgres")]
use crate::support::postgres::{Database, shared};

/// Where a journal is kept.
trait Place {
    /// As a start finds it: made, where there is none. No other of ours is open.
    fn open(&self) -> (Box<dyn Journal>, StateOrigin);
}

struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Place for Directory {
    fn open(&self) -> (Box<dyn Journal>, StateOrigin) {
        let (journal, origin) = SqliteJournal::open(self.0.path(), false, false).unwrap();
        (Box::new(journal), origin)
    }
}

#[cfg(feature = "postgres")]
impl Place for Database {
    fn open(&self) -> (Box<dyn Journal>, StateOrigin) {
        let opening = Opening { name: "here".to_owned(), ..Opening::default() };
        // Whoever just went is known to be dead once this is over.
        let settings = self.settings(Duration::from_millis(300));
        let (journal, origin) = PostgresJournal::open(&settings, &opening).unwrap();
        (Box::new(journal), origin)
    }
}

macro_rules! promises {
    ($($name:ident)*) => {
        mod sqlite {
            $(#[test]
            fn $name() {
                super::$name(&super::Directory::new());
            })*
        }

        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[test]
            fn $name() {
                super::$name(&super::shared().database());
            })*
        }
    };
}

promises! {
    events_and_cursors_outlive_a_process_that_just_goes
    numbers_are_never_given_twice
    a_mailbox_has_one_cursor_and_all_of_it_is_kept
    whoever_began_from_an_older_cursor_stores_nothing
    what_one_group_says_of_one_mailbox_is_stored_in_its_order
    past_messages_leave_the_mailbox_where_it_stands
    a_mailbox_is_blind_since_somebody_watched_it_last
    a_mailbox_that_is_gone_is_forgotten_after_a_month
    very_many_accounts_are_compared_by_steps_and_nobody_who_is_there_is_forgotten_between_them
    what_was_learned_of_a_host_outlives_the_process
    refused_logins_are_kept_until_one_is_accepted
    the_last_day_is_remembered_and_a_thousand_at_most
    lanes_keep_their_place_and_old_ones_go
    whatever_a_server_calls_its_mailboxes_is_kept
    what_is_forgotten_takes_no_room
}

fn key() -> MailboxKey {
    MailboxKey { account: "a".into(), mailbox: MailboxName::inbox() }
}

pub(crate) fn event(id: &str) -> Event {
    let body = EventBody::MonitorState(MonitorState::Started);
    Event {
        at: Timestamp::UNIX_EPOCH,
        id: id.to_owned(),
        account: None,
        body,
        filtered: None,
        redacted: Vec::new(),
    }
}

pub(crate) fn entry(id: &str) -> Entry {
    Entry::new(event(id).into())
}

/// With an event of its own.
fn checkpoint(id: &str, before: impl Into<Replaces>, cursor: &Cursor) -> Entry {
    let checkpoint = Checkpoint { key: key(), cursor: cursor.clone(), replaces: before.into() };
    Entry::new(Batch { events: vec![event(id)], checkpoint: Some(checkpoint), ..Batch::default() })
}

fn commit(journal: &mut Box<dyn Journal>, entries: &[Entry]) -> Vec<Result<Receipt, Unstored>> {
    journal.commit(entries, &[]).unwrap()
}

fn keep(journal: &mut Box<dyn Journal>, note: Note) {
    commit(journal, &[Entry::new(note.into())])[0].as_ref().unwrap();
}

fn ids(events: Vec<JournalledEvent>) -> Vec<String> {
    events.into_iter().map(|event| event.event.id.clone()).collect()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn baseline(uid_validity: u32, uid_next: u32, modseq: Option<u64>) -> Box<Cursor> {
    Box::new(Cursor::baseline(uid_validity, uid_next, modseq))
}

fn events_and_cursors_outlive_a_process_that_just_goes(place: &dyn Place) {
    let (mut journal, origin) = place.open();
    assert_eq!(origin, StateOrigin::New);
    journal.lanes(&["out".to_owned()]).unwrap();
    let receipts = commit(&mut journal, &[checkpoint("one", None, &baseline(7, 5, Some(5))), entry("two")]);
    let receipts: Vec<_> = receipts.into_iter().map(Result::unwrap).collect();
    assert_eq!(receipts[0].cursor(), Some(&*baseline(7, 5, Some(5))));
    assert_eq!((receipts[0].sequences(), receipts[1].sequences()), (Some(1..=1), Some(2..=2)));
    drop(journal);
    let (mut journal, origin) = place.open();
    assert_eq!(origin, StateOrigin::Existing);
    assert_eq!(journal.cursor(&key()).unwrap(), Some(*baseline(7, 5, Some(5))));
    assert_eq!(ids(journal.pending(0, 10).unwrap()), ["one", "two"]);
    assert_eq!(ids(journal.pending(0, 1).unwrap()), ["one"]);
    assert_eq!(ids(journal.pending(1, 10).unwrap()), ["two"]);
}

fn numbers_are_never_given_twice(place: &dyn Place) {
    let (mut journal, _) = place.open();
    commit(&mut journal, &[entry("one")]);
    journal.forget(1).unwrap();
    assert_eq!((journal.bytes(), journal.last().unwrap()), (0, 1));
    drop(journal);
    let (mut journal, _) = place.open();
    assert_eq!((journal.bytes(), journal.last().unwrap()), (0, 1));
    let receipt = commit(&mut journal, &[entry("two")]).remove(0).unwrap();
    assert_eq!(receipt.sequences(), Some(2..=2));
}

fn a_mailbox_has_one_cursor_and_all_of_it_is_kept(place: &dyn Place) {
    let (mut journal, _) = place.open();
    assert_eq!(journal.cursor(&key()).unwrap(), None);
    let first = baseline(1, 10, Some(u64::MAX >> 1));
    let second = Box::new(Cursor {
        seen: [1, 2, 3, 9, u32::MAX].into_iter().collect(),
        look_back: Some(4),
        changes: Some(u64::MAX >> 2),
        gone: Some([2, 3, 7].into_iter().collect()),
        blind_since: Some(at(77)),
        ..*baseline(u32::MAX, u32::MAX, None)
    });
    let mut before = None;
    for cursor in [&first, &second, &first] {
        commit(&mut journal, &[checkpoint("told", before.take(), cursor)])[0].as_ref().unwrap();
        assert_eq!(journal.cursor(&key()).unwrap(), Some((**cursor).clone()));
        before = Some(cursor.clone());
    }
}

/// Two sessions of a mailbox, whatever brought them about, never tell of it side by side.
fn whoever_began_from_an_older_cursor_stores_nothing(place: &dyn Place) {
    let (now, next) = (baseline(7, 5, Some(3)), baseline(7, 6, Some(4)));
    let late = Box::new(Cursor { seen: [1, 2, 3, 4, 9].into_iter().collect(), ..*now.clone() });
    let forgetful = Box::new(Cursor { gone: Some(UidSet::new()), ..*now.clone() });
    let unlooked = Box::new(Cursor { changes: Some(9), ..*now.clone() });
    let (mut journal, _) = place.open();
    for (before, cursor, stored) in [
        (Replaces::Nothing, &next, false),
        (Replaces::Cursor(baseline(7, 4, Some(3))), &next, false),
        (Replaces::Cursor(baseline(7, 5, Some(2))), &next, false),
        (Replaces::Cursor(baseline(6, 5, Some(3))), &next, false),
        (Replaces::Cursor(baseline(6, 5, Some(3))), &baseline(8, 1, None), false),
        (Replaces::Cursor(late), &next, false),
        (Replaces::Cursor(unlooked), &next, false),
        (Replaces::Cursor(forgetful), &next, false),
        (Replaces::Cursor(now.clone()), &next, true),
        (Replaces::Cursor(now.clone()), &baseline(8, 1, None), true),
        (Replaces::Anything, &baseline(7, 1, None), true),
        (Replaces::Anything, &baseline(8, 1, None), true),
    ] {
        commit(&mut journal, &[checkpoint("begin", Replaces::Anything, &now)])[0].as_ref().unwrap();
        keep(&mut journal, Note::Blind { key: key(), since: at(9) });
        let (bytes, last) = (journal.bytes(), journal.last().unwrap());
        let receipts = commit(&mut journal, &[checkpoint("told", before.clone(), cursor), entry("other")]);
        assert_eq!(receipts[0].is_ok(), stored, "{before:?}");
        let found = Cursor { blind_since: None, ..journal.cursor(&key()).unwrap().unwrap() };
        assert_eq!(&found, if stored { &**cursor } else { &*now }, "{before:?}");
        let told = ids(journal.pending(last, 9).unwrap());
        assert_eq!(told, if stored { vec!["told", "other"] } else { vec!["other"] }, "{before:?}");
        assert_eq!((journal.bytes() > bytes + entry("other").bytes()), stored);
        let last = journal.last().unwrap();
        assert_eq!(receipts[1].as_ref().unwrap().sequences().unwrap(), last..=last);
    }
}

fn what_one_group_says_of_one_mailbox_is_stored_in_its_order(place: &dyn Place) {
    let (mut journal, _) = place.open();
    let (first, second) = (baseline(7, 5, None), baseline(7, 6, None));
    let blind = |seconds| Entry::new(Note::Blind { key: key(), since: at(seconds) }.into());
    let group = [
        checkpoint("first", None, &first),
        blind(1),
        checkpoint("second", Some(first.clone()), &second),
        blind(2),
        blind(3),
        checkpoint("late", Some(first), &baseline(7, 9, None)),
    ];
    let stored: Vec<_> = commit(&mut journal, &group).iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, true, true, true, true, false]);
    let expected = Cursor { blind_since: Some(at(2)), ..*second };
    assert_eq!(journal.cursor(&key()).unwrap(), Some(expected));
    assert_eq!(ids(journal.pending(0, 9).unwrap()), ["first", "second"]);
}

fn past_messages_leave_the_mailbox_where_it_stands(place: &dyn Place) {
    let (mut journal, _) = place.open();
    commit(&mut journal, &[checkpoint("one", None, &baseline(7, 5, None))]);
    let receipts = commit(&mut journal, &[checkpoint("past", Replaces::Aside, &baseline(7, 3, None))]);
    assert_eq!(receipts[0].as_ref().unwrap().cursor(), Some(&*baseline(7, 3, None)));
    assert_eq!(journal.cursor(&key()).unwrap(), Some(*baseline(7, 5, None)));
    assert_eq!(ids(journal.pending(1, 9).unwrap()), ["past"]);
}

/// A monitor that ended, or did not reach the server at all, does not make the time before it watched.
fn a_mailbox_is_blind_since_somebody_watched_it_last(place: &dyn Place) {
    let (mut journal, _) = place.open();
    let watch = |journal: &mut _| {
        commit(journal, &[checkpoint("told", Replaces::Anything, &baseline(7, 5, None))]);
    };
    let blind = |journal: &mut Box<dyn Journal>| journal.cursor(&key()).unwrap().unwrap().blind_since;
    journal.begin(at(1)).unwrap();
    watch(&mut journal);
    assert_eq!(blind(&mut journal), None);
    journal.alive(at(100)).unwrap();
    for start in [200, 300, 400] {
        journal.begin(at(start)).unwrap();
        assert_eq!(blind(&mut journal), Some(at(100)), "until a checkpoint ends it");
    }
    watch(&mut journal);
    assert_eq!(blind(&mut journal), None);
}

/// Neither a server that is away nor a pause makes a mailbox gone: only the server's word, or the configuration.
fn a_mailbox_that_is_gone_is_forgotten_after_a_month(place: &dyn Place) {
    let (mut journal, _) = place.open();
    let day = |days: i64| at(1_800_000_000 + days * 86_400);
    let key = |account: &str| MailboxKey { account: account.into(), mailbox: MailboxName::inbox() };
    let store = |journal: &mut Box<dyn Journal>, account: &str| {
        let (cursor, replaces) = (*baseline(7, 5, None), Replaces::Anything);
        let checkpoint = Some(Checkpoint { key: key(account), cursor, replaces });
        commit(journal, &[Entry::new(Batch { checkpoint, ..Batch::default() })])[0].as_ref().unwrap();
    };
    let configured = |journal: &mut Box<dyn Journal>, accounts: &[&str], days| {
        let accounts = accounts.iter().map(|&id| AccountId::from(id)).collect();
        let mut configured = Configured::new(accounts, ShardSet::ALL, day(days));
        while !journal.compare(&mut configured).unwrap() {}
    };
    let accounts = ["back", "deleted", "removed", "returned", "silent"];
    accounts.iter().for_each(|account| store(&mut journal, account));
    for account in ["deleted", "back"] {
        keep(&mut journal, Note::Gone { key: key(account), since: day(0) });
        keep(&mut journal, Note::Gone { key: key(account), since: day(20) });
    }
    configured(&mut journal, &["deleted", "back", "silent"], 1);
    configured(&mut journal, &["deleted", "back", "silent", "returned"], 10);
    store(&mut journal, "back");
    let mut known = |days| {
        let forgotten = journal.forget_gone(day(days)).unwrap();
        let there = accounts.iter().filter(|account| journal.cursor(&key(account)).unwrap().is_some());
        (forgotten, there.copied().collect::<Vec<_>>().join(" "))
    };
    assert_eq!(known(29), (0, accounts.join(" ")));
    assert_eq!(known(30), (1, "back removed returned silent".to_owned()), "since it was said first");
    assert_eq!(known(31), (1, "back returned silent".to_owned()), "since the account left");
    assert_eq!(known(4_000), (0, "back returned silent".to_owned()));
    assert_eq!(journal.memory(&key("deleted")).unwrap().from, None, "nothing is remembered of it");
    assert!(journal.memory(&key("back")).unwrap().from.is_some());
}

/// Accounts of other shards are not known to whoever reads the table of accounts by shards.
#[cfg(feature = "postgres")]
#[test]
fn of_shards_that_were_not_read_nobody_is_gone() {
    let (mut journal, _) = shared().database().open();
    let (key, other) = (key(), MailboxKey { account: "work".into(), mailbox: MailboxName::inbox() });
    for key in [&key, &other] {
        let (key, cursor, replaces) = (key.clone(), *baseline(7, 5, None), Replaces::Nothing);
        let checkpoint = Some(Checkpoint { key, cursor, replaces });
        commit(&mut journal, &[Entry::new(Batch { checkpoint, ..Batch::default() })])[0].as_ref().unwrap();
    }
    let read = ShardSet::from_iter([Shard::of(&key.account)]);
    let mut nobody = Configured::new(HashSet::new(), read, at(1_700_000_000));
    while !journal.compare(&mut nobody).unwrap() {}
    assert_eq!(journal.forget_gone(at(1_800_000_000)).unwrap(), 1);
    assert!(journal.cursor(&key).unwrap().is_none() && journal.cursor(&other).unwrap().is_some());
}

/// A journal whose steps are taken one by one.
struct Stepped {
    journal: Box<dyn Journal>,
    /// How many may be taken, and how many were.
    steps: Arc<(AtomicUsize, AtomicUsize)>,
    has_forgotten: Arc<AtomicBool>,
    /// Ends with it.
    _open: Sender<()>,
}

impl Journal for Stepped {
    fn compare(&mut self, configured: &mut Configured) -> Result<bool, JournalError> {
        let (allowed, taken) = &*self.steps;
        if taken.load(Ordering::SeqCst) == allowed.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let done = self.journal.compare(configured);
        taken.fetch_add(1, Ordering::SeqCst);
        done
    }
    fn forget_gone(&mut self, now: Timestamp) -> Result<usize, JournalError> {
        self.has_forgotten.store(true, Ordering::SeqCst);
        self.journal.forget_gone(now)
    }
    fn commit(
        &mut self,
        entries: &[Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Result<Receipt, Unstored>>, JournalError> {
        self.journal.commit(entries, positions)
    }
    fn cursor(&mut self, key: &MailboxKey) -> Result<Option<Cursor>, JournalError> {
        self.journal.cursor(key)
    }
    fn memory(&mut self, key: &MailboxKey) -> Result<Memory, JournalError> {
        self.journal.memory(key)
    }
    fn refusals(&mut self, account: &AccountId) -> Result<Refusals, JournalError> {
        self.journal.refusals(account)
    }
    fn idle_periods(&mut self) -> Result<Vec<(String, Duration)>, JournalError> {
        self.journal.idle_periods()
    }
    fn unpipelined(&mut self) -> Result<Vec<String>, JournalError> {
        self.journal.unpipelined()
    }
    fn begin(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.journal.begin(now)
    }
    fn alive(&mut self, now: Timestamp) -> Result<(), JournalError> {
        self.journal.alive(now)
    }
    fn pending(&mut self, after: u64, most: usize) -> Result<Vec<JournalledEvent>, JournalError> {
        self.journal.pending(after, most)
    }
    fn has_after(&mut self, sequence: u64) -> Result<bool, JournalError> {
        self.journal.has_after(sequence)
    }
    fn lanes(&mut self, names: &[String]) -> Result<Vec<LanePosition>, JournalError> {
        self.journal.lanes(names)
    }
    fn forget(&mut self, sequence: u64) -> Result<(), JournalError> {
        self.journal.forget(sequence)
    }
    fn holding(&self) -> Holding {
        self.journal.holding()
    }
    fn tidy(&mut self) {
        self.journal.tidy();
    }
    fn rhythm(&self) -> Duration {
        self.journal.rhythm()
    }
    fn bytes(&self) -> u64 {
        self.journal.bytes()
    }
    fn last(&mut self) -> Result<u64, JournalError> {
        self.journal.last()
    }
}

/// All of them left the configuration long ago, and all but one are back. The first process dies after one step.
fn very_many_accounts_are_compared_by_steps_and_nobody_who_is_there_is_forgotten_between_them(
    place: &dyn Place,
) {
    let key = |n: usize| MailboxKey {
        account: format!("account{n}").as_str().into(),
        mailbox: MailboxName::inbox(),
    };
    let store = |n| {
        let checkpoint =
            Some(Checkpoint { key: key(n), cursor: *baseline(7, 5, None), replaces: Replaces::Nothing });
        Entry::new(Batch { checkpoint, ..Batch::default() })
    };
    let (mut journal, _) = place.open();
    let (all, gone) = (0..2_500, 77);
    commit(&mut journal, &all.clone().map(store).collect::<Vec<_>>());
    let mut nobody = Configured::new(HashSet::new(), ShardSet::ALL, at(1_700_000_000));
    while !journal.compare(&mut nobody).unwrap() {}
    drop(journal);
    for steps in [1, usize::MAX] {
        let (open, closed) = channel();
        let (taken, has_forgotten) = (Arc::new((steps.into(), 0.into())), Arc::new(AtomicBool::new(false)));
        let stepped = Stepped {
            journal: place.open().0,
            steps: taken.clone(),
            has_forgotten: has_forgotten.clone(),
            _open: open,
        };
        let (journal, _) = JournalHandle::start(Box::new(stepped), Vec::new(), 1 << 20, |_| {}).unwrap();
        let there = all.clone().filter(|n| *n != gone).map(|n| key(n).account).collect();
        journal.configured(Configured::new(there, ShardSet::ALL, Timestamp::now()));
        let done = || {
            if steps == 1 {
                taken.1.load(Ordering::SeqCst) == 1
            } else {
                has_forgotten.load(Ordering::SeqCst)
            }
        };
        while !done() {
            std::thread::yield_now();
        }
        block_on(async {
            journal.commit(entry("meanwhile")).await.unwrap();
            let mut known = Vec::new();
            for n in all.clone() {
                known.extend(journal.cursor(key(n)).await.unwrap().map(|_| n));
            }
            let forgotten = if steps == 1 { None } else { Some(gone) };
            assert!(known.into_iter().eq(all.clone().filter(|n| Some(*n) != forgotten)));
        });
        assert_eq!(has_forgotten.load(Ordering::SeqCst), steps != 1);
        drop(journal);
        // The writer's thread has it until it ends.
        assert!(closed.recv().is_err());
    }
}

fn what_was_learned_of_a_host_outlives_the_process(place: &dyn Place) {
    let (mut journal, _) = place.open();
    for seconds in [240, 96] {
        keep(&mut journal, Note::IdlePeriod { host: "h".to_owned(), period: Duration::from_secs(seconds) });
    }
    let note = Note::NoPipelining { host: "h".to_owned() };
    commit(&mut journal, &[Entry::new(note.clone().into()), Entry::new(note.into())]);
    drop(journal);
    let (mut journal, _) = place.open();
    assert_eq!(journal.idle_periods().unwrap(), [("h".to_owned(), Duration::from_secs(96))]);
    assert_eq!(journal.unpipelined().unwrap(), ["h"]);
}

fn refused_logins_are_kept_until_one_is_accepted(place: &dyn Place) {
    let (mut journal, _) = place.open();
    let account = AccountId::from("a");
    let mut refusals = Refusals::default();
    for second in [1, 2] {
        refusals.add(None, None, at(second));
        keep(&mut journal, Note::Refusals { account: account.clone(), refusals: refusals.clone() });
    }
    drop(journal);
    let (mut journal, _) = place.open();
    assert_eq!(journal.refusals(&account).unwrap(), refusals);
    assert!(journal.refusals(&"b".into()).unwrap().is_empty());
    keep(&mut journal, Note::Refusals { account: account.clone(), refusals: Refusals::default() });
    assert!(journal.refusals(&account).unwrap().is_empty());
}

fn the_last_day_is_remembered_and_a_thousand_at_most(place: &dyn Place) {
    let (mut journal, _) = place.open();
    let told = |n: i64, hours: i64| Told {
        fingerprint: Fingerprint(n),
        received_at: at(1_800_000_000 + hours * 3600 + n),
    };
    let mut tell = |messages: Vec<Told>| {
        keep(&mut journal, Note::Told { key: key(), messages });
        journal.memory(&key()).unwrap()
    };
    assert_eq!(tell(vec![told(1, 0), told(2, 23)]).known.len(), 2);
    assert_eq!(tell(vec![told(1, 0)]).known.len(), 2, "known already");
    let memory = tell(vec![told(3, 25)]);
    assert_eq!(memory.known, [Fingerprint(2), Fingerprint(3)].into());
    assert_eq!(memory.from, Some(at(1_800_000_000 + 3600 + 3)));
    assert_eq!(tell((10..2000).map(|n| told(n, 25)).collect()).known.len(), 1000);
    let other = MailboxKey { mailbox: "Other".into(), ..key() };
    assert!(journal.memory(&other).unwrap().known.is_empty());
    commit(&mut journal, &[checkpoint("first", None, &baseline(1, 1, None))]);
    assert!(journal.memory(&key()).unwrap().from.is_some());
}

fn lanes_keep_their_place_and_old_ones_go(place: &dyn Place) {
    let (mut journal, _) = place.open();
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(journal.lanes(&names(&["file", "gone"])).unwrap(), vec![LanePosition::default(); 2]);
    for id in ["one", "two", "three", "four"] {
        commit(&mut journal, &[entry(id)]);
    }
    let file = Some(FileEnd { generation: "1:2".to_owned(), offset: 99 });
    let position = LanePosition { sequence: 4, file };
    let gone = LanePosition { sequence: 3, file: None };
    journal.commit(&[], &[("file".to_owned(), position.clone()), ("gone".to_owned(), gone)]).unwrap();
    assert_eq!(journal.lanes(&names(&["new", "file"])).unwrap(), [LanePosition::default(), position.clone()]);
    drop(journal);
    let (mut journal, _) = place.open();
    assert_eq!(journal.lanes(&names(&["file", "gone"])).unwrap(), [position, LanePosition::default()]);
}

fn whatever_a_server_calls_its_mailboxes_is_kept(place: &dyn Place) {
    let (mut journal, _) = place.open();
    let names = [
        "a\0b",
        "a\\0b",
        "a\\b",
        "'; DROP TABLE cursors; --",
        "Entwürfe 📬",
        "\"{}\",\r\n\t",
        "\u{7f}\u{202e}",
    ];
    for (name, uid_next) in names.into_iter().zip(1..) {
        let key = MailboxKey { account: "o'neil@x".into(), mailbox: name.into() };
        let told = Told { fingerprint: Fingerprint(i64::from(uid_next)), received_at: at(1) };
        let checkpoint = Checkpoint {
            key: key.clone(),
            cursor: *baseline(1, uid_next, None),
            replaces: Replaces::Nothing,
        };
        let notes = vec![Note::Told { key, messages: vec![told] }];
        let batch = Batch { events: vec![event(name)], checkpoint: Some(checkpoint), notes };
        commit(&mut journal, &[Entry::new(batch)])[0].as_ref().unwrap();
    }
    for (name, uid_next) in names.into_iter().zip(1..) {
        let key = MailboxKey { account: "o'neil@x".into(), mailbox: name.into() };
        assert_eq!(journal.cursor(&key).unwrap(), Some(*baseline(1, uid_next, None)), "{name:?}");
        let known = journal.memory(&key).unwrap().known;
        assert_eq!(known, [Fingerprint(i64::from(uid_next))].into(), "{name:?}");
    }
    assert_eq!(ids(journal.pending(0, 99).unwrap()), names);
}

fn what_is_forgotten_takes_no_room(place: &dyn Place) {
    let (mut journal, _) = place.open();
    let entries: Vec<_> = ["one", "zwölf", "three"].map(entry).into();
    commit(&mut journal, &entries);
    assert_eq!(journal.bytes(), entries.iter().map(Entry::bytes).sum::<u64>());
    journal.forget(2).unwrap();
    assert_eq!(journal.bytes(), entries[2].bytes());
    assert_eq!(ids(journal.pending(0, 9).unwrap()), ["three"]);
    drop(journal);
    let (journal, _) = place.open();
    assert_eq!(journal.bytes(), entries[2].bytes());
}
