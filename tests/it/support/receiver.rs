//! A strict HTTP server that events are POSTed to, and that misbehaves as it is told.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ring::hmac;
use serde_json::Value;

use super::event;

pub const SECRET: &str = "canary-of-the-webhook";

/// What a request gets. Everything but `Take` and `Lose` takes nothing.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Takes it, and says so.
    Take,
    /// Takes it, and hangs up.
    Lose,
    /// It was taken, and this is said of it.
    Told(String),
    /// A status, with these further header lines.
    Status(u16, String),
    /// A status, and everything that it was sent, as its words.
    Repeat(u16),
    /// A status, and behind it at once another answer that nobody asked for: 204.
    Twice(u16),
    /// A status with half a body, and hangs up.
    Half(u16),
    /// A 204 that comes so late, when nobody may wait for it any longer.
    Late(Duration),
    /// Says nothing until the other side goes.
    Hang,
    /// A status, and a body of a byte a second.
    Slow(u16),
    /// A status, and a body without end.
    Huge(u16),
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self::Status(status, String::new())
    }
}

/// What takes requests in place of the webhook's receiver: the events that are new to it, and its answer.
pub trait Consumer: Send {
    /// # Errors
    /// What no such request may be.
    fn take(&mut self, head: &[String], body: &[u8]) -> Result<(Vec<Value>, String), String>;
}

#[derive(Default)]
struct Inbox {
    consumer: Option<Box<dyn Consumer>>,
    /// The next answers; then `rule`.
    script: VecDeque<Answer>,
    /// Answers at random.
    chaos: Option<StdRng>,
    /// Whoever comes is hung up on.
    closed: bool,
    /// Batches with this text are not acceptable.
    poison: Option<String>,
    asked: Vec<String>,
    bodies: Vec<String>,
    keys: HashMap<String, Vec<String>>,
    repeated: usize,
    taken: Vec<Value>,
    /// What no webhook may do.
    violations: Vec<String>,
}

#[derive(Clone)]
pub struct Receiver {
    pub port: u16,
    inbox: Arc<Mutex<Inbox>>,
}

impl Receiver {
    pub fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        Self::serving(script, None)
    }

    pub fn of(consumer: impl Consumer + 'static, script: impl IntoIterator<Item = Answer>) -> Self {
        Self::serving(script, Some(Box::new(consumer)))
    }

    fn serving(script: impl IntoIterator<Item = Answer>, consumer: Option<Box<dyn Consumer>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let inbox = Inbox { script: script.into_iter().collect(), consumer, ..Inbox::default() };
        let receiver = Self { port, inbox: Arc::new(Mutex::new(inbox)) };
        let server = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(&stream));
            }
        });
        receiver
    }

    fn inbox<T>(&self, of: impl FnOnce(&mut Inbox) -> T) -> T {
        of(&mut self.inbox.lock().unwrap())
    }

    /// A tenth of all requests is refused, and of another the answer is lost.
    pub fn be_unreliable(&self, seed: u64) {
        self.inbox(|inbox| inbox.chaos = Some(StdRng::seed_from_u64(seed)));
    }

    /// Whether it is as good as not there.
    #[cfg(any(feature = "nats", feature = "postgres"))]
    pub fn close(&self, closed: bool) {
        self.inbox(|inbox| inbox.closed = closed);
    }

    pub fn reject(&self, text: &str) {
        self.inbox(|inbox| inbox.poison = Some(text.to_owned()));
    }

    /// The events that were taken, repetitions too.
    pub fn taken(&self) -> Vec<Value> {
        self.inbox(|inbox| {
            assert_eq!(inbox.violations, Vec::<String>::new());
            inbox.taken.clone()
        })
    }

    /// The request lines.
    pub fn asked(&self) -> Vec<String> {
        self.inbox(|inbox| inbox.asked.clone())
    }

    /// What came with them.
    pub fn bodies(&self) -> Vec<String> {
        self.inbox(|inbox| inbox.bodies.clone())
    }

    /// Requests whose key had been seen before.
    pub fn repeated(&self) -> usize {
        self.inbox(|inbox| inbox.repeated)
    }

    fn serve(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some((head, body)) = request(&mut reader) {
            if self.inbox(|inbox| inbox.closed) {
                return;
            }
            let answer = match self.inbox(|inbox| inbox.take(&head, &body)) {
                Answer::Repeat(status) => {
                    if repeat(stream, status, &head, &body).is_none() {
                        return;
                    }
                    continue;
                }
                answer => answer,
            };
            if reply(stream, &answer).is_none() {
                return;
            }
        }
    }
}

