//! `[filters.X]`: which messages are told, with which labels, to which outputs. Pure.
//!
//! Filters are looked at in the order in which they are written. The first `drop` or `keep` that applies decides; tags and
//! routes of all filters that apply accumulate. What could not be read of a message never leads to its loss: a `drop`
//! has to be certain, a `keep` applies on suspicion.

pub mod condition;
pub mod in_force;
pub mod pattern;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use log::debug;

use self::condition::{Candidate, Condition, all, any, not};
use self::pattern::Pattern;
use crate::event::{AccountIdentity, Event, EventBody, Filtered, NewMessage};

/// All filters, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filters {
    rules: Vec<Filter>,
}

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// X of `[filters.X]`.
    pub name: String,
    /// The accounts that it is about; all where empty.
    pub accounts: Vec<Pattern>,
    /// The mailboxes that it is about; all where empty.
    pub mailboxes: Vec<Pattern>,
    /// The messages that it is about.
    pub when: When,
    /// What it does.
    pub effect: Effect,
}

/// The conditions of a filter; each of the three has to hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct When {
    /// All of these hold.
    pub all: Vec<Condition>,
    /// One of these holds, if there are any.
    pub any: Vec<Condition>,
    /// None of these holds.
    pub none: Vec<Condition>,
}

/// What a filter does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The message is not told.
    Drop,
    /// No later filter drops it.
    Keep,
    /// Its event has these labels.
    Tag(BTreeMap<String, String>),
    /// Its event goes to these outputs, and to those of other routes that apply; to no others.
    Route(Vec<String>),
}

/// What all filters together make of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Verdict {
    filtered: Filtered,
    labels: BTreeMap<String, String>,
}

impl Filters {
    /// In this order.
    pub fn new(rules: Vec<Filter>) -> Self {
        Self { rules }
    }

    /// Their names, in their order.
    pub fn names(&self) -> Vec<&str> {
        self.rules.iter().map(|rule| rule.name.as_str()).collect()
    }

    /// The headers that have to be known, in lower case.
    pub fn headers(&self) -> Vec<String> {
        let conditions = self.rules.iter().flat_map(|rule| rule.when.conditions());
        let names = conditions.flat_map(|condition| condition.0.iter().filter_map(condition::Test::header));
        names.collect::<BTreeSet<_>>().into_iter().map(str::to_owned).collect()
    }

    /// The event as filters have it: with their labels and routes; `None` where it is dropped.
    pub fn pass(&self, event: Event) -> Option<Event> {
        let event = self.mark(event);
        let Some(filtered) = event.filtered.as_ref().filter(|filtered| filtered.dropped) else {
            return Some(event);
        };
        debug!(id:% = event.id, filter:? = filtered.by.last(); "dropped by a filter");
        None
    }

    /// The event with all that filters say of it; one that is to be dropped is only marked.
    pub fn mark(&self, event: Event) -> Event {
        let (EventBody::MessageNew(message), Some(account)) = (&event.body, &event.account) else {
            return event;
        };
        let Verdict { filtered, labels } = self.judge(account, message);
        if filtered.by.is_empty() {
            return event;
        }
        let account = Some(labelled(account, labels));
        Event { account, filtered: Some(Box::new(filtered)), ..event }
    }

    fn judge(&self, account: &AccountIdentity, message: &NewMessage) -> Verdict {
        let candidate = Candidate { account: &account.id, message };
        let mut verdict = Verdict::default();
        let mut kept = false;
        for rule in self.rules.iter().filter(|rule| rule.applies(candidate)) {
            match &rule.effect {
                Effect::Drop if kept => continue,
                Effect::Drop => verdict.filtered.dropped = true,
                Effect::Keep => kept = true,
                Effect::Tag(labels) => verdict.labels.extend(labels.clone()),
                Effect::Route(outputs) => add_new(outputs, &mut verdict.filtered.outputs),
            }
            verdict.filtered.by.push(rule.name.clone());
            if verdict.filtered.dropped {
                break;
            }
        }
        verdict
    }
}

fn add_new(outputs: &[String], routes: &mut Vec<String>) {
    for output in outputs {
        if !routes.contains(output) {
            routes.push(output.clone());
        }
    }
}

/// A label of a filter goes before one of the account.
fn labelled(account: &Arc<AccountIdentity>, labels: BTreeMap<String, String>) -> Arc<AccountIdentity> {
    if labels.is_empty() {
        return account.clone();
    }
    let mut merged = (*account.labels).clone();
    merged.extend(labels);
    Arc::new(AccountIdentity { labels: Arc::new(merged), ..(**account).clone() })
}

impl Filter {
    /// Where it is not known whether the message is meant, only a `keep` applies.
    fn applies(&self, candidate: Candidate<'_>) -> bool {
        self.is_about(candidate) && self.when.holds(candidate).unwrap_or(self.effect == Effect::Keep)
    }

    fn is_about(&self, Candidate { account, message }: Candidate<'_>) -> bool {
        let matches = |patterns: &[Pattern], text: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(text))
        };
        matches(&self.accounts, account.as_str()) && matches(&self.mailboxes, message.mailbox.as_str())
    }
}

