//! What is known of all accounts, as a value, and how it is shown to those who ask.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::arrivals::Arrival;
use crate::event::{AccountId, AccountIdentity, AccountState, ErrorType, MailboxName, Trouble};
use crate::messages::StatusChanged;
use crate::sink::health::{LaneState, OutputHealth};

/// The state of every account.
#[derive(Clone, Debug, Default)]
pub struct StatusBoard {
    accounts: BTreeMap<AccountId, AccountStatus>,
    /// What is wrong with single mailboxes of accounts that are well otherwise.
    mailboxes: BTreeMap<AccountId, BTreeMap<MailboxName, Trouble>>,
}

/// The state of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountStatus {
    /// Its state.
    pub state: AccountState,
    /// Since when.
    pub since: Timestamp,
    /// What is wrong.
    pub trouble: Option<Box<Trouble>>,
}

impl AccountStatus {
    fn new(state: AccountState) -> Self {
        Self { state, since: Timestamp::now(), trouble: None }
    }
}

/// Accounts with the same trouble, or with mailboxes that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleGroup {
    /// How many; of mailboxes, each counts.
    pub accounts: usize,
    /// One of them.
    pub example: AccountId,
    /// Its mailbox, where only that one is in trouble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mailbox: Option<MailboxName>,
    /// Its state.
    pub state: AccountState,
    /// What it says.
    pub error: ErrorReport,
}

/// `error.*` as events have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReport {
    /// Of the closed list.
    #[serde(rename = "type")]
    pub error_type: ErrorType,
    /// The server's response code, or a finer class.
    pub code: Option<String>,
    /// What happened.
    pub message: String,
}

impl From<&Trouble> for ErrorReport {
    fn from(trouble: &Trouble) -> Self {
        let Trouble { error_type, code, message } = trouble.clone();
        Self { error_type, code, message }
    }
}

/// The state of the monitor: `/api/v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonitorStatus {
    /// Its name.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// When it began.
    pub started_at: Timestamp,
    /// Whether events can be kept: see `/readyz`.
    pub ready: bool,
    /// What of that is not so.
    pub not_ready: Vec<String>,
    /// How many accounts are in each state.
    pub accounts: BTreeMap<String, usize>,
    /// What is wrong, by how many accounts it is about.
    pub troubles: Vec<TroubleGroup>,
    /// How many messages came in each of the last 60 minutes, the newest last.
    pub messages_per_minute: Vec<u32>,
    /// The last of them, the newest first.
    pub latest_messages: Vec<Arrival>,
    /// Where events go, in the order of the configuration: `/api/v1/outputs`.
    pub outputs: Vec<OutputReport>,
    /// When the configuration was last read, and whether that went well.
    pub config: ConfigStatus,
}

/// One output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputReport {
    /// Its name.
    pub name: String,
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether events wait in the journal for it.
    pub required: bool,
    /// How many events may wait for it, where their number is bounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// `ok`; `retrying` where the last try failed; `stalled` where it says nothing to what it was given.
    pub state: String,
    /// Since when.
    pub since: Timestamp,
    /// The last thing that went wrong; it stays when all is well again.
    pub last_error: Option<String>,
    /// When it is tried again, while it waits for that.
    #[serde(default)]
    pub next_try_at: Option<Timestamp>,
    /// Events that it still lacks, those that are not for it included.
    pub waiting: u64,
    /// The age of the oldest event that is being delivered.
    pub lag_seconds: f64,
    /// Events taken since the start.
    pub delivered: u64,
    /// Tries that failed since the start.
    pub retries: u64,
    /// Events that it will never take, since the start: docs/outputs.md.
    pub dead_letters: u64,
    /// Events that it will not get any more, since it is not required and so many waited for it, since the start. Those
    /// included that were not for it.
    #[serde(default)]
    pub dropped: u64,
}

impl OutputReport {
    /// How it does at this moment.
    pub fn new(output: &OutputHealth, at: Timestamp) -> Self {
        let now = output.now();
        Self {
            name: output.name.clone(),
            kind: output.kind.to_owned(),
            required: output.required,
            capacity: output.capacity,
            state: now.state.as_str().to_owned(),
            since: now.since,
            last_error: now.last_error,
            next_try_at: now.next_try,
            waiting: output.waiting(),
            lag_seconds: output.lag(at).as_secs_f64(),
            delivered: now.delivered,
            retries: now.retries,
            dead_letters: now.dead_letters,
            dropped: output.dropped(),
        }
    }

