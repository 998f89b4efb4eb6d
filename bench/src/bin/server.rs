//! The load server. Says `ready PLAIN_PORT TLS_PORT CONTROL_PORT`, and ends with its stdin.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use idlewatch_bench::server::{connection, control, world::World};
use idlewatch_bench::tls;
use tokio::net::{TcpListener, TcpSocket};
use tokio_rustls::TlsAcceptor;

/// A load server with made-up mail; bench/README.md has its control protocol.
#[derive(Debug, Parser)]
struct Args {
    /// user1 to userN; any password.
    #[arg(long, default_value_t = 1000)]
    users: u32,
    /// Listens on this many addresses, from 127.0.0.2 on.
    #[arg(long, default_value_t = 4)]
    hosts: u8,
    /// Where the certificate of its CA goes.
    #[arg(long)]
    ca: PathBuf,
    /// The round trip to play, in milliseconds.
    #[arg(long, default_value_t = 0)]
    round_trip: u64,
    /// Offers NOTIFY (RFC 5465).
    #[arg(long)]
    notify: bool,
    /// Messages that every mailbox has at the start.
    #[arg(long, default_value_t = 0)]
    fill: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let args = Args::parse();
    rlimit::increase_nofile_limit(u64::MAX)?;
    let hosts: Vec<IpAddr> = (0..args.hosts).map(|n| Ipv4Addr::new(127, 0, 0, n + 2).into()).collect();
    let acceptor = TlsAcceptor::from(tls::server(&hosts, &args.ca)?);
    let world = Arc::new(World::new(args.users, Duration::from_millis(args.round_trip), args.notify));
    (1..=args.users).for_each(|user| world.deliver(user, args.fill));
    let (plain, plain_port) = bind(&hosts)?;
    let (secure, secure_port) = bind(&hosts)?;
    let orders = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("ready {plain_port} {secure_port} {}", orders.local_addr()?.port());
    let plain = plain.into_iter().map(|listener| (listener, None));
    let secure = secure.into_iter().map(|listener| (listener, Some(acceptor.clone())));
    let all = plain.chain(secure).map(|(listener, tls)| connection::listen(listener, tls, world.clone()));
    tokio::select! {
        ended = connection::all(all.collect()) => ended?,
        ended = control::listen(orders, world.clone()) => ended?,
        ended = end_of_stdin() => ended?,
    }
    // Thousands of connections need not be taken down one by one.
    std::process::exit(0)
}

/// The same free port on every host.
fn bind(hosts: &[IpAddr]) -> io::Result<(Vec<TcpListener>, u16)> {
    let mut port = 0;
    let mut listeners = Vec::new();
    for &host in hosts {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind((host, port).into())?;
        let listener = socket.listen(4096)?;
        port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok((listeners, port))
}

/// Whoever started the server holds its stdin: when he is gone, it goes.
async fn end_of_stdin() -> io::Result<()> {
    tokio::io::copy(&mut tokio::io::stdin(), &mut tokio::io::sink()).await.map(drop)
}
