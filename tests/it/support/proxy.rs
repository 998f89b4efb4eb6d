//! A small SOCKS5 and HTTP proxy, and two real ones.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

use super::process::{Server, free_port, open_dir};

#[derive(Clone, Copy, PartialEq)]
pub enum Protocol {
    Socks5,
    Http,
}

impl Protocol {
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Socks5 => "socks5h",
            Self::Http => "http",
        }
    }
}

/// A proxy for the user `me` with the password `open sesame`, on which every name is 127.0.0.1; gone when dropped.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// What was asked for.
    targets: Mutex<Vec<String>>,
    connections: Mutex<Vec<AbortHandle>>,
    silent: AtomicBool,
}

impl Proxy {
    pub async fn start(protocol: Protocol) -> Self {
        Self::on(protocol, 0).await
    }

    /// On the port of one that is gone.
    pub async fn on(protocol: Protocol, port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let state = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let serving = tokio::spawn(serve(protocol, tcp, state.clone()));
                state.connections.lock().unwrap().push(serving.abort_handle());
            }
        });
        Self { port, shared, task }
    }

    pub fn targets(&self) -> Vec<String> {
        self.shared.targets.lock().unwrap().clone()
    }

    /// From now on it takes connections, and says nothing.
    pub fn fall_silent(&self) {
        self.shared.silent.store(true, Ordering::SeqCst);
    }

    pub fn speak_again(&self) {
        self.shared.silent.store(false, Ordering::SeqCst);
    }

    /// Cuts all its connections.
    pub fn cut(&self) {
        self.shared.connections.lock().unwrap().drain(..).for_each(|connection| connection.abort());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn serve(protocol: Protocol, mut client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    if shared.silent.load(Ordering::SeqCst) {
        return tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop);
    }
    let asked = match protocol {
        Protocol::Socks5 => socks(&mut client).await?,
        Protocol::Http => http(&mut client).await?,
    };
    let Some((host, port)) = asked else { return Ok(()) };
    shared.targets.lock().unwrap().push(format!("{host}:{port}"));
    let server = TcpStream::connect(("127.0.0.1", port)).await;
    let answer: &[u8] = match (protocol, &server) {
        (Protocol::Socks5, Ok(_)) => &[5, 0, 0, 3, 1, b'x', 0, 1],
        (Protocol::Socks5, Err(_)) => &[5, 5, 0, 1, 0, 0, 0, 0, 0, 0],
        (Protocol::Http, Ok(_)) => b"HTTP/1.1 200 Connection established\r\nProxy-agent: test\r\n\r\n",
        (Protocol::Http, Err(_)) => b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
    };
    client.write_all(answer).await?;
    copy_bidirectional(&mut client, &mut server?).await.map(drop)
}

async fn take(client: &mut TcpStream, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    client.read_exact(&mut bytes).await.map(|_| bytes)
}

async fn socks(client: &mut TcpStream) -> io::Result<Option<(String, u16)>> {
    let count = usize::from(take(client, 2).await?[1]);
    if !take(client, count).await?.contains(&2) {
        client.write_all(&[5, 0xff]).await?;
        return Ok(None);
    }
    client.write_all(&[5, 2]).await?;
    let length = usize::from(take(client, 2).await?[1]);
    let user = take(client, length).await?;
    let length = usize::from(take(client, 1).await?[0]);
    let password = take(client, length).await?;
    let good = user == b"me" && password == b"open sesame";
    client.write_all(&[1, u8::from(!good)]).await?;
    if !good {
        return Ok(None);
    }
    let kind = take(client, 4).await?[3];
    let host = match kind {
        3 => {
            let length = usize::from(take(client, 1).await?[0]);
            String::from_utf8(take(client, length).await?).unwrap()
        }
        _ => take(client, 4).await?.iter().map(u8::to_string).collect::<Vec<_>>().join("."),
    };
    let port = take(client, 2).await?;
    Ok(Some((host, u16::from_be_bytes([port[0], port[1]]))))
}

async fn http(client: &mut TcpStream) -> io::Result<Option<(String, u16)>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let secret = BASE64.encode(b"me:open sesame");
    if !head.contains(&format!("Proxy-Authorization: Basic {secret}\r\n")) {
        client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await?;
        return Ok(None);
    }
    let authority = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap();
    let (host, port) = authority.rsplit_once(':').unwrap();
    Ok(Some((host.to_owned(), port.parse().unwrap())))
}

/// A proxy that people run: microsocks or tinyproxy, for the user `me` with the password `sesame`.
pub struct RealProxy {
    pub port: u16,
    _server: Server,
    _dir: TempDir,
}

impl RealProxy {
    pub fn start(protocol: Protocol) -> Self {
        let (dir, port) = (open_dir(), free_port());
        let command = match protocol {
            Protocol::Socks5 => format!("/usr/bin/microsocks -i 127.0.0.1 -p {port} -u me -P sesame"),
            Protocol::Http => {
                let file = dir.path().join("tinyproxy.conf");
                let text = format!(
                    "Port {port}\nListen 127.0.0.1\nTimeout 600\nBasicAuth me sesame\nMaxClients 100\n"
                );
                fs::write(&file, text).unwrap();
                format!("/usr/bin/tinyproxy -d -c {}", file.display())
            }
        };
        let server = Server::start(&command, &[], &[port], &dir.path().join("proxy.log"));
        Self { port, _server: server, _dir: dir }
    }
}
