//! `[filters.X]` -> [`Filters`], and what cannot be meant.

use std::sync::Arc;

use config::{Map, Value};

use super::keys;
use super::section::{Issues, Section, nearest};
use super::settings::{Account, EventSettings, OutputSettings};
use super::validate::is_header_name;
use crate::event::Action;
use crate::filter::condition::{Condition, Test};
use crate::filter::pattern::{Pattern, PatternError};
use crate::filter::{Effect, Filter, Filters, When};
use crate::text::shortened;

/// What filters are about.
pub(super) struct Around<'a> {
    pub(super) accounts: &'a [Arc<Account>],
    pub(super) events: &'a EventSettings,
    pub(super) outputs: &'a [OutputSettings],
    /// Of all outputs, also of those that something is wrong with.
    pub(super) named: &'a [&'a str],
}

/// All of them, in their order.
pub(super) fn filters(root: &Map<String, Value>, around: &Around<'_>, issues: &mut Issues) -> Filters {
    let tables = Section::of(root, "filters", issues).tables(issues);
    let rules = tables.into_iter().filter_map(|(name, section)| around.filter(name, &section, issues));
    Filters::new(rules.collect())
}

/// Makes a pattern of a text.
type MakePattern = fn(&str) -> Result<Pattern, PatternError>;

/// Makes a test of a pattern.
type MakeTest = fn(Pattern) -> Test;

impl Around<'_> {
    fn filter(&self, name: &str, section: &Section<'_>, issues: &mut Issues) -> Option<Filter> {
        section.known(keys::FILTER, issues);
        let effect = self.effect(section, issues);
        let when = When {
            all: self.conditions(section, "all", issues),
            any: self.conditions(section, "any", issues),
            none: self.conditions(section, "none", issues),
        };
        let accounts = patterns(section, "accounts", Pattern::of_text, issues);
        let mailboxes = patterns(section, "mailboxes", Pattern::of_mailboxes, issues);
        for pattern in &accounts {
            self.warn_of_strangers(section, "accounts", pattern, issues);
        }
        if !["all", "any", "none", "accounts", "mailboxes"].into_iter().any(|key| section.has(key)) {
            let message =
                "it says nothing of the messages that it is about: any, all, none, accounts or mailboxes";
            issues.error(&section.origin, &section.path, message);
        }
        Some(Filter { name: name.to_owned(), accounts, mailboxes, when, effect: effect? })
    }

    fn effect(&self, section: &Section<'_>, issues: &mut Issues) -> Option<Effect> {
        if !section.has("action") {
            issues.error(&section.origin, &section.path, "missing required key `action`");
            return None;
        }
        let actions = ["drop", "keep", "tag", "route"].map(|name| (name, Some(name)));
        let action = section.choice("action", None, &actions, issues)?;
        for (key, of) in [("labels", "tag"), ("outputs", "route")] {
            if section.has(key) && action != of {
                section.error(key, format!("only for action = \"{of}\""), issues);
            } else if !section.has(key) && action == of {
                issues.error(&section.origin, &section.path, format!("missing required key `{key}`"));
            }
        }
        Some(match action {
            "drop" => Effect::Drop,
            "keep" => Effect::Keep,
            "tag" => Effect::Tag(section.text_table("labels", issues)),
            _ => Effect::Route(self.routes(section, issues)),
        })
    }

    fn routes(&self, section: &Section<'_>, issues: &mut Issues) -> Vec<String> {
        let names = section.texts("outputs", issues).unwrap_or_default();
        if names.is_empty() && section.has("outputs") {
            section.error("outputs", "names no output; to tell nobody, use action = \"drop\"", issues);
        }
        for name in &names {
            match self.outputs.iter().find(|output| output.name == *name) {
                None if self.named.contains(&name.as_str()) => {}
                None => {
                    let near = nearest(name, self.named.iter().copied());
                    let near = near.map(|near| format!("; did you mean \"{near}\"?")).unwrap_or_default();
                    let message = format!("there is no [outputs.{}]{near}", shortened(name, 60));
                    section.error("outputs", message, issues);
                }
                Some(output) if !output.include.contains(&Action::MessageNew) => {
                    let message = format!("outputs.{name} takes no message.new, so nobody would be told");
                    section.error("outputs", message, issues);
                }
                Some(_) => {}
            }
        }
        names
    }

    fn conditions(&self, section: &Section<'_>, key: &str, issues: &mut Issues) -> Vec<Condition> {
        let tables = section.array(key, issues);
        if tables.is_empty() && section.has(key) {
            section.error(key, "names no condition", issues);
        }
        tables.iter().map(|table| self.condition(table, issues)).collect()
    }

    fn condition(&self, table: &Section<'_>, issues: &mut Issues) -> Condition {
        table.known(keys::CONDITION, issues);
        if table.own_keys().next().is_none() {
            issues.error(&table.origin, &table.path, "names no condition");
        }
        let mut tests = Vec::new();
        for (key, make, test) in PATTERNS {
            tests.extend(pattern(table, key, make, issues).map(test));
        }
        if let Some(Test::Account(pattern)) = tests.iter().find(|test| matches!(test, Test::Account(_))) {
            self.warn_of_strangers(table, "account", pattern, issues);
        }
        tests.extend(header(table, issues));
        if let Some(name) = table.text("header_exists", issues)
            && known_header("header_exists", name, table, issues)
        {
            tests.push(Test::HeaderExists(name.to_ascii_lowercase()));
        }
        tests.extend(sizes(table, issues));
        self.check_attachments(table, issues);
        Condition(tests)
    }

    fn check_attachments(&self, table: &Section<'_>, issues: &mut Issues) {
        for key in ["attachment_type", "attachment_name"] {
            if table.has(key) && !self.events.attachments {
                table.error(key, "nothing is known of attachments: events.attachments is false", issues);
            }
        }
    }

    /// An account may come later; a typing mistake should be seen now.
    fn warn_of_strangers(&self, section: &Section<'_>, key: &str, pattern: &Pattern, issues: &mut Issues) {
        if !self.accounts.is_empty()
            && !self.accounts.iter().any(|account| pattern.matches(account.id().as_str()))
        {
            let message = format!("no account matches \"{}\"", shortened(pattern.as_str(), 60));
            issues.warn(&section.origin_of(key), &section.key_path(key), message);
        }
    }
}

