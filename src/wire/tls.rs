//! TLS by rustls (one shared configuration per policy) or by the operating system's library.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{
    self, CertificateError, CipherSuite, ClientConfig, ConfigBuilder, RootCertStore,
    SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    version,
};

use super::peer::{Peer, TlsPeer};
use super::pin::{PinVerifier, Unpinned};
use super::records::Metered;
use super::verified::RememberingVerifier;
use crate::config::settings::{ClientCertificate, TlsBackend, TlsOptions, TlsVersion};

/// TLS contexts, one per policy, made when first needed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct TlsContexts {
    rustls: Arc<Mutex<HashMap<TlsOptions, Made>>>,
    #[cfg(feature = "native-tls")]
    native: native::Contexts,
}

/// A context, and when the files that it was made of had changed.
#[derive(Debug)]
struct Made {
    files: Vec<Option<SystemTime>>,
    config: Arc<ClientConfig>,
}

/// When the files of a policy changed: certificates are renewed while we run.
fn changed(options: &TlsOptions) -> Vec<Option<SystemTime>> {
    let client = options.client.iter().flat_map(|client| [&client.certificate, &client.key]);
    let files = options.ca_file.iter().chain(client);
    files.map(|file| std::fs::metadata(file).and_then(|file| file.modified()).ok()).collect()
}

/// What HTTP clients take for their cryptography: the same as ours.
pub fn use_ring() {
    // Somebody did so already, which is all that is wanted.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
}

/// Why there is no TLS. Certificates and settings need a person, the rest may pass.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum TlsError {
    #[error("{host}: the certificate expired{}", ended(.not_after))]
    Expired { host: String, not_after: Option<String> },
    #[error("{host}: the certificate is not valid yet")]
    NotYetValid { host: String },
    #[error(
        "{host}: the certificate is not signed by a known authority; set tls_options.ca_file for a private one"
    )]
    UnknownIssuer { host: String },
    #[error("{host}: the certificate is for another host")]
    WrongHost { host: String },
    #[error("{host}: the certificate is not acceptable: {reason}")]
    Certificate { host: String, reason: String },
    #[error("{host}: no common TLS version or cipher")]
    Version { host: String },
    #[error("{host}: the server does not speak TLS on this port; is tls = \"starttls\" meant?")]
    NotTls { host: String },
    #[error("{host}: the TLS handshake took too long")]
    TimedOut { host: String },
    #[error("{host}: the connection broke in the TLS handshake: {reason}")]
    Broken { host: String, reason: String },
    #[error(
        "{host}: the server's key is not the pinned one (its SHA-256 is {found}): if that is meant, add it to tls_options.pin_sha256"
    )]
    Unpinned { host: String, found: String },
    #[error("{host}: the server wants another certificate of us, or any: tls_options.client_cert ({reason})")]
    ClientRefused { host: String, reason: String },
    #[error("{path}: the CA file cannot be used: {reason}")]
    CaFile { path: String, reason: String },
    #[error("{path}: our own certificate cannot be used: {reason}")]
    Client { path: String, reason: String },
    #[error("no root certificates: install ca-certificates, or set tls_options.ca_file")]
    NoRoots,
    #[error("tls_options.backend = \"native\" needs a build with the feature native-tls")]
    NoNative,
}

fn ended(not_after: &Option<String>) -> String {
    not_after.as_ref().map(|at| format!(" on {at}")).unwrap_or_default()
}

impl TlsError {
    /// Whether a person has to act; else it is the network's or the server's passing trouble.
    pub fn needs_operator(&self) -> bool {
        !matches!(self, Self::TimedOut { .. } | Self::Broken { .. })
    }

    /// `error.code`
    pub fn code(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "certificate_expired",
            Self::NotYetValid { .. } => "certificate_not_yet_valid",
            Self::UnknownIssuer { .. } => "certificate_unknown_issuer",
            Self::WrongHost { .. } => "certificate_wrong_host",
            Self::Certificate { .. } => "certificate_invalid",
            Self::Version { .. } => "tls_version",
            Self::NotTls { .. } => "not_tls",
            Self::TimedOut { .. } => "handshake_timeout",
            Self::Broken { .. } => "handshake_broken",
            Self::Unpinned { .. } => "certificate_not_pinned",
            Self::ClientRefused { .. } => "client_certificate",
            Self::CaFile { .. } | Self::Client { .. } | Self::NoRoots | Self::NoNative => "tls_settings",
        }
    }
}