    /// Whether it takes events, as far as is known.
    pub fn is_ok(&self) -> bool {
        self.state == LaneState::Ok.as_str()
    }
}

/// What became of the wish to have an output tried: `/api/v1/outputs/{name}/retry`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryReport {
    /// `false` while it is still being tried.
    pub settled: bool,
    /// How it does now.
    pub output: OutputReport,
}

/// A list of them: `/api/v1/outputs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputList {
    /// In their order.
    pub outputs: Vec<OutputReport>,
}

/// When the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigStatus {
    /// The one that is in force.
    pub loaded_at: Timestamp,
    /// `false` where a newer one was refused.
    pub last_reload_successful: bool,
}

/// One account: an item of `/api/v1/accounts`, and `/api/v1/accounts/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccountReport {
    /// Id, user, host, port and labels.
    #[serde(flatten)]
    pub identity: AccountIdentity,
    /// Its state.
    pub state: AccountState,
    /// Since when.
    pub since: Timestamp,
    /// Of the mailboxes that were ever watched, the one that is silent for the longest said something at this moment.
    pub last_proven_alive: Option<Timestamp>,
    /// When the next login may be tried, where that waits for a clock.
    pub next_login_at: Option<Timestamp>,
    /// When the next connection is made, of those that wait for a clock.
    pub next_try_at: Option<Timestamp>,
    /// What is wrong.
    pub error: Option<ErrorReport>,
    /// Its mailboxes.
    pub mailboxes: Vec<MailboxReport>,
    /// Its latest states, the newest last.
    pub history: Vec<PastState>,
}

impl AccountReport {
    /// Whether no connection of it is being made at the moment.
    pub fn is_settled(&self) -> bool {
        self.state != AccountState::Connecting
            && self.mailboxes.iter().all(|mailbox| mailbox.state != "connecting")
    }
}

/// What became of a wish: `/api/v1/accounts/{id}/resume`, `/api/v1/accounts/{id}/reconnect`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WishReport {
    /// The account.
    pub account: AccountId,
    /// `false` while it is still being tried.
    pub settled: bool,
    /// Its state.
    pub state: AccountState,
    /// What is wrong.
    pub error: Option<ErrorReport>,
    /// When it is tried next.
    pub next_try_at: Option<Timestamp>,
}

impl WishReport {
    /// Of an account as it is now.
    pub fn new(account: AccountReport, settled: bool) -> Self {
        let AccountReport { identity, state, error, next_try_at, .. } = account;
        Self { account: identity.id, settled, state, error, next_try_at }
    }
}

/// A page of `/api/v1/accounts`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccountPage {
    /// By their ids.
    pub accounts: Vec<AccountReport>,
    /// The `after` of the page that follows, if there is one.
    pub next: Option<AccountId>,
}

/// One mailbox of an account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MailboxReport {
    /// Its name.
    pub name: MailboxName,
    /// `connecting`, `watching`, `waiting`, `missing` or `suspended`.
    pub state: String,
    /// How new messages in it are noticed.
    pub watched_by: WatchedBy,
    /// Where it shares a connection: how long a message may wait at most where the server does not tell of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worst_delay_ms: Option<u64>,
    /// When its connection last proved to be alive.
    pub last_proven_alive: Option<Timestamp>,
    /// What is wrong with it.
    pub error: Option<ErrorReport>,
}

/// How new messages in a mailbox are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchedBy {
    /// It has a connection of its own: IDLE, or NOOP.
    Connection,
    /// The server tells of it on a connection that it shares (RFC 5465).
    Notify,
    /// It is asked for its STATUS on a connection that it shares.
    Rounds,
}

/// A state that an account was in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastState {
    /// Since when.
    pub at: Timestamp,
    /// Which.
    pub state: AccountState,
}

/// Which accounts are asked for.
#[derive(Clone, Debug, Default)]
pub struct AccountQuery {
    /// Only in this state.
    pub state: Option<AccountState>,
    /// Only those whose id has this in it.
    pub text: Option<String>,
    /// Only those that come after this one.
    pub after: Option<AccountId>,
    /// Which comes first.
    pub order: AccountOrder,
    /// At most so many.
    pub limit: usize,
}

