//! Where an account stands, as the sum of its mailboxes, and when that is worth an event. Pure.

use std::time::Duration;

use crate::event::{AccountState, ErrorType, MailboxName, StateChange, Trouble};

/// Where one mailbox of the account stands.
#[derive(Clone, Debug, PartialEq)]
pub enum MailboxStanding {
    /// A connection is being made, or waits for another one of the account to prove the login.
    Connecting,
    /// Watched.
    Watching,
    /// A try failed; a clock runs.
    Waiting(Setback),
    /// It cannot be opened; the account is well otherwise.
    Missing(Trouble),
    /// Nothing happens until a person acts.
    Suspended(Setback),
    /// It is none of the account's any more.
    Left,
}

/// A failed try.
#[derive(Clone, Debug, PartialEq)]
pub struct Setback {
    /// What the account is called meanwhile.
    pub state: AccountState,
    /// What went wrong.
    pub trouble: Option<Trouble>,
    /// How many tries in a row failed.
    pub attempt: u32,
    /// The wait until the next.
    pub retry_in: Option<Duration>,
}

/// The account's mailboxes, and what was told of them last.
#[derive(Debug)]
pub struct Standing {
    /// By the number of their session; without a name where many share one.
    mailboxes: Vec<(Option<MailboxName>, MailboxStanding)>,
    /// Told to be missing: looking again is no news.
    missing: Vec<MailboxName>,
    told: AccountState,
    told_trouble: Option<Trouble>,
}

/// Nobody yet.
impl Default for Standing {
    fn default() -> Self {
        Self {
            mailboxes: Vec::new(),
            missing: Vec::new(),
            told: AccountState::Connecting,
            told_trouble: None,
        }
    }
}

impl Standing {
    /// A session more, for one mailbox or for many.
    pub fn enter(&mut self, index: usize, mailbox: Option<MailboxName>) {
        if self.mailboxes.len() <= index {
            self.mailboxes.resize(index + 1, (None, MailboxStanding::Left));
        }
        if let Some(slot) = self.mailboxes.get_mut(index) {
            *slot = (mailbox, MailboxStanding::Connecting);
        }
    }

    /// Where the session of `index` stands, as a word and with what is wrong.
    pub fn of(&self, index: usize) -> (&'static str, Option<&Trouble>) {
        match self.mailboxes.get(index).map(|(_, standing)| standing) {
            Some(MailboxStanding::Connecting) | None => ("connecting", None),
            Some(MailboxStanding::Watching) => ("watching", None),
            Some(MailboxStanding::Waiting(setback)) => ("waiting", setback.trouble.as_ref()),
            Some(MailboxStanding::Missing(trouble)) => ("missing", Some(trouble)),
            Some(MailboxStanding::Suspended(setback)) => ("suspended", setback.trouble.as_ref()),
            Some(MailboxStanding::Left) => ("left", None),
        }
    }

    /// The state as last told.
    pub fn state(&self) -> AccountState {
        self.told
    }

    /// The mailbox at `index` stands differently now; what of that is to be told, in this order.
    pub fn change(&mut self, index: usize, standing: MailboxStanding) -> Vec<StateChange> {
        let Some((name, slot)) = self.mailboxes.get_mut(index) else { return Vec::new() };
        let name = name.clone();
        *slot = standing.clone();
        let mut changes: Vec<_> = self.of_account().into_iter().collect();
        let Some(name) = name else { return changes };
        let was_missing = self.missing.contains(&name);
        match standing {
            MailboxStanding::Left => self.missing.retain(|missing| *missing != name),
            MailboxStanding::Missing(trouble) if !was_missing => {
                self.missing.push(name.clone());
                changes.push(self.of_mailbox(name, Some(trouble)));
            }
            MailboxStanding::Watching if was_missing => {
                self.missing.retain(|missing| *missing != name);
                changes.push(self.of_mailbox(name, None));
            }
            _ => {}
        }
        changes
    }

    /// The account is no longer watched, and so stands nowhere.
    pub fn leave(&mut self, state: AccountState) -> StateChange {
        let previous = std::mem::replace(&mut self.told, state);
        StateChange { previous, ..bare(state) }
    }

    /// The state is the mailbox's alone: `state` = `previous`.
    pub fn of_mailbox(&self, mailbox: MailboxName, trouble: Option<Trouble>) -> StateChange {
        StateChange { mailbox: Some(mailbox), trouble, ..bare(self.told) }
    }

    /// One event per fault: the same trouble again is no news, and neither is a new try.
    fn of_account(&mut self) -> Option<StateChange> {
        let (state, setback) = self.overall();
        let trouble = setback.as_ref().and_then(|setback| setback.trouble.clone());
        let same_fault = match (&trouble, &self.told_trouble) {
            (Some(new), Some(old)) => is_same_fault(new, old),
            (new, old) => new.is_none() == old.is_none(),
        };
        if state == AccountState::Connecting || (state == self.told && same_fault) {
            return None;
        }
        let previous = std::mem::replace(&mut self.told, state);
        self.told_trouble = trouble.clone();
        let retry_in = setback.as_ref().and_then(|setback| setback.retry_in);
        Some(StateChange {
            state,
            previous,
            attempt: setback.map_or(0, |setback| setback.attempt),
            retry_in_ms: retry_in.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            last_proven_alive: None,
            mailbox: None,
            trouble,
        })
    }

