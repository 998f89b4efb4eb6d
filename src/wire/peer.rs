//! Who is at the other end of a connection, and how it proved that.

use std::net::SocketAddr;

use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::text::line;

/// The other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it was reached.
    pub address: Option<SocketAddr>,
    /// How the connection is secured, if it is.
    pub tls: Option<TlsPeer>,
}

/// The other end of a TLS connection. Its certificate was found good before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPeer {
    /// `1.2` or `1.3`, where the library tells.
    pub version: Option<&'static str>,
    /// Certificates in DER, the server's own first; the others only where the library tells them.
    pub chain: Vec<Vec<u8>>,
}

/// What a certificate says (RFC 5280). Harmless to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// When it ends.
    pub not_after: Timestamp,
}

impl TlsPeer {
    /// The server's own certificate; `None` where it cannot be read.
    pub fn certificate(&self) -> Option<Certificate> {
        self.chain.first().and_then(|der| Certificate::read(der))
    }
}

impl Certificate {
    /// `None` where it is none.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp()).ok()?;
        let name = |name: &x509_parser::x509::X509Name<'_>| line(&name.to_string(), 200);
        Some(Self { subject: name(parsed.subject()), issuer: name(parsed.issuer()), not_after })
    }

    /// Days until it ends; none are left where it has ended.
    pub fn days_left(&self, now: Timestamp) -> i64 {
        self.not_after.duration_since(now).as_hours().max(0) / 24
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_whose_it_is_and_when_it_ends() {
        let mut params = rcgen::CertificateParams::new(["mail.example".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "mail\u{202e}.example\x1b[2J");
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let der = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec();
        let certificate = Certificate::read(&der).unwrap();
        assert_eq!(certificate.not_after.to_string(), "2030-01-01T00:00:00Z");
        assert!(certificate.subject.contains("CN=mail"), "{}", certificate.subject);
        assert!(!certificate.subject.contains(['\u{202e}', '\x1b']));
        let at = |text: &str| text.parse().unwrap();
        assert_eq!(certificate.days_left(at("2029-12-25T12:00:00Z")), 6);
        assert_eq!(certificate.days_left(at("2031-12-25T12:00:00Z")), 0);
        assert_eq!(Certificate::read(&der[..der.len() / 2]), None);
    }
}
