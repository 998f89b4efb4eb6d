//! What a push says, and what its answer means. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::http::Answer;
use super::super::{Outcome, Pause};
use crate::event::Event;
use crate::sink::batch::{Batch, Item};
use crate::sink::encode::level;

/// In the answer of a server that takes no structured metadata.
const NO_METADATA: &[u8] = b"allow_structured_metadata";

/// How entries are made.
#[derive(Debug)]
pub(super) struct Push {
    /// Of every stream, beside ours.
    pub(super) labels: Vec<(String, String)>,
    pub(super) structured_metadata: bool,
}

impl Push {
    /// A stream for each action and level, with its events in their order.
    pub(super) fn body(&self, batch: &Batch) -> Bytes {
        let mut streams: BTreeMap<(&str, &str), Vec<Value>> = BTreeMap::new();
        for (item, line) in batch.lines() {
            let key = (item.event.body.action().as_str(), level(&item.event));
            streams.entry(key).or_default().push(self.entry(item, line));
        }
        let streams: Vec<_> = streams
            .into_iter()
            .map(|((action, level), values)| json!({"stream": self.stream(action, level), "values": values}))
            .collect();
        json!({ "streams": streams }).to_string().into()
    }

    /// A closed set: whatever varies from event to event would make a stream of each.
    fn stream(&self, action: &str, level: &str) -> BTreeMap<String, String> {
        let ours = [("service_name", "idlewatch"), ("event_action", action), ("level", level)];
        let ours = ours.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.labels.iter().cloned().chain(ours).collect()
    }

    /// The same whenever it is made: Loki keeps one of entries that are equal.
    fn entry(&self, item: &Item, line: &[u8]) -> Value {
        let time = nanoseconds(&item.event);
        let line = String::from_utf8_lossy(line);
        if self.structured_metadata {
            json!([time, line, metadata(&item.event)])
        } else {
            json!([time, line])
        }
    }
}

/// As in the line: whole milliseconds, so that a journal makes no difference.
fn nanoseconds(event: &Event) -> String {
    format!("{}000000", event.at.as_millisecond())
}

fn metadata(event: &Event) -> Map<String, Value> {
    let mut metadata = Map::new();
    metadata.insert("event_id".to_owned(), json!(event.id));
    if let Some(account) = &event.account {
        metadata.insert("idlewatch_account_id".to_owned(), json!(account.id.as_str()));
    }
    metadata
}

/// A server without structured metadata refuses every entry; no event is to blame for that.
pub(super) fn verdict(answer: &Answer) -> Outcome {
    let is_refused = answer.body.windows(NO_METADATA.len()).any(|part| part == NO_METADATA);
    match answer.outcome() {
        Outcome::Rejected { reason } if is_refused => Outcome::TryAgain {
            taken: 0,
            pause: Pause::Slowly,
            reason: format!("it takes no structured metadata: set structured_metadata = false ({reason})"),
        },
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::super::super::super::batch::tests::batch;
    use super::*;

    fn push(structured_metadata: bool) -> Push {
        Push { labels: vec![("env".to_owned(), "prod".to_owned())], structured_metadata }
    }

    #[test]
    fn a_push_has_one_stream_with_few_labels_and_every_line() {
        let batch = batch(3..5);
        let made: Value = serde_json::from_slice(&push(true).body(&batch)).unwrap();
        assert_eq!(made["streams"].as_array().unwrap().len(), 1);
        let labels = json!({"service_name": "idlewatch", "event_action": "monitor.state", "level": "info", "env": "prod"});
        assert_eq!(made["streams"][0]["stream"], labels);
        let values = &made["streams"][0]["values"];
        assert_eq!((&values[0][0], &values[0][2]), (&json!("0000000"), &json!({"event_id": "id-3"})));
        for (value, (_, line)) in values.as_array().unwrap().iter().zip(batch.lines()) {
            assert_eq!(value[1].as_str().unwrap().as_bytes(), line);
        }
        let made: Value = serde_json::from_slice(&push(false).body(&batch)).unwrap();
        assert_eq!(made["streams"][0]["values"][0].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_is_too_old_is_its_event_s_trouble_and_a_server_s_settings_are_not() {
        let outcome = |body: &[u8]| {
            let status = StatusCode::BAD_REQUEST;
            verdict(&Answer { status, retry_after: None, location: None, body: body.to_vec() })
        };
        assert!(matches!(outcome(b"entry too far behind"), Outcome::Rejected { .. }));
        let refused =
            outcome(b"this feature is disallowed. Please see `limits_config.allow_structured_metadata`");
        assert!(matches!(refused, Outcome::TryAgain { taken: 0, pause: Pause::Slowly, .. }), "{refused:?}");
    }
}
