//! Events to a program, on its standard input: its exit status is the acknowledgement.

mod program;
mod verdict;

use std::io::ErrorKind;

use futures::future::join_all;

use self::program::{Ended, Program};
use self::verdict::{together, verdict};
use super::{Outcome, Pause};
use crate::config::settings::ExecSettings;
use crate::sink::batch::Batch;

/// The output.
#[derive(Debug)]
pub struct ExecOutput {
    settings: ExecSettings,
    instance: String,
    /// What the log calls it: its arguments are nobody's business.
    name: String,
}

impl ExecOutput {
    /// Nothing runs yet.
    pub fn new(settings: &ExecSettings, instance: &str) -> Self {
        let name = settings.command.first().cloned().unwrap_or_default();
        Self { settings: settings.clone(), instance: instance.to_owned(), name }
    }

    /// Offers a batch: one program, or a share of it to each of several.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        let shares = shares(batch, self.settings.concurrency);
        let outcomes = join_all(shares.iter().map(|share| self.run(share))).await;
        together(shares.iter().map(Batch::len).zip(outcomes).collect())
    }

    async fn run(&self, batch: &Batch) -> Outcome {
        let limit = self.settings.timeout;
        let ended = match Program::start(&self.settings, &self.instance, batch.len()) {
            Ok(program) => program.feed(batch.text(), limit).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(Ended { status: Some(status), said }) => verdict(&self.name, status, &said),
            Ok(Ended { status: None, .. }) => {
                Outcome::again(format!("{}: it ran longer than {limit:?}, and was ended", self.name))
            }
            Err(error) => self.not_started(&error),
        }
    }

    fn not_started(&self, error: &std::io::Error) -> Outcome {
        let for_a_person = [ErrorKind::NotFound, ErrorKind::PermissionDenied].contains(&error.kind());
        let pause = if for_a_person { Pause::Slowly } else { Pause::Backoff };
        Outcome::TryAgain { taken: 0, pause, reason: format!("{}: {error}", self.name) }
    }
}

/// At most so many, none of them empty, each as long as the others but the last.
fn shares(batch: &Batch, most: usize) -> Vec<Batch> {
    let each = batch.len().div_ceil(most.max(1)).max(1);
    let mut shares = Vec::new();
    let mut rest = batch.clone();
    while !rest.is_empty() {
        let (share, others) = rest.split(each);
        shares.push(share);
        rest = others;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::batch::tests::batch;

    #[test]
    fn shares_are_equal_and_in_order() {
        for (events, most, lengths) in
            [(10, 1, vec![10]), (10, 4, vec![3, 3, 3, 1]), (2, 4, vec![1, 1]), (0, 4, vec![])]
        {
            let whole = batch(1..events + 1);
            let shares = shares(&whole, most);
            assert_eq!(shares.iter().map(Batch::len).collect::<Vec<_>>(), lengths);
            let texts: Vec<_> = shares.iter().map(Batch::text).collect();
            assert_eq!(texts.concat(), whole.text());
        }
    }
}
