//! Which of an account's sessions may start, and what the end of one means for the others. Pure.
//!
//! While the login is in doubt, one session at a time tries it; once it is refused, none does until a clock or a
//! person says so.

use std::time::Instant;

use super::lifecycle::Blame;
use crate::backoff::PROVEN;

/// The sessions of one account, by the index of their mailbox.
#[derive(Debug)]
pub struct Schedule {
    slots: Vec<Slot>,
    login: Login,
    stopped: bool,
}

/// What is known of the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    /// Nothing, or they are in doubt.
    Unproven,
    /// The server took them.
    Proven,
    /// The server refused them.
    Refused,
}

#[derive(Debug)]
struct Slot {
    state: State,
    last_blame: Blame,
    failures: u32,
    caution: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// May start any time.
    Ready,
    /// Waits for a clock.
    Waiting,
    /// Lives.
    Running { watching_since: Option<Instant> },
    /// Waits for a person.
    Suspended,
    /// Is about to end for good.
    Leaving,
    /// Nobody's.
    Vacant,
}

/// How a session ended, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Whose fault it was.
    pub blame: Blame,
    /// It ended in the middle of a FETCH, and nothing was delivered by it.
    pub died_fetching: bool,
}

impl Slot {
    fn new() -> Self {
        Self { state: State::Ready, last_blame: Blame::Nobody, failures: 0, caution: 0 }
    }

    fn lives(&self) -> bool {
        matches!(self.state, State::Running { .. } | State::Leaving)
    }

    fn watching_since(&self) -> Option<Instant> {
        match self.state {
            State::Running { watching_since } => watching_since,
            _ => None,
        }
    }

    fn is_watching(&self) -> bool {
        self.watching_since().is_some()
    }
}

impl Schedule {
    /// For so many sessions, none of them started.
    pub fn new(mailboxes: usize) -> Self {
        Self { slots: (0..mailboxes).map(|_| Slot::new()).collect(), login: Login::Unproven, stopped: false }
    }

    /// Who may start now. Whoever does is to be told by [`Self::started`].
    pub fn ready(&self) -> Vec<usize> {
        let ready = self.slots.iter().enumerate().filter(|(_, slot)| slot.state == State::Ready);
        let ready = ready.map(|(index, _)| index);
        match self.login {
            _ if self.stopped => Vec::new(),
            Login::Proven => ready.collect(),
            Login::Unproven if self.is_tried() => Vec::new(),
            Login::Unproven => ready.filter(|&index| self.has_its_turn(index)).take(1).collect(),
            Login::Refused => Vec::new(),
        }
    }

    /// Somebody finds out about the login.
    fn is_tried(&self) -> bool {
        self.slots.iter().any(|slot| slot.state == State::Running { watching_since: None })
    }

    /// Whoever has waited for his own clock may try. The others go to the same server, so they wait with those who
    /// wait for it; a mailbox that is merely missing keeps nobody.
    fn has_its_turn(&self, index: usize) -> bool {
        let waits_for_server =
            |slot: &Slot| slot.state == State::Waiting && slot.last_blame != Blame::Mailbox;
        self.slots.get(index).is_some_and(|slot| slot.failures > 0)
            || !self.slots.iter().any(waits_for_server)
    }

    /// The session of `index` began.
    pub fn started(&mut self, index: usize) {
        self.set(index, State::Running { watching_since: None });
    }

    /// The server took the credentials.
    pub fn logged_in(&mut self) {
        self.login = Login::Proven;
    }

    /// The mailbox is being watched; `false` where its session has ended before this was heard.
    pub fn watching(&mut self, index: usize, now: Instant) -> bool {
        let lives = self.slots.get(index).is_some_and(|slot| matches!(slot.state, State::Running { .. }));
        if lives {
            let since = self.slots.get(index).and_then(Slot::watching_since).unwrap_or(now);
            self.set(index, State::Running { watching_since: Some(since) });
        }
        lives
    }

    /// The session ended. Only a proven life forgets the failures before it. Returns how many there were in a row.
    pub fn ended(&mut self, index: usize, ended: Ended, now: Instant) -> u32 {
        match ended.blame {
            Blame::Credentials => self.login = Login::Refused,
            Blame::Operator(_) if self.login == Login::Proven => self.login = Login::Unproven,
            _ => {}
        }
        let Some(slot) = self.slots.get_mut(index) else { return 0 };
        let proven = matches!(slot.state, State::Running { watching_since: Some(since) } if now.saturating_duration_since(since) >= PROVEN);
        if proven || ended.blame != slot.last_blame {
            slot.failures = 0;
        }
        slot.failures = slot.failures.saturating_add(1);
        slot.last_blame = ended.blame;
        slot.caution = if ended.died_fetching { slot.caution.saturating_add(1) } else { 0 };
        slot.state = if slot.state == State::Leaving { State::Vacant } else { State::Ready };
        let failures = slot.failures;
        // Nobody is left who proves it: the password may have changed, and one try is enough to know.
        if self.login == Login::Proven && !self.slots.iter().any(Slot::is_watching) {
            self.login = Login::Unproven;
        }
        failures
    }

