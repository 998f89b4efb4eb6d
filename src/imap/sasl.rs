//! The SASL mechanisms that we speak: PLAIN (RFC 4616), OAUTHBEARER (RFC 7628), XOAUTH2, EXTERNAL (RFC 4422).
//!
//! XOAUTH2 is Google's, older than RFC 7628, and all that Microsoft offers.

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::capability::Capabilities;
use super::command::{Credentials, Line, Proof, Unsendable};
use crate::text;

/// A mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// A password.
    Plain,
    /// An access token.
    OAuthBearer,
    /// An access token.
    XOAuth2,
    /// A client certificate, which TLS has shown.
    External,
}

/// Challenges that are answered in one exchange; more are noise.
const MOST_ROUNDS: u8 = 4;

impl Mechanism {
    const ALL: [Self; 4] = [Self::Plain, Self::OAuthBearer, Self::XOAuth2, Self::External];

    /// The best one that is offered and shows what there is to show.
    pub fn choose(proof: &Proof, capabilities: Capabilities) -> Option<Self> {
        Self::ALL
            .into_iter()
            .filter(|mechanism| mechanism.shows(proof))
            .find(|mechanism| capabilities.has(mechanism.capability()))
    }

    /// As in AUTHENTICATE.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
            Self::External => "EXTERNAL",
        }
    }

    fn capability(self) -> &'static str {
        match self {
            Self::Plain => "AUTH=PLAIN",
            Self::OAuthBearer => "AUTH=OAUTHBEARER",
            Self::XOAuth2 => "AUTH=XOAUTH2",
            Self::External => "AUTH=EXTERNAL",
        }
    }

    fn takes_token(self) -> bool {
        matches!(self, Self::OAuthBearer | Self::XOAuth2)
    }

    fn shows(self, proof: &Proof) -> bool {
        match proof {
            Proof::Password(_) => self == Self::Plain,
            Proof::AccessToken(_) => self.takes_token(),
            Proof::Certificate => self == Self::External,
        }
    }

    /// The client's only message, in base64.
    ///
    /// # Errors
    /// Where the user, password or token holds a character that would end its part of the message.
    pub fn response(self, credentials: &Credentials) -> Result<Zeroizing<String>, Unsendable> {
        let (user, secret) = (credentials.user.as_str(), credentials.proof.exposed());
        if [user, secret].into_iter().any(|text| text.contains(['\r', '\n', '\0', '\x01'])) {
            return Err(Unsendable);
        }
        let clear = Zeroizing::new(match self {
            // No authorization identity (RFC 4616 section 2).
            Self::Plain => format!("\0{user}\0{secret}"),
            Self::OAuthBearer => format!("n,a={},\x01auth=Bearer {secret}\x01\x01", saslname(user)),
            Self::XOAuth2 => format!("user={user}\x01auth=Bearer {secret}\x01\x01"),
            // Whom we want to be, so that no certificate opens the mailbox of somebody else unseen.
            Self::External => user.to_owned(),
        });
        Ok(Zeroizing::new(data_encoding::BASE64.encode(clear.as_bytes())))
    }

    /// What lets a server go on that has refused the token by a challenge (RFC 7628 section 3.2.3).
    fn give_way(self) -> Line {
        match self {
            Self::OAuthBearer => b"AQ==\r\n".to_vec(),
            Self::Plain | Self::XOAuth2 | Self::External => b"\r\n".to_vec(),
        }
        .into()
    }
}

/// What is shorter than this is in too many words to be taken out of them.
pub const SHORTEST_SECRET: usize = 4;

/// All forms that a secret may travel in: who logs must leave them out.
pub fn forms(credentials: &Credentials) -> Vec<SecretString> {
    let Some(secret) = credentials.proof.secret() else { return Vec::new() };
    let shown = Mechanism::ALL.iter().filter(|mechanism| mechanism.shows(&credentials.proof));
    let responses = shown.filter_map(|mechanism| mechanism.response(credentials).ok());
    let responses = responses.map(|response| SecretString::from(response.as_str()));
    // LOGIN sends it as a quoted string (RFC 9051 section 4.3).
    let quoted = Zeroizing::new(secret.expose_secret().replace('\\', "\\\\").replace('"', "\\\""));
    let plain = [SecretString::from(quoted.as_str()), secret.clone()];
    responses.chain(plain).chain(in_base64(secret.expose_secret())).collect()
}

/// What stands in the base64 of anything that has the secret in it, wherever there it begins: the characters that are
/// of the secret alone.
fn in_base64(secret: &str) -> impl Iterator<Item = SecretString> {
    ["", "-", "--"].into_iter().map(move |before| {
        let clear = Zeroizing::new([before, secret].concat());
        let encoded = Zeroizing::new(data_encoding::BASE64_NOPAD.encode(clear.as_bytes()));
        let own = (before.len() * 8).div_ceil(6)..clear.len() * 8 / 6;
        SecretString::from(encoded.get(own).unwrap_or_default())
    })
}

/// `saslname` of RFC 5801 section 4.
fn saslname(user: &str) -> String {
    user.replace('=', "=3D").replace(',', "=2C")
}

/// The exchange after the client's message: a server that refuses a token says why in a challenge first.
#[derive(Debug)]
pub(super) struct Exchange {
    mechanism: Mechanism,
    rounds: u8,
    complaint: Option<String>,
}

impl Exchange {
    pub(super) fn new(mechanism: Mechanism) -> Self {
        Self { mechanism, rounds: 0, complaint: None }
    }

