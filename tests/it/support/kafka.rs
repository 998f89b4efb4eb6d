//! Brokers of Kafka: librdkafka's own cluster, read by kcat; and one that lets nobody in.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::Value;

const BROKERS: i32 = 3;

/// What a producer asks of brokers.
const ASKED: [RDKafkaApiKey; 4] = [
    RDKafkaApiKey::ApiVersion,
    RDKafkaApiKey::Metadata,
    RDKafkaApiKey::InitProducerId,
    RDKafkaApiKey::Produce,
];

/// Three brokers and a topic of four partitions, which live as long as the test.
pub struct Kafka {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

/// One record, whole.
#[derive(Debug)]
pub struct Record {
    pub partition: i64,
    pub offset: i64,
    pub key: String,
    pub event: Value,
}

impl Kafka {
    pub fn start() -> Self {
        assert!(Path::new("/usr/bin/kcat").exists(), "install kcat (see tests/packages.txt)");
        let cluster = MockCluster::new(BROKERS).unwrap();
        cluster.create_topic("idlewatch", 4, BROKERS).unwrap();
        Self { cluster }
    }

    /// As `brokers` of an output.
    pub fn brokers(&self) -> String {
        let brokers = self.cluster.bootstrap_servers();
        brokers.split(',').map(|broker| format!("\"kafka://{broker}\"")).collect::<Vec<_>>().join(", ")
    }

    /// The next requests to produce fail so.
    pub fn refuse(&self, errors: &[RDKafkaRespErr]) {
        self.cluster.request_errors(RDKafkaApiKey::Produce, errors);
    }

    /// Whoever asks for the topic is told so.
    pub fn withhold_topic(&self, error: RDKafkaRespErr) {
        self.cluster.topic_error("idlewatch", error).unwrap();
    }

    /// What is sent is stored at once, and acknowledged so much later.
    pub fn slow(&self, delay: Duration) {
        (1..=BROKERS).for_each(|broker| self.cluster.broker_round_trip_time(broker, delay).unwrap());
    }

    /// Whatever is asked ends the connection. (The cluster's own way gives ports away, and cannot have them back for sure.)
    pub fn down(&self) {
        let gone = vec![RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT; 100_000];
        ASKED.into_iter().for_each(|request| self.cluster.request_errors(request, &gone));
    }

    pub fn up(&self) {
        ASKED.into_iter().for_each(|request| self.cluster.clear_request_errors(request));
    }

    /// All records, in the order of each partition.
    pub fn records(&self) -> Vec<Record> {
        let mut kcat = Command::new("/usr/bin/kcat");
        kcat.args(["-C", "-q", "-e", "-J", "-t", "idlewatch", "-o", "beginning"]);
        kcat.args(["-b", &self.cluster.bootstrap_servers()]);
        let out = String::from_utf8(kcat.output().unwrap().stdout).unwrap();
        let mut records: Vec<_> = out.lines().map(record).collect();
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// The events of each key, in the order of its one partition.
    pub fn events(&self) -> BTreeMap<String, Vec<Value>> {
        let mut events: BTreeMap<_, (i64, Vec<_>)> = BTreeMap::new();
        for record in self.records() {
            let (partition, of_key) =
                events.entry(record.key).or_insert_with(|| (record.partition, Vec::new()));
            assert_eq!(*partition, record.partition);
            of_key.push(record.event);
        }
        events.into_iter().map(|(key, (_, events))| (key, events)).collect()
    }
}

/// Its headers say what the event says.
fn record(line: &str) -> Record {
    let outer: Value = serde_json::from_str(line).unwrap();
    let event = super::event(outer["payload"].as_str().unwrap());
    let headers = outer["headers"].as_array().unwrap();
    assert_eq!([&headers[0], &headers[2]], ["event_id", "event_action"]);
    assert_eq!((&headers[1], &headers[3]), (&event["event"]["id"], &event["event"]["action"]));
    Record {
        partition: outer["partition"].as_i64().unwrap(),
        offset: outer["offset"].as_i64().unwrap(),
        key: outer["key"].as_str().unwrap().to_owned(),
        event,
    }
}

/// A broker that takes logins by PLAIN, refuses all of them, and says in its reply what it was sent.
pub struct Doorkeeper {
    pub port: u16,
    /// What clients sent.
    pub logins: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Doorkeeper {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let logins = Arc::new(Mutex::new(Vec::new()));
        let heard = logins.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let heard = heard.clone();
                thread::spawn(move || serve(stream, &heard));
            }
        });
        Self { port, logins }
    }
}

fn serve(mut stream: TcpStream, heard: &Mutex<Vec<Vec<u8>>>) -> io::Result<()> {
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut request)?;
        let (api, version) = (number(&request[..2]), number(&request[2..4]));
        let mut reply = request[4..8].to_vec();
        // Behind the client's name.
        let body = &request[10 + number(&request[8..10]) as usize..];
        match api {
            18 => reply.extend(versions(version)),
            17 => reply.extend(b"\0\0\0\0\0\x01\0\x05PLAIN"),
            36 => {
                let login = body[4..].to_vec();
                let words = [b"not welcome: ".as_slice(), login.rsplit(|b| *b == 0).next().unwrap()].concat();
                reply.extend(58_u16.to_be_bytes());
                reply.extend((words.len() as u16).to_be_bytes());
                reply.extend(words);
                reply.extend([0; 4 + 8]);
                heard.lock().unwrap().push(login);
            }
            _ => return Ok(()),
        }
        stream.write_all(&(reply.len() as u32).to_be_bytes())?;
        stream.write_all(&reply)?;
    }
}

fn number(bytes: &[u8]) -> u16 {
    u16::from_be_bytes(bytes.try_into().unwrap())
}

/// What requests are known; those of newer versions are told so in the oldest form.
fn versions(asked: u16) -> Vec<u8> {
    let known: [[u16; 3]; 6] = [[0, 0, 7], [3, 0, 4], [17, 0, 1], [18, 0, 0], [22, 0, 1], [36, 0, 1]];
    let mut body = if asked == 0 { vec![0, 0] } else { 35_u16.to_be_bytes().to_vec() };
    body.extend((known.len() as u32).to_be_bytes());
    body.extend(known.iter().flatten().flat_map(|number| number.to_be_bytes()));
    body
}
