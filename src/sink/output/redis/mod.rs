//! Events as entries of a stream of Redis or Valkey: XADD, many in one exchange.

mod resp;

use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use self::resp::{Reply, command, meaning, parse, unechoed};
use super::kept_secret::KeptSecret;
use super::{Outcome, Pause};
use crate::config::settings::{Keepalive, RedisSettings};
use crate::sink::batch::Batch;
use crate::text;
use crate::wire::dial::{Addresses, Endpoint, Route, dial};
use crate::wire::tls::{Stream, TlsContexts};

const KEEPALIVE: Keepalive =
    Keepalive { idle: Duration::from_secs(30), interval: Duration::from_secs(10), count: 3 };

/// The server.
#[derive(Debug)]
pub struct RedisOutput {
    settings: RedisSettings,
    password: Option<KeptSecret>,
    contexts: TlsContexts,
    addresses: Addresses,
    connection: Option<Connection>,
}

/// One that has logged in.
#[derive(Debug)]
struct Connection {
    stream: Stream,
    /// What came and is not yet read.
    rest: Vec<u8>,
}

impl RedisOutput {
    /// Nothing is connected yet.
    pub fn new(settings: &RedisSettings) -> Self {
        Self {
            password: settings.password.clone().map(KeptSecret::new),
            settings: settings.clone(),
            contexts: TlsContexts::default(),
            addresses: Addresses::default(),
            connection: None,
        }
    }

    /// Offers a batch: one exchange.
    pub async fn deliver(&mut self, batch: &Batch) -> Outcome {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.connect().await {
                Ok(connection) => connection,
                Err(outcome) => return outcome,
            },
        };
        let limit = self.settings.timeout;
        let mut taken = 0;
        match timeout(limit, connection.add(&self.commands(batch), batch.len(), &mut taken)).await {
            Ok(Ok(())) => {
                self.connection = Some(connection);
                Outcome::Taken
            }
            Ok(Err(outcome)) => behind(taken, outcome),
            Err(_) => behind(taken, Outcome::again(format!("the server said nothing for {limit:?}"))),
        }
    }

    fn commands(&self, batch: &Batch) -> Vec<u8> {
        let mut out = Vec::with_capacity(batch.text().len() + batch.len() * 200);
        let most = self.settings.max_len.map(|most| most.to_string());
        for (item, line) in batch.lines() {
            let mut words: Vec<&[u8]> = vec![b"XADD", self.settings.stream.as_bytes()];
            if let Some(most) = &most {
                words.extend([b"MAXLEN".as_slice(), b"~", most.as_bytes()]);
            }
            let action = item.event.body.action().as_str();
            words.extend([b"*".as_slice(), b"event_id", item.event.id.as_bytes()]);
            words.extend([b"event_action".as_slice(), action.as_bytes(), b"event", line]);
            command(&words, &mut out);
        }
        out
    }

    async fn connect(&mut self) -> Result<Connection, Outcome> {
        let settings = &self.settings;
        let endpoint = Endpoint {
            host: settings.host.clone(),
            port: settings.port,
            connect_timeout: settings.connect_timeout,
            keepalive: KEEPALIVE,
            route: Route::default(),
        };
        let tcp =
            dial(&endpoint, &self.addresses).await.map_err(|error| Outcome::again(error.to_string()))?;
        let stream = if settings.is_tls {
            let contexts = &self.contexts;
            let shaken =
                contexts.handshake(&settings.tls_options, &settings.host, tcp, settings.connect_timeout);
            shaken.await.map_err(|error| Outcome::TryAgain {
                taken: 0,
                pause: if error.needs_operator() { Pause::Slowly } else { Pause::Backoff },
                reason: error.to_string(),
            })?
        } else {
            Stream::Plain(tcp)
        };
        let mut connection = Connection { stream, rest: Vec::new() };
        let (commands, count) = self.greeting().await?;
        let limit = self.settings.timeout;
        let entered = timeout(limit, connection.add(&commands, count, &mut 0)).await;
        let entered = entered.unwrap_or_else(|_| Err(Outcome::again("the server does not let us in")));
        if let (Err(_), Some(password)) = (&entered, &mut self.password) {
            password.forget();
        }
        entered.map(|()| connection)
    }

    /// AUTH and SELECT, where they are needed, and how many that are.
    async fn greeting(&mut self) -> Result<(Vec<u8>, usize), Outcome> {
        let (mut out, mut count) = (Vec::new(), 0);
        if let Some(password) = &mut self.password {
            let password = password.get().await?.expose_secret().as_bytes();
            let mut words: Vec<&[u8]> = vec![b"AUTH"];
            words.extend(self.settings.user.as_deref().map(str::as_bytes));
            words.push(password);
            command(&words, &mut out);
            count += 1;
        }
        if self.settings.database > 0 {
            command(&[b"SELECT", self.settings.database.to_string().as_bytes()], &mut out);
            count += 1;
        }
        Ok((out, count))
    }
}

/// Of an exchange that failed, what went before.
fn behind(before: usize, outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::TryAgain { pause, reason, .. } => Outcome::TryAgain { taken: before, pause, reason },
        other => other,
    }
}

impl Connection {
    /// Sends commands and waits for `count` good replies; `good` says how many came until now.
    async fn add(&mut self, commands: &[u8], count: usize, good: &mut usize) -> Result<(), Outcome> {
        let broke = |error: std::io::Error| Outcome::again(format!("the connection broke: {error}"));
        self.stream.write_all(commands).await.map_err(broke)?;
        self.stream.flush().await.map_err(broke)?;
        while *good < count {
            match self.reply().await? {
                Reply::Good => *good += 1,
                Reply::Error(words) => {
                    let pause = meaning(&words);
                    let reason = format!("the server answered: {}", text::line(unechoed(&words), 200));
                    return Err(Outcome::TryAgain { taken: 0, pause, reason });
                }
            }
        }
        Ok(())
    }

    async fn reply(&mut self) -> Result<Reply, Outcome> {
        loop {
            let parsed = parse(&self.rest).map_err(|error| Outcome::TryAgain {
                taken: 0,
                pause: Pause::Slowly,
                reason: error.to_string(),
            })?;
            if let Some((reply, length)) = parsed {
                self.rest.drain(..length);
                return Ok(reply);
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more).await {
                Ok(0) => return Err(Outcome::again("the server closed the connection")),
                Ok(read) => self.rest.extend_from_slice(more.get(..read).unwrap_or_default()),
                Err(error) => return Err(Outcome::again(format!("the connection broke: {error}"))),
            }
        }
    }
}
