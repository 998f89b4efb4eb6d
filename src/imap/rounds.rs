//! One connection for many mailboxes: it rests in the first of them and visits the others where something moved.
//!
//! Where the server tells of all mailboxes (NOTIFY, RFC 5465) it is sent there; else it asks for their STATUS, again
//! and again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget;
use super::capability::Capabilities;
use super::changes::WantedChanges;
use super::command::{Command, STATUS_CHANGED, STATUS_MOVED};
use super::conversation::{Action, Mode, Phase, Shared, ToldFrom, Until, Watch};
use super::ending::Ending;
use super::listing::{ListedMailbox, MailboxListing};
use super::reply::{MailboxStatus, Reply, Status, StatusText};
use super::search::Criteria;
use super::select::{Examining, Located, wire_name};
use super::stops::{Met, Stop, Stops};
use super::suspects::{Suspects, Visits};
use super::watch::Selected;
use crate::event::{Cursor, MailboxName};
use crate::mailbox_choice::{Chosen, MailboxChoice};

/// How often the list of mailboxes is read anew, where the server does not tell of its changes.
pub const LIST_EVERY: Duration = Duration::from_secs(5 * 60);

/// Names that went, one of which a new mailbox may have had.
const MOST_FORMER_NAMES: usize = 16;

/// All mailboxes that a connection may be responsible for, and all that it may know of them.
#[derive(Clone, Debug)]
pub struct Choice {
    /// Which mailboxes are watched.
    pub mailboxes: Arc<MailboxChoice>,
    /// Connections of the account, this one included.
    pub max_connections: usize,
    /// Mailboxes that have a connection of their own already.
    pub beside: Vec<MailboxName>,
    /// Mailboxes that an earlier connection watched, or that were there at first; `None` before the first list.
    pub known: Option<HashSet<MailboxName>>,
    /// Those that appeared later, and that nobody has visited yet.
    pub newcomers: Newcomers,
    /// Connections broke while these were visited.
    pub suspects: Suspects,
    /// See [`Watch::search`].
    pub search: Option<Arc<Criteria>>,
    /// See [`Watch::changes`].
    pub changes: WantedChanges,
    /// For ever, or until all that is new in all of them is told.
    pub until: Until,
}

/// Mailboxes that were not there at first and were not visited yet, and when they were met.
pub type Newcomers = HashMap<MailboxName, Met>;

/// What a connection is responsible for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// All of its mailboxes.
    pub mailboxes: Vec<MailboxName>,
    /// Those of them that have no cursor yet, and whose messages are told from when they were met.
    pub newcomers: Newcomers,
}

/// The journal is asked where a mailbox stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookUp {
    /// Which mailbox.
    pub mailbox: MailboxName,
    /// Since when it has been there.
    pub met: Met,
    /// Mailboxes that went when it came: it may have been one of these.
    pub formerly: Vec<MailboxName>,
}

/// What the journal knows of a mailbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LookedUp {
    /// Its cursor.
    pub checkpoint: Option<Cursor>,
    /// For a first contact: see [`Watch::told_from`].
    pub told_from: Option<ToldFrom>,
    /// The cursors of what it may have been.
    pub inheritance: Vec<Cursor>,
}

/// How fast a message in any of the mailboxes is told, as it was seen last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The server tells of all mailboxes (RFC 5465).
    pub hears_all: bool,
    /// How many mailboxes share the connection.
    pub mailboxes: usize,
    /// The longest delay that is to be expected where nothing is told: the interval, and the round itself.
    pub worst_delay: Duration,
}

impl Pace {
    /// How new messages are noticed.
    pub fn mode(&self) -> Mode {
        if self.hears_all { Mode::Notify } else { Mode::Status }
    }
}

/// What is known of the server's NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notify {
    Untried,
    On,
    Off,
}