    /// The answer to a challenge; `None` where none is due.
    pub(super) fn challenged(&mut self, challenge: &str) -> Option<Line> {
        self.rounds += 1;
        if !self.mechanism.takes_token() || self.rounds > MOST_ROUNDS {
            return None;
        }
        self.complaint = complaint(challenge).or(self.complaint.take());
        Some(self.mechanism.give_way())
    }

    /// What the server said of the token.
    pub(super) fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }
}

/// RFC 7628 section 3.2.2; Google and Microsoft send numbers of HTTP as `status`.
#[derive(Deserialize)]
struct Complaint {
    status: String,
}

/// The status in a challenge that refuses a token; a challenge is at most [`super::reply::MAX_TEXT`] long.
fn complaint(challenge: &str) -> Option<String> {
    let json = data_encoding::BASE64.decode(challenge.trim().as_bytes()).ok()?;
    let Complaint { status } = serde_json::from_slice(&json).ok()?;
    Some(text::line(&status, 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clear(mechanism: Mechanism, user: &str, token: &str) -> Option<String> {
        let credentials = Credentials { user: user.to_owned(), proof: Proof::AccessToken(token.into()) };
        let response = mechanism.response(&credentials).ok()?;
        Some(String::from_utf8(data_encoding::BASE64.decode(response.as_bytes()).unwrap()).unwrap())
    }

    /// The examples of RFC 7628 section 4 and of Google's page, but for host and port, which bearer tokens do not need.
    #[test]
    fn a_password_is_known_in_every_form_that_it_travels_in() {
        let proof = Proof::Password("a \"b\\".into());
        let credentials = Credentials { user: "bob".to_owned(), proof };
        let forms = forms(&credentials);
        let forms: Vec<_> = forms.iter().map(ExposeSecret::expose_secret).collect();
        let (travelling, in_base64) = forms.split_at(3);
        assert_eq!(travelling, ["AGJvYgBhICJiXA==", "a \\\"b\\\\", "a \"b\\"]);
        for before in 0..7 {
            for after in 0..4 {
                let said = format!("{}a \"b\\{}", "x".repeat(before), "y".repeat(after));
                let said = data_encoding::BASE64.encode(said.as_bytes());
                assert!(in_base64.iter().any(|form| form.len() >= 5 && said.contains(form)), "{said}");
            }
        }
    }

    #[test]
    fn a_token_is_shown_as_each_mechanism_has_it() {
        assert_eq!(
            clear(Mechanism::OAuthBearer, "user@example.com", "vF9dft4qmT").as_deref(),
            Some("n,a=user@example.com,\x01auth=Bearer vF9dft4qmT\x01\x01")
        );
        assert_eq!(
            clear(Mechanism::OAuthBearer, "a,b=c", "t").as_deref(),
            Some("n,a=a=2Cb=3Dc,\x01auth=Bearer t\x01\x01")
        );
        assert_eq!(
            clear(Mechanism::XOAuth2, "user@example.com", "ya29.x").as_deref(),
            Some("user=user@example.com\x01auth=Bearer ya29.x\x01\x01")
        );
        for bad in ["a\x01b", "a\rb", "a\nb", "a\0b"] {
            assert_eq!(clear(Mechanism::XOAuth2, bad, "t"), None);
            assert_eq!(clear(Mechanism::OAuthBearer, "u", bad), None);
        }
    }

    #[test]
    fn a_mechanism_shows_only_what_it_is_for() {
        let (password, token) = (Proof::Password("x".into()), Proof::AccessToken("x".into()));
        let offered = |proof: &Proof, names: &[&str]| Mechanism::choose(proof, Capabilities::new(names));
        let all = ["AUTH=PLAIN", "AUTH=XOAUTH2", "AUTH=OAUTHBEARER"];
        assert_eq!(offered(&password, &all), Some(Mechanism::Plain));
        assert_eq!(offered(&token, &all), Some(Mechanism::OAuthBearer));
        assert_eq!(offered(&token, &all[..2]), Some(Mechanism::XOAuth2));
        assert_eq!(offered(&token, &all[..1]), None);
        assert_eq!(offered(&password, &all[1..]), None);
        assert_eq!(offered(&Proof::Certificate, &all), None, "no secret is shown in its place");
        assert_eq!(offered(&Proof::Certificate, &["AUTH=EXTERNAL"]), Some(Mechanism::External));
        assert_eq!(offered(&password, &["AUTH=EXTERNAL"]), None);
    }

    #[test]
    fn a_complaint_is_read_and_anything_else_is_none() {
        let challenge = |json: &str| data_encoding::BASE64.encode(json.as_bytes());
        for (json, status) in [
            (r#"{"status":"401","schemes":"bearer","scope":"mail"}"#, Some("401")),
            (r#"{"status":"invalid_token"}"#, Some("invalid_token")),
            (r#"{"status":7}"#, None),
            (r#"{"error":"x"}"#, None),
            ("", None),
        ] {
            assert_eq!(complaint(&challenge(json)).as_deref(), status, "{json}");
        }
        assert_eq!(complaint("not base64!"), None);
        assert!(!complaint(&challenge("{\"status\":\"a\\u001b[2Jb\"}")).unwrap().contains('\x1b'));
        assert!(
            complaint(&challenge(&format!("{{\"status\":\"{}\"}}", "x".repeat(300)))).unwrap().len() <= 70
        );
    }

    #[test]
    fn an_exchange_is_not_endless() {
        let mut exchange = Exchange::new(Mechanism::XOAuth2);
        let answers = (0..10).filter(|_| exchange.challenged("").is_some()).count();
        assert_eq!(answers, usize::from(MOST_ROUNDS));
        assert!(Exchange::new(Mechanism::Plain).challenged("").is_none());
    }
}
