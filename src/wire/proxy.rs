//! Through a proxy: SOCKS5 (RFC 1928, 1929) and HTTP CONNECT (RFC 9110 section 9.3.6). Names are resolved by the proxy.

use std::net::IpAddr;

use data_encoding::BASE64;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_socks::TargetAddr;
use tokio_socks::tcp::Socks5Stream;
use zeroize::Zeroizing;

use crate::config::settings::{ProxyProtocol, ProxySettings};
use crate::text;

/// The head of an answer to CONNECT is no longer.
const MOST_HEAD: usize = 8 << 10;

const MOST_HEADERS: usize = 64;

/// Why a proxy does not connect.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it wants a user and a password (or others): proxy = {{ url, user, password }}")]
    Unauthorized,
    #[error("{0}")]
    Said(String),
    #[error("it does not speak {0}")]
    NotSpoken(&'static str),
    #[error("it hung up")]
    Closed,
}

/// Asks the proxy at the other end of `tcp` for a connection to `host`; what is read is its answer and no byte more.
pub(super) async fn ask(
    mut tcp: TcpStream,
    proxy: &ProxySettings,
    credentials: Option<(&str, &SecretString)>,
    (host, port): (&str, u16),
) -> Result<TcpStream, Refused> {
    match proxy.protocol {
        ProxyProtocol::Socks5 => socks(tcp, credentials, (host, port)).await,
        ProxyProtocol::Http => {
            connect(&mut tcp, credentials, (host, port)).await?;
            Ok(tcp)
        }
    }
}

async fn socks(
    tcp: TcpStream,
    credentials: Option<(&str, &SecretString)>,
    (host, port): (&str, u16),
) -> Result<TcpStream, Refused> {
    let target = match host.parse::<IpAddr>() {
        Ok(ip) => TargetAddr::Ip((ip, port).into()),
        Err(_) => TargetAddr::Domain(host.into(), port),
    };
    let asked = match credentials {
        Some((user, password)) => {
            let password = password.expose_secret();
            Socks5Stream::connect_with_password_and_socket(tcp, target, user, password).await
        }
        None => Socks5Stream::connect_with_socket(tcp, target).await,
    };
    asked.map(Socks5Stream::into_inner).map_err(|error| socks_refusal(&error))
}

fn socks_refusal(error: &tokio_socks::Error) -> Refused {
    use tokio_socks::Error::*;
    match error {
        Io(_) => Refused::Closed,
        InvalidResponseVersion | InvalidReservedByte | UnknownAddressType => Refused::NotSpoken("SOCKS5"),
        NoAcceptableAuthMethods | UnknownAuthMethod | PasswordAuthFailure(_) | AuthorizationRequired => {
            Refused::Unauthorized
        }
        other => Refused::Said(format!("it says: {other}")),
    }
}

async fn connect(
    tcp: &mut TcpStream,
    credentials: Option<(&str, &SecretString)>,
    (host, port): (&str, u16),
) -> Result<(), Refused> {
    let request = request(credentials, host, port);
    tcp.write_all(request.as_bytes()).await.map_err(|_| Refused::Closed)?;
    let mut head = Vec::with_capacity(256);
    // Byte by byte: what follows the head is the server's, and may be its greeting.
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.map_err(|_| Refused::Closed)?);
        if head.len() > MOST_HEAD {
            return Err(Refused::NotSpoken("HTTP"));
        }
    }
    judge(&head)
}

fn request(credentials: Option<(&str, &SecretString)>, host: &str, port: u16) -> Zeroizing<String> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = Zeroizing::new(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"));
    if let Some((user, password)) = credentials {
        let plain = Zeroizing::new(format!("{user}:{}", password.expose_secret()));
        let encoded = Zeroizing::new(BASE64.encode(plain.as_bytes()));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&encoded);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request
}

fn judge(head: &[u8]) -> Result<(), Refused> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(head);
    match response.code.filter(|_| parsed.is_ok()) {
        None => Err(Refused::NotSpoken("HTTP")),
        Some(200..=299) => Ok(()),
        Some(407) => Err(Refused::Unauthorized),
        Some(code) => {
            let reason = text::line(response.reason.unwrap_or_default(), 80);
            Err(Refused::Said(format!("it says: {code} {reason}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_success_connects() {
        for (head, expected) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", ""),
            ("HTTP/1.0 200 OK\r\nVia: x\r\n\r\n", ""),
            ("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "it wants a user and a password"),
            ("HTTP/1.1 502 Bad\x1b[2J Gateway\r\n\r\n", "it does not speak HTTP"),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "it says: 502 Bad Gateway"),
            ("HTTP/1.1 101 Switching\r\n\r\n", "it says: 101 Switching"),
            ("* OK IMAP4rev1 ready\r\n\r\n", "it does not speak HTTP"),
            ("\r\n\r\n", "it does not speak HTTP"),
        ] {
            let told = judge(head.as_bytes()).err().map(|refused| refused.to_string()).unwrap_or_default();
            assert!(told.starts_with(expected) && told.is_empty() == expected.is_empty(), "{head:?}: {told}");
        }
    }

    #[test]
    fn a_request_names_the_host_and_who_asks() {
        let plain = request(None, "imap.example.com", 993);
        assert_eq!(*plain, "CONNECT imap.example.com:993 HTTP/1.1\r\nHost: imap.example.com:993\r\n\r\n");
        let asked = request(Some(("me", &"pw".into())), "::1", 143);
        assert!(asked.starts_with("CONNECT [::1]:143 HTTP/1.1\r\n"));
        assert!(asked.ends_with("Proxy-Authorization: Basic bWU6cHc=\r\n\r\n"));
    }
}