/// What outlives a visit.
#[derive(Debug)]
pub(super) struct Rounds {
    choice: Choice,
    stops: Stops,
    beside: Vec<MailboxName>,
    notify: Notify,
    /// LIST with STATUS in it is understood, and cheaper than one STATUS each.
    lists_status: bool,
    listed_once: bool,
    list_due: Option<Instant>,
    /// `None` until all were visited once: that is a round, too.
    round_due: Option<Instant>,
    /// When it last left its rest.
    left_at: Option<Instant>,
    pace: Option<Pace>,
    visits: Visits,
    /// See [`LookedUp`].
    inheritance: Vec<Cursor>,
}

/// What next?
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    List,
    Notify,
    Visit(MailboxName),
    AskStatus,
    Rest,
    Pause,
    End,
}

impl Rounds {
    fn new(choice: Choice, now: Instant) -> Self {
        Self {
            beside: choice.beside.clone(),
            choice,
            stops: Stops::default(),
            notify: Notify::Untried,
            lists_status: false,
            listed_once: false,
            list_due: Some(now),
            round_due: None,
            left_at: Some(now),
            pace: None,
            visits: Visits::default(),
            inheritance: Vec::new(),
        }
    }

    /// The decision, while `open` is open and all that is new in it is told.
    fn next(&self, open: Option<&MailboxName>, notify_offered: bool, now: Instant) -> Next {
        if self.list_due.is_some_and(|due| due <= now) {
            return Next::List;
        }
        if let Some(stop) = self.stops.due(now) {
            return Next::Visit(stop.mailbox().clone());
        }
        if self.choice.until == Until::CaughtUp {
            return Next::End;
        }
        if notify_offered && self.notify == Notify::Untried {
            return Next::Notify;
        }
        if self.round_due.is_some_and(|due| due <= now) && self.stops.to_ask(0, open).is_some() {
            return Next::AskStatus;
        }
        match self.stops.home(now).map(Stop::mailbox) {
            Some(home) if open == Some(home) => Next::Rest,
            Some(home) => Next::Visit(home.clone()),
            None => Next::Pause,
        }
    }

    /// When to look again, whatever the server tells.
    fn wake_at(&self, open: Option<&MailboxName>) -> Option<Instant> {
        let round = self.round_due.filter(|_| self.stops.to_ask(0, open).is_some());
        [self.list_due, round, self.stops.opens_at()].into_iter().flatten().min()
    }

    fn interval(&self, shared_poll: Duration, shared_refresh: Duration) -> Duration {
        if self.notify == Notify::On { shared_refresh } else { shared_poll }
    }

    /// The mailboxes are these now.
    fn take(&mut self, listing: &MailboxListing, capabilities: Capabilities, hears_all: bool, now: Instant) {
        let choice = self.choice.mailboxes.clone();
        let chosen = choice.choose(&listing.mailboxes);
        let names: Vec<_> = chosen.iter().map(|chosen| chosen.mailbox.clone()).collect();
        let before = std::mem::take(&mut self.beside);
        let settled: Vec<_> = names
            .iter()
            .filter(|name| before.contains(name) || self.is_settled(name, now))
            .cloned()
            .collect();
        self.beside = budget::beside(&settled, &before, hears_all, self.choice.max_connections);
        let names: HashSet<_> = names.iter().collect();
        let gone = self.stops.mailboxes().chain(&before).filter(|name| !names.contains(name));
        let formerly: Vec<_> = gone.take(MOST_FORMER_NAMES).cloned().collect();
        let delimiter = listing.mailboxes.first().and_then(|mailbox| mailbox.delimiter);
        let shared = chosen.into_iter().filter(|chosen| !self.beside.contains(&chosen.mailbox));
        let stops = shared.map(|Chosen { mailbox, listed, .. }| {
            let (met, suspect) = (self.met(&mailbox, now), self.choice.suspects.get(&mailbox));
            let (was_beside, formerly) = (before.contains(&mailbox), formerly.clone());
            let stop = Stop::new(located(mailbox, listed, delimiter, capabilities), met, formerly);
            match suspect {
                Some(suspect) => stop.suspected(suspect, now),
                None if was_beside => stop.handed_over(now),
                None => stop,
            }
        });
        let stops = stops.collect();
        self.stops.arrange(stops);
        self.listed_once = true;
    }