/// Tests of one pattern each.
const PATTERNS: [(&str, MakePattern, MakeTest); 7] = [
    ("from", Pattern::of_text, Test::From),
    ("to", Pattern::of_text, Test::To),
    ("subject", Pattern::of_text, Test::Subject),
    ("account", Pattern::of_text, Test::Account),
    ("mailbox", Pattern::of_mailboxes, Test::Mailbox),
    ("attachment_type", Pattern::of_text, Test::AttachmentType),
    ("attachment_name", Pattern::of_text, Test::AttachmentName),
];

fn pattern(section: &Section<'_>, key: &str, make: MakePattern, issues: &mut Issues) -> Option<Pattern> {
    let text = section.text(key, issues)?;
    made(section, key, text, make, issues)
}

fn patterns(section: &Section<'_>, key: &str, make: MakePattern, issues: &mut Issues) -> Vec<Pattern> {
    let texts = section.texts(key, issues).unwrap_or_default();
    if texts.is_empty() && section.has(key) {
        section.error(key, "names nothing; leave it out for all", issues);
    }
    texts.iter().filter_map(|text| made(section, key, text, make, issues)).collect()
}

fn made(
    section: &Section<'_>,
    key: &str,
    text: &str,
    make: MakePattern,
    issues: &mut Issues,
) -> Option<Pattern> {
    make(text).map_err(|error| section.error(key, error.to_string(), issues)).ok()
}

fn header(table: &Section<'_>, issues: &mut Issues) -> Option<Test> {
    if !table.has("header") {
        return None;
    }
    let inner = table.inner("header", issues);
    inner.known(keys::HEADER, issues);
    for key in ["name", "matches"] {
        if !inner.has(key) {
            issues.error(&inner.origin, &inner.path, format!("missing required key `{key}`"));
        }
    }
    let (name, value) = (inner.text("name", issues), pattern(&inner, "matches", Pattern::of_text, issues));
    let name = name.filter(|name| known_header("name", name, &inner, issues))?;
    Some(Test::Header(name.to_ascii_lowercase(), value?))
}

fn known_header(key: &str, name: &str, section: &Section<'_>, issues: &mut Issues) -> bool {
    let known = is_header_name(name);
    if !known {
        section.error(key, format!("\"{}\" is no header name", shortened(name, 60)), issues);
    }
    known
}

fn sizes(table: &Section<'_>, issues: &mut Issues) -> Vec<Test> {
    let (over, under) = (size(table, "size_over", issues), size(table, "size_under", issues));
    // Between two whole numbers there has to be a third.
    if let (Some(over), Some(under)) = (over, under)
        && over.saturating_add(1) >= under
    {
        table.error("size_under", "no message is that small and larger than size_over", issues);
    }
    if under == Some(0) {
        table.error("size_under", "no message is smaller than nothing", issues);
    }
    over.map(Test::SizeOver).into_iter().chain(under.map(Test::SizeUnder)).collect()
}

fn size(table: &Section<'_>, key: &str, issues: &mut Issues) -> Option<u64> {
    let text = table.text(key, issues)?;
    let size = text.parse::<bytesize::ByteSize>().ok().map(|size| size.0);
    if size.is_none() {
        let message = format!("expected a size like \"10MiB\", found \"{}\"", shortened(text, 60));
        table.error(key, message, issues);
    }
    size
}

#[cfg(test)]
mod tests {
    use crate::config::{from_text, settings::Settings};

