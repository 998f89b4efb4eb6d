//! Whether a row is what was written: its checksum, the same wherever it is kept.

use super::LanePosition;
use crate::event::Cursor;

/// Of parts that cannot run into each other.
pub(super) fn crc(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
        hasher.update(&[0]);
    }
    hasher.finalize()
}

/// Of a mailbox's cursor.
pub(super) fn cursor_crc(account: &str, mailbox: &str, cursor: &Cursor) -> u32 {
    // Without `blind_since`: a note changes it alone, and nothing is lost by it.
    let mut numbers = format!("{} {} {:?}", cursor.uid_validity, cursor.uid_next, cursor.modseq);
    if let Some(below) = cursor.look_back {
        numbers.push_str(&format!(" {below}"));
    }
    // Only where it is set: rows of older versions are as they were written.
    if let Some(modseq) = cursor.changes {
        numbers.push_str(&format!(" changes {modseq}"));
    }
    if let Some(gone) = &cursor.gone {
        numbers.push_str(&format!(" gone {gone}"));
    }
    crc(&[account.as_bytes(), mailbox.as_bytes(), numbers.as_bytes(), cursor.seen.to_string().as_bytes()])
}

/// Of where an output stands.
pub(super) fn lane_crc(name: &str, position: &LanePosition) -> u32 {
    let file = position.file.as_ref();
    let generation = file.map_or("", |end| &end.generation);
    let numbers = format!("{} {:?}", position.sequence, file.map(|end| end.offset));
    crc(&[name.as_bytes(), numbers.as_bytes(), generation.as_bytes()])
}
