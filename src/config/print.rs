//! The configuration as it was read, for people.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use config::{Map, Value, ValueKind};

use super::lists::{self, Files};
use super::section::{Issues, Section, origin};
use super::settings::Account;
use super::validate::tables;
use super::{Issue, Look, Severity, environment, judge, load};

/// All layers merged, as TOML, with every inline secret masked; each account with the place it comes from, and those
/// of lists as if they stood there.
///
/// # Errors
/// Where a layer or a list cannot be read.
pub fn merged(named: &[PathBuf]) -> Result<String, Vec<Issue>> {
    let mut tree = load::merge(&load::files(named), environment())?;
    let mut issues = Issues::default();
    let guessed = guessed(&tree);
    let accounts = accounts(&tree, &guessed, &mut issues);
    if issues.found.iter().any(|issue| issue.severity == Severity::Error) {
        issues.found.sort_by_cached_key(Issue::order);
        return Err(issues.found);
    }
    if let ValueKind::Table(root) = &mut tree.kind {
        root.retain(|key, _| key != "accounts" && key != "account_lists");
    }
    Ok(toml::to_string(&plain(&tree, "")).unwrap_or_default() + &accounts)
}

/// The providers that nobody named, by account; none where the configuration is wrong.
fn guessed(tree: &Value) -> HashMap<String, String> {
    let settings = judge(tree, Files::WithoutTable, Look::Nowhere);
    let accounts = settings.map(|(settings, _)| settings.accounts).unwrap_or_default();
    let guess = |account: &Arc<Account>| {
        let chosen = account.provider.as_ref().filter(|chosen| chosen.guessed)?;
        Some((account.id().to_string(), chosen.to_string()))
    };
    accounts.iter().filter_map(guess).collect()
}

fn accounts(tree: &Value, guessed: &HashMap<String, String>, issues: &mut Issues) -> String {
    let ValueKind::Table(root) = &tree.kind else { return String::new() };
    let mut text = String::new();
    if let Some(Value { kind: ValueKind::Array(accounts), .. }) = root.get("accounts") {
        accounts.iter().for_each(|account| text.push_str(&shown(account, None, guessed)));
    }
    for list in tables(root, "account_lists", issues) {
        // Those of the database are not of the configuration: `idlewatch accounts export` has them.
        if list.has("database") {
            continue;
        }
        let template = list.text("template", issues);
        lists::rows(&list, Files::OnDisk, issues, |row, _| text.push_str(&shown(row, template, guessed)));
    }
    text
}

/// One account, under its place.
fn shown(account: &Value, template: Option<&str>, guessed: &HashMap<String, String>) -> String {
    let mut table = plain(account, "");
    if let (Some(keys), Some(template)) = (table.as_table_mut(), template) {
        keys.entry("template").or_insert_with(|| template.into());
    }
    let guess = table.get("id").and_then(|id| guessed.get(id.as_str()?));
    let guess = guess.map(|guess| format!("; {guess}")).unwrap_or_default();
    let alone = toml::Table::from_iter([("accounts".to_owned(), toml::Value::Array(vec![table]))]);
    let text = toml::to_string(&alone).unwrap_or_default();
    format!("\n# {}{guess}\n{text}", crate::text::escape(&origin(account)))
}

/// The files that are read, in this order: the configuration's own, then the lists that they name.
pub fn files(named: &[PathBuf]) -> Vec<PathBuf> {
    load::files(named).into_iter().chain(lists(named).unwrap_or_default()).collect()
}

/// The lists of accounts that are there; `None` where none are named.
pub fn lists(named: &[PathBuf]) -> Option<Vec<PathBuf>> {
    match load::merge(&load::files(named), environment()).map(|tree| tree.kind) {
        Ok(ValueKind::Table(root)) => root.contains_key("account_lists").then(|| lists_of(&root)),
        // Nobody knows.
        _ => Some(Vec::new()),
    }
}

fn lists_of(root: &Map<String, Value>) -> Vec<PathBuf> {
    let mut issues = Issues::default();
    let lists: Vec<Section<'_>> = tables(root, "account_lists", &mut issues);
    lists.iter().flat_map(|list| lists::paths(list, Files::OnDisk, &mut issues)).collect()
}

/// Where a table belongs, and a pasted secret may stand.
const SECRET: [&str; 3] = ["password", "client_secret", "refresh_token"];

fn plain(value: &Value, key: &str) -> toml::Value {
    match &value.kind {
        // People write passwords into URLs.
        ValueKind::String(text) if key == "proxy" && text.contains('@') => {
            toml::Value::String("[redacted]".to_owned())
        }
        _ if key == "inline" || (SECRET.contains(&key) && !matches!(value.kind, ValueKind::Table(_))) => {
            toml::Value::String("[redacted]".to_owned())
        }
        // No place for secrets, but people put them there.
        ValueKind::Table(table) if ["environment", "headers"].contains(&key) => {
            let masked = |name: &String| (name.clone(), toml::Value::String("[redacted]".to_owned()));
            toml::Value::Table(table.keys().map(masked).collect())
        }
        ValueKind::Boolean(boolean) => toml::Value::Boolean(*boolean),
        ValueKind::I64(number) => toml::Value::Integer(*number),
        ValueKind::Float(number) => toml::Value::Float(*number),
        ValueKind::Array(items) => toml::Value::Array(items.iter().map(|item| plain(item, "")).collect()),
        ValueKind::Table(table) => {
            toml::Value::Table(table.iter().map(|(key, value)| (key.clone(), plain(value, key))).collect())
        }
        other => toml::Value::String(other.to_string()),
    }
}
