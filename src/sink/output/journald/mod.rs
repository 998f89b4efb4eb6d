//! Entries of systemd's journal, with a field for each value, by its native protocol.
//!
//! There is no acknowledgement: "taken" is that the kernel has it for a journald that is there.

mod entry;

use self::entry::entry;
use super::Outcome;
use super::datagrams::Datagrams;
use crate::config::settings::JournaldSettings;
use crate::sink::batch::Batch;

/// The longest line that an entry is made of: with the longer names of its fields, it goes into a datagram (some 208 KiB by
/// default). Longer ones would need a file descriptor to be handed over.
pub(in crate::sink) const MOST_BYTES: usize = 100 << 10;

/// The output.
#[derive(Debug)]
pub struct JournaldOutput {
    settings: JournaldSettings,
    datagrams: Option<Datagrams>,
}

impl JournaldOutput {
    /// Nothing is connected yet.
    pub fn new(settings: &JournaldSettings) -> Self {
        Self { settings: settings.clone(), datagrams: None }
    }

    /// Offers a batch of flat lines.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        // It is made anew after any trouble: a journald that was restarted may have another socket there.
        let datagrams = match self.datagrams.take().map_or_else(|| Datagrams::unix(&self.settings.socket), Ok)
        {
            Ok(datagrams) => datagrams,
            Err(outcome) => return outcome,
        };
        let entries = batch.lines().map(|(item, line)| entry(item, line, &self.settings.identifier));
        let outcome = datagrams.send(entries, self.settings.timeout).await;
        self.datagrams = Some(datagrams).filter(|_| outcome == Outcome::Taken);
        outcome
    }
}
