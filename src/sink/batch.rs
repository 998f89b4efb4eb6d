//! What a lane hands to its output at once: whole events in order, each with its line.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::encode::Encoder;
use crate::event::Event;
use crate::journal::JournalledEvent;

/// Events and their lines. Cheap to clone and to split.
#[derive(Clone, Debug)]
pub struct Batch {
    text: Bytes,
    /// How many events of the whole were shortened for their lines.
    shortened: usize,
    items: Arc<[Item]>,
    range: Range<usize>,
}

/// One event of a batch.
#[derive(Clone, Debug)]
pub struct Item {
    /// `event.sequence`
    pub sequence: u64,
    /// The event, as the output may know it.
    pub event: Arc<Event>,
    line: Range<usize>,
}

impl Batch {
    /// Encodes events; at least their ids fit whatever the bound is.
    pub fn new(events: impl IntoIterator<Item = JournalledEvent>, encoder: &Encoder) -> Self {
        let (mut text, mut shortened) = (Vec::new(), 0);
        let item = |JournalledEvent { sequence, event, .. }| {
            let start = text.len();
            shortened += usize::from(encoder.line(sequence, &event, &mut text));
            Item { sequence, event, line: start..text.len() }
        };
        let items: Arc<[Item]> = events.into_iter().map(item).collect();
        Self { text: text.into(), shortened, range: 0..items.len(), items }
    }

    /// How many events of the batch that was encoded were shortened.
    pub fn shortened(&self) -> usize {
        self.shortened
    }

    /// The events.
    pub fn items(&self) -> &[Item] {
        self.items.get(self.range.clone()).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// The first and the last `event.sequence`; zeros where it is empty.
    pub fn sequences(&self) -> (u64, u64) {
        let sequence = |item: Option<&Item>| item.map_or(0, |item| item.sequence);
        (sequence(self.items().first()), sequence(self.items().last()))
    }

    /// All lines, each with its end.
    pub fn text(&self) -> Bytes {
        let end = self.items().last().map_or(0, |item| item.line.end);
        let start = self.items().first().map_or(end, |item| item.line.start);
        self.text.slice(start..end)
    }

    /// Each event with its line, without the line's end.
    pub fn lines(&self) -> impl Iterator<Item = (&Item, &[u8])> {
        self.items().iter().map(|item| {
            let line = self.text.get(item.line.clone()).unwrap_or_default();
            (item, line.strip_suffix(b"\n").unwrap_or(line))
        })
    }

    /// The first `count` events, and the rest.
    pub fn split(&self, count: usize) -> (Self, Self) {
        let at = self.range.start + count.min(self.range.len());
        let part = |range| Self { range, ..self.clone() };
        (part(self.range.start..at), part(at..self.range.end))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::super::encode::{Encoder, EncoderSettings, Format};
    use super::*;
    use crate::event::{EventBody, MonitorState};

    pub(in crate::sink) fn encoder() -> Encoder {
        let instance = Arc::from("test");
        Encoder::new(EncoderSettings { instance, max_bytes: 8000, format: Format::Ecs })
    }

    pub(in crate::sink) fn journalled(sequence: u64) -> JournalledEvent {
        let event = Event {
            at: Timestamp::UNIX_EPOCH,
            id: format!("id-{sequence}"),
            account: None,
            body: EventBody::MonitorState(MonitorState::Started),
            filtered: None,
            redacted: Vec::new(),
        };
        JournalledEvent { sequence, event: event.into(), had: Vec::new() }
    }

    pub(in crate::sink) fn batch(sequences: Range<u64>) -> Batch {
        Batch::new(sequences.map(journalled), &encoder())
    }

    #[test]
    fn its_parts_hold_what_the_whole_holds() {
        let whole = batch(7..12);
        assert_eq!((whole.len(), whole.sequences()), (5, (7, 11)));
        for count in 0..=6 {
            let (first, rest) = whole.split(count);
            assert_eq!([first.text(), rest.text()].concat(), whole.text());
            assert_eq!(first.len(), count.min(5));
            let sequences =
                |batch: &Batch| batch.items().iter().map(|item| item.sequence).collect::<Vec<_>>();
            assert_eq!([sequences(&first), sequences(&rest)].concat(), sequences(&whole));
        }
        let lines: Vec<_> = whole.lines().map(|(_, line)| line.to_vec()).collect();
        assert_eq!([lines.join(&b'\n'), b"\n".to_vec()].concat(), whole.text());
        let (none, _) = whole.split(0);
        assert!(none.is_empty() && none.text().is_empty());
    }
}