    /// One session more: its index.
    pub fn add(&mut self) -> usize {
        let vacant = self.slots.iter().position(|slot| slot.state == State::Vacant);
        let index = vacant.unwrap_or(self.slots.len());
        match self.slots.get_mut(index) {
            Some(slot) => *slot = Slot::new(),
            None => self.slots.push(Slot::new()),
        }
        index
    }

    /// The session of `index` is not wanted any more.
    pub fn let_go(&mut self, index: usize) {
        let lives = self.slots.get(index).is_some_and(Slot::lives);
        self.set(index, if lives { State::Leaving } else { State::Vacant });
    }

    /// Whether nobody is left there.
    pub fn is_vacant(&self, index: usize) -> bool {
        self.slots.get(index).is_none_or(|slot| slot.state == State::Vacant)
    }

    /// Whether somebody is there who is to stay.
    pub fn is_wanted(&self, index: usize) -> bool {
        self.slots.get(index).is_some_and(|slot| !matches!(slot.state, State::Leaving | State::Vacant))
    }

    /// It waits for a clock.
    pub fn wait(&mut self, index: usize) {
        self.set(index, State::Waiting);
    }

    /// The clock ran out.
    pub fn wake(&mut self, index: usize) {
        if self.slots.get(index).is_some_and(|slot| slot.state == State::Waiting) {
            self.set(index, State::Ready);
        }
    }

    /// It waits for a person.
    pub fn suspend(&mut self, index: usize) {
        self.set(index, State::Suspended);
    }

    /// The credentials were refused, before this process began.
    pub fn refused_before(&mut self) {
        self.login = Login::Refused;
    }

    /// The refused credentials may be tried again.
    pub fn try_login(&mut self) {
        if self.login == Login::Refused {
            self.login = Login::Unproven;
        }
    }

    /// Whether nobody logs in until a clock or a person says so.
    pub fn is_refused(&self) -> bool {
        self.login == Login::Refused
    }

    /// Whoever waits, for a clock or for a person, may start now; what failed before counts no more.
    pub fn resume(&mut self) {
        self.try_login();
        for slot in &mut self.slots {
            if matches!(slot.state, State::Waiting | State::Suspended) {
                slot.state = State::Ready;
                slot.failures = 0;
            }
        }
    }

    /// Nothing starts any more.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether it was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether any session lives.
    pub fn any_running(&self) -> bool {
        self.slots.iter().any(Slot::lives)
    }

    /// How little the session of `index` is to ask for at once.
    pub fn caution(&self, index: usize) -> u8 {
        self.slots.get(index).map_or(0, |slot| slot.caution)
    }

    fn set(&mut self, index: usize, state: State) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.state = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::account::lifecycle::Setup;

    fn ended(blame: Blame) -> Ended {
        Ended { blame, died_fetching: false }
    }

