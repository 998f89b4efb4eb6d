//! What measures: the server, then each candidate on the same load.

pub mod candidate;
pub mod child;
pub mod load;
pub mod measure;
pub mod picture;
pub mod proc;
pub mod report;

/// Any failure ends a run: a benchmark that goes on after one measures something else.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Tries until `done` says so, for `seconds` at most.
///
/// # Errors
/// When the time is over, or what `done` says.
pub fn wait_for(what: &str, seconds: u64, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    while !done()? {
        if std::time::Instant::now() > deadline {
            return Err(format!("{what}: not within {seconds} s").into());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

/// Lets things come to rest.
pub fn settle(seconds: f64) {
    std::thread::sleep(std::time::Duration::from_secs_f64(seconds));
}
