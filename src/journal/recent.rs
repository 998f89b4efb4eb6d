//! What was committed lately and not taken by every lane: handed on from memory, so that nobody has to read and decode
//! what was written a moment ago. Bounded; whoever falls behind reads the journal.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::JournalledEvent;

/// Events that are kept.
const MOST_EVENTS: usize = 2_000;

/// Bytes of them, as they are stored.
const MOST_BYTES: u64 = 4 << 20;

/// Shared by the writer, who adds, and the lanes, who take.
#[derive(Clone, Debug)]
pub(super) struct Recent(Arc<Mutex<Window>>);

/// Consecutive events, the last one the last that is durable.
#[derive(Debug)]
struct Window {
    events: VecDeque<(JournalledEvent, u64)>,
    bytes: u64,
    /// The highest number that was seen.
    last: u64,
    /// How far each lane has come.
    taken: Vec<u64>,
}

impl Recent {
    /// Nothing yet, for lanes that have come so far.
    pub(super) fn new(taken: Vec<u64>) -> Self {
        Self(Arc::new(Mutex::new(Window { events: VecDeque::new(), bytes: 0, last: 0, taken })))
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These are durable now; each with its bytes.
    pub(super) fn add(&self, events: impl IntoIterator<Item = (JournalledEvent, u64)>) {
        let mut window = self.window();
        for (event, bytes) in events {
            window.push(event, bytes);
        }
    }

    /// Up to `most` events after `after`, where the next one of them is kept.
    pub(super) fn after(&self, after: u64, most: usize) -> Option<Vec<JournalledEvent>> {
        let window = self.window();
        let first = window.events.front()?.0.sequence;
        let skipped = usize::try_from((after + 1).checked_sub(first)?).ok()?;
        let events = window.events.range(skipped.min(window.events.len())..).take(most);
        Some(events.map(|(event, _)| event.clone()).collect())
    }

    /// One more lane, which has come so far.
    pub(super) fn enter(&self, sequence: u64) {
        self.window().taken.push(sequence);
    }

    /// A lane has come so far.
    pub(super) fn taken(&self, lane: usize, sequence: u64) {
        let mut window = self.window();
        if let Some(taken) = window.taken.get_mut(lane) {
            *taken = sequence.max(*taken);
        }
        let all = window.taken.iter().copied().min().unwrap_or(u64::MAX);
        window.forget(all);
    }

    /// Nobody is to be told of these any more.
    pub(super) fn forget(&self, sequence: u64) {
        self.window().forget(sequence);
    }
}

impl Window {
    fn push(&mut self, event: JournalledEvent, bytes: u64) {
        // One whose number became known later than those of others: it would stand for the last one.
        if event.sequence <= self.last {
            return self.clear();
        }
        self.last = event.sequence;
        // A hole would be passed over by whoever reads on.
        if self.events.back().is_some_and(|(last, _)| last.sequence + 1 != event.sequence) {
            self.clear();
        }
        self.events.push_back((event, bytes));
        self.bytes += bytes;
        while self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES {
            self.drop_first();
        }
    }

    fn forget(&mut self, sequence: u64) {
        while self.events.front().is_some_and(|(event, _)| event.sequence <= sequence) {
            self.drop_first();
        }
        if self.events.is_empty() {
            self.clear();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, bytes)) = self.events.pop_front() {
            self.bytes -= bytes;
        }
    }

    /// Its room, too.
    fn clear(&mut self) {
        self.events = VecDeque::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::{Event, EventBody, MonitorState};

    fn add(recent: &Recent, sequences: impl IntoIterator<Item = u64>, bytes: u64) {
        let event = |sequence: u64| {
            let body = EventBody::MonitorState(MonitorState::Started);
            let (at, id) = (Timestamp::UNIX_EPOCH, sequence.to_string());
            let event = Arc::new(Event { at, id, account: None, body, filtered: None, redacted: Vec::new() });
            (JournalledEvent { sequence, event, had: Vec::new() }, bytes)
        };
        recent.add(sequences.into_iter().map(event));
    }

    fn after(recent: &Recent, after: u64, most: usize) -> Option<Vec<u64>> {
        Some(recent.after(after, most)?.iter().map(|event| event.sequence).collect())
    }

    #[test]
    fn what_is_not_kept_is_left_to_the_journal() {
        let recent = Recent::new(vec![0]);
        assert_eq!(after(&recent, 0, 10), None);
        add(&recent, 5..=8, 1);
        assert_eq!(after(&recent, 3, 10), None, "4 is not here");
        assert_eq!(after(&recent, 4, 2), Some(vec![5, 6]));
        assert_eq!(after(&recent, 7, 10), Some(vec![8]));
        assert_eq!(after(&recent, 8, 10), Some(vec![]));
        assert_eq!(after(&recent, 9, 10), Some(vec![]));
        add(&recent, [10], 1);
        assert_eq!((after(&recent, 8, 10), after(&recent, 9, 10)), (None, Some(vec![10])), "a hole");
    }

    /// Of a commit whose answer was lost.
    #[test]
    fn a_number_that_becomes_known_late_is_not_taken_for_the_last() {
        let recent = Recent::new(vec![0]);
        add(&recent, [1], 1);
        add(&recent, [3], 1);
        add(&recent, [2], 1);
        assert_eq!((after(&recent, 1, 10), after(&recent, 2, 10)), (None, None), "the journal has 3");
        add(&recent, [4], 1);
        assert_eq!((after(&recent, 2, 10), after(&recent, 3, 10)), (None, Some(vec![4])));
    }

    #[test]
    fn what_all_lanes_have_goes() {
        let recent = Recent::new(vec![0, 0]);
        add(&recent, 1..=4, 1);
        recent.taken(0, 3);
        assert_eq!(after(&recent, 0, 10), Some(vec![1, 2, 3, 4]), "for the other one");
        recent.taken(1, 2);
        assert_eq!((after(&recent, 1, 10), after(&recent, 2, 10)), (None, Some(vec![3, 4])));
        recent.forget(4);
        assert_eq!((after(&recent, 4, 10), recent.window().bytes), (None, 0));
    }

    #[test]
    fn a_lane_that_stands_still_makes_nothing_grow() {
        for bytes in [1, MOST_BYTES / 10] {
            let recent = Recent::new(vec![0]);
            add(&recent, 1..=5_000, bytes);
            let window = recent.window();
            assert!(window.events.len() <= MOST_EVENTS && window.bytes <= MOST_BYTES);
            assert_eq!(window.events.back().map(|(event, _)| event.sequence), Some(5_000));
        }
    }
}