impl TlsContexts {
    /// The handshake, by the policy's library, under a deadline.
    ///
    /// # Errors
    /// See [`TlsError`]. Nothing was sent that the handshake does not send.
    pub async fn handshake(
        &self,
        options: &TlsOptions,
        host: &str,
        tcp: TcpStream,
        limit: Duration,
    ) -> Result<Stream, TlsError> {
        let name = host.trim_matches(['[', ']']);
        let shaken = async {
            match options.backend {
                TlsBackend::Rustls => self.rustls_handshake(options, name, tcp).await,
                #[cfg(feature = "native-tls")]
                TlsBackend::Native => self.native.handshake(options, name, tcp, limit).await,
                #[cfg(not(feature = "native-tls"))]
                TlsBackend::Native => Err(TlsError::NoNative),
            }
        };
        timeout(limit, shaken).await.unwrap_or_else(|_| Err(TlsError::TimedOut { host: host.to_owned() }))
    }

    async fn rustls_handshake(
        &self,
        options: &TlsOptions,
        host: &str,
        tcp: TcpStream,
    ) -> Result<Stream, TlsError> {
        let config = self.rustls_config(options)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Certificate {
            host: host.to_owned(),
            reason: "no certificate can name this host".to_owned(),
        })?;
        match TlsConnector::from(config).connect(name, Metered::new(tcp)).await {
            Ok(stream) => Ok(Stream::Rustls(Box::new(stream))),
            Err(error) => Err(rustls_error(host, &error)),
        }
    }

    /// rustls's, for whoever does the handshake himself.
    ///
    /// # Errors
    /// Where there are no roots.
    pub(crate) fn rustls_config(&self, options: &TlsOptions) -> Result<Arc<ClientConfig>, TlsError> {
        let mut known = self.rustls.lock().unwrap_or_else(PoisonError::into_inner);
        let files = changed(options);
        if let Some(made) = known.get(options).filter(|made| made.files == files) {
            return Ok(made.config.clone());
        }
        let config = match (rustls_config(options), known.get(options)) {
            (Ok(config), _) => Arc::new(config),
            // Half a file, it may be: somebody is renewing it.
            (Err(error), Some(made)) => {
                log::warn!("{error}; what was read before goes on to be used");
                made.config.clone()
            }
            (Err(error), None) => return Err(error),
        };
        known.insert(options.clone(), Made { files, config: config.clone() });
        Ok(config)
    }
}

fn rustls_config(options: &TlsOptions) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(options.min_version))
        .map_err(|error| TlsError::Broken { host: String::new(), reason: error.to_string() })?;
    let chain = if options.pin_only { None } else { Some(chain_verifier(options, &provider)?) };
    let builder = builder.dangerous().with_custom_certificate_verifier(match chain {
        Some(chain) if options.pins.is_empty() => Arc::new(chain),
        chain => Arc::new(PinVerifier::new(&options.pins, chain, &provider)),
    });
    let mut config = match &options.client {
        Some(client) => with_client(builder, client)?,
        None => builder.with_no_client_auth(),
    };
    // A ticket would tell the server that two accounts are watched by the same monitor.
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// AES with 128 bits goes first, as browsers have it: its hash is the one that processors have instructions for.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}

/// The chain, the name and the dates.
fn chain_verifier(
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<RememberingVerifier, TlsError> {
    let roots = Arc::new(roots(options.ca_file.as_deref())?);
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
    Ok(RememberingVerifier::new(verifier.map_err(|_| TlsError::NoRoots)?))
}

fn with_client(
    builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    ClientCertificate { certificate, key }: &ClientCertificate,
) -> Result<ClientConfig, TlsError> {
    let failed = |path: &Path, reason: String| TlsError::Client { path: path.display().to_string(), reason };
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| failed(certificate, error.to_string()))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, error.to_string()))?;
    builder.with_client_auth_cert(chain, secret).map_err(|error| failed(certificate, error.to_string()))
}

