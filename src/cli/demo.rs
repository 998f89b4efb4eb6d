//! `idlewatch demo`

use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::{Exit, Globals, tell};
use crate::app::{self, RunOptions};
use crate::config;
use crate::demo::mail;
use crate::demo::server::{Behaviour, Server};
use crate::demo::store::Store;

const USERS: [&str; 3] = ["alice", "bob", "carol"];
const PASSWORD: &str = "demo";

/// Flags of `demo`.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// End after this time, like `10s`; else at Ctrl-C.
    #[arg(long = "for", value_name = "DURATION")]
    duration: Option<SignedDuration>,
}

/// The real monitor on a server of our own, in a thread of its own.
pub(super) fn execute(args: &DemoArgs, globals: &Globals) -> Exit {
    let store = Store::new(USERS.map(|user| (user.to_owned(), PASSWORD.to_owned())));
    let (ready, port) = std::sync::mpsc::channel();
    let served = store.clone();
    std::thread::spawn(move || serve(served, &ready));
    let Ok(port) = port.recv() else {
        tell("error: no port on 127.0.0.1 is free");
        return Exit::CannotStart;
    };
    let Ok(state) = state_dir() else {
        tell("error: no temporary directory can be made");
        return Exit::CannotStart;
    };
    let settings = match config::from_text("demo", &text(port, &state.display().to_string())) {
        Ok((settings, _)) => settings,
        Err(issues) => {
            globals.tell_issues(&issues);
            return Exit::Config;
        }
    };
    globals.log(&settings.log);
    tell(&format!(
        "demo: an IMAP server with {} accounts on 127.0.0.1:{port}, mail every second; Ctrl-C ends it",
        USERS.len()
    ));
    let limit = args.duration.and_then(|limit| Duration::try_from(limit).ok());
    let stop = async move {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let exit = app::run(&settings, &RunOptions::default(), Box::pin(stop));
    let delivered: usize = USERS
        .iter()
        .filter_map(|user| store.mailbox(user, "INBOX"))
        .map(|mailbox| mailbox.messages.len())
        .sum();
    tell(&format!("demo: {delivered} messages were delivered to {} accounts", USERS.len()));
    let _ = std::fs::remove_dir_all(&state);
    exit
}

fn state_dir() -> std::io::Result<std::path::PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = std::env::temp_dir().join(format!(
        "idlewatch-demo-{}-{:08x}",
        std::process::id(),
        rand::random::<u32>()
    ));
    std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
    Ok(dir)
}

fn text(port: u16, state: &str) -> String {
    let mut text = format!(
        "[monitor]\ninstance = \"demo\"\nstate_dir = {state:?}\nshutdown_timeout = \"3s\"\n[log]\nlevel = \"error\"\n\
         [defaults]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\npassword = {{ inline = \"{PASSWORD}\" }}\n"
    );
    for user in USERS {
        text.push_str(&format!("[[accounts]]\nid = \"{user}\"\nuser = \"{user}\"\n"));
    }
    text
}

fn serve(store: Store, ready: &std::sync::mpsc::Sender<u16>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    runtime.block_on(async {
        let Ok(server) = Server::start(store.clone(), Behaviour::default()).await else { return };
        let _ = ready.send(server.addr().port());
        let mut random = StdRng::from_os_rng();
        loop {
            tokio::time::sleep(Duration::from_millis(900)).await;
            if let Some(user) = USERS.choose(&mut random) {
                store.deliver(user, "INBOX", mail::sample(user, &mut random).as_bytes());
            }
        }
    });
}
