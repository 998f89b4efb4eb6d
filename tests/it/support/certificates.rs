//! A throw-away authority and the certificates that it signs.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::dovecot::{EXPIRED, GOOD, LOGIN_DISABLED};

/// `ca.pem`, and `good`, `expired`, `wrong` with `.pem` and `.key`.
pub fn write(dir: &Path) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(dir.join("ca.pem"), issuer.pem()).unwrap();
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
