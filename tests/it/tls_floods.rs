//! Floods below IMAP: records of TLS that nobody asked for. They cost the server its connection, or are read slowly; the
//! other accounts are told their mail meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use idlewatch::demo::server::{Behaviour, Server};
use idlewatch::demo::store::Store;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::{cipher_suite, default_provider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{
    ConnectionTrafficSecrets, ProtocolVersion, ServerConfig, ServerConnection, version,
};
use tokio_rustls::server::TlsStream;

use crate::support::certificates;
use crate::support::monitor::{Monitor, states, told};
use crate::support::process::open_dir;

const APPLICATION_DATA: u8 = 23;
const HANDSHAKE: u8 = 22;

/// What a server says without end.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Records with nothing in them.
    Empty,
    /// Lines of which each byte is a record.
    Tiny,
    /// New keys (TLS 1.3).
    KeyUpdates,
    /// Wishes to begin anew (TLS 1.2).
    HelloRequests,
}

impl Flood {
    fn config(self, certificates: &Path) -> ServerConfig {
        let mut provider = default_provider();
        // One whose records are sealed alike in both versions, but for a few bytes.
        provider.cipher_suites = vec![
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        let version = if matches!(self, Self::HelloRequests) { &version::TLS12 } else { &version::TLS13 };
        let chain = CertificateDer::pem_file_iter(certificates.join("good.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(certificates.join("good.key")).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        config.enable_secret_extraction = true;
        // No tickets: they would be records beside ours.
        config.send_tls13_tickets = 0;
        config
    }

    /// The next thousand records.
    fn records(self, sealer: &mut Sealer) -> Vec<u8> {
        let line = b"* OK [ALERT] x\r\n";
        let one = |n: usize| match self {
            Self::Empty => sealer.seal(APPLICATION_DATA, b""),
            Self::Tiny => sealer.seal(APPLICATION_DATA, &line[n % line.len()..][..1]),
            Self::HelloRequests => sealer.seal(HANDSHAKE, &[0, 0, 0, 0]),
            Self::KeyUpdates => Vec::new(),
        };
        (0..1008).flat_map(one).collect()
    }
}

/// Makes records as the server's end of a connection does.
struct Sealer {
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    tls13: bool,
}

impl Sealer {
    fn new(connection: ServerConnection) -> Self {
        let tls13 = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let (sequence, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } = secrets else {
            panic!("another cipher")
        };
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_ref()).unwrap());
        Self { key, iv: iv.as_ref().try_into().unwrap(), sequence, tls13 }
    }

    /// RFC 8446 section 5.2; RFC 7905 for TLS 1.2.
    fn seal(&mut self, kind: u8, content: &[u8]) -> Vec<u8> {
        let mut nonce = self.iv;
        let sequence = self.sequence.to_be_bytes();
        nonce[4..].iter_mut().zip(sequence).for_each(|(byte, part)| *byte ^= part);
        self.sequence += 1;
        let mut sealed = content.to_vec();
        let outer = if self.tls13 { APPLICATION_DATA } else { kind };
        if self.tls13 {
            sealed.push(kind);
        }
        let header =
            |length: usize| [&[outer, 3, 3][..], &u16::try_from(length).unwrap().to_be_bytes()].concat();
        let (whole, aad) = match self.tls13 {
            true => (header(sealed.len() + 16), header(sealed.len() + 16)),
            false => (header(sealed.len() + 16), [&sequence[..], &header(sealed.len())].concat()),
        };
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut sealed).unwrap();
        [whole, sealed].concat()
    }
}

/// A server behind TLS that behaves until its first client idles.
struct Flooding {
    port: u16,
    records: Arc<AtomicU64>,
    ended: Arc<AtomicU64>,
}

impl Flooding {
    async fn start(flood: Flood, behind: u16, certificates: &Path) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(flood.config(certificates)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (records, ended) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let server = Self { port: listener.local_addr().unwrap().port(), records, ended };
        let (records, ended) = (server.records.clone(), server.ended.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, records, ended) = (acceptor.clone(), records.clone(), ended.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    if let Some(tls) = until_idle(tls, behind).await {
                        run(flood, tls, &records).await;
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        server
    }

    fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed) > 0
    }
}

