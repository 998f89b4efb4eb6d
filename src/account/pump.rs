//! The pump between wire and core: replies in, actions out, until one of them says that it is over.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use rand::Rng;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::lifecycle::SessionEnd;
use super::milestone::{Milestone, Outcome};
use super::outlet::{Delivering, Delivers, LookingUp, Recalling};
use crate::imap::command::Line;
use crate::imap::conversation::{Action, Conversation, Input, Mode, Plan};
use crate::messages::Undelivered;
use crate::wire::link::{Link, LinkError};
use crate::wire::tls::TlsError;

/// For one write, at the very most.
const WRITE: Duration = Duration::from_secs(30);

/// All connections are probed within this time.
const PROBES: Duration = Duration::from_secs(5);

/// Pumps until the conversation is over.
///
/// Generic over the stream, so that transcripts run through all of it but TCP and TLS. What lives as long as the
/// connection is in one box, so that no future around it holds room for it twice.
pub fn pump<'a, S, D, T>(
    link: Link<S>,
    plan: Plan,
    delivers: &'a D,
    told: T,
    secure: impl AsyncFn(S) -> Result<S, TlsError> + 'a,
    probe: watch::Receiver<u64>,
    stop: oneshot::Receiver<()>,
) -> impl Future<Output = Outcome>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Debug + 'a,
    D: Delivers,
    T: FnMut(Milestone) + 'a,
{
    let pump = Box::new(Pump {
        conversation: Conversation::new(plan, now()),
        link: Some(link),
        delivers,
        told,
        probe,
        stop,
        stopping: false,
        unsent: Vec::new(),
        asked: None,
        delivered: false,
        fetching: false,
        logged_in: false,
        silent_since: None,
        mode: None,
    });
    async move {
        let mut pump = pump;
        let end = pump.run(secure).await;
        pump.outcome(end)
    }
}

/// Now, as tokio has it: tests turn its clock.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// What the journal is asked for.
enum Asked {
    Delivery(Delivering),
    Memory(Recalling),
    Cursor(LookingUp),
}

/// The journal's answer; never, where nothing is asked.
async fn answer(asked: &mut Option<Asked>) -> Result<Input, Undelivered> {
    match asked {
        Some(Asked::Delivery(delivery)) => delivery.await.map(Input::Delivered),
        Some(Asked::Memory(memory)) => memory.await.map(Input::Recalled),
        Some(Asked::Cursor(cursor)) => cursor.await.map(Input::LookedUp),
        None => std::future::pending().await,
    }
}

/// What the pump does after a step.
enum Then {
    Listen,
    StartTls,
    End(Box<SessionEnd>),
}

struct Pump<'a, S, D, T> {
    conversation: Conversation,
    /// `None` for as long as TLS is being set up on it.
    link: Option<Link<S>>,
    delivers: &'a D,
    told: T,
    probe: watch::Receiver<u64>,
    stop: oneshot::Receiver<()>,
    stopping: bool,
    unsent: Vec<Line>,
    asked: Option<Asked>,
    /// Something of the mailbox was, since it was opened.
    delivered: bool,
    /// A FETCH of messages was running before the last step; one that could not be sent never ran.
    fetching: bool,
    logged_in: bool,
    /// Since when there had been nothing but IDLE, where the conversation ended in it.
    silent_since: Option<std::time::Instant>,
    /// As told last.
    mode: Option<Mode>,
}