    /// One that is new is visited here first: we know since when it has been there, and what it was called before.
    fn is_settled(&self, mailbox: &MailboxName, now: Instant) -> bool {
        match self.stops.get(mailbox) {
            Some(stop) => stop.is_watched(),
            None => self.met(mailbox, now) == Met::AtFirst,
        }
    }

    fn met(&self, mailbox: &MailboxName, now: Instant) -> Met {
        let Choice { known, newcomers, .. } = &self.choice;
        match newcomers.get(mailbox) {
            _ if self.listed_once => Met::WhileWatched { since: now },
            Some(met) => *met,
            None if known.as_ref().is_some_and(|known| !known.contains(mailbox)) => Met::WhileAway,
            None => Met::AtFirst,
        }
    }

    fn holding(&self) -> Holding {
        let newcomers = self.stops.iter().filter(|stop| stop.met != Met::AtFirst);
        Holding {
            mailboxes: self.stops.mailboxes().cloned().collect(),
            newcomers: newcomers.map(|stop| (stop.mailbox().clone(), stop.met)).collect(),
        }
    }
}

fn located(
    mailbox: MailboxName,
    listed: Option<&ListedMailbox>,
    delimiter: Option<char>,
    capabilities: Capabilities,
) -> Located {
    match listed {
        Some(listed) => {
            Located { mailbox, wire_name: listed.wire_name.clone(), role: listed.role, listed: true }
        }
        None => {
            let wire_name = wire_name(&mailbox, delimiter, capabilities);
            Located { listed: mailbox.is_inbox(), mailbox, wire_name, role: None }
        }
    }
}

/// Awaits what is asked about mailboxes that are not open.
#[derive(Debug)]
pub(super) struct Round {
    /// The mailbox that is open meanwhile.
    selected: Option<Box<Selected>>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Listing {
        listing: MailboxListing,
        with_status: bool,
    },
    /// The STATUS of the stop at this place.
    Status {
        place: usize,
        mailbox: MailboxName,
    },
    Notify,
    /// The journal's answer.
    LookUp {
        mailbox: MailboxName,
    },
    /// There is nothing to watch now.
    Pause,
}

/// Begins with the list of mailboxes.
pub(super) fn begin(shared: &mut Shared, choice: Choice, now: Instant) -> Phase {
    shared.rounds = Some(Box::new(Rounds::new(choice, now)));
    go_on(shared, None, now)
}

/// All that is new in the open mailbox is told: goes on, or rests in it.
pub(super) fn caught_up(selected: Box<Selected>, shared: &mut Shared, now: Instant) -> Phase {
    let epochs = shared.epochs;
    if let Some(rounds) = &mut shared.rounds {
        rounds.visits.visiting = None;
        rounds.visits.proven = true;
        if let Some(stop) = rounds.stops.of(selected.mailbox())
            && stop.visited(selected.numbers(), epochs)
        {
            rounds.visits.cleared.push(selected.mailbox().clone());
        }
    }
    go_on(shared, Some(selected), now)
}

/// The mailbox that was to be opened cannot be: that is its own trouble.
pub(super) fn refused(shared: &mut Shared, mailbox: &MailboxName, ending: Ending, now: Instant) -> Phase {
    if let Some(rounds) = &mut shared.rounds {
        rounds.visits.visiting = None;
        let was_watched = rounds.stops.of(mailbox).is_some_and(|stop| stop.refused(now));
        if was_watched && rounds.choice.mailboxes.needs_listing() {
            rounds.list_due = Some(now);
        }
        shared.act(Action::Unopened { mailbox: mailbox.clone(), ending });
    }
    go_on(shared, None, now)
}