/// Carries what client and server say, until the client idles.
async fn until_idle(mut tls: TlsStream<TcpStream>, behind: u16) -> Option<TlsStream<TcpStream>> {
    let mut server = TcpStream::connect(("127.0.0.1", behind)).await.ok()?;
    let (mut said, mut answered) = ([0; 4096], [0; 4096]);
    loop {
        tokio::select! {
            n = tls.read(&mut said) => server.write_all(&said[..n.ok().filter(|n| *n > 0)?]).await.ok()?,
            n = server.read(&mut answered) => {
                let answer = &answered[..n.ok().filter(|n| *n > 0)?];
                tls.write_all(answer).await.ok()?;
                tls.flush().await.ok()?;
                if answer.starts_with(b"+ idling") {
                    return Some(tls);
                }
            }
        }
    }
}

/// Until the client has enough of it.
async fn run(flood: Flood, tls: TlsStream<TcpStream>, sent: &AtomicU64) {
    let (mut tcp, mut connection) = tls.into_inner();
    if matches!(flood, Flood::KeyUpdates) {
        while connection.refresh_traffic_keys().is_ok() {
            let mut record = Vec::new();
            connection.write_tls(&mut record).unwrap();
            if tcp.write_all(&record).await.is_err() {
                return;
            }
            sent.fetch_add(1, Ordering::Relaxed);
        }
        return;
    }
    let mut sealer = Sealer::new(connection);
    while tcp.write_all(&flood.records(&mut sealer)).await.is_ok() {
        sent.fetch_add(1008, Ordering::Relaxed);
    }
}

fn account(id: &str, port: u16, ca_file: Option<&PathBuf>) -> String {
    let tls = match ca_file {
        Some(file) => format!("tls = \"implicit\"\ntls_options = {{ ca_file = {file:?} }}"),
        None => "tls = \"none\"".to_owned(),
    };
    format!(
        "[[accounts]]\nid = \"{id}\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"bob\"\npassword = {{ inline = \"pw\" }}\n{tls}\n"
    )
}

async fn server() -> Server {
    Server::start(Store::new([("bob".to_owned(), "pw".to_owned())]), Behaviour::default()).await.unwrap()
}

/// What a connection may say in this time: a burst, ten thousand records a second, and what lies in buffers of the kernel.
fn allowed(time: Duration) -> u64 {
    400_000 + 12_000 * time.as_secs()
}

/// The mail of another account comes through, and the server `is_bounded` at last.
async fn leaves_others_alone(flood: Flood, is_bounded: impl Fn(&Flooding, Instant) -> bool) {
    let dir = open_dir();
    certificates::write(dir.path());
    let (behind, well) = (server().await, server().await);
    let flooding = Flooding::start(flood, behind.addr().port(), dir.path()).await;
    let accounts = account("flood", flooding.port, Some(&dir.path().join("ca.pem")))
        + &account("well", well.addr().port(), None);
    let mut monitor = Monitor::new(&accounts);
    monitor.start();
    monitor.wait("online", |events| ["flood", "well"].iter().all(|id| !states(events, id).is_empty()));
    let start = Instant::now();
    for n in 1..=50 {
        well.store().deliver("bob", "INBOX", b"Subject: x\r\n\r\n");
        monitor.wait("told", |events| told(events, "well").len() == n);
    }
    monitor.wait("bounded", |_| is_bounded(&flooding, start));
    assert!(flooding.records() <= allowed(start.elapsed()), "{flood:?}: {} records", flooding.records());
    assert_eq!(states(&monitor.events(), "well"), ["online"]);
    assert!(monitor.peak_memory() < 200 << 20, "{}", monitor.peak_memory());
    assert_eq!(monitor.stop().code(), Some(0));
}

const WHILE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread")]
async fn records_with_nothing_in_them_are_read_slowly() {
    leaves_others_alone(Flood::Empty, |_, start| start.elapsed() > WHILE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_one_byte_are_read_slowly() {
    leaves_others_alone(Flood::Tiny, |_, start| start.elapsed() > WHILE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_changes_its_keys_again_and_again_is_left() {
    leaves_others_alone(Flood::KeyUpdates, |server, _| server.has_ended()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_to_renegotiate_again_and_again_is_left() {
    leaves_others_alone(Flood::HelloRequests, |server, _| server.has_ended()).await;
}
