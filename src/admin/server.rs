//! The listeners and their bounds. Requests are answered on a thread of their own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actix::Addr;
use actix_rt::task::JoinHandle;
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use log::{error, info, warn};
use socket2::SockRef;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::access::Entrance;
use super::members::Registry;
use super::routes::{self, Shared};
use super::token::{Token, TooShort};
use crate::config::settings::{DatabaseSettings, HttpSettings};
use crate::coordinator::actor::Coordinator;
use crate::coordinator::heartbeat::Heartbeats;
use crate::secrets::SecretError;

/// Connections at the same time, by each way; more wait.
const MOST_CONNECTIONS: usize = 64;

/// The time in which a request has to be there, whatever its sender's pace.
const REQUEST: Duration = Duration::from_secs(5);

/// What nobody uses is closed after this.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Connections that wait for one of those to end; the system has others wait longer.
const MOST_WAITING: i32 = 1024;

/// Bytes of a request's body: none is needed.
const MOST_BODY: usize = 1024;

/// Listeners that are open, and do not answer yet; by default none.
#[derive(Debug, Default)]
pub struct Listeners {
    tcp: Option<TcpListener>,
    token: Option<Token>,
    socket: Option<(UnixListener, PathBuf)>,
}

/// A sender that takes nothing of an answer, or that is gone without a word, is given up after this.
const GIVE_UP: Duration = Duration::from_secs(30);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address.
    #[error("http.listen: {address}: {cause}; is another monitor running, or something else on this port?")]
    Address {
        /// Which.
        address: std::net::SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// The token cannot be had.
    #[error("http.token: {0}")]
    Secret(#[from] SecretError),
    /// The token is none.
    #[error("http.token: {0}")]
    TooShort(#[from] TooShort),
}

impl Listeners {
    /// Opens them. Whoever calls this holds the state's lock, so that a socket that is there is a dead one's.
    /// Without the socket the monitor does its work all the same: that is a warning.
    ///
    /// # Errors
    /// When the address of `http.listen` or the token cannot be had.
    pub async fn open(settings: &HttpSettings) -> Result<Self, ListenError> {
        let listen = |address| bind(address).map_err(|cause| ListenError::Address { address, cause });
        let tcp = settings.listen.map(listen).transpose()?;
        let token = match &settings.token {
            Some(source) => Some(Token::new(&source.resolve().await?)?),
            None => None,
        };
        let socket = match open_socket(&settings.socket) {
            Ok(listener) => Some((listener, settings.socket.clone())),
            Err(error) => {
                warn!(
                    "http.socket: {}: {error}; `idlewatch status` cannot ask this monitor",
                    settings.socket.display()
                );
                None
            }
        };
        Ok(Self { tcp, token, socket })
    }

    /// Answers from now on; with a database, for all members of its cluster too.
    ///
    /// # Errors
    /// Where it cannot be watched whether somebody asks.
    pub fn serve(
        self,
        coordinator: &Addr<Coordinator>,
        heartbeats: &Heartbeats,
        database: Option<&DatabaseSettings>,
    ) -> io::Result<Admin> {
        let mut admin = Admin::default();
        let registry = database.cloned().map(Registry::new);
        let shared = |entrance| {
            let (heartbeats, token) = (heartbeats.clone(), self.token.clone());
            Shared::new(coordinator.clone(), entrance, heartbeats, registry.clone(), token)
        };
        if let Some(listener) = self.tcp {
            let address = listener.local_addr()?;
            info!("status and health at http://{address}/api/v1/status");
            let entrance = if self.token.is_some() { Entrance::Guarded } else { Entrance::Loopback(address) };
            admin.doors.push(Door::open(Listener::Tcp(listener), shared(entrance))?);
        }
        if let Some((listener, path)) = self.socket {
            admin.doors.push(Door::open(Listener::Socket(listener), shared(Entrance::Socket))?);
            admin.socket = Some(path);
        }
        Ok(admin)
    }
}

/// Answers until it is stopped.
#[derive(Debug, Default)]
pub struct Admin {
    doors: Vec<Door>,
    socket: Option<PathBuf>,
}

/// A listener, and who answers there from the first connection on.
#[derive(Debug)]
struct Door {
    close: oneshot::Sender<()>,
    closed: JoinHandle<()>,
}

impl Door {
    fn open(listener: Listener, shared: Shared) -> io::Result<Self> {
        let bell = listener.bell()?;
        let (close, closing) = oneshot::channel();
        let closed = actix_rt::spawn(async move {
            if let Err(error) = answer(listener, bell, shared, closing).await {
                error!("http: {error}; nobody is answered until the next start");
            }
        });
        Ok(Self { close, closed })
    }

    async fn close(self) {
        drop(self.close);
        let _ = self.closed.await;
    }
}

/// Until somebody asks there is no server: actix-http keeps a clock for each, which wakes it twice a second.
async fn answer(
    listener: Listener,
    bell: pipe::Receiver,
    shared: Shared,
    mut closing: oneshot::Receiver<()>,
) -> io::Result<()> {
    tokio::select! {
        asked = bell.readable() => asked?,
        _ = &mut closing => return Ok(()),
    }
    drop(bell);
    let server = server(shared, listener)?;
    let handle = server.handle();
    actix_rt::spawn(server);
    let _ = closing.await;
    handle.stop(false).await;
    Ok(())
}

impl Admin {
    /// Nobody is answered any more.
    pub async fn stop(self) {
        for door in self.doors {
            door.close().await;
        }
        if let Some(socket) = self.socket {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// What is accepted inherits the patience of the listener.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    let socket = SockRef::from(&listener);
    socket.set_tcp_user_timeout(Some(GIVE_UP))?;
    socket.listen(MOST_WAITING)?;
    Ok(listener)
}

/// For its owner only, from the first moment: it is made under another name and moved into place.
fn open_socket(path: &Path) -> io::Result<UnixListener> {
    if let Ok(there) = std::fs::symlink_metadata(path) {
        if !there.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else of this name"));
        }
        std::fs::remove_file(path)?;
    }
    let early = path.with_extension("new");
    let _ = std::fs::remove_file(&early);
    let listener = UnixListener::bind(&early)?;
    std::fs::set_permissions(&early, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&early, path)?;
    Ok(listener)
}

enum Listener {
    Tcp(TcpListener),
    Socket(UnixListener),
}

impl Listener {
    /// Readable once somebody waits at the door. It is no pipe, but of tokio's types that take a descriptor this one only looks whether it is
    /// readable.
    fn bell(&self) -> io::Result<pipe::Receiver> {
        let door = match self {
            Self::Tcp(listener) => OwnedFd::from(listener.try_clone()?),
            Self::Socket(listener) => listener.try_clone()?.into(),
        };
        pipe::Receiver::from_owned_fd_unchecked(door)
    }
}

fn server(shared: Shared, listener: Listener) -> io::Result<Server> {
    let shared = web::Data::new(shared);
    let app = move || {
        App::new()
            .app_data(shared.clone())
            .app_data(web::PayloadConfig::new(MOST_BODY))
            .app_data(routes::queries())
            .wrap(from_fn(routes::admit_only))
            .configure(routes::configure)
            .default_service(web::to(routes::unknown))
    };
    let server = HttpServer::new(app)
        .workers(1)
        .max_connections(MOST_CONNECTIONS)
        .client_request_timeout(REQUEST)
        .client_disconnect_timeout(Duration::from_secs(1))
        .keep_alive(KEEP_ALIVE)
        .disable_signals();
    let server = match listener {
        Listener::Tcp(listener) => server.listen(listener)?,
        Listener::Socket(listener) => server.listen_uds(listener)?,
    };
    Ok(server.run())
}