fn go_on(shared: &mut Shared, selected: Option<Box<Selected>>, now: Instant) -> Phase {
    if shared.stopping {
        return shared.log_out(now);
    }
    let notify_offered = shared.may_notify();
    let Some(rounds) = &mut shared.rounds else { return shared.log_out(now) };
    // One that is not ours any more is left.
    let selected = selected.filter(|selected| rounds.stops.holds(selected.mailbox()));
    let open = selected.as_ref().map(|selected| selected.mailbox());
    let next = rounds.next(open, notify_offered, now);
    if !matches!(next, Next::Rest | Next::Pause) {
        rounds.left_at.get_or_insert(now);
    }
    match next {
        Next::List => list(shared, selected, now),
        Next::Notify => Round::send(shared, selected, Step::Notify, &Command::Notify, now),
        Next::Visit(mailbox) => visit(shared, mailbox, now),
        Next::AskStatus => ask_status(shared, selected, 0, now),
        Next::Rest => rest(shared, selected, now),
        Next::Pause => pause(shared, now),
        Next::End => shared.log_out(now),
    }
}

fn list(shared: &mut Shared, selected: Option<Box<Selected>>, now: Instant) -> Phase {
    let special_use = shared.capabilities.lists_special_use();
    let with_status = shared.rounds.as_ref().is_some_and(|rounds| rounds.lists_status);
    let step = Step::Listing { listing: MailboxListing::default(), with_status };
    let command =
        Command::List { pattern: b"*", special_use, statuses: with_status.then(|| shared.status_items()) };
    Round::send(shared, selected, step, &command, now)
}

fn ask_status(shared: &mut Shared, selected: Option<Box<Selected>>, from: usize, now: Instant) -> Phase {
    if shared.stopping {
        return shared.log_out(now);
    }
    let items = shared.status_items();
    let Some(rounds) = &mut shared.rounds else { return shared.log_out(now) };
    if from == 0 && rounds.lists_status {
        return list(shared, selected, now);
    }
    let open = selected.as_ref().map(|selected| selected.mailbox());
    let Some((place, stop)) = rounds.stops.to_ask(from, open) else {
        round_is_over(shared, now);
        return go_on(shared, selected, now);
    };
    let wire_name = stop.located.wire_name.clone();
    let step = Step::Status { place, mailbox: stop.mailbox().clone() };
    Round::send(shared, selected, step, &Command::Status { mailbox: &wire_name, items }, now)
}

fn round_is_over(shared: &mut Shared, now: Instant) {
    let (poll, refresh) = (shared.plan.poll_interval, shared.plan.idle_refresh);
    if let Some(rounds) = &mut shared.rounds {
        rounds.round_due = Some(now + rounds.interval(poll, refresh));
    }
}

fn visit(shared: &mut Shared, mailbox: MailboxName, now: Instant) -> Phase {
    let Some(rounds) = &mut shared.rounds else { return shared.log_out(now) };
    let Some(stop) = rounds.stops.of(&mailbox) else { return go_on(shared, None, now) };
    let look_up = LookUp { mailbox: mailbox.clone(), met: stop.met, formerly: stop.formerly.clone() };
    rounds.visits.visiting = Some(mailbox.clone());
    shared.act(Action::LookUp(look_up));
    let timeout = shared.plan.command_timeout;
    shared.wait("the journal", timeout, timeout * 10, now);
    Phase::Round(Box::new(Round { selected: None, step: Step::LookUp { mailbox } }))
}

/// Nothing is due: how long it took until now is what a message had to wait for at most.
fn rest(shared: &mut Shared, selected: Option<Box<Selected>>, now: Instant) -> Phase {
    let (poll, refresh) = (shared.plan.poll_interval, shared.plan.idle_refresh);
    if let Some(rounds) = &mut shared.rounds
        && let Some(left_at) = rounds.left_at.take()
    {
        let took = now.saturating_duration_since(left_at);
        let interval = rounds.interval(poll, refresh);
        rounds.round_due.get_or_insert(now + interval);
        let alone = rounds.stops.len() == 1;
        let worst = if alone { Duration::ZERO } else { interval + took };
        let pace = Pace {
            hears_all: rounds.notify == Notify::On,
            mailboxes: rounds.stops.len(),
            worst_delay: Duration::from_secs(worst.as_secs()),
        };
        if rounds.pace.replace(pace) != Some(pace) {
            shared.act(Action::Toured(pace));
        }
    }
    match selected {
        Some(selected) => selected.rest(shared, now),
        None => pause(shared, now),
    }
}