/// The head's lines and the body of an HTTP request.
pub fn request(reader: &mut impl BufRead) -> Option<(Vec<String>, Vec<u8>)> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let length = header(&head, "content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// A header field that has to be there.
pub fn field<'a>(head: &'a [String], name: &str) -> Result<&'a str, String> {
    header(head, name).ok_or_else(|| format!("no {name}: {head:?}"))
}

fn header<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let fields = head.iter().skip(1).filter_map(|line| line.split_once(": "));
    fields.into_iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// What is said is said first of what nobody should repeat.
fn repeat(mut stream: &TcpStream, status: u16, head: &[String], body: &[u8]) -> Option<()> {
    let login = header(head, "authorization").unwrap_or_default();
    let subject = String::from_utf8_lossy(body);
    let subject = subject.split_once("\"subject\":").map_or("", |(_, rest)| rest);
    let said: String = format!("{login} {subject}").chars().take(190).collect();
    let text = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{said}", said.len());
    stream.write_all(text.as_bytes()).ok()
}

/// `None` where the connection is over.
fn reply(mut stream: &TcpStream, answer: &Answer) -> Option<()> {
    match answer {
        Answer::Take => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok(),
        Answer::Lose => None,
        Answer::Told(text) => {
            let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            stream.write_all(text.as_bytes()).ok()
        }
        Answer::Status(status, more) => {
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 9\r\n{more}\r\nsome\x1b[2Jw");
            stream.write_all(text.as_bytes()).ok()
        }
        Answer::Repeat(status) => repeat(stream, *status, &[], &[]),
        Answer::Twice(status) => {
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\nno");
            stream.write_all(format!("{text}HTTP/1.1 204 No Content\r\n\r\n").as_bytes()).ok()
        }
        Answer::Half(status) => {
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 100\r\n\r\n{{\"items\":[");
            let _ = stream.write_all(text.as_bytes());
            None
        }
        Answer::Late(after) => {
            std::thread::sleep(*after);
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()
        }
        Answer::Hang => {
            let _ = stream.read(&mut [0]);
            None
        }
        Answer::Slow(status) => {
            stream
                .write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 1000\r\n\r\n").as_bytes())
                .ok()?;
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_secs(1));
            }
            None
        }
        Answer::Huge(status) => {
            stream
                .write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: 99999999999\r\n\r\n").as_bytes())
                .ok()?;
            while stream.write_all(&[b'x'; 65536]).is_ok() {}
            None
        }
    }
}

impl Inbox {
    fn take(&mut self, head: &[String], body: &[u8]) -> Answer {
        self.asked.push(head[0].clone());
        self.bodies.push(String::from_utf8_lossy(body).into_owned());
        if self.consumer.is_some() {
            return self.consume(head, body);
        }
        let events = match self.read(head, body) {
            Ok(events) => events,
            Err(violation) => {
                self.violations.push(violation);
                return Answer::status(400);
            }
        };
        let answer = self.answer(body);
        if matches!(answer, Answer::Take | Answer::Lose) {
            self.taken.extend(events);
        }
        answer
    }

    fn consume(&mut self, head: &[String], body: &[u8]) -> Answer {
        let answer = self.answer(body);
        let Some(consumer) = &mut self.consumer else { return answer };
        if !matches!(answer, Answer::Take | Answer::Lose) {
            return answer;
        }
        match consumer.take(head, body) {
            Ok((events, said)) => {
                self.taken.extend(events);
                if matches!(answer, Answer::Lose) { answer } else { Answer::Told(said) }
            }
            Err(violation) => {
                self.violations.push(violation);
                Answer::status(400)
            }
        }
    }

