//! A commit is a round: one statement with a number. Where its answer is lost, what became of it is found out before
//! anything else is stored; so nothing is stored twice, and nothing is taken for stored that is not.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::failure::Failure;
use super::link::Parameter;
use super::step::steps;
use super::{PostgresJournal, damaged, number, ours, signed};
use crate::cluster::shard::{Shard, ShardSet};
use crate::event::AccountId;
use crate::journal::checksum::crc;
use crate::journal::{Entry, JournalError, LanePosition, Receipt, Unstored};

type Answer = Result<Receipt, Unstored>;

/// The most answers that are kept for whoever offers their entries again; the writer does so with all but its own.
const MOST_FOUND_OUT: usize = 100_000;

/// Which rounds there were.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The number of the last one.
    last: i64,
    /// One whose answer was lost.
    doubtful: Option<Doubtful>,
    /// What was found out of such rounds, for the entries that are offered again.
    found_out: Vec<(Entry, Answer)>,
    /// The last round that stored something of an account.
    stored: HashMap<AccountId, i64>,
    /// Of which connection it is known that its server has all of that.
    confirmed_by: u64,
    /// Those of whom a server lacked something.
    forgotten: Vec<AccountId>,
}

#[derive(Debug)]
struct Doubtful {
    number: i64,
    entries: Vec<Entry>,
}

impl Rounds {
    /// After those of whoever had the journal before.
    pub(super) fn of(last: i64) -> Self {
        Self { last, ..Self::default() }
    }

    /// Nothing of later rounds is stored any more.
    fn forget_after(&mut self, round: i64) {
        self.forgotten
            .extend(self.stored.extract_if(|_, stored| *stored > round).map(|(account, _)| account));
    }

    /// The accounts of whom something was stored, and is not any more: since this was asked last.
    pub(super) fn forgotten(&mut self) -> Vec<AccountId> {
        std::mem::take(&mut self.forgotten)
    }

    /// Only these are ours still.
    pub(super) fn forget_others(&mut self, held: &ShardSet) {
        self.stored.retain(|account, _| held.has(Shard::of(account)));
    }

    /// The answers that are known, in the place of their entries.
    fn answers(&self, entries: &[Entry]) -> Vec<Option<Answer>> {
        let mut left: Vec<_> = self.found_out.iter().collect();
        let answer = |entry: &Entry| {
            let place = left.iter().position(|(known, _)| known == entry)?;
            Some(left.remove(place).1.clone())
        };
        entries.iter().map(answer).collect()
    }

    /// What was stored of entries that are offered again.
    fn keep(&mut self, entries: &[&Entry], answers: Vec<Answer>) {
        let known = entries.iter().map(|entry| (*entry).clone()).zip(answers);
        self.found_out.extend(known.filter(|(_, answer)| *answer != Err(Unstored::Unreadable)));
    }

    /// Their answers are given. Those of others are kept: an entry may wait for room before it is offered again.
    fn answered(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some(place) = self.found_out.iter().position(|(known, _)| known == entry) {
                drop(self.found_out.remove(place));
            }
        }
        self.found_out.drain(..self.found_out.len().saturating_sub(MOST_FOUND_OUT));
    }
}

/// None, where it is of no account: the monitor's own, or of all.
fn shard_of(entry: &Entry) -> Option<i32> {
    entry.account().and_then(|account| i32::try_from(Shard::of(account).number()).ok())
}

impl PostgresJournal {
    /// A new connection may be to a standby that was promoted, and lacks what it had not received.
    pub(super) fn look_back(&mut self) -> Result<(), JournalError> {
        if self.link.open()? == self.rounds.confirmed_by {
            return Ok(());
        }
        let rows = self.as_holder("SELECT answered FROM nodes WHERE name = $1 AND epoch = $2", &[])?;
        let answered = rows.first().map_or(Ok(0), |row| row.try_get("answered")).map_err(damaged)?;
        self.rounds.forget_after(answered);
        self.rounds.confirmed_by = self.link.generation();
        Ok(())
    }