    #[test]
    fn sessions_come_and_go_and_their_places_are_used_again() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1);
        schedule.started(0);
        schedule.logged_in();
        schedule.watching(0, now);
        assert_eq!((schedule.add(), schedule.add()), (1, 2));
        assert_eq!(schedule.ready(), [1, 2]);
        schedule.started(1);
        schedule.let_go(1);
        schedule.let_go(2);
        assert!(schedule.is_vacant(2) && !schedule.is_vacant(1) && !schedule.is_wanted(1), "it still lives");
        assert_eq!(schedule.add(), 2);
        assert!(!schedule.watching(1, now), "nobody hears of it any more");
        schedule.ended(1, ended(Blame::Nobody), now);
        assert!(schedule.is_vacant(1));
        assert_eq!(schedule.ready(), [2]);
    }

    #[test]
    fn one_tries_the_login_for_all() {
        let now = Instant::now();
        let mut schedule = Schedule::new(3);
        assert_eq!(schedule.ready(), [0]);
        schedule.started(0);
        assert!(schedule.ready().is_empty());
        schedule.ended(0, ended(Blame::Network), now);
        schedule.wait(0);
        assert!(schedule.ready().is_empty(), "the others go to the same server");
        schedule.wake(0);
        assert_eq!(schedule.ready(), [0]);
        schedule.started(0);
        schedule.logged_in();
        assert_eq!(schedule.ready(), [1, 2]);
    }

    #[test]
    fn one_refusal_is_enough_and_leaves_those_that_live_alone() {
        let now = Instant::now();
        let mut schedule = Schedule::new(3);
        schedule.started(0);
        schedule.logged_in();
        schedule.watching(0, now);
        schedule.started(1);
        schedule.ended(1, ended(Blame::Credentials), now);
        assert!(schedule.ready().is_empty() && schedule.any_running());
        schedule.ended(0, ended(Blame::Network), now);
        schedule.wait(0);
        schedule.wake(0);
        assert!(schedule.ready().is_empty(), "no clock of a mailbox gets around a refusal");
        schedule.try_login();
        assert_eq!(schedule.ready().len(), 1);
    }

    /// The server kicks all sessions, since the password was changed: one login finds out, not twenty.
    #[test]
    fn when_all_are_gone_one_tries_for_all_again() {
        let now = Instant::now();
        let mut schedule = Schedule::new(20);
        schedule.logged_in();
        (0..20).for_each(|index| {
            schedule.started(index);
            schedule.watching(index, now);
        });
        for index in 0..20 {
            schedule.ended(index, ended(Blame::Network), now);
            schedule.wait(index);
        }
        (0..20).for_each(|index| schedule.wake(index));
        assert_eq!(schedule.ready(), [0]);
    }

    /// Each has a clock of its own: the first one that runs out is enough, whatever the others wait for.
    #[test]
    fn nobody_waits_for_the_clock_of_another() {
        let now = Instant::now();
        let mut schedule = Schedule::new(2);
        schedule.logged_in();
        for (index, blame) in [(0, Blame::Mailbox), (1, Blame::Network)] {
            schedule.started(index);
            schedule.watching(index, now);
            schedule.ended(index, ended(blame), now);
            schedule.wait(index);
        }
        schedule.wake(1);
        assert_eq!(schedule.ready(), [1], "a missing mailbox is looked for in five minutes");
        let mut schedule = Schedule::new(3);
        for index in 0..3 {
            schedule.started(index);
            schedule.ended(index, ended(Blame::Network), now);
            schedule.wait(index);
        }
        schedule.wake(2);
        assert_eq!(schedule.ready(), [2]);
    }

    /// A milestone may be heard after the end of its session: it must not bring the slot back to life.
    #[test]
    fn a_late_milestone_changes_nothing() {
        let now = Instant::now();
        let mut schedule = Schedule::new(1);
        schedule.started(0);
        schedule.logged_in();
        schedule.ended(0, ended(Blame::Server), now);
        schedule.wait(0);
        assert!(!schedule.watching(0, now));
        schedule.wake(0);
        assert_eq!(schedule.ready(), [0]);
    }

    #[test]
    fn a_panic_of_one_mailbox_does_not_keep_the_others_from_trying() {
        let mut schedule = Schedule::new(2);
        schedule.started(0);
        schedule.ended(0, ended(Blame::Ourselves), Instant::now());
        schedule.suspend(0);
        assert_eq!(schedule.ready(), [1]);
    }

    #[test]
    fn a_certificate_in_doubt_puts_the_login_in_doubt() {
        let now = Instant::now();
        let mut schedule = Schedule::new(2);
        schedule.logged_in();
        schedule.started(0);
        schedule.ended(0, ended(Blame::Operator(Setup::Tls)), now);
        schedule.wait(0);
        assert!(schedule.ready().is_empty());
    }

    /// A server that takes the login and hangs up, again and again, is waited for longer and longer.
    #[test]
    fn only_a_proven_life_forgets_failures() {
        let start = Instant::now();
        let mut schedule = Schedule::new(1);
        let mut live = |lasted: Duration| {
            schedule.started(0);
            schedule.logged_in();
            schedule.watching(0, start);
            schedule.ended(0, ended(Blame::Network), start + lasted)
        };
        assert_eq!([(); 5].map(|()| live(Duration::from_secs(59))), [1, 2, 3, 4, 5]);
        assert_eq!(live(PROVEN), 1);
    }

    #[test]
    fn a_person_wakes_those_that_wait_for_one() {
        let mut schedule = Schedule::new(2);
        for (index, blame) in [(0, Blame::Ourselves), (1, Blame::Credentials)] {
            schedule.started(index);
            schedule.ended(index, ended(blame), Instant::now());
            schedule.suspend(index);
        }
        assert!(schedule.ready().is_empty());
        schedule.resume();
        assert_eq!(schedule.ready(), [0], "one tries the login for all");
    }

    #[test]
    fn once_stopped_nothing_starts() {
        let mut schedule = Schedule::new(1);
        schedule.stop();
        assert!(schedule.ready().is_empty());
    }
}