    fn answer(&mut self, body: &[u8]) -> Answer {
        if let Some(poison) = &self.poison
            && String::from_utf8_lossy(body).contains(poison)
        {
            return Answer::status(422);
        }
        if let Some(answer) = self.script.pop_front() {
            return answer;
        }
        match self.chaos.as_mut().map(|random| random.random_range(0..20)) {
            Some(0) => Answer::status(500),
            Some(1) => Answer::Status(429, "Retry-After: 0\r\n".to_owned()),
            Some(2 | 3) => Answer::Lose,
            _ => Answer::Take,
        }
    }

    /// Everything that a webhook promises.
    fn read(&mut self, head: &[String], body: &[u8]) -> Result<Vec<Value>, String> {
        verify(field(head, "idlewatch-signature")?, body)?;
        let lines = match field(head, "content-type")? {
            "application/x-ndjson" => String::from_utf8(body.to_vec()).unwrap(),
            "application/json" if header(head, "ce-specversion").is_some() => binary(head, body)?,
            "application/cloudevents+json" => {
                let event: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
                format!("{}\n", event["data"])
            }
            "application/json" => {
                let array: Vec<Value> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
                array.iter().map(|event| format!("{event}\n")).collect()
            }
            other => return Err(format!("the content is {other}")),
        };
        if !lines.ends_with('\n') {
            return Err(format!("no whole lines: {lines}"));
        }
        let events: Vec<_> = lines.lines().map(event).collect();
        let sequences: Vec<_> =
            events.iter().filter_map(|event| event["event"]["sequence"].as_u64()).collect();
        let (first, last) = (sequences[0], sequences[sequences.len() - 1]);
        let instance = events[0]["idlewatch"]["instance"].as_str().unwrap();
        let (key, wanted) =
            (field(head, "idempotency-key")?.to_owned(), format!("{instance}-{first}-{last}"));
        if key != wanted || !sequences.is_sorted() || events.len() > 10 {
            return Err(format!("{key} for {sequences:?}"));
        }
        let ids: Vec<_> = events.iter().map(|event| event["event"]["id"].to_string()).collect();
        match self.keys.insert(key.clone(), ids.clone()) {
            Some(before) if before != ids => return Err(format!("{key} stands for {before:?} and {ids:?}")),
            Some(_) => self.repeated += 1,
            None => {}
        }
        Ok(events)
    }
}

/// The event of a CloudEvent in binary mode.
fn binary(head: &[String], body: &[u8]) -> Result<String, String> {
    let event: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let (uid, sequence) = (&event["idlewatch"]["imap"]["uid"], event["event"]["sequence"].to_string());
    let subject = format!("INBOX;UIDVALIDITY={}/;UID={uid}", event["idlewatch"]["imap"]["uid_validity"]);
    for (name, wanted) in [
        ("ce-specversion", "1.0"),
        ("ce-id", event["event"]["id"].as_str().unwrap_or_default()),
        ("ce-source", "/idlewatch/test/accounts/work"),
        ("ce-type", "io.idlewatch.message.new.v1"),
        ("ce-time", event["@timestamp"].as_str().unwrap_or_default()),
        ("ce-sequence", &sequence),
        ("ce-subject", &subject),
        ("ce-partitionkey", "work"),
    ] {
        let found = field(head, name)?;
        if found != wanted {
            return Err(format!("{name} is {found}, and not {wanted}"));
        }
    }
    Ok(format!("{event}\n"))
}

fn verify(signature: &str, body: &[u8]) -> Result<(), String> {
    let (time, made) =
        signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).ok_or(signature)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signed = [time.as_bytes(), b".", body].concat();
    let made = data_encoding::HEXLOWER.decode(made.as_bytes()).map_err(|error| error.to_string())?;
    hmac::verify(&key, &signed, &made).map_err(|_| format!("wrong signature {signature}"))
}