    /// Whatever was in doubt is settled first.
    pub(super) fn commit_rounds(
        &mut self,
        entries: &[Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Answer>, JournalError> {
        self.look_back()?;
        self.settle()?;
        let mut answers = self.rounds.answers(entries);
        let open = entries.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        let open: Vec<&Entry> = open.map(|(entry, _)| entry).collect();
        if !open.is_empty() || !positions.is_empty() {
            let mut told = self.rounds(&open, positions)?.into_iter();
            let empty = answers.iter_mut().filter(|answer| answer.is_none());
            empty.for_each(|answer| *answer = told.next());
        }
        self.rounds.answered(entries);
        Ok(answers.into_iter().map(|answer| answer.unwrap_or(Err(Unstored::Superseded))).collect())
    }

    /// One round. Where a page cannot be read, as many as part what needs it from what does not; places of outputs first,
    /// without which nothing goes on.
    fn rounds(
        &mut self,
        entries: &[&Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Answer>, JournalError> {
        match (self.round(entries, positions), entries) {
            (Err(JournalError::Unreadable), [_, ..]) if !positions.is_empty() => {
                self.round(&[], positions)?;
                self.rounds(entries, &[])
            }
            (Err(JournalError::Unreadable), [_]) => Ok(vec![Err(Unstored::Unreadable)]),
            (Err(JournalError::Unreadable), [_, _, ..]) => {
                let (first, second) = entries.split_at(entries.len() / 2);
                let mut answers = self.rounds(first, &[])?;
                match self.rounds(second, &[]) {
                    Ok(more) => answers.extend(more),
                    Err(failure) => {
                        self.rounds.keep(first, answers);
                        return Err(failure);
                    }
                }
                Ok(answers)
            }
            (done, _) => done,
        }
    }

    fn round(
        &mut self,
        entries: &[&Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Answer>, JournalError> {
        self.rounds.last += 1;
        match self.send(entries, positions) {
            Ok(rows) => self.receipts(entries, ours(rows)?.first()),
            // Nothing of it was done.
            Err(failure @ Failure::Unreadable(_)) => Err(failure.into()),
            Err(failure) => {
                let entries = entries.iter().map(|entry| (*entry).clone()).collect();
                self.rounds.doubtful = Some(Doubtful { number: self.rounds.last, entries });
                Err(failure.into())
            }
        }
    }

    fn send(
        &mut self,
        entries: &[&Entry],
        positions: &[(String, LanePosition)],
    ) -> Result<Vec<Row>, Failure> {
        let steps = steps(entries, positions, &self.home, Timestamp::now());
        let steps = serde_json::to_string(&steps).map_err(|error| Failure::Rejected(error.to_string()))?;
        let (mut entry_of, mut actions, mut payloads, mut sums) = (vec![], vec![], vec![], vec![]);
        for (number, entry) in (1_i32..).zip(entries) {
            for encoded in &entry.events {
                entry_of.push(number);
                actions.push(encoded.event.body.action().as_str());
                payloads.push(encoded.payload.as_str());
                sums.push(i64::from(crc(&[encoded.payload.as_bytes()])));
            }
        }
        let (epoch, round, last) = (self.epoch, self.rounds.last, signed(self.last));
        let shards: Vec<Option<i32>> = entries.iter().map(|entry| shard_of(entry)).collect();
        let parameters: [Parameter<'_>; 10] = [
            (&self.name, Type::TEXT),
            (&epoch, Type::INT8),
            (&round, Type::INT8),
            (&last, Type::INT8),
            (&steps, Type::TEXT),
            (&shards, Type::INT4_ARRAY),
            (&entry_of, Type::INT4_ARRAY),
            (&actions, Type::TEXT_ARRAY),
            (&payloads, Type::TEXT_ARRAY),
            (&sums, Type::INT8_ARRAY),
        ];
        let sql = "SELECT * FROM commit_round($1, $2, $3, $4, $5::jsonb, $6, $7, $8, $9, $10)";
        self.link.query(sql, &parameters)
    }

    /// What became of a round whose answer was lost. It may not even have begun: from now on it cannot any more.
    fn settle(&mut self) -> Result<(), JournalError> {
        let Some(doubtful) = &self.rounds.doubtful else { return Ok(()) };
        let number = doubtful.number;
        let rows = self.as_holder("SELECT * FROM end_rounds($1, $2, $3)", &[(&number, Type::INT8)])?;
        let row = rows.first();
        let answered = row.map_or(Ok(0), |row| row.try_get::<_, i64>("answered_round")).map_err(damaged)?;
        let Some(Doubtful { entries, .. }) = self.rounds.doubtful.take() else { return Ok(()) };
        if answered == number {
            let known: Vec<&Entry> = entries.iter().collect();
            let answers = self.receipts(&known, row)?;
            self.rounds.found_out.extend(entries.into_iter().zip(answers));
        }
        Ok(())
    }

    /// What was stored, with the numbers that it got.
    fn receipts(&mut self, entries: &[&Entry], row: Option<&Row>) -> Result<Vec<Answer>, JournalError> {
        let Some(row) = row else { return Err(JournalError::TakenOver) };
        if self.link.generation() != self.rounds.confirmed_by {
            // It was made in between, and what its server had before cannot be told any more.
            self.rounds.forget_after(0);
            self.rounds.confirmed_by = self.link.generation();
        }
        let mut next = number(row.try_get("first_sequence").map_err(damaged)?);
        let stored: Vec<bool> = row.try_get("stored_entries").map_err(damaged)?;
        let mut answers = Vec::with_capacity(entries.len());
        for (entry, stored) in entries.iter().zip(stored) {
            if !stored {
                answers.push(Err(Unstored::Superseded));
                continue;
            }
            if let Some(account) = entry.account() {
                self.rounds.stored.insert(account.clone(), self.rounds.last);
            }
            let first = next;
            next += entry.len() as u64;
            self.bytes += entry.bytes();
            let checkpoint = entry.checkpoint.as_ref();
            answers.push(Ok(Receipt {
                checkpoint: checkpoint.map(|stored| (stored.key.clone(), stored.cursor.clone())),
                sequences: (!entry.is_empty()).then(|| first..=next - 1),
            }));
        }
        self.last = self.last.max(next.saturating_sub(1));
        Ok(answers)
    }
}