    /// The worst of the mailboxes decides; one that is merely missing does not.
    fn overall(&self) -> (AccountState, Option<Setback>) {
        let setbacks = self.mailboxes.iter().filter_map(|(_, standing)| match standing {
            MailboxStanding::Waiting(setback) | MailboxStanding::Suspended(setback) => Some(setback),
            _ => None,
        });
        if let Some(worst) = setbacks.max_by_key(|setback| severity(setback.state)) {
            return (worst.state, Some(worst.clone()));
        }
        // One that is looked for again is not what the account waits for.
        let is_missing =
            |name: &Option<MailboxName>| name.as_ref().is_some_and(|name| self.missing.contains(name));
        let connecting = |(name, standing): &(Option<MailboxName>, MailboxStanding)| {
            *standing == MailboxStanding::Connecting && !is_missing(name)
        };
        let state = if self.mailboxes.iter().any(connecting) {
            AccountState::Connecting
        } else {
            AccountState::Online
        };
        (state, None)
    }
}

/// Of no mailbox, without trouble.
fn bare(state: AccountState) -> StateChange {
    StateChange {
        state,
        previous: state,
        attempt: 0,
        retry_in_ms: None,
        last_proven_alive: None,
        mailbox: None,
        trouble: None,
    }
}

/// A server that goes away refuses one try and lets the next time out: that is one fault.
fn is_same_fault(new: &Trouble, old: &Trouble) -> bool {
    let network = |trouble: &Trouble| {
        matches!(trouble.error_type, ErrorType::Connect | ErrorType::Timeout | ErrorType::Dns)
    };
    (network(new) && network(old)) || (new.error_type == old.error_type && new.code == old.code)
}

fn severity(state: AccountState) -> u8 {
    match state {
        AccountState::Suspended => 5,
        AccountState::AuthFailed => 4,
        AccountState::TlsFailed => 3,
        AccountState::Throttled => 2,
        AccountState::Backoff => 1,
        AccountState::Connecting | AccountState::Online | AccountState::Disabled | AccountState::Removed => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(names: &[&str]) -> Standing {
        let mut standing = Standing::default();
        names.iter().enumerate().for_each(|(index, name)| standing.enter(index, Some((*name).into())));
        standing
    }

    fn trouble(error_type: ErrorType) -> Trouble {
        Trouble { error_type, code: None, message: "x".to_owned() }
    }

    fn waiting(error_type: ErrorType, attempt: u32) -> MailboxStanding {
        MailboxStanding::Waiting(Setback {
            state: AccountState::Backoff,
            trouble: Some(trouble(error_type)),
            attempt,
            retry_in: Some(Duration::from_secs(1)),
        })
    }

    fn states(changes: Vec<StateChange>) -> Option<(AccountState, AccountState)> {
        changes.first().map(|change| (change.previous, change.state))
    }

    #[test]
    fn a_fault_is_told_once_and_its_end_once() {
        let mut standing = standing(&["INBOX"]);
        let online = Some((AccountState::Connecting, AccountState::Online));
        assert_eq!(states(standing.change(0, MailboxStanding::Watching)), online);
        let lost = standing.change(0, waiting(ErrorType::Connect, 1));
        assert_eq!(states(lost), Some((AccountState::Online, AccountState::Backoff)));
        assert_eq!(standing.change(0, MailboxStanding::Connecting), []);
        assert_eq!(standing.change(0, waiting(ErrorType::Connect, 2)), []);
        assert_eq!(standing.change(0, waiting(ErrorType::Timeout, 3)), [], "it goes away in its own way");
        let other_fault = standing.change(0, waiting(ErrorType::Protocol, 3));
        assert_eq!(other_fault[0].attempt, 3);
        let back = standing.change(0, MailboxStanding::Watching);
        assert_eq!(states(back), Some((AccountState::Backoff, AccountState::Online)));
    }

    #[test]
    fn an_account_is_online_when_all_of_its_mailboxes_are() {
        let mut standing = standing(&["INBOX", "Sent"]);
        assert_eq!(standing.change(0, MailboxStanding::Watching), []);
        assert_eq!(
            states(standing.change(1, MailboxStanding::Watching)),
            Some((AccountState::Connecting, AccountState::Online))
        );
    }

    #[test]
    fn who_has_left_is_not_waited_for() {
        let mut standing = standing(&["INBOX", "gone"]);
        standing.change(0, MailboxStanding::Watching);
        assert_eq!(standing.state(), AccountState::Connecting);
        assert_eq!(states(standing.change(1, MailboxStanding::Left)).unwrap().1, AccountState::Online);
        standing.enter(1, None);
        assert_eq!(standing.change(1, MailboxStanding::Watching), [], "its place is taken by others");
    }

    #[test]
    fn whoever_leaves_says_so_once() {
        let mut standing = standing(&["INBOX"]);
        standing.change(0, MailboxStanding::Watching);
        let left = standing.leave(AccountState::Removed);
        assert_eq!((left.previous, left.state), (AccountState::Online, AccountState::Removed));
    }

    #[test]
    fn a_missing_mailbox_is_its_own_trouble() {
        let mut standing = standing(&["INBOX", "Gone"]);
        standing.change(0, MailboxStanding::Watching);
        let missing = MailboxStanding::Missing(trouble(ErrorType::Mailbox));
        let changes = standing.change(1, missing.clone());
        let told: Vec<_> =
            changes.iter().map(|change| (change.previous, change.state, change.mailbox.is_some())).collect();
        let (connecting, online) = (AccountState::Connecting, AccountState::Online);
        assert_eq!(told, [(connecting, online, false), (online, online, true)]);
        assert_eq!(standing.change(1, MailboxStanding::Connecting), []);
        assert_eq!(standing.change(1, missing), []);
        let back = standing.change(1, MailboxStanding::Watching);
        assert_eq!(
            (back[0].mailbox.clone(), back[0].trouble.clone(), back.len()),
            (Some("Gone".into()), None, 1)
        );
    }
}
