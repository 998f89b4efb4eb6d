//! The listener of the in-memory server.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::session::Session;
use super::store::Store;
use super::visits::{Visit, Visits};

/// How the server behaves.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Announces IDLE.
    pub idle: bool,
    /// Tells news during IDLE; GNU imap4d announces IDLE and does not.
    pub pushes: bool,
    /// Searches; else it refuses to.
    pub searches: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { idle: true, pushes: true, searches: true }
    }
}

/// A running server; gone when dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    store: Store,
    cut: watch::Sender<u64>,
    commands: Arc<AtomicU64>,
    visits: Visits,
    task: JoinHandle<()>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start(store: Store, behaviour: Behaviour) -> io::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), store, behaviour).await
    }

    /// Listens on a free port of this address.
    ///
    /// # Errors
    /// When there is none, or the address is none of this machine.
    pub async fn start_at(address: IpAddr, store: Store, behaviour: Behaviour) -> io::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let addr = listener.local_addr()?;
        let (cut, cuts) = watch::channel(0);
        let commands = Arc::new(AtomicU64::new(0));
        let visits = Visits::default();
        let shared = (store.clone(), commands.clone(), visits.clone());
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let _ = tcp.set_nodelay(true);
                let (store, commands, visitor) = (shared.0.clone(), shared.1.clone(), shared.2.visitor());
                let session = Session::new(store, behaviour.clone(), commands, visitor);
                let mut cuts = cuts.clone();
                cuts.mark_unchanged();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = session.serve(tcp) => {}
                        _ = cuts.changed() => {}
                    }
                });
            }
        });
        Ok(Self { addr, store, cut, commands, visits, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its mailboxes.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Cuts every connection.
    pub fn drop_connections(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// Everybody who logged in, in that order.
    pub fn visits(&self) -> Vec<Visit> {
        self.visits.all()
    }

    /// Commands that could have changed a mailbox, so far: SELECT, STORE, BODY[] without PEEK and the like.
    pub fn changing_commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.drop_connections();
        self.task.abort();
    }
}