/// No mailbox can be watched now: nothing is open until one may be there.
fn pause(shared: &mut Shared, now: Instant) -> Phase {
    let until = shared.rounds.as_ref().and_then(|rounds| rounds.wake_at(None)).unwrap_or(now + LIST_EVERY);
    let pause = until.saturating_duration_since(now);
    shared.wait("a mailbox", pause, pause, now);
    if let Some(rounds) = &mut shared.rounds
        && rounds.pace.is_none()
    {
        let pace = Pace { hears_all: false, mailboxes: 0, worst_delay: LIST_EVERY };
        rounds.pace = Some(pace);
        shared.act(Action::Toured(pace));
    }
    Phase::Round(Box::new(Round { selected: None, step: Step::Pause }))
}

impl Round {
    fn send(
        shared: &mut Shared,
        selected: Option<Box<Selected>>,
        step: Step,
        command: &Command<'_>,
        now: Instant,
    ) -> Phase {
        shared.send_then(command, now, Phase::Round(Box::new(Self { selected, step })))
    }

    pub(super) fn selected(&mut self) -> Option<&mut Selected> {
        self.selected.as_deref_mut()
    }

    pub(super) fn awaits_list(&self) -> bool {
        matches!(self.step, Step::Listing { .. })
    }

    pub(super) fn is_pausing(&self) -> bool {
        matches!(self.step, Step::Pause)
    }

    pub(super) fn told(&mut self, reply: &Reply) {
        if let (Step::Listing { listing, .. }, Reply::List(entry)) = (&mut self.step, reply) {
            listing.listed(entry);
        }
    }

    /// The pause is over.
    pub(super) fn go_on(self, shared: &mut Shared, now: Instant) -> Phase {
        go_on(shared, self.selected, now)
    }

    pub(super) fn looked_up(self, shared: &mut Shared, found: LookedUp, now: Instant) -> Phase {
        let Step::LookUp { mailbox } = self.step else { return Phase::Round(Box::new(self)) };
        let Some(rounds) = &mut shared.rounds else { return shared.log_out(now) };
        let Some(stop) = rounds.stops.of(&mailbox).filter(|_| !shared.stopping) else {
            return go_on(shared, None, now);
        };
        let (located, epochs, caution) = (stop.located.clone(), stop.epochs, stop.caution());
        let watch = Watch {
            mailbox,
            checkpoint: found.checkpoint,
            told_from: found.told_from,
            caution,
            search: rounds.choice.search.clone(),
            changes: rounds.choice.changes,
            until: Until::Visited,
        };
        rounds.inheritance = found.inheritance;
        shared.epochs = epochs;
        Examining::begin(shared, watch, located, now)
    }

    pub(super) fn completed(
        self,
        shared: &mut Shared,
        status: Status,
        text: &StatusText,
        now: Instant,
    ) -> Phase {
        let ok = status == Status::Ok;
        match self.step {
            Step::Listing { with_status: true, .. } if !ok => {
                shared.rounds.iter_mut().for_each(|rounds| rounds.lists_status = false);
                list(shared, self.selected, now)
            }
            Step::Listing { .. } if !ok => shared.refused("LIST", text),
            Step::Listing { listing, with_status } => {
                listed(shared, &listing, with_status, now);
                go_on(shared, self.selected, now)
            }
            Step::Status { place, mailbox } => {
                if let Some(rounds) = shared.rounds.as_mut().filter(|_| !ok) {
                    rounds.stops.of(&mailbox).into_iter().for_each(Stop::is_in_doubt);
                }
                ask_status(shared, self.selected, place + 1, now)
            }
            Step::Notify => {
                notified(shared, ok, now);
                go_on(shared, self.selected, now)
            }
            Step::LookUp { .. } | Step::Pause => shared.unexpected("a completion"),
        }
    }
}