/// Whether a connection ended because the server does not take our certificate, or wants one.
pub(super) fn refuses_our_certificate(error: &io::Error) -> bool {
    let Some(inner) = error.get_ref() else { return false };
    match inner.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::AlertReceived(alert)) => is_of_our_certificate(*alert),
        Some(_) => false,
        None => inner.to_string().contains("alert certificate required"),
    }
}

fn is_of_our_certificate(alert: rustls::AlertDescription) -> bool {
    use rustls::AlertDescription as Alert;
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static NEWEST: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    if least == TlsVersion::Tls13 { &NEWEST } else { &ALL }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let failed = |reason: String| TlsError::CaFile { path: path.display().to_string(), reason };
            for certificate in
                CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?
            {
                let certificate = certificate.map_err(|error| failed(error.to_string()))?;
                roots.add(certificate).map_err(|error| failed(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(failed("there is no certificate in it".to_owned()));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
    }
    Ok(roots)
}

fn rustls_error(host: &str, error: &io::Error) -> TlsError {
    let host = host.to_owned();
    let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return TlsError::Broken { host, reason: error.kind().to_string() };
    };
    match cause {
        rustls::Error::InvalidCertificate(reason) => certificate_error(host, reason),
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(
            rustls::AlertDescription::ProtocolVersion | rustls::AlertDescription::HandshakeFailure,
        ) => TlsError::Version { host },
        rustls::Error::AlertReceived(alert) if is_of_our_certificate(*alert) => {
            TlsError::ClientRefused { host, reason: format!("{alert:?}") }
        }
        rustls::Error::InvalidMessage(_) => TlsError::NotTls { host },
        other => TlsError::Broken { host, reason: other.to_string() },
    }
}

fn certificate_error(host: String, reason: &CertificateError) -> TlsError {
    match reason {
        CertificateError::Expired => TlsError::Expired { host, not_after: None },
        CertificateError::ExpiredContext { not_after, .. } => {
            let seconds = i64::try_from(not_after.as_secs()).unwrap_or(i64::MAX);
            let at = Timestamp::from_second(seconds).ok();
            TlsError::Expired { host, not_after: at.map(|at| at.to_string()) }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TlsError::NotYetValid { host }
        }
        CertificateError::UnknownIssuer => TlsError::UnknownIssuer { host },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TlsError::WrongHost { host }
        }
        // A certificate that signs itself is no end entity to webpki.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            TlsError::UnknownIssuer { host }
        }
        CertificateError::Other(other) if other.0.downcast_ref::<Unpinned>().is_some() => {
            TlsError::Unpinned { host, found: other.0.to_string() }
        }
        other => TlsError::Certificate { host, reason: other.to_string() },
    }
}

/// A connection, secured or not.
#[derive(Debug)]
pub enum Stream {
    /// In clear.
    Plain(TcpStream),
    /// By rustls, which takes any number of empty records; OpenSSL ends them itself.
    Rustls(Box<tokio_rustls::client::TlsStream<Metered<TcpStream>>>),
    /// By the operating system's library.
    #[cfg(feature = "native-tls")]
    Native(Box<async_native_tls::TlsStream<TcpStream>>),
}

impl Stream {
    /// Who is at the other end.
    pub fn peer(&self) -> Peer {
        match self {
            Self::Plain(tcp) => Peer { address: tcp.peer_addr().ok(), tls: None },
            Self::Rustls(stream) => {
                let (tcp, session) = stream.get_ref();
                let version = match session.protocol_version() {
                    Some(rustls::ProtocolVersion::TLSv1_3) => Some("1.3"),
                    Some(rustls::ProtocolVersion::TLSv1_2) => Some("1.2"),
                    _ => None,
                };
                let chain = session.peer_certificates().unwrap_or_default();
                let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
                Peer { address: tcp.get_ref().peer_addr().ok(), tls: Some(TlsPeer { version, chain }) }
            }
            #[cfg(feature = "native-tls")]
            Self::Native(stream) => {
                let own = stream.peer_certificate().ok().flatten();
                let chain = own.and_then(|own| own.to_der().ok()).into_iter().collect();
                let tls = Some(TlsPeer { version: None, chain });
                Peer { address: stream.get_ref().peer_addr().ok(), tls }
            }
        }
    }
}

macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match &mut *$self {
            Stream::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Stream::Rustls(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            #[cfg(feature = "native-tls")]
            Stream::Native(stream) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => stream.poll_shutdown(cx))
    }
}

#[cfg(feature = "native-tls")]
mod native {
    //! async-native-tls builds a context, with the whole CA bundle, for every connection: some 65 ms of CPU with
    //! Debian's. So its handshakes run on a thread of their own, a few at a time.

    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use async_native_tls::TlsConnector;
    use native_tls::{Certificate, Identity, Protocol};
    use tokio::net::TcpStream;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;
    use tokio_rustls::rustls::pki_types::CertificateDer;
    use zeroize::Zeroizing;

    use super::{Stream, TlsError};
    use crate::config::settings::{ClientCertificate, TlsOptions, TlsVersion};
    use crate::wire::pin::{self, Unpinned};

    const AT_ONCE: usize = 4;

    #[derive(Clone, Debug)]
    pub(super) struct Contexts(Arc<Semaphore>);

    impl Default for Contexts {
        fn default() -> Self {
            Self(Arc::new(Semaphore::new(AT_ONCE)))
        }
    }

    impl Contexts {
        pub(super) async fn handshake(
            &self,
            options: &TlsOptions,
            host: &str,
            tcp: TcpStream,
            limit: Duration,
        ) -> Result<Stream, TlsError> {
            let _place = self.0.acquire().await;
            let broken = |reason: String| TlsError::Broken { host: host.to_owned(), reason };
            let (pins, options, name) = (options.pins.clone(), options.clone(), host.to_owned());
            let runtime = tokio::runtime::Handle::current();
            let shaken = tokio::task::spawn_blocking(move || {
                let connector = connector(&options)?;
                // Under its own deadline: nobody can cancel this thread.
                match runtime.block_on(async { timeout(limit, connector.connect(&name, tcp)).await }) {
                    Ok(shaken) => shaken.map_err(|error| classified(&name, &error)),
                    Err(_) => Err(TlsError::TimedOut { host: name }),
                }
            });
            let stream = shaken.await.map_err(|error| broken(error.to_string()))??;
            if !pins.is_empty() {
                let shown = stream.peer_certificate().ok().flatten().and_then(|shown| shown.to_der().ok());
                pin::judge(&pins, &CertificateDer::from(shown.unwrap_or_default()))
                    .map_err(|Unpinned(found)| TlsError::Unpinned { host: host.to_owned(), found })?;
            }
            Ok(Stream::Native(Box::new(stream)))
        }
    }

    fn connector(options: &TlsOptions) -> Result<TlsConnector, TlsError> {
        let least = match options.min_version {
            TlsVersion::Tls10 => Protocol::Tlsv10,
            TlsVersion::Tls11 => Protocol::Tlsv11,
            TlsVersion::Tls12 | TlsVersion::Tls13 => Protocol::Tlsv12,
        };
        let mut connector = native_tls::TlsConnector::builder();
        connector.min_protocol_version(Some(least));
        if let Some(path) = &options.ca_file {
            let failed = |reason: String| TlsError::CaFile { path: path.display().to_string(), reason };
            let pem = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
            connector.disable_built_in_roots(true);
            for block in
                pem.split_inclusive("-----END CERTIFICATE-----").filter(|block| block.contains("BEGIN"))
            {
                let root = Certificate::from_pem(block.trim().as_bytes())
                    .map_err(|error| failed(error.to_string()))?;
                connector.add_root_certificate(root);
            }
        }
        if let Some(client) = &options.client {
            connector.identity(identity(client)?);
        }
        // The pin is judged instead, after the handshake and before anything is said.
        connector.danger_accept_invalid_certs(options.pin_only && !options.pins.is_empty());
        Ok(connector.into())
    }

    fn identity(ClientCertificate { certificate, key }: &ClientCertificate) -> Result<Identity, TlsError> {
        let failed =
            |path: &Path, reason: String| TlsError::Client { path: path.display().to_string(), reason };
        let read = |path: &Path| std::fs::read(path).map_err(|error| failed(path, error.to_string()));
        let secret = Zeroizing::new(read(key)?);
        Identity::from_pkcs8(&read(certificate)?, &secret).map_err(|error| failed(key, error.to_string()))
    }

