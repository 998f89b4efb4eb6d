//! Events as records of a topic of Kafka, by librdkafka: once and in order while a producer lives, at least once over
//! its ends.
//!
//! A producer never gives up a record for time alone. What it has when a batch is late it keeps, and the batch is known
//! again when it is offered again: an outage of the brokers doubles nothing.

mod meaning;
mod producer;

use std::sync::Arc;

use self::producer::{Ended, Producer};
use super::kept_secret::KeptSecret;
use super::{Outcome, Pause};
use crate::config::settings::KafkaSettings;
use crate::sink::batch::Batch;
use crate::text;

/// The topic.
#[derive(Debug)]
pub struct KafkaOutput {
    settings: KafkaSettings,
    instance: Arc<str>,
    password: Option<KeptSecret>,
    producer: Option<Producer>,
}

impl KafkaOutput {
    /// Nothing is connected yet.
    pub fn new(settings: &KafkaSettings, instance: &str) -> Self {
        Self {
            password: settings.login.as_ref().map(|login| KeptSecret::new(login.password.clone())),
            settings: settings.clone(),
            instance: instance.into(),
            producer: None,
        }
    }

    /// Offers a batch: taken is what the brokers acknowledged, all replicas that are in sync.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        let mut producer = match self.producer.take() {
            Some(producer) => producer,
            None => match self.begin().await {
                Ok(producer) => producer,
                Err(outcome) => return outcome,
            },
        };
        let settings = &self.settings;
        let (outcome, goes_on) =
            match producer.offer(&settings.topic, &self.instance, batch, settings.timeout).await {
                Ended::Stored => (Outcome::Taken, true),
                Ended::Waiting(outcome) => (outcome, true),
                Ended::Failed(outcome) => (outcome, false),
            };
        if goes_on {
            self.producer = Some(producer);
        } else if let Some(password) = &mut self.password {
            password.forget();
        }
        outcome
    }

    async fn begin(&mut self) -> Result<Producer, Outcome> {
        let password = match &mut self.password {
            Some(password) => Some(password.get().await?),
            None => None,
        };
        Producer::new(&self.settings, password).map_err(|error| Outcome::TryAgain {
            taken: 0,
            pause: Pause::Slowly,
            reason: format!("no producer can be made: {}", text::line(&error.to_string(), 300)),
        })
    }
}
