//! What an error of Kafka means for a batch. Pure.

use rdkafka::types::RDKafkaErrorCode as Code;

use crate::sink::output::{Outcome, Pause};

/// What is wrong, the worst last: of several failures in a batch, the worst decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meaning {
    /// It may go by itself, or follows from another failure.
    Passing,
    /// A person has to change something.
    Operator,
    /// This record will never be taken, or not beside so many others.
    Unacceptable,
}

impl Meaning {
    pub(super) fn of(code: Option<Code>) -> Self {
        match code {
            Some(
                Code::MessageSizeTooLarge
                | Code::InvalidMessageSize
                | Code::MessageBatchTooLarge
                | Code::InvalidRecord,
            ) => Self::Unacceptable,
            Some(
                Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
                | Code::InvalidTopic
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::UnsupportedSASLMechanism
                | Code::IllegalSASLState
                | Code::SSL
                | Code::InvalidRequiredAcks
                | Code::UnsupportedVersion
                | Code::UnsupportedForMessageFormat
                | Code::UnsupportedFeature,
            ) => Self::Operator,
            _ => Self::Passing,
        }
    }

    /// For a batch of which the first `taken` records are stored. A record is refused for itself only: those before it
    /// are not offered again with it.
    pub(super) fn outcome(self, taken: usize, reason: String) -> Outcome {
        let pause = match self {
            Self::Unacceptable if taken == 0 => return Outcome::Rejected { reason },
            Self::Unacceptable => Pause::For(std::time::Duration::ZERO),
            Self::Operator => Pause::Slowly,
            Self::Passing => Pause::Backoff,
        };
        Outcome::TryAgain { taken, pause, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_refused_for_itself_alone() {
        assert!(matches!(Meaning::Unacceptable.outcome(0, String::new()), Outcome::Rejected { .. }));
        let Outcome::TryAgain { taken: 3, pause: Pause::For(_), .. } =
            Meaning::Unacceptable.outcome(3, String::new())
        else {
            panic!()
        };
    }

    #[test]
    fn the_worst_of_several_failures_decides() {
        let worst = |codes: &[Code]| codes.iter().map(|code| Meaning::of(Some(*code))).max().unwrap();
        // What follows from the first failure, and what was behind it.
        let behind = [Code::GaplessGuarantee, Code::Fatal, Code::PurgeQueue, Code::PurgeInflight];
        assert_eq!(worst(&behind), Meaning::Passing);
        assert_eq!(
            worst(&[Code::Fatal, Code::TopicAuthorizationFailed, Code::PurgeQueue]),
            Meaning::Operator
        );
        assert_eq!(
            worst(&[Code::Fatal, Code::MessageSizeTooLarge, Code::UnknownTopic]),
            Meaning::Unacceptable
        );
        assert_eq!(Meaning::of(None), Meaning::Passing);
    }

    #[test]
    fn what_may_pass_is_tried_soon_and_what_a_person_has_to_mend_is_not() {
        for code in
            [Code::BrokerTransportFailure, Code::AllBrokersDown, Code::NotEnoughReplicas, Code::QueueFull]
        {
            let outcome = Meaning::of(Some(code)).outcome(0, String::new());
            assert!(matches!(outcome, Outcome::TryAgain { pause: Pause::Backoff, .. }), "{code}");
        }
        for code in [Code::UnknownTopic, Code::SaslAuthenticationFailed, Code::Authentication, Code::SSL] {
            let outcome = Meaning::of(Some(code)).outcome(2, String::new());
            assert!(matches!(outcome, Outcome::TryAgain { taken: 2, pause: Pause::Slowly, .. }), "{code}");
        }
    }
}