    /// OpenSSL tells the reason of a refusal in words only.
    fn classified(host: &str, error: &async_native_tls::Error) -> TlsError {
        let (host, text) = (host.to_owned(), error.to_string());
        let says = |words: &str| text.contains(words);
        if says("certificate has expired") {
            TlsError::Expired { host, not_after: None }
        } else if says("not yet valid") {
            TlsError::NotYetValid { host }
        } else if says("self-signed")
            || says("self signed")
            || says("unable to get local issuer")
            || says("unable to verify")
        {
            TlsError::UnknownIssuer { host }
        } else if says("ostname mismatch") || says("IP address mismatch") {
            TlsError::WrongHost { host }
        } else if says("wrong version number") || says("packet length too long") || says("http request") {
            TlsError::NotTls { host }
        } else if ["certificate required", "bad certificate", "unknown ca"]
            .iter()
            .any(|alert| says(&format!("alert {alert}")))
        {
            TlsError::ClientRefused { host, reason: crate::text::line(&text, 200) }
        } else if says("protocol version") || says("unsupported protocol") || says("handshake failure") {
            TlsError::Version { host }
        } else if says("certificate verify failed") {
            TlsError::Certificate { host, reason: crate::text::line(&text, 200) }
        } else {
            TlsError::Broken { host, reason: crate::text::line(&text, 200) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tempfile::TempDir;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;

    use super::*;
    use crate::config::settings::Pin;

    struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
        dir: TempDir,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
            Self { issuer, dir }
        }

        fn ca_file(&self) -> PathBuf {
            self.dir.path().join("ca.pem")
        }

        /// A server that greets every client, with a certificate for `name` of these years.
        async fn server(&self, name: &str, years: std::ops::Range<i32>) -> u16 {
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
            params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![certificate.der().clone()],
                    PrivateKeyDer::Pkcs8(key.serialize_der().into()),
                )
                .unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                while let Ok((tcp, _)) = listener.accept().await {
                    if let Ok(mut stream) = acceptor.accept(tcp).await {
                        let _ = stream.write_all(b"hello").await;
                        let _ = stream.flush().await;
                    }
                }
            });
            port
        }
    }

    async fn shake(port: u16, backend: TlsBackend, ca_file: PathBuf) -> Result<Stream, TlsError> {
        shake_by(port, options(backend, Some(ca_file))).await
    }

    fn options(backend: TlsBackend, ca_file: Option<PathBuf>) -> TlsOptions {
        let min_version = TlsVersion::Tls12;
        TlsOptions { backend, ca_file, min_version, client: None, pins: Vec::new(), pin_only: false }
    }

    async fn shake_by(port: u16, options: TlsOptions) -> Result<Stream, TlsError> {
        let tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        TlsContexts::default().handshake(&options, "localhost", tcp, Duration::from_secs(10)).await
    }

    fn backends() -> Vec<TlsBackend> {
        if cfg!(feature = "native-tls") {
            vec![TlsBackend::Rustls, TlsBackend::Native]
        } else {
            vec![TlsBackend::Rustls]
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn both_backends_judge_alike() {
        let authority = Authority::new("test");
        let good = authority.server("localhost", 2020..2090).await;
        let expired = authority.server("localhost", 2010..2020).await;
        let not_yet = authority.server("localhost", 2080..2090).await;
        let wrong = authority.server("wrong.example", 2020..2090).await;
        let stranger = Authority::new("another");
        for backend in backends() {
            let mut stream = shake(good, backend, authority.ca_file()).await.unwrap();
            let mut hello = [0; 5];
            stream.read_exact(&mut hello).await.unwrap();
            assert_eq!(&hello, b"hello");
            let expectations = [
                (expired, authority.ca_file(), "certificate_expired"),
                (not_yet, authority.ca_file(), "certificate_not_yet_valid"),
                (wrong, authority.ca_file(), "certificate_wrong_host"),
                (good, stranger.ca_file(), "certificate_unknown_issuer"),
            ];
            for (port, ca_file, code) in expectations {
                let error = shake(port, backend, ca_file).await.unwrap_err();
                assert_eq!((error.code(), error.needs_operator()), (code, true), "{backend:?}: {error}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_server_without_tls_is_named() {
        let authority = Authority::new("test");
        for backend in backends() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                let (mut tcp, _) = listener.accept().await.unwrap();
                let _ = tcp.write_all(b"* OK [CAPABILITY IMAP4rev1] ready\r\n").await;
                let _ = tcp.read(&mut [0; 1000]).await;
            });
            let error = shake(port, backend, authority.ca_file()).await.unwrap_err();
            assert_eq!(error.code(), "not_tls", "{backend:?}: {error}");
        }
    }

    #[tokio::test]
    async fn an_unusable_ca_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.pem");
        std::fs::write(&path, "").unwrap();
        let authority = Authority::new("test");
        let port = authority.server("localhost", 2020..2090).await;
        let error = shake(port, TlsBackend::Rustls, path).await.unwrap_err();
        assert!(matches!(error, TlsError::CaFile { .. }), "{error}");
    }

    #[tokio::test]
    async fn one_context_serves_all_accounts_of_a_policy() {
        let contexts = TlsContexts::default();
        let authority = Authority::new("test");
        let options = options(TlsBackend::Rustls, Some(authority.ca_file()));
        let first = contexts.rustls_config(&options).unwrap();
        assert!(Arc::ptr_eq(&first, &contexts.clone().rustls_config(&options).unwrap()));
    }

    /// The pin of the server at `port`, as it is told to whoever has another.
    async fn pin_of(port: u16, ca_file: PathBuf) -> Pin {
        let wrong = TlsOptions { pins: vec![[0; 32]], ..options(TlsBackend::Rustls, Some(ca_file)) };
        let Err(TlsError::Unpinned { found, .. }) = shake_by(port, wrong).await else { panic!() };
        data_encoding::BASE64.decode(found.as_bytes()).unwrap().try_into().unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_pin_is_wanted_besides_the_chain_and_in_place_of_it_where_that_is_said() {
        let (authority, stranger) = (Authority::new("test"), Authority::new("another"));
        let good = authority.server("localhost", 2020..2090).await;
        let other = authority.server("localhost", 2020..2090).await;
        let expired = authority.server("localhost", 2010..2020).await;
        let pin = pin_of(good, authority.ca_file()).await;
        for backend in backends() {
            let pinned = |by: &Authority| TlsOptions {
                pins: vec![[1; 32], pin],
                ..options(backend, Some(by.ca_file()))
            };
            let alone = || TlsOptions { pin_only: true, ca_file: None, ..pinned(&authority) };
            assert!(shake_by(good, pinned(&authority)).await.is_ok(), "{backend:?}");
            assert!(shake_by(good, alone()).await.is_ok(), "{backend:?}");
            for (port, options, code) in [
                (other, pinned(&authority), "certificate_not_pinned"),
                (other, alone(), "certificate_not_pinned"),
                (expired, pinned(&authority), "certificate_expired"),
                (good, pinned(&stranger), "certificate_unknown_issuer"),
            ] {
                let error = shake_by(port, options).await.unwrap_err();
                assert_eq!((error.code(), error.needs_operator()), (code, true), "{backend:?}: {error}");
            }
        }
    }

    #[tokio::test]
    async fn a_renewed_file_is_read_again_and_a_broken_one_is_not_used() {
        let (contexts, authority) = (TlsContexts::default(), Authority::new("test"));
        let file = authority.ca_file();
        let options = options(TlsBackend::Rustls, Some(file.clone()));
        let write = |text: &str, at: u64| {
            std::fs::write(&file, text).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at);
            std::fs::File::options().write(true).open(&file).unwrap().set_modified(at).unwrap();
        };
        let first = contexts.rustls_config(&options).unwrap();
        write("half a fi", 1);
        assert!(Arc::ptr_eq(&first, &contexts.rustls_config(&options).unwrap()));
        write(&authority.issuer.pem(), 2);
        let second = contexts.rustls_config(&options).unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&second, &contexts.rustls_config(&options).unwrap()));
    }
}
