//! Events as records of OpenTelemetry's log data model, and what a collector's answer means. Pure.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::{Outcome, Pause};
use crate::sink::batch::{Batch, Item};
use crate::sink::encode::{level, severity};
use crate::text;

/// Of the line, what has a place of its own in a record, or in its resource.
const ELSEWHERE: [&str; 6] = ["@timestamp", "level", "message", "ecs", "log", "service"];

/// An `ExportLogsServiceRequest`.
pub(super) fn body(instance: &str, batch: &Batch) -> Bytes {
    let records: Vec<_> = batch.lines().map(|(item, line)| record(item, line)).collect();
    let version = env!("CARGO_PKG_VERSION");
    let resource = [
        attribute("service.name", &json!("idlewatch")),
        attribute("service.version", &json!(version)),
        attribute("service.instance.id", &json!(instance)),
    ];
    let scope = json!({"name": "idlewatch", "version": version});
    json!({"resourceLogs": [{
        "resource": {"attributes": resource},
        "scopeLogs": [{"scope": scope, "logRecords": records}],
    }]})
    .to_string()
    .into()
}

fn record(item: &Item, line: &[u8]) -> Value {
    let line: Map<String, Value> = serde_json::from_slice(line).unwrap_or_default();
    let time = format!("{}000000", item.event.at.as_millisecond());
    let mut attributes = Vec::new();
    for (key, value) in line.iter().filter(|(key, _)| !ELSEWHERE.contains(&key.as_str())) {
        flatten(key, value, &mut attributes);
    }
    json!({
        "timeUnixNano": time,
        "observedTimeUnixNano": time,
        "severityNumber": severity_number(severity(&item.event)),
        "severityText": level(&item.event),
        "eventName": format!("idlewatch.{}", item.event.body.action().as_str()),
        "body": {"stringValue": line.get("message").and_then(Value::as_str).unwrap_or_default()},
        "attributes": attributes,
    })
}

/// Of a severity of syslog.
fn severity_number(severity: u8) -> u8 {
    match severity {
        0..=3 => 17,
        4 => 13,
        _ => 9,
    }
}

/// Objects by dotted keys, which are the names of attributes.
fn flatten(key: &str, value: &Value, attributes: &mut Vec<Value>) {
    match value {
        Value::Object(inner) => {
            for (name, value) in inner {
                flatten(&format!("{key}.{name}"), value, attributes);
            }
        }
        plain => attributes.push(attribute(key, plain)),
    }
}

fn attribute(key: &str, value: &Value) -> Value {
    json!({"key": key, "value": any_value(value)})
}

/// An `AnyValue`; 64-bit integers are strings in the JSON of protobuf.
fn any_value(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(value) => json!({"boolValue": value}),
        Value::Number(number) => match number.as_i64() {
            Some(number) => json!({"intValue": number.to_string()}),
            None => json!({"doubleValue": number}),
        },
        Value::String(text) => json!({"stringValue": text}),
        Value::Array(items) => {
            json!({"arrayValue": {"values": items.iter().map(any_value).collect::<Vec<_>>()}})
        }
        Value::Object(inner) => {
            let pairs: Vec<_> = inner.iter().map(|(key, value)| attribute(key, value)).collect();
            json!({"kvlistValue": {"values": pairs}})
        }
    }
}

/// What an answer with a good status means. It may have rejected some, and does not say which.
pub(super) fn verdict(body: &[u8]) -> Outcome {
    // An empty message is an empty body in protobuf.
    if body.is_empty() {
        return Outcome::Taken;
    }
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else {
        let reason = "the answer is no collector's".to_owned();
        return Outcome::TryAgain { taken: 0, pause: Pause::Slowly, reason };
    };
    let partial = answer.get("partialSuccess");
    let rejected = partial.and_then(|partial| partial.get("rejectedLogRecords")).map(number);
    match rejected {
        None | Some(0) => Outcome::Taken,
        Some(rejected) => {
            let said = partial.and_then(|partial| partial.get("errorMessage")).and_then(Value::as_str);
            let said = text::line(said.unwrap_or("no reason given"), 200);
            Outcome::Rejected { reason: format!("records that were rejected: {rejected} ({said})") }
        }
    }
}

/// A string or a number; anything else is not none.
fn number(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    value.as_u64().or(text).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::super::super::super::batch::tests::batch;
    use super::*;

    #[test]
    fn a_record_has_its_name_time_severity_and_attributes() {
        let made: Value = serde_json::from_slice(&body("mon", &batch(3..5))).unwrap();
        let resource = made["resourceLogs"][0]["resource"]["attributes"].as_array().unwrap();
        assert!(resource.contains(&json!({"key": "service.instance.id", "value": {"stringValue": "mon"}})));
        let records = made["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap();
        assert_eq!(records.len(), 2);
        let record = &records[0];
        assert_eq!(record["eventName"], "idlewatch.monitor.state");
        assert_eq!((&record["severityNumber"], &record["severityText"]), (&json!(9), &json!("info")));
        assert_eq!(record["body"], json!({"stringValue": "monitor started"}));
        let attributes = record["attributes"].as_array().unwrap();
        for wanted in [
            json!({"key": "event.sequence", "value": {"intValue": "3"}}),
            json!({"key": "event.id", "value": {"stringValue": "id-3"}}),
            json!({"key": "event.category", "value": {"arrayValue": {"values": [{"stringValue": "email"}]}}}),
        ] {
            assert!(attributes.contains(&wanted), "{wanted} in {attributes:?}");
        }
        assert!(!attributes.iter().any(|attribute| attribute["key"] == "message"));
    }

    #[test]
    fn values_keep_their_types() {
        for (value, wanted) in [
            (json!(true), json!({"boolValue": true})),
            (json!(-7), json!({"intValue": "-7"})),
            (json!(0.5), json!({"doubleValue": 0.5})),
            (
                json!([{"a": 1}]),
                json!({"arrayValue": {"values": [
                {"kvlistValue": {"values": [{"key": "a", "value": {"intValue": "1"}}]}}]}}),
            ),
        ] {
            assert_eq!(any_value(&value), wanted);
        }
        assert_eq!([3, 4, 6].map(severity_number), [17, 13, 9]);
    }

    #[test]
    fn a_partial_success_is_none() {
        let none: [&[u8]; 4] = [
            b"",
            b"{}",
            br#"{"partialSuccess":{}}"#,
            br#"{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"slow down"}}"#,
        ];
        for body in none {
            assert_eq!(verdict(body), Outcome::Taken);
        }
        for count in ["1", "\"2\"", "\"many\""] {
            let body =
                format!(r#"{{"partialSuccess":{{"rejectedLogRecords":{count},"errorMessage":"\u001b"}}}}"#);
            let outcome = verdict(body.as_bytes());
            assert!(
                matches!(&outcome, Outcome::Rejected { reason } if !reason.contains('\u{1b}')),
                "{outcome:?}"
            );
        }
        assert!(matches!(verdict(b"<html>"), Outcome::TryAgain { pause: Pause::Slowly, .. }));
    }
}
