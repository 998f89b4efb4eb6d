//! Pins: a server is known by its public key, by the SHA-256 of its SubjectPublicKeyInfo (RFC 7469 section 2.4).

use std::sync::Arc;

use data_encoding::BASE64;
use ring::digest::{SHA256, digest};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{self, CertificateError, DigitallySignedStruct, OtherError, SignatureScheme};

use super::verified::RememberingVerifier;
use crate::config::settings::Pin;

/// The key of a server is none of those that are pinned; its own pin is this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unpinned(pub(super) String);

/// Whether the key of this certificate is pinned. What else the certificate says is not looked at.
pub(super) fn judge(pins: &[Pin], certificate: &CertificateDer<'_>) -> Result<(), Unpinned> {
    let Ok(parsed) = ParsedCertificate::try_from(certificate) else {
        return Err(Unpinned("none: it is no certificate".to_owned()));
    };
    let found = digest(&SHA256, &parsed.subject_public_key_info());
    if pins.iter().any(|pin| pin.as_slice() == found.as_ref()) {
        return Ok(());
    }
    Err(Unpinned(BASE64.encode(found.as_ref())))
}

/// Judges by pins; after the chain, the name and the dates, unless the pin is to be enough.
#[derive(Debug)]
pub(super) struct PinVerifier {
    pins: Vec<Pin>,
    /// `None`: the pin is enough.
    chain: Option<RememberingVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinVerifier {
    /// `chain` is `None` where the pin is enough.
    pub(super) fn new(pins: &[Pin], chain: Option<RememberingVerifier>, provider: &CryptoProvider) -> Self {
        Self { pins: pins.to_vec(), chain, algorithms: provider.signature_verification_algorithms }
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(chain) = &self.chain {
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        judge(&self.pins, end_entity).map_err(|unpinned| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(unpinned))))
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
