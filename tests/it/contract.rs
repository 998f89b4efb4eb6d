//! What consumers were promised: within a major version of the schema no key goes, and none changes its type.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// All that the last release had: `FORM ACTION KEY TYPE`, or `schema KEY`. It only grows; `UPDATE=1` adds what is new.
fn promised() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/event-keys.txt"))
}

fn idlewatch(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_idlewatch")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Each key by its path, with the type of its value.
fn keys(path: &str, value: &Value, each: &mut impl FnMut(&str, &str)) {
    match value {
        Value::Object(inner) => {
            inner.iter().for_each(|(name, value)| keys(&format!("{path}/{name}"), value, each))
        }
        Value::Array(items) => {
            each(path, "array");
            items.iter().for_each(|item| keys(&format!("{path}[]"), item, each));
        }
        Value::String(_) => each(path, "string"),
        Value::Number(_) => each(path, "number"),
        Value::Bool(_) => each(path, "boolean"),
        Value::Null => each(path, "null"),
    }
}

/// The properties of a schema, wherever they are.
fn properties(path: &str, schema: &Value, each: &mut impl FnMut(&str)) {
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        each(&path);
        properties(&path, inner, each);
        properties(&format!("{path}[]"), &inner["items"], each);
    }
}

/// What there is now.
fn present() -> BTreeSet<String> {
    let mut present = BTreeSet::new();
    for form in ["ecs", "flat", "cloudevents"] {
        for line in idlewatch(&["event", "sample", "--format", form]).lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            let at = ["/event/action", "/event_action", "/data/event/action"];
            let action = at.iter().find_map(|at| event.pointer(at)?.as_str()).unwrap();
            keys("", &event, &mut |key, kind| {
                present.insert(format!("{form} {action} {key} {kind}"));
            });
        }
    }
    let schema: Value = serde_json::from_str(&idlewatch(&["event", "schema"])).unwrap();
    properties("", &schema, &mut |key| {
        present.insert(format!("schema {key}"));
    });
    present
}

#[test]
fn no_key_of_the_last_release_is_gone_or_has_another_type() {
    let mut promised_keys: BTreeSet<_> =
        fs::read_to_string(promised()).unwrap_or_default().lines().map(str::to_owned).collect();
    let present = present();
    if std::env::var_os("UPDATE").is_some() {
        promised_keys.extend(present.iter().cloned());
        let lines: String = promised_keys.iter().map(|key| format!("{key}\n")).collect();
        fs::write(promised(), lines).unwrap();
    }
    assert!(promised_keys.len() > 300, "{}", promised_keys.len());
    let gone: Vec<_> = promised_keys.difference(&present).collect();
    assert!(gone.is_empty(), "{gone:#?}");
}