/// Which account comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountOrder {
    /// By their ids.
    #[default]
    Id,
    /// Those whose state changed last.
    Since,
}

impl AccountOrder {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Id, Self::Since];

    /// Its name in a query.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Since => "since",
        }
    }

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.as_str() == name)
    }
}

impl AccountQuery {
    fn wants(&self, id: &AccountId, status: &AccountStatus) -> bool {
        self.state.is_none_or(|state| state == status.state)
            && self.text.as_ref().is_none_or(|text| contains(id.as_str(), text))
    }
}

/// Whatever the case: people search so.
fn contains(id: &str, text: &str) -> bool {
    id.to_lowercase().contains(&text.to_lowercase())
}

impl StatusBoard {
    /// Watched from now on.
    pub fn enter(&mut self, account: AccountId, state: AccountState) {
        self.mailboxes.remove(&account);
        self.accounts.insert(account, AccountStatus::new(state));
    }

    /// No longer in the configuration.
    pub fn leave(&mut self, account: &AccountId) {
        self.accounts.remove(account);
        self.mailboxes.remove(account);
    }

    /// Those that are known and not watched: these, and no others.
    pub fn show_disabled(&mut self, disabled: HashSet<AccountId>) {
        self.accounts.retain(|id, status| status.state != AccountState::Disabled || disabled.contains(id));
        for id in disabled {
            self.accounts.entry(id).or_insert_with(|| AccountStatus::new(AccountState::Disabled));
        }
    }

    /// Takes a change in. Trouble of one mailbox leaves the account's as it is.
    pub fn apply(&mut self, change: StatusChanged) {
        let Some(status) = self.accounts.get_mut(&change.account) else { return };
        if status.state != change.state {
            *status = AccountStatus::new(change.state);
        }
        match change.mailbox {
            None => status.trouble = change.trouble.map(Box::new),
            Some(mailbox) => self.note_mailbox(change.account, mailbox, change.trouble),
        }
    }

    fn note_mailbox(&mut self, account: AccountId, mailbox: MailboxName, trouble: Option<Trouble>) {
        let Some(trouble) = trouble else {
            let Some(others) = self.mailboxes.get_mut(&account) else { return };
            others.remove(&mailbox);
            if others.is_empty() {
                self.mailboxes.remove(&account);
            }
            return;
        };
        self.mailboxes.entry(account).or_default().insert(mailbox, trouble);
    }

    /// One account.
    pub fn get(&self, account: &AccountId) -> Option<&AccountStatus> {
        self.accounts.get(account)
    }

    /// Those that are asked for.
    pub fn find(&self, query: &AccountQuery) -> Vec<(AccountId, AccountStatus)> {
        let found = match query.order {
            AccountOrder::Id => self.by_id(query),
            AccountOrder::Since => self.by_since(query),
        };
        found.into_iter().map(|(id, status)| (id.clone(), status.clone())).collect()
    }

    fn by_id(&self, query: &AccountQuery) -> Vec<(&AccountId, &AccountStatus)> {
        let after = query.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.accounts.range::<AccountId, _>((after, Bound::Unbounded));
        rest.filter(|(id, status)| query.wants(id, status)).take(query.limit).collect()
    }

    /// After an account that is not known any more nothing comes: where it stood is not known either.
    fn by_since(&self, query: &AccountQuery) -> Vec<(&AccountId, &AccountStatus)> {
        let place = |id, status: &AccountStatus| (Reverse(status.since), id);
        let after = match &query.after {
            Some(id) => match self.accounts.get(id) {
                Some(status) => Some(place(id, status)),
                None => return Vec::new(),
            },
            None => None,
        };
        let wanted = self.accounts.iter().filter(|(id, status)| query.wants(id, status));
        let mut found: Vec<_> =
            wanted.filter(|(id, status)| after.is_none_or(|after| place(id, status) > after)).collect();
        found.sort_unstable_by_key(|(id, status)| place(id, status));
        found.truncate(query.limit);
        found
    }

