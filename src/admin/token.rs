//! The token that is asked for over TCP, and those who guess at it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::access::Proof;
use crate::config::settings::{SHORTEST_TOKEN, TOO_SHORT};

/// Wrong tokens of one address within [`WHILE`]; then it has to wait.
const MOST_WRONG: u32 = 10;

/// For so long wrong tokens are counted, and whoever showed too many is not listened to.
const WHILE: Duration = Duration::from_secs(60);

/// Addresses that are remembered.
const MOST_ADDRESSES: usize = 1024;

/// The token. It is kept as a digest: tokens are compared in constant time, whatever their lengths.
#[derive(Clone)]
pub(super) struct Token([u8; 32]);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// It can be guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{TOO_SHORT}")]
pub struct TooShort;

impl Token {
    /// # Errors
    /// Where it is too short to be one.
    pub(super) fn new(token: &SecretString) -> Result<Self, TooShort> {
        let token = token.expose_secret();
        if token.chars().count() < SHORTEST_TOKEN {
            Err(TooShort)
        } else {
            Ok(Self(digest(token.as_bytes())))
        }
    }

    /// What an `Authorization` header shows.
    pub(super) fn proof(&self, header: Option<&[u8]>) -> Proof {
        let Some(header) = header else { return Proof::Nothing };
        let space = header.iter().position(|byte| *byte == b' ').unwrap_or(header.len());
        let (scheme, shown) = header.split_at(space);
        let shown = shown.trim_ascii();
        if scheme.eq_ignore_ascii_case(b"bearer") && self.is(shown) {
            return Proof::Bearer;
        }
        if scheme.eq_ignore_ascii_case(b"basic") && password(shown).is_some_and(|password| self.is(&password))
        {
            return Proof::Password;
        }
        Proof::Wrong
    }

    fn is(&self, shown: &[u8]) -> bool {
        digest(shown).ct_eq(&self.0).into()
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What stands behind the first colon (RFC 7617).
fn password(shown: &[u8]) -> Option<Vec<u8>> {
    let mut pair = BASE64.decode(shown).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair.split_off(colon + 1))
}

/// Those who showed wrong tokens lately. Pure.
#[derive(Debug, Default)]
pub(super) struct Guesses(HashMap<IpAddr, Guesser>);

#[derive(Clone, Copy, Debug)]
struct Guesser {
    wrong: u32,
    since: Instant,
}

impl Guesses {
    /// What a proof is worth that came from `address`: a wrong one nothing, and no answer, where too many were wrong. The
    /// right one always counts, since many may come from the address of one proxy. `true` where they have just become too many.
    pub(super) fn judge(&mut self, address: Option<IpAddr>, proof: Proof, now: Instant) -> (Proof, bool) {
        let Some(address) = address.map(network) else { return (proof, false) };
        if proof != Proof::Wrong {
            return (proof, false);
        }
        self.0.retain(|_, guesser| now.saturating_duration_since(guesser.since) < WHILE);
        if self.0.get(&address).is_some_and(|guesser| guesser.wrong >= MOST_WRONG) {
            return (Proof::TooMany, false);
        }
        self.make_room();
        let guesser = self.0.entry(address).or_insert(Guesser { wrong: 0, since: now });
        guesser.wrong += 1;
        (proof, guesser.wrong == MOST_WRONG)
    }

    /// Who guessed least is forgotten first.
    fn make_room(&mut self) {
        if self.0.len() >= MOST_ADDRESSES
            && let Some(least) =
                self.0.iter().min_by_key(|(_, guesser)| guesser.wrong).map(|(address, _)| *address)
        {
            self.0.remove(&least);
        }
    }
}

/// Whoever has an IPv6 address has a whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef:x";

    fn token() -> Token {
        Token::new(&TOKEN.into()).unwrap()
    }

    #[test]
    fn a_token_is_shown_as_a_bearer_s_or_as_a_password() {
        let basic = |pair: &str| format!("Basic {}", BASE64.encode(pair.as_bytes()));
        for (header, proof) in [
            (format!("Bearer {TOKEN}"), Proof::Bearer),
            (format!("bearer   {TOKEN} "), Proof::Bearer),
            (basic(&format!("anybody:{TOKEN}")), Proof::Password),
            (basic(&format!(":{TOKEN}")), Proof::Password),
            (basic(TOKEN), Proof::Wrong),
            (basic("a:"), Proof::Wrong),
            ("Basic !".to_owned(), Proof::Wrong),
            (format!("Bearer {TOKEN}x"), Proof::Wrong),
            ("Bearer".to_owned(), Proof::Wrong),
            (String::new(), Proof::Wrong),
            (TOKEN.to_owned(), Proof::Wrong),
            (format!("Digest {TOKEN}"), Proof::Wrong),
        ] {
            assert_eq!(token().proof(Some(header.as_bytes())), proof, "{header}");
        }
        assert_eq!(token().proof(None), Proof::Nothing);
        assert_eq!(Token::new(&"0123456789abcde".into()).unwrap_err(), TooShort);
        assert!(!format!("{:?}", token()).contains("012"));
    }

    #[test]
    fn whoever_guesses_waits_even_with_the_right_one_and_nobody_else_does() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        let [guesser, other] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse().ok());
        for guess in 1..=MOST_WRONG {
            let told = guesses.judge(guesser, Proof::Wrong, start);
            assert_eq!(told, (Proof::Wrong, guess == MOST_WRONG));
        }
        assert_eq!(guesses.judge(guesser, Proof::Wrong, start).0, Proof::TooMany);
        assert_eq!(guesses.judge("::ffff:10.0.0.1".parse().ok(), Proof::Wrong, start).0, Proof::TooMany);
        assert_eq!(
            guesses.judge(guesser, Proof::Bearer, start).0,
            Proof::Bearer,
            "others are behind the same proxy"
        );
        assert_eq!(guesses.judge(guesser, Proof::Nothing, start).0, Proof::Nothing, "that is no guess");
        assert_eq!(guesses.judge(other, Proof::Wrong, start).0, Proof::Wrong);
        assert_eq!(guesses.judge(guesser, Proof::Wrong, start + WHILE).0, Proof::Wrong);
    }

    #[test]
    fn a_network_of_ipv6_is_one_guesser_and_there_are_no_more_than_are_remembered() {
        let (mut guesses, start) = (Guesses::default(), Instant::now());
        for host in 1..=MOST_WRONG {
            let address = format!("2001:db8::{host:x}").parse().ok();
            guesses.judge(address, Proof::Wrong, start);
        }
        assert_eq!(guesses.judge("2001:db8::ffff".parse().ok(), Proof::Wrong, start).0, Proof::TooMany);
        for network in 0..2 * MOST_ADDRESSES {
            guesses.judge(format!("2001:db8:1:{network:x}::1").parse().ok(), Proof::Wrong, start);
        }
        assert_eq!(guesses.0.len(), MOST_ADDRESSES);
        assert_eq!(guesses.judge("2001:db8::1".parse().ok(), Proof::Wrong, start).0, Proof::TooMany);
    }
}
