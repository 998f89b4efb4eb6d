//! What the end of a program says of the events that it got. Pure.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use crate::sink::output::{Outcome, Pause};
use crate::text;

/// As sysexits(3) has it: an event is not acceptable.
const DATAERR: i32 = 65;

/// Usage, no permission, configuration; not executable, not found (as a shell says): somebody has to mend it.
const FOR_A_PERSON: [i32; 5] = [64, 77, 78, 126, 127];

/// The exit status is the acknowledgement. `said` is the end of what it wrote to stderr.
pub(super) fn verdict(program: &str, status: ExitStatus, said: &[u8]) -> Outcome {
    let reason = || format!("{program}: {}{}", end(status), last_words(said));
    match status.code() {
        Some(0) => Outcome::Taken,
        Some(DATAERR) => Outcome::Rejected { reason: reason() },
        Some(code) if FOR_A_PERSON.contains(&code) => {
            Outcome::TryAgain { taken: 0, pause: Pause::Slowly, reason: reason() }
        }
        _ => Outcome::again(reason()),
    }
}

fn end(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with {code}"),
        (None, Some(signal)) => format!("signal {signal} ended it"),
        (None, None) => "it ended".to_owned(),
    }
}

/// Its last line; of what a program writes in the end, that tells most.
fn last_words(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().rev().map(str::trim).find(|line| !line.is_empty());
    last.map(|last| format!(": {}", text::line(last, 300))).unwrap_or_default()
}

/// Of shares of a batch that were handed over at the same time, each with its number of events. What follows one that
/// was not taken comes again, whatever became of it: events are taken in their order.
pub(super) fn together(shares: Vec<(usize, Outcome)>) -> Outcome {
    let mut before = 0;
    for (events, outcome) in shares {
        match outcome {
            Outcome::Taken => before += events,
            other if before == 0 => return other,
            Outcome::TryAgain { taken, pause, reason } => {
                return Outcome::TryAgain { taken: before + taken, pause, reason };
            }
            // It comes first the next time.
            other => {
                let reason = other.reason().unwrap_or_default().to_owned();
                return Outcome::TryAgain { taken: before, pause: Pause::For(Duration::ZERO), reason };
            }
        }
    }
    Outcome::Taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(wait_status: i32) -> Outcome {
        verdict("notify", ExitStatus::from_raw(wait_status), b"Traceback\nKeyError: \x1b[2J\xff\n\n")
    }

    #[test]
    fn an_exit_status_is_an_answer() {
        assert_eq!(of(0), Outcome::Taken);
        let reason = "notify: it ended with 65: KeyError: \u{fffd}[2J\u{fffd}".to_owned();
        assert_eq!(of(65 << 8), Outcome::Rejected { reason });
        for (status, pause) in [
            (75, Pause::Backoff),
            (1, Pause::Backoff),
            (64, Pause::Slowly),
            (77, Pause::Slowly),
            (78, Pause::Slowly),
            (126, Pause::Slowly),
            (127, Pause::Slowly),
        ] {
            let Outcome::TryAgain { taken: 0, pause: found, .. } = of(status << 8) else {
                panic!("{status}")
            };
            assert_eq!(found, pause, "{status}");
        }
        let Outcome::TryAgain { reason, .. } = of(9) else { panic!() };
        assert!(reason.starts_with("notify: signal 9 ended it: KeyError"), "{reason}");
    }

    #[test]
    fn shares_are_taken_in_their_order() {
        let rejected = || Outcome::Rejected { reason: "no".to_owned() };
        let again = || Outcome::again("later");
        let taken = || Outcome::Taken;
        let outcome = |shares: [Outcome; 3]| together(shares.map(|outcome| (10, outcome)).into());
        assert_eq!(outcome([taken(), taken(), taken()]), taken());
        assert_eq!(outcome([again(), taken(), taken()]), again());
        assert_eq!(outcome([rejected(), taken(), again()]), rejected());
        let Outcome::TryAgain { taken: 20, pause: Pause::Backoff, .. } = outcome([taken(), taken(), again()])
        else {
            panic!()
        };
        let Outcome::TryAgain { taken: 10, pause: Pause::For(_), .. } =
            outcome([taken(), rejected(), taken()])
        else {
            panic!()
        };
    }
}
