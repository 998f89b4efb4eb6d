//! One flat object: the ECS line with its keys joined by `_`, and its lists by `, `.

use serde_json::{Map, Value};

use super::{EncoderSettings, ecs};
use crate::event::Event;
use crate::text::json_string;

pub(super) fn line(settings: &EncoderSettings, sequence: u64, event: &Event, out: &mut Vec<u8>) -> bool {
    let mut within = settings.clone();
    let (mut line, mut shortened) = flat(&within, sequence, event);
    // Joined keys are longer: what is too long is made of a shorter line.
    for _ in 0..8 {
        let excess = line.len().saturating_sub(settings.max_bytes);
        if excess == 0 {
            break;
        }
        within.max_bytes = within.max_bytes.saturating_sub(excess + 16);
        (line, shortened) = flat(&within, sequence, event);
    }
    out.extend_from_slice(&line);
    shortened
}

fn flat(settings: &EncoderSettings, sequence: u64, event: &Event) -> (Vec<u8>, bool) {
    let mut nested = Vec::new();
    let shortened = ecs::line(settings, sequence, event, &mut nested);
    let object: Map<String, Value> = serde_json::from_slice(&nested).unwrap_or_default();
    let mut pairs = Vec::new();
    collect("", &object, &mut pairs);
    let mut out = vec![b'{'];
    for (at, (key, value)) in pairs.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        json_string(key, &mut out);
        out.push(b':');
        match value {
            Value::String(text) => json_string(text, &mut out),
            plain => out.extend_from_slice(plain.to_string().as_bytes()),
        }
    }
    out.push(b'}');
    (out, shortened)
}

fn collect(prefix: &str, object: &Map<String, Value>, pairs: &mut Vec<(String, Value)>) {
    for (name, value) in object {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}_{name}") };
        match value {
            Value::Object(inner) => collect(&key, inner, pairs),
            Value::Array(items) => joined(&key, items, pairs),
            plain => pairs.push((key, plain.clone())),
        }
    }
}

/// Objects in a list are joined field by field.
fn joined(key: &str, items: &[Value], pairs: &mut Vec<(String, Value)>) {
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    for item in items {
        let mut fields = Vec::new();
        match item {
            Value::Object(inner) => collect(key, inner, &mut fields),
            plain => fields.push((key.to_owned(), plain.clone())),
        }
        for (name, value) in fields {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match columns.iter_mut().find(|(known, _)| *known == name) {
                Some((_, texts)) => texts.push(text),
                None => columns.push((name, vec![text])),
            }
        }
    }
    if columns.is_empty() {
        columns.push((key.to_owned(), Vec::new()));
    }
    pairs.extend(columns.into_iter().map(|(name, texts)| (name, Value::String(texts.join(", ")))));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_and_lists_are_joined() {
        let nested = json!({"@timestamp": "t", "email": {"to": {"address": ["a@x", "b@x"]},
            "attachments": [{"file": {"name": "a.pdf", "size": 1}}, {"file": {"name": "b.pdf"}}]},
            "idlewatch": {"imap": {"uid": 7, "flags": []}, "epoch_changed": true}});
        let mut pairs = Vec::new();
        collect("", nested.as_object().unwrap(), &mut pairs);
        let flat: Map<String, Value> = pairs.into_iter().collect();
        let wanted = json!({"@timestamp": "t", "email_to_address": "a@x, b@x", "email_attachments_file_name": "a.pdf, b.pdf",
            "email_attachments_file_size": "1", "idlewatch_imap_uid": 7, "idlewatch_imap_flags": "", "idlewatch_epoch_changed": true});
        assert_eq!(Value::Object(flat), wanted);
    }
}