    const ACCOUNT: &str = "[[accounts]]\nid = \"work\"\nhost = \"imap.example.com\"\nuser = \"bob\"\npassword = { env = \"PW\" }\n[outputs.hook]\ntype = \"file\"\npath = \"x\"\n[outputs.states]\ntype = \"stdout\"\ninclude = [\"account.state\"]\n";

    fn issues(filter: &str) -> Vec<String> {
        let issues = match from_text("t", &format!("{filter}\n{ACCOUNT}")) {
            Ok((_, warnings)) => warnings,
            Err(issues) => issues,
        };
        issues.iter().map(ToString::to_string).collect()
    }

    fn settings(filters: &str) -> Settings {
        from_text("t", &format!("{filters}\n{ACCOUNT}")).unwrap_or_else(|issues| panic!("{issues:?}")).0
    }

    #[test]
    fn filters_keep_the_order_in_which_they_are_written() {
        let settings = settings(
            "[filters.zebra]\naction = \"keep\"\nany = [{ header_exists = \"X-VIP\" }]\n[filters.ant]\naction = \"tag\"\naccounts = [\"w*\"]\nlabels = { team = \"a\" }\n\
             [filters.bee]\naction = \"route\"\nall = [{ from = \"re:^boss@\", header = { name = \"List-Id\", matches = \"*\" } }]\noutputs = [\"hook\"]",
        );
        assert_eq!(settings.filters.names(), ["zebra", "ant", "bee"]);
        assert_eq!(settings.filters.headers(), ["list-id", "x-vip"]);
    }

    #[test]
    fn what_cannot_be_meant_is_told_with_its_place() {
        for (filter, expected) in [
            ("any = [{ from = \"*\" }]", "t:2:1: filters.f: missing required key `action`"),
            (
                "action = \"drop\"",
                "t:2:1: filters.f: it says nothing of the messages that it is about: any, all, none, accounts or mailboxes",
            ),
            (
                "action = \"dorp\"\naccounts = [\"*\"]",
                "t:2:1: filters.f.action: unknown value \"dorp\" (expected \"drop\", \"keep\", \"tag\", \"route\"); did you mean \"drop\"?",
            ),
            (
                "action = \"drop\"\nany = [{ form = \"*\" }]",
                "t:3:10: filters.f.any[0].form: unknown key; did you mean \"from\"?",
            ),
            ("action = \"drop\"\nany = [{}]", "t:3:8: filters.f.any[0]: names no condition"),
            ("action = \"drop\"\nany = []", "t:3:1: filters.f.any: names no condition"),
            (
                "action = \"drop\"\nany = [{ subject = \"re:(\" }]",
                "t:3:10: filters.f.any[0].subject: no regular expression: unclosed group",
            ),
            (
                "action = \"drop\"\nany = [{ subject = \"\" }]",
                "t:3:10: filters.f.any[0].subject: a pattern is missing",
            ),
            (
                "action = \"drop\"\nany = [{ size_over = \"much\" }]",
                "t:3:10: filters.f.any[0].size_over: expected a size like \"10MiB\", found \"much\"",
            ),
            (
                "action = \"drop\"\nany = [{ size_over = \"2kB\", size_under = \"1kB\" }]",
                "t:3:29: filters.f.any[0].size_under: no message is that small and larger than size_over",
            ),
            (
                "action = \"drop\"\nany = [{ header_exists = \"no name\" }]",
                "t:3:10: filters.f.any[0].header_exists: \"no name\" is no header name",
            ),
            (
                "action = \"drop\"\nany = [{ header = { name = \"x\" } }]",
                "t:3:10: filters.f.any[0].header: missing required key `matches`",
            ),
            (
                "action = \"route\"\naccounts = [\"*\"]\noutputs = [\"hok\"]",
                "t:4:1: filters.f.outputs: there is no [outputs.hok]; did you mean \"hook\"?",
            ),
            (
                "action = \"route\"\naccounts = [\"*\"]\noutputs = [\"states\"]",
                "t:4:1: filters.f.outputs: outputs.states takes no message.new, so nobody would be told",
            ),
            ("action = \"route\"\naccounts = [\"*\"]", "t:2:1: filters.f: missing required key `outputs`"),
            (
                "action = \"drop\"\naccounts = [\"*\"]\nlabels = { a = \"b\" }",
                "t:4:12: filters.f.labels: only for action = \"tag\"",
            ),
            (
                "action = \"drop\"\naccounts = [\"home\"]",
                "t:3:1: filters.f.accounts: warning: no account matches \"home\"",
            ),
            (
                "action = \"drop\"\nany = [{ attachment_name = \"*.exe\" }]\n[events]\nattachments = false",
                "t:3:10: filters.f.any[0].attachment_name: nothing is known of attachments: events.attachments is false",
            ),
        ] {
            assert_eq!(issues(&format!("[filters.f]\n{filter}")), [expected], "{filter}");
        }
    }
}