impl When {
    /// All conditions, wherever they stand.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        self.all.iter().chain(&self.any).chain(&self.none)
    }

    fn holds(&self, candidate: Candidate<'_>) -> Option<bool> {
        let of = |conditions: &[Condition]| -> Vec<Option<bool>> {
            conditions.iter().map(|condition| condition.holds(candidate)).collect()
        };
        let some = if self.any.is_empty() { Some(true) } else { any(of(&self.any)) };
        all([all(of(&self.all)), some, not(any(of(&self.none)))])
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::condition::Test;
    use super::*;
    use crate::event::{MessageSummary, MonitorState, Source};

    fn subject(pattern: &str) -> Condition {
        Condition(vec![Test::Subject(Pattern::of_text(pattern).unwrap())])
    }

    fn filter(name: &str, pattern: &str, effect: Effect) -> Filter {
        let when = When { any: vec![subject(pattern)], ..When::default() };
        Filter { name: name.to_owned(), accounts: Vec::new(), mailboxes: Vec::new(), when, effect }
    }

    fn labels(value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("team".to_owned(), value.to_owned())])
    }

    fn route(outputs: &[&str]) -> Effect {
        Effect::Route(outputs.iter().map(|output| (*output).to_owned()).collect())
    }

    fn event(subject: Option<&str>) -> Event {
        let decode_errors = if subject.is_none() { vec!["message".to_owned()] } else { Vec::new() };
        let summary =
            MessageSummary { subject: subject.map(str::to_owned), decode_errors, ..Default::default() };
        let message = NewMessage {
            mailbox: "INBOX".into(),
            role: None,
            messages: None,
            uid_validity: 7,
            uid: 1,
            source: Source::Idle,
            epoch_changed: false,
            summary,
        };
        let account = AccountIdentity {
            id: "work".into(),
            user: "bob".to_owned(),
            host: "h".into(),
            port: 993,
            labels: Arc::new(labels("of-the-account")),
        };
        Event {
            at: Timestamp::UNIX_EPOCH,
            id: "x.new".to_owned(),
            account: Some(Arc::new(account)),
            body: EventBody::MessageNew(Box::new(message)),
            filtered: None,
            redacted: Vec::new(),
        }
    }

    fn names(event: &Event) -> Vec<&str> {
        event.filtered.iter().flat_map(|filtered| filtered.by.iter().map(String::as_str)).collect()
    }

    #[test]
    fn the_first_drop_or_keep_decides() {
        let filters = Filters::new(vec![
            filter("vip", "boss*", Effect::Keep),
            filter("noise", "*sale*", Effect::Drop),
            filter("late", "*sale*", Effect::Keep),
        ]);
        assert!(filters.pass(event(Some("summer sale"))).is_none());
        assert_eq!(names(&filters.pass(event(Some("boss: sale"))).unwrap()), ["vip", "late"]);
        assert_eq!(filters.pass(event(Some("hello"))), Some(event(Some("hello"))));
    }

    #[test]
    fn tags_and_routes_accumulate_and_the_later_tag_wins() {
        let filters = Filters::new(vec![
            filter("a", "*", Effect::Tag(labels("first"))),
            filter("b", "*", route(&["hook"])),
            filter("c", "*", Effect::Keep),
            filter("d", "x*", Effect::Tag(labels("second"))),
            filter("e", "x*", route(&["file", "hook"])),
        ]);
        let told = |subject| filters.pass(event(Some(subject))).unwrap();
        let team = |event: &Event| event.account.as_ref().unwrap().labels["team"].clone();
        let outputs = |event: &Event| event.filtered.as_ref().unwrap().outputs.clone();
        assert_eq!((team(&told("y")), outputs(&told("y"))), ("first".to_owned(), vec!["hook".to_owned()]));
        assert_eq!(
            (team(&told("x")), outputs(&told("x"))),
            ("second".to_owned(), vec!["hook".to_owned(), "file".to_owned()])
        );
    }

    #[test]
    fn a_message_that_cannot_be_read_is_never_dropped() {
        let not_ours = Filter {
            when: When { none: vec![subject("ours*")], ..When::default() },
            ..filter("not-ours", "*", Effect::Drop)
        };
        assert!(Filters::new(vec![not_ours.clone()]).pass(event(Some("theirs"))).is_none());
        assert!(Filters::new(vec![not_ours]).pass(event(None)).is_some());
        let everything = Filter { when: When::default(), ..filter("all", "*", Effect::Drop) };
        let kept = Filters::new(vec![filter("vip", "boss*", Effect::Keep), everything]);
        assert_eq!(names(&kept.pass(event(None)).unwrap()), ["vip"], "it may be from the boss");
        assert!(kept.pass(event(Some("x"))).is_none());
    }

    #[test]
    fn a_filter_is_about_its_accounts_and_mailboxes_only() {
        let about = |accounts: &str, mailboxes: &str| {
            let filter = Filter {
                accounts: vec![Pattern::of_text(accounts).unwrap()],
                mailboxes: vec![Pattern::of_mailboxes(mailboxes).unwrap()],
                when: When::default(),
                ..filter("f", "*", Effect::Drop)
            };
            Filters::new(vec![filter]).pass(event(Some("x"))).is_none()
        };
        assert!(about("w*", "inbox"));
        assert!(!about("w*", "Sent"));
        assert!(!about("home", "inbox"));
    }

    #[test]
    fn each_of_any_all_and_none_has_to_hold() {
        let when = When {
            all: vec![subject("a*"), subject("*z")],
            any: vec![subject("*1*"), subject("*2*")],
            none: vec![subject("*no*")],
        };
        let filters = Filters::new(vec![Filter { when, ..filter("f", "*", Effect::Drop) }]);
        for (text, dropped) in
            [("a1z", true), ("a2z", true), ("a3z", false), ("b1z", false), ("a1", false), ("a1noz", false)]
        {
            assert_eq!(filters.pass(event(Some(text))).is_none(), dropped, "{text}");
        }
    }

    #[test]
    fn events_that_are_no_messages_are_left_alone() {
        let all = Filter { when: When::default(), ..filter("all", "*", Effect::Drop) };
        let body = EventBody::MonitorState(MonitorState::Started);
        let event = Event { account: None, body, ..event(None) };
        assert_eq!(Filters::new(vec![all]).pass(event.clone()), Some(event));
    }
}
