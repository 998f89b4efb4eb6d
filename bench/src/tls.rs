//! A certificate authority for one run, and the TLS configurations that go with it.

use std::error::Error;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Makes a CA, writes its certificate to `ca_file`, and has it sign one for all of `hosts`.
///
/// # Errors
/// Where the file cannot be written.
pub fn server(hosts: &[IpAddr], ca_file: &Path) -> Result<Arc<ServerConfig>> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // A name of its own: OpenSSL takes a certificate whose issuer has its name for self-signed.
    ca.distinguished_name.push(DnType::CommonName, "idlewatch-bench CA");
    let ca_key = KeyPair::generate()?;
    std::fs::write(ca_file, ca.self_signed(&ca_key)?.pem())?;
    let mut leaf = CertificateParams::new(Vec::new())?;
    leaf.subject_alt_names = hosts.iter().copied().map(SanType::IpAddress).collect();
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &Issuer::new(ca, ca_key))?;
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    Ok(Arc::new(config))
}

/// Trusts the CA of `ca_file` only.
///
/// # Errors
/// Where the file cannot be read.
pub fn client(ca_file: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file)?)?;
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}
