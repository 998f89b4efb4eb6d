//! What a bulk request says, and what its answer means. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Outcome, Pause};
use super::IndexTemplate;
use crate::sink::batch::{Batch, Item};
use crate::text;

/// Troubles of an index, told as if they were the document's.
const OF_THE_INDEX: [&str; 5] = [
    "index_closed_exception",
    "invalid_index_name_exception",
    "cluster_block_exception",
    // No more shards may be made.
    "validation_exception",
    // No write index behind the alias, no such pipeline.
    "illegal_argument_exception",
];

/// An action and a document for each event.
pub(super) fn body(index: &IndexTemplate, batch: &Batch) -> Bytes {
    let mut body = Vec::new();
    for (item, line) in batch.lines() {
        let action = json!({"create": {"_index": index.fill(&item.event), "_id": item.event.id}});
        body.extend_from_slice(action.to_string().as_bytes());
        body.push(b'\n');
        body.extend_from_slice(line);
        body.push(b'\n');
    }
    body.into()
}

#[derive(Deserialize)]
struct Answer {
    /// Each an object of one action.
    items: Vec<BTreeMap<String, Done>>,
}

#[derive(Deserialize)]
struct Done {
    #[serde(rename = "_id")]
    id: Option<String>,
    status: u16,
    #[serde(default)]
    error: Value,
}

/// What became of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Taken,
    /// To be offered again.
    Later(Pause),
    Unacceptable,
}

/// What an answer with a good status means for a batch. One that names other documents was meant for another request.
pub(super) fn verdict(batch: &Batch, body: &[u8]) -> Outcome {
    let items = serde_json::from_slice(body).map(|answer: Answer| answer.items).unwrap_or_default();
    let done: Vec<_> = items.iter().filter_map(|item| item.values().next()).collect();
    let none = |reason| Outcome::TryAgain { taken: 0, pause: Pause::Slowly, reason };
    if done.len() != batch.len() {
        return none(format!("the answer is none of a bulk request: it tells of {} events", done.len()));
    }
    let is_other = |(done, item): (&&Done, &Item)| done.id.as_ref().is_some_and(|id| *id != item.event.id);
    if done.iter().zip(batch.items()).any(is_other) {
        return none("the answer names other documents than were sent".to_owned());
    }
    let taken = done.iter().take_while(|done| done.fate() == Fate::Taken).count();
    let first = |wanted: &dyn Fn(Fate) -> bool| done.iter().find(|done| wanted(done.fate()));
    let later = first(&|fate| fate == Fate::Later(Pause::Slowly))
        .or_else(|| first(&|fate| matches!(fate, Fate::Later(_))));
    // Whatever is not yet decided goes first: halves would only add to its load.
    if let Some(done) = later
        && let Fate::Later(pause) = done.fate()
    {
        return Outcome::TryAgain { taken, pause, reason: done.reason() };
    }
    first(&|fate| fate == Fate::Unacceptable)
        .map_or(Outcome::Taken, |done| Outcome::Rejected { reason: done.reason() })
}

impl Done {
    fn fate(&self) -> Fate {
        match self.status {
            // A conflict: it was there before.
            200..=299 | 409 => Fate::Taken,
            408 | 425 | 429 | 500..=599 => Fate::Later(Pause::Backoff),
            _ if OF_THE_INDEX.contains(&self.text("type")) => Fate::Later(Pause::Slowly),
            400 | 413 | 422 => Fate::Unacceptable,
            _ => Fate::Later(Pause::Slowly),
        }
    }

