//! stub
use super::reply::FetchItems;
use crate::event::MessageSummary;
/// x
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// x
    pub attachments: bool,
    /// x
    pub headers: Vec<String>,
    /// x
    pub max_addresses: usize,
}
/// x
pub fn fetch_header_fields(_: &Wanted) -> Vec<&str> {
    vec![]
}
/// x
pub fn summarize(_: &FetchItems, _: &Wanted) -> MessageSummary {
    MessageSummary::default()
}
/// x
pub fn unreadable_message() -> MessageSummary {
    MessageSummary::default()
}
/// x
pub fn internal_date(_: &str) -> Option<jiff::Timestamp> {
    None
}