    /// How many accounts are in each state.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for status in self.accounts.values() {
            *counts.entry(status.state.as_str()).or_default() += 1;
        }
        counts
    }

    /// What troubles accounts. Those that most have come first.
    pub fn troubles(&self) -> Vec<TroubleGroup> {
        let of_accounts = self
            .accounts
            .iter()
            .filter_map(|(account, status)| Some((account, None, status.state, status.trouble.as_deref()?)));
        let of_mailboxes = self.mailboxes.iter().flat_map(|(account, mailboxes)| {
            let state = self.accounts.get(account).map_or(AccountState::Online, |status| status.state);
            mailboxes.iter().map(move |(mailbox, trouble)| (account, Some(mailbox), state, trouble))
        });
        let mut groups: HashMap<_, TroubleGroup> = HashMap::new();
        for (account, mailbox, state, trouble) in of_accounts.chain(of_mailboxes) {
            let kind = (state, mailbox.is_some(), trouble.error_type, trouble.code.clone());
            let first = || TroubleGroup {
                accounts: 0,
                example: account.clone(),
                mailbox: mailbox.cloned(),
                state,
                error: trouble.into(),
            };
            groups.entry(kind).or_insert_with(first).accounts += 1;
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_unstable_by(|a, b| (b.accounts, &a.example).cmp(&(a.accounts, &b.example)));
        groups
    }

    /// How many accounts there are, and how many are still making their first connection.
    pub fn progress(&self) -> (usize, usize) {
        let connecting = |status: &&AccountStatus| status.state == AccountState::Connecting;
        (self.accounts.len(), self.accounts.values().filter(connecting).count())
    }
}