/// The list is whole.
fn listed(shared: &mut Shared, listing: &MailboxListing, with_status: bool, now: Instant) {
    let hears_all = shared.may_notify();
    let may_list_status = shared.capabilities.has("LIST-STATUS");
    let refresh = shared.plan.idle_refresh;
    let Some(rounds) = &mut shared.rounds else { return };
    let (before, first) = (rounds.beside.clone(), !rounds.listed_once);
    rounds.take(listing, shared.capabilities, hears_all && rounds.notify != Notify::Off, now);
    let every = if rounds.notify == Notify::On { refresh } else { LIST_EVERY };
    rounds.list_due = rounds.choice.mailboxes.needs_listing().then(|| now + every);
    // All of the list for few of them would be a waste.
    let most_of_them = rounds.stops.len() * 4 >= listing.mailboxes.len() && rounds.stops.len() > 2;
    rounds.lists_status =
        if first { may_list_status && most_of_them } else { rounds.lists_status && most_of_them };
    if first || rounds.beside != before {
        let beside = rounds.beside.clone();
        shared.act(Action::Beside(beside));
    }
    if let Some(holding) = shared.rounds.as_ref().map(|rounds| rounds.holding()) {
        shared.act(Action::Shares(holding));
    }
    if first {
        tell_left_alone(shared);
    }
    if listing.truncated {
        shared.act(Action::MailboxesTruncated);
    }
    if with_status {
        round_is_over(shared, now);
    }
}

fn tell_left_alone(shared: &mut Shared) {
    let Some(rounds) = &shared.rounds else { return };
    let left_alone = rounds.choice.suspects.iter().filter(|suspect| suspect.left_alone().is_some());
    let held = left_alone.filter(|suspect| rounds.stops.holds(&suspect.mailbox));
    let mailboxes: Vec<_> = held.map(|suspect| suspect.mailbox.clone()).collect();
    for mailbox in mailboxes {
        shared.act(Action::Unopened { mailbox, ending: Ending::EndsConnections });
    }
}

/// NOTIFY is accepted, and has told the STATUS of all mailboxes; or it is not.
fn notified(shared: &mut Shared, accepted: bool, now: Instant) {
    if let Some(rounds) = &mut shared.rounds {
        rounds.notify = if accepted { Notify::On } else { Notify::Off };
        if !accepted {
            // Others may have connections of their own then.
            rounds.list_due = Some(now);
        } else if let Some(due) = &mut rounds.list_due {
            *due = now + shared.plan.idle_refresh;
        }
    }
    round_is_over(shared, now);
}

/// What other phases have to know.
impl Shared {
    /// NO to EXAMINE and the like: with one mailbox that is the end, with many it is not.
    pub(super) fn cannot_open(&mut self, mailbox: &MailboxName, ending: Ending, now: Instant) -> Phase {
        let own_trouble = match &ending {
            Ending::MailboxRefused(_) | Ending::NoUidValidity => true,
            // The server has trouble with this mailbox; with others perhaps not.
            Ending::CommandRefused { refusal, .. } => refusal.may_be_of_a_mailbox(),
            _ => false,
        };
        if self.rounds.is_some() && own_trouble {
            refused(self, mailbox, ending, now)
        } else {
            self.end(ending)
        }
    }

    /// Whether it was not watched until now.
    pub(super) fn is_newly_watched(&mut self, mailbox: &MailboxName) -> bool {
        let stop = self.rounds.as_mut().and_then(|rounds| rounds.stops.of(mailbox));
        stop.is_none_or(|stop| !stop.is_watched())
    }

    /// The mailbox that is open is to be left.
    pub(super) fn is_called_away(&self, open: &MailboxName, now: Instant) -> bool {
        let notify_offered = self.may_notify();
        self.rounds.as_ref().is_some_and(|rounds| rounds.next(Some(open), notify_offered, now) != Next::Rest)
    }

