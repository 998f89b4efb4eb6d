//! A certificate's chain is verified once a minute for a host, and not for each of its thousands of accounts.
//! That the server has the key of the certificate is verified in every handshake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, DigitallySignedStruct, SignatureScheme};

/// Seconds that a verdict holds; a certificate is taken for so long after its end, at most.
const HOLDS: u64 = 60;

/// Verdicts that are kept; hosts are few.
const MOST: usize = 1024;

/// The chain, and the name it was found good for, by their SHA-256.
type Digest = [u8; SHA256_OUTPUT_LEN];

/// Verifies as webpki does, and remembers for a minute what it found good. Refusals are not remembered.
#[derive(Debug)]
pub(super) struct RememberingVerifier {
    verifier: Arc<WebPkiServerVerifier>,
    /// When each was verified.
    verified: Mutex<HashMap<Digest, UnixTime>>,
}

impl RememberingVerifier {
    pub(super) fn new(verifier: Arc<WebPkiServerVerifier>) -> Self {
        Self { verifier, verified: Mutex::default() }
    }

    fn is_known(&self, chain: &Digest, now: UnixTime) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.get(chain).is_some_and(|&at| holds(at, now))
    }

    fn remember(&self, chain: Digest, now: UnixTime) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= MOST {
            verified.retain(|_, &mut at| holds(at, now));
        }
        if verified.len() < MOST {
            verified.insert(chain, now);
        }
    }
}

/// A clock that was set back ends it, too.
fn holds(at: UnixTime, now: UnixTime) -> bool {
    now.as_secs().checked_sub(at.as_secs()).is_some_and(|age| age < HOLDS)
}

fn digest(end_entity: &CertificateDer<'_>, others: &[CertificateDer<'_>], name: &ServerName<'_>) -> Digest {
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    };
    add(name.to_str().as_bytes());
    add(end_entity);
    others.iter().for_each(|certificate| add(certificate));
    let mut digest = Digest::default();
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

impl ServerCertVerifier for RememberingVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = digest(end_entity, intermediates, server_name);
        if !self.is_known(&chain, now) {
            self.verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
            self.remember(chain, now);
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio_rustls::rustls::RootCertStore;
    use tokio_rustls::rustls::crypto::ring::default_provider;

    use super::*;

    /// 2030-01-01 and 2031-01-01.
    const BEGIN: u64 = 1_893_456_000;
    const END: u64 = 1_924_992_000;

    /// A certificate of those dates for `a.example`, and who trusts its issuer.
    fn made() -> (CertificateDer<'static>, RememberingVerifier) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = rcgen::date_time_ymd(2031, 1, 1);
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        (certificate.der().clone(), RememberingVerifier::new(verifier))
    }

    fn at(seconds: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    }

    fn is_good(verifier: &RememberingVerifier, chain: &[CertificateDer<'_>], name: &str, now: u64) -> bool {
        let (first, others) = chain.split_first().unwrap();
        let name = ServerName::try_from(name).unwrap();
        verifier.verify_server_cert(first, others, &name, &[], at(now)).is_ok()
    }

    #[test]
    fn what_was_found_good_is_so_for_a_minute_and_for_nothing_else() {
        let (certificate, verifier) = made();
        let chain = &[certificate][..];
        assert!(is_good(&verifier, chain, "a.example", END - 10));
        assert!(is_good(&verifier, chain, "a.example", END + 40), "not remembered");
        assert!(!is_good(&verifier, chain, "a.example", END + 50), "for more than a minute");
        assert!(!is_good(&verifier, chain, "b.example", END - 10), "for another name");
        let (other, _) = made();
        assert!(!is_good(&verifier, &[other], "a.example", END - 10), "for another certificate");
        assert!(is_good(&verifier, chain, "a.example", BEGIN + 10));
        assert!(!is_good(&verifier, chain, "a.example", BEGIN - 10), "while the clock is set back");
    }

    #[test]
    fn a_refusal_is_not_remembered() {
        let (certificate, verifier) = made();
        let chain = &[certificate][..];
        assert!(!is_good(&verifier, chain, "a.example", BEGIN - 1));
        assert!(is_good(&verifier, chain, "a.example", BEGIN + 1));
    }

    #[test]
    fn servers_that_show_ever_new_chains_cost_no_more_memory() {
        let (_, verifier) = made();
        let chain = |number: usize| digest(&number.to_be_bytes()[..].into(), &[], &"a".try_into().unwrap());
        (0..MOST + 10).for_each(|number| verifier.remember(chain(number), at(1_000)));
        assert_eq!(verifier.verified.lock().unwrap().len(), MOST);
        verifier.remember(chain(MOST + 10), at(1_000 + HOLDS));
        assert_eq!(verifier.verified.lock().unwrap().len(), 1);
    }
}
