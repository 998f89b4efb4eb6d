//! From the outputs that are in force to those that are wanted. Pure.

use std::fmt;

use crate::config::settings::{OutputKind, OutputSettings};

/// What is to be done; outputs that are not named go on undisturbed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Exchange<'s> {
    /// In another way than before.
    pub(crate) changed: Vec<&'s OutputSettings>,
    /// Not there until now.
    pub(crate) added: Vec<&'s OutputSettings>,
    /// Gone.
    pub(crate) removed: Vec<&'s str>,
}

impl<'s> Exchange<'s> {
    /// By their names.
    pub(crate) fn between(running: &'s [OutputSettings], desired: &'s [OutputSettings]) -> Self {
        let mut exchange = Self::default();
        for output in desired {
            match running.iter().find(|known| known.name == output.name) {
                None => exchange.added.push(output),
                Some(known) if known == output => {}
                Some(_) => exchange.changed.push(output),
            }
        }
        let is_gone = |known: &&OutputSettings| !desired.iter().any(|output| output.name == known.name);
        exchange.removed = running.iter().filter(is_gone).map(|known| known.name.as_str()).collect();
        exchange
    }
}

impl fmt::Display for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |outputs: &[&OutputSettings]| outputs.iter().map(|o| o.name.clone()).collect::<Vec<_>>();
        let removed = self.removed.iter().map(|name| (*name).to_owned()).collect();
        let parts = [("added", names(&self.added)), ("changed", names(&self.changed)), ("removed", removed)];
        let parts = parts.iter().filter(|(_, names)| !names.is_empty());
        let parts: Vec<_> = parts.map(|(what, names)| format!("{} {what}", names.join(", "))).collect();
        f.write_str(&parts.join("; "))
    }
}

/// Whether the open file or pipe goes on to be used: it cannot be opened twice, and need not be.
pub(super) fn stays_open(before: &OutputSettings, after: &OutputSettings) -> bool {
    match (&before.kind, &after.kind) {
        (OutputKind::Stdout, OutputKind::Stdout) => true,
        (OutputKind::File { path, .. }, OutputKind::File { path: other, .. }) => path == other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn outputs(text: &str) -> Vec<OutputSettings> {
        let account =
            "[[accounts]]\nid = \"a\"\nhost = \"h.example\"\nuser = \"u\"\npassword = { file = \"pw\" }\n";
        let loaded = config::from_text("t.toml", &format!("{text}\n{account}"));
        loaded.unwrap_or_else(|issues| panic!("{issues:?}")).0.outputs
    }

    #[test]
    fn outputs_come_go_and_change_by_their_names() {
        let before = outputs(
            "[outputs.same]\ntype = \"stdout\"\n[outputs.gone]\ntype = \"file\"\npath = \"x\"\n[outputs.other]\ntype = \"file\"\npath = \"y\"",
        );
        let after = outputs(
            "[outputs.new]\ntype = \"file\"\npath = \"z\"\n[outputs.other]\ntype = \"file\"\npath = \"y\"\nformat = \"flat\"\n[outputs.same]\ntype = \"stdout\"",
        );
        let exchange = Exchange::between(&before, &after);
        assert_eq!(exchange.to_string(), "new added; other changed; gone removed");
        assert!(stays_open(&before[2], exchange.changed[0]) || stays_open(&before[1], exchange.changed[0]));
        assert_eq!(Exchange::between(&after, &after), Exchange::default());
    }

    #[test]
    fn a_file_stays_open_unless_it_is_another() {
        let file = |path: &str, more: &str| {
            outputs(&format!("[outputs.x]\ntype = \"file\"\npath = \"{path}\"\n{more}")).remove(0)
        };
        assert!(stays_open(&file("a", ""), &file("a", "include = [\"message.new\"]")));
        assert!(stays_open(&file("a", ""), &file("a", "rotate = { max_bytes = \"1MiB\" }")));
        assert!(!stays_open(&file("a", ""), &file("b", "")));
        let hook = outputs("[outputs.x]\ntype = \"webhook\"\nurl = \"https://x.example\"").remove(0);
        assert!(!stays_open(&hook, &hook), "its client knows the format");
    }
}
