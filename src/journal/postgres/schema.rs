//! The tables: made once, brought up to date once, whoever comes first.

use super::failure::Failure;
use super::link::Link;
use crate::journal::OpenError;

/// The version that this program writes.
const VERSION: i32 = UPGRADES.len() as i32;

/// From each version to the next, beginning with nothing.
const UPGRADES: &[&str] = &[
    include_str!("schema.sql"),
    include_str!("shards.sql"),
    include_str!("accounts.sql"),
    include_str!("tokens.sql"),
    include_str!("functions.sql"),
    include_str!("accounts_by_shard.sql"),
];

/// PostgreSQL 15.
const OLDEST_SERVER: i32 = 150_000;

/// Makes the schema what this program needs, or says why it cannot.
pub(super) fn prepare(link: &mut Link) -> Result<(), OpenError> {
    let (server, known) = found(link)?;
    if server < OLDEST_SERVER {
        let server = server / 10_000;
        return Err(OpenError::Database(format!("it is PostgreSQL {server}; 15 or newer is needed")));
    }
    if known > VERSION {
        return Err(OpenError::Database(format!(
            "a newer idlewatch has written it (schema {known}, and this one knows {VERSION}): run that one, or a newer"
        )));
    }
    for (version, upgrade) in (0..).zip(UPGRADES.iter()).filter(|(version, _)| *version >= known) {
        link.batch_all(&in_one_transaction(version, upgrade))?;
    }
    Ok(())
}

/// Whether it is what this program needs; nothing is made.
pub(super) fn check(link: &mut Link) -> Result<(), OpenError> {
    match found(link)?.1 {
        VERSION => Ok(()),
        0 => Err(OpenError::Database("no monitor has kept its journal there yet".to_owned())),
        known => Err(OpenError::Database(format!(
            "its schema is {known}, and this idlewatch knows {VERSION}: run the version that its monitors are of"
        ))),
    }
}

/// The version of the server, and of the schema: 0, where there is none.
fn found(link: &mut Link) -> Result<(i32, i32), Failure> {
    let asked = "SELECT current_setting('server_version_num')::int AS server, to_regclass('idlewatch.version') IS NOT NULL AS made";
    let rows = link.query(asked, &[])?;
    let Some(row) = rows.first() else { return Err(Failure::away("it does not tell its version")) };
    let (server, made): (i32, bool) = (row.get("server"), row.get("made"));
    if !made || server < OLDEST_SERVER {
        return Ok((server, 0));
    }
    let rows = link.query("SELECT max(number) AS number FROM version", &[])?;
    let known = rows.first().and_then(|row| row.get::<_, Option<i32>>("number"));
    Ok((server, known.unwrap_or_default()))
}

/// Two monitors that start at the same time do it one after the other, and the second finds it done: it fails, and
/// looks again. The lock is the transaction's.
fn in_one_transaction(version: i32, upgrade: &str) -> String {
    format!(
        "BEGIN; SET LOCAL statement_timeout = '590s'; SELECT pg_advisory_xact_lock(1768188023);
         DO $lock$ DECLARE found int := 0; BEGIN
             IF to_regnamespace('idlewatch') IS NULL THEN CREATE SCHEMA idlewatch; END IF;
             IF to_regclass('idlewatch.version') IS NOT NULL THEN SELECT number INTO found FROM idlewatch.version; END IF;
             IF found <> {version} THEN RAISE serialization_failure USING MESSAGE = 'another monitor prepares it'; END IF;
         END $lock$;
         {upgrade}
         COMMIT"
    )
}

/// A start tries again what may pass.
impl From<Failure> for OpenError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(_) | Failure::DiskFull | Failure::Unreadable(_) => Self::Away(failure.to_string()),
            Failure::Refused(words) | Failure::Rejected(words) => Self::Database(words),
        }
    }
}
