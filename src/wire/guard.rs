//! Stands before async-imap's parser: asks it only what it can take, and reads the rest tolerantly.
//!
//! The parser overflows the stack on some responses and panics on others; one odd message must cost itself only.

use std::panic::{AssertUnwindSafe, catch_unwind};

use async_imap::imap_proto::{AttributeValue, Response};

use super::frame::{Frame, takes_literals};
use crate::imap::reply::Reply;
use crate::imap::{parse, tolerant};

/// More than any honest response has (an envelope with many addresses apart), and far from the stack's end.
const MOST_OPENS: usize = 128;

/// The reply that the response is.
pub fn read(frame: &Frame) -> Reply {
    parsed(frame).map_or_else(|| tolerant::read(&frame.bytes), |response| parse::reply(&response))
}

/// The response, if imap-proto takes the whole of it and understands every item. A panic in it is a "no".
fn parsed(frame: &Frame) -> Option<Response<'_>> {
    if frame.opens > MOST_OPENS || frame.nil_date || is_known_to_panic(&frame.bytes) {
        return None;
    }
    let (rest, response) = catch_unwind(AssertUnwindSafe(|| Response::parse(&frame.bytes))).ok()?.ok()?;
    (rest.is_empty() && !has_unknown(&response)).then_some(response)
}

fn has_unknown(response: &Response<'_>) -> bool {
    let Response::Fetch(_, items) = response else { return false };
    items.iter().any(|item| matches!(item, AttributeValue::Unknown))
}

/// imap-proto 0.17 panics on these; not asking it spares a backtrace per line.
fn is_known_to_panic(frame: &[u8]) -> bool {
    let head: &[u8] = frame.get(..frame.len().min(64)).unwrap_or_default();
    // "[ALERT]é": the text is cut one byte after the bracket.
    // Only in status responses: a subject like "[list]é" in a header literal is nobody's trouble.
    let cut_inside_a_character = !takes_literals(frame)
        && frame.windows(2).any(|pair| matches!(pair, [b']', second] if !second.is_ascii()));
    cut_inside_a_character || head.windows(8).any(|window| window.eq_ignore_ascii_case(b"METADATA"))
}