impl<S, D, T> Pump<'_, S, D, T>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Debug,
    D: Delivers,
    T: FnMut(Milestone),
{
    async fn run(&mut self, secure: impl AsyncFn(S) -> Result<S, TlsError>) -> SessionEnd {
        loop {
            let then = match self.listen().await {
                Ok(input) => self.step(input),
                Err(end) => return end,
            };
            if let Err(end) = self.carry_out(then, &secure).await {
                return end;
            }
            // Replies that never pause never let the timer have its turn.
            if now() >= self.conversation.deadline() {
                let then = self.step(Input::Elapsed { quiet: false });
                if let Err(end) = self.carry_out(then, &secure).await {
                    return end;
                }
            }
        }
    }

    /// All that follows from a step, until there is nothing to do but listen.
    async fn carry_out(
        &mut self,
        mut then: Then,
        secure: &impl AsyncFn(S) -> Result<S, TlsError>,
    ) -> Result<(), SessionEnd> {
        loop {
            let sent = if self.unsent.is_empty() { Ok(()) } else { self.send().await };
            self.tell_traffic();
            self.tell_mode();
            sent?;
            if !matches!(then, Then::End(_)) {
                self.fetching = self.conversation.is_fetching();
            }
            match then {
                Then::Listen => return Ok(()),
                Then::End(end) => return Err(*end),
                Then::StartTls => {
                    let input = self.start_tls(secure).await?;
                    then = self.step(input);
                }
            }
        }
    }

    /// What happens next.
    async fn listen(&mut self) -> Result<Input, SessionEnd> {
        let deadline = self.conversation.deadline();
        let Some(link) = &mut self.link else { return Err(Undelivered::Stopping.into()) };
        let heard = link.bytes_in();
        tokio::select! {
            biased;
            // Asked to stop, or nobody is left who could ask.
            _ = &mut self.stop, if !self.stopping => {
                self.stopping = true;
                Ok(Input::Stop)
            }
            Ok(()) = self.probe.changed() => {
                Ok(Input::Probe { by: now() + PROBES.mul_f64(rand::rng().random_range(0.0..1.0)) })
            }
            answer = answer(&mut self.asked) => answer.map(|input| self.answered(input)).map_err(SessionEnd::from),
            // Bytes that never make a reply do not outrun this deadline, as they would a branch of its own.
            reply = timeout_at(deadline.into(), link.next()) => match reply {
                Ok(Ok(reply)) => Ok(Input::Reply(reply)),
                Ok(Err(error)) => Err(self.lost(error)),
                Err(_) => Ok(Input::Elapsed { quiet: link.bytes_in() == heard }),
            },
        }
    }

    /// Nothing may be left of what came in clear.
    async fn start_tls(
        &mut self,
        secure: &impl AsyncFn(S) -> Result<S, TlsError>,
    ) -> Result<Input, SessionEnd> {
        match self.link.take() {
            Some(link) if !link.has_buffered() => {
                let (stream, transcript) = link.into_parts();
                self.link = Some(Link::new(secure(stream).await?).recorded(transcript));
                Ok(Input::Secured)
            }
            link => {
                self.link = link;
                Ok(Input::Injected)
            }
        }
    }

    fn answered(&mut self, input: Input) -> Input {
        self.asked = None;
        self.delivered |= matches!(input, Input::Delivered(_));
        input
    }

    fn tell_traffic(&mut self) {
        let (received, sent) = self.link.as_mut().map(Link::take_traffic).unwrap_or_default();
        if received + sent > 0 {
            (self.told)(Milestone::Traffic { received, sent });
        }
    }

    fn tell_mode(&mut self) {
        let mode = self.conversation.mode();
        if mode.is_some() && self.mode != mode {
            self.mode = mode;
            mode.into_iter().for_each(|mode| (self.told)(Milestone::Rests(mode)));
        }
    }

    fn lost(&self, error: LinkError) -> SessionEnd {
        SessionEnd::Link { error, awaiting: self.conversation.awaiting() }
    }

    /// One input, and all actions that follow from it; what is to be written is left for [`Self::send`].
    fn step(&mut self, input: Input) -> Then {
        if self.logged_in && matches!(input, Input::Reply(_)) {
            (self.told)(Milestone::Alive);
        }
        self.fetching = self.conversation.is_fetching();
        let silent_since = self.conversation.silent_since();
        let mut then = Then::Listen;
        for action in self.conversation.step(input, now()) {
            match action {
                Action::Send(line) => self.unsent.push(line),
                Action::StartTls => then = Then::StartTls,
                Action::LoggedIn => {
                    self.link.iter_mut().for_each(Link::logged_in);
                    self.logged_in = true;
                    (self.told)(Milestone::LoggedIn);
                }
                Action::Watching(mailbox) => (self.told)(Milestone::Watching(mailbox)),
                Action::Alert(text) => (self.told)(Milestone::Alert(text)),
                Action::SearchRefused(why) => (self.told)(Milestone::SearchRefused(why)),
                Action::ChangesUntold(why) => (self.told)(Milestone::ChangesUntold(why)),
                Action::PipeliningWorked => (self.told)(Milestone::Pipelined { worked: true }),
                Action::PipeliningBroke => (self.told)(Milestone::Pipelined { worked: false }),
                Action::Mailboxes(listing) => (self.told)(Milestone::Mailboxes(listing)),
                Action::Surveyed(found) => (self.told)(Milestone::Surveyed(found)),
                Action::Titles(messages) => (self.told)(Milestone::Titles(messages)),
                Action::Deliver(found) => self.asked = Some(Asked::Delivery(self.delivers.deliver(found))),
                Action::Recall(mailbox) => self.asked = Some(Asked::Memory(self.delivers.recall(&mailbox))),
                Action::LookUp(asked) => {
                    // What was delivered of the mailboxes before says nothing of this one.
                    self.delivered = false;
                    self.asked = Some(Asked::Cursor(self.delivers.look_up(asked)));
                }
                Action::Beside(mailboxes) => (self.told)(Milestone::Beside(mailboxes)),
                Action::Shares(holding) => (self.told)(Milestone::Shares(holding)),
                Action::Toured(pace) => (self.told)(Milestone::Toured(pace)),
                Action::Unopened { mailbox, ending } => (self.told)(Milestone::Unopened(mailbox, ending)),
                Action::MailboxesTruncated => (self.told)(Milestone::MailboxesTruncated),
                Action::End(ending) => {
                    self.silent_since = silent_since;
                    return Then::End(Box::new(SessionEnd::Conversation(ending)));
                }
            }
        }
        if let Some(answered) = self.conversation.take_answered() {
            (self.told)(Milestone::Answered(answered));
        }
        then
    }

    /// Writes run to their end under a deadline: half a command cannot be repaired.
    async fn send(&mut self) -> Result<(), SessionEnd> {
        for line in std::mem::take(&mut self.unsent) {
            let Some(link) = &mut self.link else { break };
            let sent = timeout(WRITE, link.send(line.as_bytes())).await.unwrap_or(Err(LinkError::Closed));
            sent.map_err(|error| self.lost(error))?;
        }
        Ok(())
    }

    fn outcome(&self, end: SessionEnd) -> Outcome {
        let silent_since = self.conversation.silent_since().or(self.silent_since);
        let idled = silent_since.map(|since| now().saturating_duration_since(since));
        Outcome {
            end,
            died_fetching: self.fetching && !self.delivered,
            died_pipelining: self.conversation.is_pipelining(),
            idled,
            refused: None,
            visits: self.conversation.visits(),
        }
    }
}