/// How long ago, in at most two units: `3h 20m`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(then).as_secs().max(0);
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let first = units.iter().position(|(unit, _)| seconds >= *unit).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let parts = units.iter().skip(first).take(2).filter_map(|(unit, name)| {
        let count = rest / unit;
        rest %= unit;
        (count > 0 || *unit == 1 && seconds == 0).then(|| format!("{count}{name}"))
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// What a state of accounts is to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// All is well.
    Good,
    /// Neither: it begins, or is not wanted.
    Quiet,
    /// Trouble.
    Bad,
}

impl Mood {
    /// Of the state of this name.
    pub fn of(state: &str) -> Self {
        match state {
            "online" => Self::Good,
            "connecting" | "disabled" | "removed" => Self::Quiet,
            _ => Self::Bad,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(ids: &[&str]) -> StatusBoard {
        let mut board = StatusBoard::default();
        ids.iter().for_each(|id| board.enter((*id).into(), AccountState::Connecting));
        board
    }

    fn changed(account: &str, state: AccountState, trouble: Option<Trouble>) -> StatusChanged {
        StatusChanged { account: account.into(), state, trouble, mailbox: None }
    }

    fn trouble(message: &str) -> Trouble {
        Trouble { error_type: ErrorType::Dns, code: None, message: message.to_owned() }
    }

    #[test]
    fn disabled_accounts_are_shown_as_long_as_they_are_known() {
        let mut board = board(&["a"]);
        let shown = |board: &StatusBoard| board.counts().into_iter().collect::<Vec<_>>();
        board.show_disabled(["b", "c"].map(AccountId::from).into());
        assert_eq!(shown(&board), [("connecting", 1), ("disabled", 2)]);
        board.show_disabled(["a", "c"].map(AccountId::from).into());
        assert_eq!(
            shown(&board),
            [("connecting", 1), ("disabled", 1)],
            "what is watched is not disabled yet"
        );
        board.show_disabled(HashSet::new());
        assert_eq!(shown(&board), [("connecting", 1)]);
    }

    #[test]
    fn trouble_of_a_mailbox_is_told_beside_that_of_accounts_until_it_is_over() {
        let mut board = board(&["a", "b", "c"]);
        let of = |account: &str, mailbox: &str, trouble| StatusChanged {
            mailbox: Some(mailbox.into()),
            ..changed(account, AccountState::Online, trouble)
        };
        board.apply(changed("a", AccountState::Online, None));
        for (account, mailbox) in [("a", "Lists"), ("a", "Old"), ("b", "Lists"), ("gone", "Lists")] {
            board.apply(of(account, mailbox, Some(trouble("it is not there"))));
        }
        let told = |board: &StatusBoard| -> Vec<_> {
            let groups = board.troubles().into_iter();
            groups.map(|group| (group.accounts, group.example.to_string(), group.mailbox)).collect()
        };
        assert_eq!(told(&board), [(3, "a".to_owned(), Some("Lists".into()))]);
        assert_eq!(board.get(&"a".into()).unwrap().trouble, None, "the account is well");
        board.apply(of("a", "Lists", None));
        board.enter("b".into(), AccountState::Connecting);
        assert_eq!(told(&board), [(1, "a".to_owned(), Some("Old".into()))]);
        board.leave(&"a".into());
        assert_eq!(told(&board), []);
    }

    #[test]
    fn states_are_counted() {
        let mut board = board(&["a", "b", "c"]);
        board.leave(&"c".into());
        board.apply(changed("a", AccountState::Online, None));
        board.apply(changed("unknown", AccountState::Online, None));
        assert_eq!(board.counts(), BTreeMap::from([("connecting", 1), ("online", 1)]));
        assert_eq!(board.progress(), (2, 1));
        assert_eq!(board.troubles(), []);
        board.apply(changed("b", AccountState::Backoff, Some(trouble("no such name"))));
        let groups = board.troubles();
        assert_eq!(
            (groups[0].accounts, &groups[0].example, groups[0].error.message.as_str()),
            (1, &"b".into(), "no such name")
        );
    }

    #[test]
    fn the_same_trouble_is_told_once_with_one_example() {
        let mut board = board(&["a", "b", "c"]);
        for id in ["c", "b"] {
            board.apply(changed(id, AccountState::Backoff, Some(trouble(id))));
        }
        let groups = board.troubles();
        assert_eq!((groups.len(), groups[0].accounts, &groups[0].example), (1, 2, &"b".into()));
    }

    #[test]
    fn trouble_of_a_mailbox_and_the_same_state_again_leave_the_account_as_it_is() {
        let mut board = board(&["a"]);
        board.apply(changed("a", AccountState::Online, None));
        let since = board.get(&"a".into()).unwrap().since;
        let of_mailbox = StatusChanged {
            mailbox: Some("Sent".into()),
            ..changed("a", AccountState::Online, Some(trouble("missing")))
        };
        board.apply(of_mailbox);
        let status = board.get(&"a".into()).unwrap();
        assert_eq!((status.since, &status.trouble), (since, &None));
    }

    #[test]
    fn accounts_are_found_page_by_page() {
        let mut board = board(&["d", "a", "c", "b"]);
        board.apply(changed("b", AccountState::Online, None));
        let ids = |query: AccountQuery| -> Vec<String> {
            board.find(&query).into_iter().map(|(id, _)| id.as_str().to_owned()).collect()
        };
        assert_eq!(ids(AccountQuery { limit: 2, ..AccountQuery::default() }), ["a", "b"]);
        let nine = || AccountQuery { limit: 9, ..AccountQuery::default() };
        assert_eq!(ids(AccountQuery { after: Some("b".into()), ..nine() }), ["c", "d"]);
        assert_eq!(ids(AccountQuery { state: Some(AccountState::Online), ..nine() }), ["b"]);
        for text in ["d", "D"] {
            assert_eq!(ids(AccountQuery { text: Some(text.to_owned()), ..nine() }), ["d"]);
        }
        let since = || AccountQuery { order: AccountOrder::Since, ..nine() };
        let (all, first) = (ids(since()), |id: &str| AccountQuery { after: Some(id.into()), ..since() });
        assert_eq!((all[0].as_str(), all.len()), ("b", 4), "it changed last");
        for (index, id) in all.iter().enumerate() {
            assert_eq!(ids(first(id)), all[index + 1..], "after {id}");
        }
        assert_eq!(ids(first("gone")), [""; 0]);
        assert!(ids(AccountQuery { after: Some("z".into()), ..nine() }).is_empty());
    }

    #[test]
    fn times_are_told_in_two_units() {
        let now = Timestamp::now();
        let told = |seconds: i64| ago(now - jiff::SignedDuration::from_secs(seconds), now);
        let all = [0, 59, 60, 3_599, 3_600, 90_000, 8_640_000].map(told);
        assert_eq!(all, ["0s", "59s", "1m", "59m 59s", "1h", "1d 1h", "100d"]);
    }
}
