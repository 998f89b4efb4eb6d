//! The control port: one command a line, one answer a line. bench/README.md lists them.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};

use super::world::World;
use crate::clock;

/// Takes orders for ever.
///
/// # Errors
/// When the listener fails.
pub async fn listen(listener: TcpListener, world: Arc<World>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, world.clone()));
    }
}

async fn serve(stream: TcpStream, world: Arc<World>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = obey(&line, &world).await.unwrap_or_else(|| "error: see bench/README.md".to_owned());
        writer.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

/// What the answer to a command is; `None` where nobody understands it.
async fn obey(line: &str, world: &World) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = clock::nanos();
    match words.as_slice() {
        ["stats"] => return Some(world.counters.line()),
        ["told"] => return Some(told(world)),
        ["reset"] => world.reset(),
        ["password", password] => world.set_password(password),
        ["burst" | "fill", count] => {
            let count = count.parse().ok()?;
            (1..=world.users()).for_each(|user| world.deliver(user, count));
        }
        ["deliver", count, users] => deliver(world, count.parse().ok()?, users, Duration::ZERO).await?,
        ["deliver", count, users, "over", seconds] => {
            let over = Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
            deliver(world, count.parse().ok()?, users, over).await?;
        }
        _ => return None,
    }
    Some(format!("ok {at}"))
}

/// `count` messages for each of `first..last`, one at a time and evenly `over` a time.
async fn deliver(world: &World, count: u32, users: &str, over: Duration) -> Option<()> {
    let (first, last) = users.split_once("..")?;
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    let total = count.checked_mul(last.checked_sub(first)?.checked_add(1)?)?;
    let begin = Instant::now();
    for (nth, user) in (0..count).flat_map(|_| first..=last).enumerate() {
        let due = begin + over.mul_f64(nth as f64 / f64::from(total));
        if due > Instant::now() {
            sleep_until(due).await;
        }
        world.deliver(user, 1);
    }
    Some(())
}

/// `user uid nanos` of each message told since the last time, divided by commas.
fn told(world: &World) -> String {
    let mut line = String::new();
    for told in world.take_told() {
        let _ = write!(line, "{} {} {},", told.user, told.uid, told.at);
    }
    line.pop();
    line
}
