//! Events by HTTP POST: signed, with a key by which a receiver knows a repetition.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use ring::hmac;
use secrecy::ExposeSecret;

use super::http::Endpoint;
use super::kept_secret::KeptSecret;
use super::{Outcome, OutputError, Pause};
use crate::config::settings::{OutputFormat, WebhookBody, WebhookSettings};
use crate::sink::batch::Batch;
use crate::sink::encode::cloudevents;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const SIGNATURE: HeaderName = HeaderName::from_static("idlewatch-signature");

/// The webhook.
#[derive(Debug)]
pub struct WebhookOutput {
    endpoint: Endpoint,
    secret: Option<KeptSecret>,
    body: WebhookBody,
    content_type: &'static str,
    instance: String,
}

impl WebhookOutput {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// Where there is no client to be had.
    pub fn open(
        settings: &WebhookSettings,
        format: OutputFormat,
        instance: &str,
    ) -> Result<Self, OutputError> {
        Ok(Self {
            endpoint: Endpoint::new(&settings.http)?,
            secret: settings.secret.clone().map(KeptSecret::new),
            body: settings.body,
            content_type: content_type(settings.body, format),
            instance: header_text(instance),
        })
    }

    /// Offers a batch: one request, or one after the other for each event.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        if matches!(self.body, WebhookBody::Ndjson | WebhookBody::Json) {
            return self.offer(batch).await;
        }
        let mut taken = 0;
        while taken < batch.len() {
            let (one, _) = batch.split(taken).1.split(1);
            match self.offer(&one).await {
                Outcome::Taken => taken += 1,
                other => return behind(taken, other),
            }
        }
        Outcome::Taken
    }

    async fn offer(&mut self, batch: &Batch) -> Outcome {
        match self.post(batch).await {
            Ok(outcome) | Err(outcome) => outcome,
        }
    }

    async fn post(&mut self, batch: &Batch) -> Result<Outcome, Outcome> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        let body = match self.body {
            WebhookBody::Binary => binary(batch, &mut headers)
                .ok_or_else(|| Outcome::Rejected { reason: "it makes no CloudEvent".to_owned() })?,
            form => body(form, batch),
        };
        let (first, last) = batch.sequences();
        let key = HeaderValue::try_from(format!("{}-{first}-{last}", self.instance));
        headers.insert(IDEMPOTENCY_KEY, key.map_err(|error| Outcome::again(error.to_string()))?);
        if let Some(secret) = &mut self.secret {
            let signature = signature(secret.get().await?.expose_secret(), now(), &body);
            let value =
                HeaderValue::try_from(signature).map_err(|error| Outcome::again(error.to_string()))?;
            headers.insert(SIGNATURE, value);
        }
        let answer = self.endpoint.post(self.endpoint.url().clone(), headers, body).await?;
        if let (401 | 403, Some(secret)) = (answer.status.as_u16(), &mut self.secret) {
            secret.forget();
        }
        Ok(answer.outcome())
    }
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn content_type(body: WebhookBody, format: OutputFormat) -> &'static str {
    match (body, format) {
        (WebhookBody::Ndjson, OutputFormat::Pretty) => "text/plain; charset=utf-8",
        (WebhookBody::Ndjson, _) => "application/x-ndjson",
        (WebhookBody::Json, OutputFormat::CloudEvents) => "application/cloudevents-batch+json",
        (WebhookBody::Single, OutputFormat::CloudEvents) => "application/cloudevents+json",
        (WebhookBody::Single, OutputFormat::Pretty) => "text/plain; charset=utf-8",
        (WebhookBody::Json | WebhookBody::Single | WebhookBody::Binary, _) => "application/json",
    }
}

/// After `taken` events, which are not offered again with the one that was not.
fn behind(taken: usize, outcome: Outcome) -> Outcome {
    match outcome {
        other if taken == 0 => other,
        Outcome::TryAgain { pause, reason, .. } | Outcome::Strained { pause, reason } => {
            Outcome::TryAgain { taken, pause, reason }
        }
        // It comes first the next time.
        Outcome::Rejected { reason } => {
            Outcome::TryAgain { taken, pause: Pause::For(Duration::ZERO), reason }
        }
        other => other,
    }
}

/// The data of a CloudEvent; its attributes go into headers (HTTP Protocol Binding for CloudEvents 1.0, section 3.1).
fn binary(batch: &Batch, headers: &mut HeaderMap) -> Option<Bytes> {
    let (_, line) = batch.lines().next()?;
    let (attributes, data) = cloudevents::parts(line)?;
    let attributes: BTreeMap<String, String> = serde_json::from_slice(&attributes).ok()?;
    for (name, value) in &attributes {
        // What it says of the data is said by Content-Type.
        if name != "datacontenttype" {
            let name = HeaderName::try_from(format!("ce-{name}")).ok()?;
            headers.insert(name, HeaderValue::try_from(header_value(value)).ok()?);
        }
    }
    Some(Bytes::copy_from_slice(data))
}

/// As section 3.1.3.2 has it: spaces, quotes, percent signs and what is not printable ASCII are percent-encoded.
fn header_value(text: &str) -> String {
    header_text(text).replace('"', "%22")
}

fn body(form: WebhookBody, batch: &Batch) -> Bytes {
    if form != WebhookBody::Json {
        return batch.text();
    }
    let mut body = vec![b'['];
    for (at, (_, line)) in batch.lines().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(line);
    }
    body.push(b']');
    body.into()
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 of `SECONDS.BODY`, so that an old request cannot be sent again by others.
fn signature(secret: &str, seconds: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(seconds.to_string().as_bytes());
    context.update(b".");
    context.update(body);
    format!("t={seconds},v1={}", data_encoding::HEXLOWER.encode(context.sign().as_ref()))
}

/// What can stand in a header: whatever else is percent-encoded.
fn header_text(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'!'..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::super::batch::tests::batch;
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_makes_of_it() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac canary
        let made = signature("canary", 1_700_000_000, br#"{"a":1}"#);
        assert_eq!(made, "t=1700000000,v1=0ef199e50eb7d8fe343091ef326a7df5969acd5fcf1e9150c6ba77530357248a");
    }

    #[test]
    fn both_bodies_hold_every_event_once() {
        let batch = batch(3..6);
        let array: Vec<serde_json::Value> = serde_json::from_slice(&body(WebhookBody::Json, &batch)).unwrap();
        let lines = body(WebhookBody::Ndjson, &batch);
        let lines: Vec<serde_json::Value> = lines
            .split_inclusive(|b| *b == b'\n')
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(array, lines);
        assert_eq!(
            array.iter().map(|event| event["event"]["sequence"].as_u64().unwrap()).collect::<Vec<_>>(),
            [3, 4, 5]
        );
    }

    #[test]
    fn an_instance_of_any_name_makes_a_header() {
        assert_eq!(header_text("mon-1"), "mon-1");
        assert_eq!(header_text("Mön 1%\n"), "M%C3%B6n%201%25%0A");
    }
}