    fn text(&self, key: &str) -> &str {
        self.error.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn reason(&self) -> String {
        let said = text::line(&format!("{}: {}", self.text("type"), self.text("reason")), 200);
        format!("a document got {} ({said})", self.status)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::super::batch::tests::batch;
    use super::*;

    fn answer(statuses: &[(u16, &str)]) -> Vec<u8> {
        let items: Vec<_> = statuses
            .iter()
            .map(|(status, kind)| match *kind {
                "" => json!({"create": {"status": status}}),
                kind => json!({"create": {"status": status, "error": {"type": kind, "reason": "why"}}}),
            })
            .collect();
        json!({ "items": items }).to_string().into_bytes()
    }

    fn judged(statuses: &[(u16, &str)]) -> (&'static str, usize, Option<Pause>) {
        match verdict(&batch(0..statuses.len() as u64), &answer(statuses)) {
            Outcome::Taken => ("taken", statuses.len(), None),
            Outcome::Rejected { .. } => ("rejected", 0, None),
            Outcome::TryAgain { taken, pause, .. } => ("again", taken, Some(pause)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_event_is_created_under_its_own_id() {
        let index = IndexTemplate::parse("logs-{dataset}-default").unwrap();
        let body = body(&index, &batch(3..5));
        let lines: Vec<Value> = body
            .split_inclusive(|byte| *byte == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 4);
        let wanted = json!({"create": {"_index": "logs-idlewatch.monitor-default", "_id": "id-3"}});
        assert_eq!((&lines[0], &lines[1]["event"]["sequence"]), (&wanted, &json!(3)));
    }

    #[test]
    fn each_item_has_its_meaning() {
        let (back, slow) = (Some(Pause::Backoff), Some(Pause::Slowly));
        for (statuses, wanted) in [
            (&[(201, ""), (409, "version_conflict_engine_exception")][..], ("taken", 2, None)),
            (&[(201, ""), (429, "es_rejected_execution_exception"), (201, "")], ("again", 1, back)),
            (&[(400, "document_parsing_exception"), (201, "")], ("rejected", 0, None)),
            (&[(400, "mapper_parsing_exception"), (503, "unavailable_shards_exception")], ("again", 0, back)),
            (&[(429, "x"), (403, "security_exception")], ("again", 0, slow)),
            (&[(404, "index_not_found_exception")], ("again", 0, slow)),
            (&[(400, "index_closed_exception")], ("again", 0, slow)),
            (&[(400, "validation_exception")], ("again", 0, slow)),
            (&[(403, "cluster_block_exception")], ("again", 0, slow)),
        ] {
            assert_eq!(judged(statuses), wanted, "{statuses:?}");
        }
    }

    #[test]
    fn an_answer_that_names_its_documents_in_their_order_is_good() {
        let body =
            br#"{"items":[{"create":{"_id":"id-3","status":201}},{"create":{"_id":"id-4","status":409}}]}"#;
        assert_eq!(verdict(&batch(3..5), body), Outcome::Taken);
    }

    /// A page of a proxy with status 200 has taken nothing.
    #[test]
    fn an_answer_that_does_not_tell_of_every_event_has_taken_none() {
        for body in [
            b"<html>".to_vec(),
            b"{}".to_vec(),
            Vec::new(),
            answer(&[(201, "")]),
            answer(&[(201, ""); 3]),
            b"{\"items\":[{},{}]}".to_vec(),
            br#"{"items":[{"create":{"_id":"id-4","status":201}},{"create":{"_id":"id-3","status":201}}]}"#
                .to_vec(),
            br#"{"items":[{"create":{"_id":"id-1","status":201}},{"create":{"_id":"id-2","status":201}}]}"#
                .to_vec(),
        ] {
            let outcome = verdict(&batch(3..5), &body);
            assert!(
                matches!(outcome, Outcome::TryAgain { taken: 0, pause: Pause::Slowly, .. }),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn what_a_stranger_gives_as_reason_is_harmless() {
        let body = json!({"items": [{"create": {"status": 400, "error": {"type": "\u{1b}[2J", "reason": "x".repeat(9000)}}}]});
        let outcome = verdict(&batch(3..4), body.to_string().as_bytes());
        let reason = outcome.reason().unwrap();
        assert!(reason.len() < 300 && !reason.contains('\u{1b}'), "{reason}");
    }
}
