//! What Elasticsearch, Loki and a collector of OpenTelemetry make of a request: strictly, after their manuals.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::event;
use super::receiver::{Consumer, field};

/// A bulk API: a document is created once, one with "poison" never, and at first one of each request has to wait.
#[derive(Default)]
pub struct Bulk {
    stored: BTreeMap<String, String>,
    busy: usize,
}

impl Bulk {
    /// The first documents that are not taken for now.
    pub fn busy(count: usize) -> Self {
        Self { busy: count, ..Self::default() }
    }

    fn create(&mut self, index: &str, id: &str, line: &str) -> (Value, bool) {
        if self.stored.contains_key(id) {
            let error = json!({"type": "version_conflict_engine_exception", "reason": "exists"});
            return (json!({"create": {"_id": id, "status": 409, "error": error}}), false);
        }
        if line.contains("poison") {
            let error = json!({"type": "document_parsing_exception", "reason": "failed to parse"});
            return (json!({"create": {"_id": id, "status": 400, "error": error}}), false);
        }
        if self.busy > 0 {
            self.busy -= 1;
            let error = json!({"type": "es_rejected_execution_exception", "reason": "queue is full"});
            return (json!({"create": {"_id": id, "status": 429, "error": error}}), false);
        }
        self.stored.insert(id.to_owned(), index.to_owned());
        (json!({"create": {"_id": id, "status": 201}}), true)
    }
}

impl Consumer for Bulk {
    fn take(&mut self, head: &[String], body: &[u8]) -> Result<(Vec<Value>, String), String> {
        if !head[0].starts_with("POST /_bulk?filter_path=") {
            return Err(format!("asked for {}", head[0]));
        }
        if field(head, "content-type")? != "application/x-ndjson" {
            return Err("no lines".to_owned());
        }
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        if !text.ends_with('\n') {
            return Err("no newline at the end".to_owned());
        }
        let lines: Vec<_> = text.lines().collect();
        let (mut taken, mut items) = (Vec::new(), Vec::new());
        for pair in lines.chunks(2) {
            let [action, line] = pair else { return Err("an action without a document".to_owned()) };
            let action: Value = serde_json::from_str(action).map_err(|error| error.to_string())?;
            let told = event(line);
            let (index, id) = (&action["create"]["_index"], &action["create"]["_id"]);
            if index != "logs-idlewatch.message-default" || *id != told["event"]["id"] {
                return Err(format!("{action} for {told}"));
            }
            let (item, is_new) = self.create(index.as_str().unwrap(), id.as_str().unwrap(), line);
            items.push(item);
            taken.extend(is_new.then_some(told));
        }
        Ok((taken, json!({ "items": items }).to_string()))
    }
}

/// A push API: an entry that is there already is dropped.
#[derive(Default)]
pub struct Streams(Vec<Value>);

impl Consumer for Streams {
    fn take(&mut self, head: &[String], body: &[u8]) -> Result<(Vec<Value>, String), String> {
        if !head[0].starts_with("POST /loki/api/v1/push ") || field(head, "x-scope-orgid")? != "mail" {
            return Err(format!("asked for {head:?}"));
        }
        let push: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let mut taken = Vec::new();
        for stream in push["streams"].as_array().ok_or("no streams")? {
            let labels = json!({"service_name": "idlewatch", "event_action": "message.new", "level": "info", "env": "test"});
            if stream["stream"] != labels {
                return Err(format!("the labels are {}", stream["stream"]));
            }
            for value in stream["values"].as_array().ok_or("no values")? {
                let told = event(value[1].as_str().ok_or("no line")?);
                let time = value[0].as_str().and_then(|time| time.parse().ok()).ok_or("no time")?;
                let time = jiff::Timestamp::from_nanosecond(time).map_err(|error| error.to_string())?;
                if time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string() != told["@timestamp"] {
                    return Err(format!("{time} for {told}"));
                }
                if value[2]
                    != json!({"event_id": told["event"]["id"], "idlewatch_account_id": told["idlewatch"]["account"]["id"]})
                {
                    return Err(format!("beside it is {}", value[2]));
                }
                if !self.0.contains(value) {
                    self.0.push(value.clone());
                    taken.push(told);
                }
            }
        }
        Ok((taken, String::new()))
    }
}

/// A collector: what it takes comes back in the shape of events. A record with "poison" is rejected, the others are not.
#[derive(Default)]
pub struct Collector;

impl Consumer for Collector {
    fn take(&mut self, head: &[String], body: &[u8]) -> Result<(Vec<Value>, String), String> {
        if !head[0].starts_with("POST /v1/logs ") || field(head, "content-type")? != "application/json" {
            return Err(format!("asked for {head:?}"));
        }
        let request: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let records = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
        let (mut taken, mut rejected) = (Vec::new(), 0);
        for record in records.as_array().ok_or("no records")? {
            if record["eventName"] != "idlewatch.message.new" || record["severityNumber"] != 9 {
                return Err(format!("{record}"));
            }
            if record.to_string().contains("poison") {
                rejected += 1;
                continue;
            }
            taken.push(as_event(record)?);
        }
        let answer = match rejected {
            0 => json!({}),
            some => {
                json!({"partialSuccess": {"rejectedLogRecords": some.to_string(), "errorMessage": "poison"}})
            }
        };
        Ok((taken, answer.to_string()))
    }
}

fn as_event(record: &Value) -> Result<Value, String> {
    let attributes = record["attributes"].as_array().ok_or("no attributes")?;
    let value = |key: &str| {
        let found = attributes.iter().find(|attribute| attribute["key"] == key);
        found.map(|attribute| attribute["value"].clone()).ok_or_else(|| format!("no {key} in {record}"))
    };
    let uid = value("idlewatch.imap.uid")?["intValue"].as_str().and_then(|uid| uid.parse::<u64>().ok());
    Ok(json!({
        "event": {"id": value("event.id")?["stringValue"], "action": value("event.action")?["stringValue"]},
        "idlewatch": {"imap": {"uid": uid.ok_or("no number")?}, "account": {"id": value("idlewatch.account.id")?["stringValue"]}},
    }))
}
