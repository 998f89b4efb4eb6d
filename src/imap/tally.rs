//! Is there news? Two numbers, not a flag.

/// How many messages the selected mailbox holds, and how many of them were already asked for.
///
/// `asked` is moved when a FETCH is *issued*, not when it completes: what arrives while it runs is news again.
/// Both are counts, so they hold for any order of EXISTS and EXPUNGE (RFC 9051 sections 7.4.1 and 7.5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    exists: u32,
    asked: u32,
    missed: u32,
}

impl Tally {
    /// A mailbox of `exists` messages, all of them asked for.
    pub fn new(exists: u32) -> Self {
        Self { exists, asked: exists, missed: 0 }
    }

    /// EXISTS, as last told.
    pub fn exists(&self) -> u32 {
        self.exists
    }

    /// How many messages were not asked for yet.
    pub fn news(&self) -> u32 {
        self.exists.saturating_sub(self.asked)
    }

    /// How many messages went before they were asked for, since the last [`Self::take_missed`].
    pub fn missed(&self) -> u32 {
        self.missed
    }

    /// Forgets the messages that went unasked.
    pub fn take_missed(&mut self) -> u32 {
        std::mem::take(&mut self.missed)
    }

    /// `n EXISTS`. Some servers lower it without an EXPUNGE.
    pub fn told_exists(&mut self, n: u32) {
        self.exists = n;
        self.asked = self.asked.min(n);
    }

    /// `seq EXPUNGE`: everything above moves down by one.
    pub fn told_expunge(&mut self, seq: u32) {
        if seq == 0 || seq > self.exists {
            return;
        }
        self.exists -= 1;
        if seq <= self.asked {
            self.asked -= 1;
        } else {
            self.missed = self.missed.saturating_add(1);
        }
    }

    /// `VANISHED` of `count` messages: which ones is not known by number, so rather ask once too often.
    pub fn told_vanished(&mut self, count: u64) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.exists = self.exists.saturating_sub(count);
        self.asked = self.asked.saturating_sub(count).min(self.exists);
    }

    /// Message `seq` was told unasked. It counts as asked for if it is the first that was not, and EXISTS knows of it.
    pub fn take_next(&mut self, seq: u32) -> bool {
        let is_next = seq <= self.exists && Some(seq) == self.asked.checked_add(1);
        self.asked += u32::from(is_next);
        is_next
    }

    /// A FETCH of all that is new is issued now; how many messages it should tell.
    pub fn ask(&mut self) -> u32 {
        let news = self.news();
        self.asked = self.exists;
        news
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server's mailbox and what it tells, against a client that fetches whenever the tally says so.
    #[derive(Clone, Debug)]
    enum Step {
        Arrive(u8),
        Expunge(u8),
        Issue,
        Complete,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1u8..4).prop_map(Step::Arrive),
            any::<u8>().prop_map(Step::Expunge),
            Just(Step::Issue),
            Just(Step::Complete),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// The FETCH takes its snapshot on the server at the moment it is issued; what comes later must be news.
        #[test]
        fn no_message_is_left_behind(steps in steps()) {
            let (mut mailbox, mut next) = (Vec::<u32>::new(), 1u32);
            let (mut tally, mut running, mut told) = (Tally::new(0), None::<Vec<u32>>, Vec::new());
            for step in steps {
                match step {
                    Step::Arrive(n) => {
                        for _ in 0..n { mailbox.push(next); next += 1; }
                        tally.told_exists(mailbox.len() as u32);
                    }
                    Step::Expunge(at) if !mailbox.is_empty() => {
                        let seq = usize::from(at) % mailbox.len();
                        mailbox.remove(seq);
                        tally.told_expunge(seq as u32 + 1);
                    }
                    Step::Issue if running.is_none() && tally.news() > 0 => {
                        tally.ask();
                        running = Some(mailbox.clone());
                    }
                    Step::Complete => told.extend(running.take().into_iter().flatten()),
                    _ => {}
                }
            }
            told.extend(running.take().into_iter().flatten());
            if tally.news() > 0 { told.extend(mailbox.iter().copied()); }
            prop_assert!(mailbox.iter().all(|uid| told.contains(uid)), "{mailbox:?} {told:?}");
        }

        #[test]
        fn numbers_never_wrap(events in prop::collection::vec((0u8..3, any::<u32>()), 0..40)) {
            let mut tally = Tally::new(3);
            for (kind, n) in events {
                match kind {
                    0 => tally.told_exists(n),
                    1 => tally.told_expunge(n),
                    _ => tally.told_vanished(u64::from(n)),
                }
                prop_assert!(tally.news() <= tally.exists());
            }
        }
    }

    #[test]
    fn only_the_first_message_that_was_not_asked_for_can_be_told_unasked() {
        let mut tally = Tally::new(2);
        assert!(!tally.take_next(3), "EXISTS knows nothing of it");
        tally.told_exists(4);
        assert!(!tally.take_next(4) && !tally.take_next(2) && !tally.take_next(0));
        assert!(tally.take_next(3) && tally.news() == 1 && !tally.take_next(3));
        assert!(tally.take_next(4) && tally.news() == 0);
        assert!(!Tally::new(u32::MAX).take_next(0));
    }

    #[test]
    fn a_message_that_goes_before_it_was_asked_for_is_counted() {
        let mut tally = Tally::new(2);
        tally.told_exists(3);
        tally.told_expunge(3);
        assert_eq!((tally.news(), tally.take_missed(), tally.missed()), (0, 1, 0));
    }
}