    /// What says whether there is anything to tell of a mailbox.
    fn status_items(&self) -> &'static str {
        let changes = self.rounds.as_ref().is_some_and(|rounds| rounds.choice.changes.any());
        if changes && self.capabilities.has("CONDSTORE") { STATUS_CHANGED } else { STATUS_MOVED }
    }

    /// NOTIFY tells of all mailboxes, but not of flags: where those are told too, mailboxes are watched one by one.
    pub(super) fn may_notify(&self) -> bool {
        let changes = self.rounds.as_ref().is_some_and(|rounds| rounds.choice.changes.any());
        self.capabilities.has("NOTIFY") && !changes
    }

    /// Whether the conversation is to end once all is told: whoever looks in now and then is away in between.
    pub(super) fn looks_in(&self) -> bool {
        self.rounds.as_ref().is_some_and(|rounds| rounds.choice.until == Until::CaughtUp)
    }

    /// Until when it may rest in the open mailbox.
    pub(super) fn rests_until(&self, open: &MailboxName) -> Option<Instant> {
        self.rounds.as_ref()?.wake_at(Some(open))
    }

    /// The cursor of a mailbox that went when this one came: it has another name now, if its UIDs are the same.
    ///
    /// Only a UIDVALIDITY that no other mailbox has says so: on some servers all have the same.
    pub(super) fn inherits(&mut self, uid_validity: u32, uid_next: u32) -> Option<Cursor> {
        let rounds = self.rounds.as_mut()?;
        let mut inheritance = std::mem::take(&mut rounds.inheritance);
        inheritance.retain(|cursor| cursor.uid_validity == uid_validity);
        if inheritance.len() > 1 || rounds.stops.shares_validity(uid_validity) {
            return None;
        }
        inheritance.pop().filter(|cursor| cursor.uid_next <= uid_next && cursor.look_back.is_none())
    }

    /// What the connection may die of, and what it did not die of.
    pub(super) fn visits(&self) -> Option<&Visits> {
        Some(&self.rounds.as_ref()?.visits)
    }

    /// STATUS of any mailbox, whenever it comes.
    pub(super) fn status_told(&mut self, status: &MailboxStatus, open: Option<&MailboxName>) {
        if let Some(rounds) = &mut self.rounds {
            rounds.stops.told(status, open);
        }
    }

    /// A mailbox came, went, or has another name (RFC 5465 section 5.4).
    pub(super) fn mailboxes_changed(&mut self, now: Instant) {
        if let Some(rounds) = self.rounds.as_mut().filter(|rounds| rounds.choice.mailboxes.needs_listing()) {
            rounds.list_due = Some(now);
        }
    }

    /// The server forgets what it was to tell (RFC 5465 section 5.8).
    pub(super) fn notifications_overflowed(&mut self, now: Instant) {
        if let Some(rounds) = self.rounds.as_mut().filter(|rounds| rounds.notify == Notify::On) {
            rounds.notify = Notify::Off;
            rounds.round_due = Some(now);
            rounds.list_due = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(known: Option<&str>, newcomers: &[(&str, Met)], now: Instant) -> Rounds {
        let choice = Choice {
            mailboxes: Arc::new(MailboxChoice::inbox()),
            max_connections: 1,
            beside: Vec::new(),
            known: known.map(|names| names.split_ascii_whitespace().map(Into::into).collect()),
            newcomers: newcomers.iter().map(|&(name, met)| (name.into(), met)).collect(),
            suspects: Suspects::default(),
            search: None,
            changes: WantedChanges::default(),
            until: Until::Stopped,
        };
        Rounds::new(choice, now)
    }

    #[test]
    fn what_is_met_later_is_met_later_until_it_was_visited() {
        let now = Instant::now();
        let met = |known, newcomers: &[_]| rounds(known, newcomers, now).met(&"a".into(), now);
        assert_eq!(met(None, &[]), Met::AtFirst);
        assert_eq!(met(Some("INBOX a"), &[]), Met::AtFirst);
        assert_eq!(met(Some("INBOX"), &[]), Met::WhileAway);
        assert_eq!(met(Some(""), &[]), Met::WhileAway, "there was a list, and it was empty");
        let before = Met::WhileWatched { since: now.checked_sub(Duration::from_secs(3600)).unwrap() };
        assert_eq!(met(Some("INBOX"), &[("a", before)]), before);
        assert_eq!(met(Some("INBOX"), &[("a", Met::WhileAway)]), Met::WhileAway);
        let listed = Rounds { listed_once: true, ..rounds(Some("INBOX"), &[], now) };
        assert_eq!(listed.met(&"a".into(), now), Met::WhileWatched { since: now });
    }
}
