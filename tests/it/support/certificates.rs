//! A throw-away authority and the certificates that it signs.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

use super::dovecot::{EXPIRED, GOOD, LOGIN_DISABLED};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// `ca.pem`, and `good`, `expired`, `wrong` (of servers), `client` and `stranger` (of clients, signed by the same
/// authority and by another one), with `.pem` and `.key`.
pub fn write(dir: &Path) {
    let issuer = authority("test authority");
    fs::write(dir.join("ca.pem"), issuer.pem()).unwrap();
    write_client(dir, "client", &issuer);
    write_client(dir, "stranger", &authority("another authority"));
    for (file, names, years) in [
        ("good", vec![GOOD, LOGIN_DISABLED, "localhost"], (2020, 2090)),
        ("expired", vec![EXPIRED], (2010, 2020)),
        ("wrong", vec!["wrong.example"], (2020, 2090)),
    ] {
        let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        fs::write(dir.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

fn write_client(dir: &Path, file: &str, issuer: &Authority) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "monitor");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    fs::write(dir.join(format!("{file}.pem")), certificate.pem()).unwrap();
    fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
}
