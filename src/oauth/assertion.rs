//! JWT assertions signed by RS256 (RFC 7523, RFC 7515), as Google's service accounts want them.
//!
//! By ring, which is here anyway: the JWT crates bring another provider of cryptography.

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// An hour, the most that Google takes.
const LASTS: i64 = 3600;

/// Why a key cannot sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum KeyError {
    #[error("the key is no JSON key file of a service account: client_email and private_key are needed")]
    NotAKey,
    #[error("the private_key in the key file is no RSA key in PKCS#8 PEM")]
    NotRsa,
}

/// Google's JSON key file, as far as it is needed.
#[derive(Deserialize)]
pub struct ServiceKey {
    client_email: String,
    #[serde(deserialize_with = "secret")]
    private_key: SecretString,
    #[serde(default)]
    private_key_id: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(text: D) -> Result<SecretString, D::Error> {
    String::deserialize(text).map(SecretString::from)
}

/// What an assertion claims.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a> {
    /// Whose mailbox.
    pub subject: &'a str,
    /// Whom it is for: the token endpoint.
    pub audience: &'a str,
    /// What access is asked for.
    pub scopes: &'a [String],
    /// When it is made.
    pub at: Timestamp,
}

impl ServiceKey {
    /// From the key file's text.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(text: &SecretString) -> Result<Self, KeyError> {
        // serde_json's own words would show parts of the key.
        serde_json::from_str(text.expose_secret()).map_err(|_| KeyError::NotAKey)
    }

    fn pair(&self) -> Result<RsaKeyPair, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(self.private_key.expose_secret().as_bytes());
        let der = der.map_err(|_| KeyError::NotRsa)?;
        RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| KeyError::NotRsa)
    }

    /// Whether it can sign.
    ///
    /// # Errors
    /// Where it cannot.
    pub fn check(&self) -> Result<(), KeyError> {
        self.pair().map(drop)
    }

    /// The signed assertion. Takes a millisecond or two.
    ///
    /// # Errors
    /// Where the key is no RSA key.
    pub fn sign(&self, claims: Claims<'_>) -> Result<SecretString, KeyError> {
        let pair = self.pair()?;
        let mut header = json!({"alg": "RS256", "typ": "JWT"});
        if let (Some(id), Some(header)) = (&self.private_key_id, header.as_object_mut()) {
            header.insert("kid".to_owned(), json!(id));
        }
        let from = claims.at.as_second();
        let body = json!({
            "iss": self.client_email, "sub": claims.subject, "aud": claims.audience,
            "scope": claims.scopes.join(" "), "iat": from, "exp": from.saturating_add(LASTS),
        });
        let part = |value: &serde_json::Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(&body));
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .map_err(|_| KeyError::NotRsa)?;
        Ok(format!("{message}.{}", BASE64URL_NOPAD.encode(&signature)).into())
    }
}

#[cfg(test)]
mod tests {
    use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    /// Made for this test by `openssl genpkey -algorithm RSA`.
    const PEM: &str = include_str!("../../tests/data/service-account-test-key.pem");

    fn key() -> ServiceKey {
        let text = json!({"client_email": "robot@p.example", "private_key": PEM, "private_key_id": "k1"});
        ServiceKey::parse(&text.to_string().into()).unwrap()
    }

    #[test]
    fn an_assertion_says_who_for_whom_and_verifies() {
        let claims = Claims {
            subject: "bob@example.com",
            audience: "https://oauth2.example/token",
            scopes: &["a".to_owned(), "b".to_owned()],
            at: "2026-11-25T12:00:00Z".parse().unwrap(),
        };
        let signed = key().sign(claims).unwrap();
        let parts: Vec<&str> = signed.expose_secret().split('.').collect();
        let json = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
        };
        assert_eq!(json(parts[0]), json!({"alg": "RS256", "typ": "JWT", "kid": "k1"}));
        let body = json(parts[1]);
        assert_eq!((&body["iss"], &body["sub"]), (&json!("robot@p.example"), &json!("bob@example.com")));
        assert_eq!((&body["aud"], &body["scope"]), (&json!("https://oauth2.example/token"), &json!("a b")));
        assert_eq!(body["exp"].as_i64().unwrap() - body["iat"].as_i64().unwrap(), 3600);
        let public = key().pair().unwrap().public_key().as_ref().to_vec();
        let signature = BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap();
        let message = format!("{}.{}", parts[0], parts[1]);
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
            .verify(message.as_bytes(), &signature)
            .unwrap();
    }

    #[test]
    fn what_is_no_key_is_told_and_not_shown() {
        let parse = |text: &str| ServiceKey::parse(&text.to_owned().into()).err();
        assert_eq!(parse("canary"), Some(KeyError::NotAKey));
        assert_eq!(parse("{\"client_email\":\"a\"}"), Some(KeyError::NotAKey));
        let broken =
            ServiceKey::parse(&json!({"client_email": "a", "private_key": "canary"}).to_string().into());
        assert_eq!(broken.ok().unwrap().check(), Err(KeyError::NotRsa));
    }
}
