//! stub
/// x
pub fn encode(name: &str) -> String {
    name.into()
}
/// x
pub fn decode(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
