//! Modified UTF-7, as mailbox names use it (RFC 3501 section 5.1.3).
//!
//! Ours, since the crates for it panic on, or lose, some names.

use data_encoding::{Encoding, Specification};
use std::sync::LazyLock;

/// The name on the wire.
pub fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    let mut shifted: Vec<u8> = Vec::new();
    for c in name.chars() {
        if matches!(c, ' '..='~') {
            flush(&mut shifted, &mut encoded);
            encoded.push(c);
            if c == '&' {
                encoded.push('-');
            }
        } else {
            shifted.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    flush(&mut shifted, &mut encoded);
    encoded
}

fn flush(shifted: &mut Vec<u8>, encoded: &mut String) {
    if !shifted.is_empty() {
        encoded.push('&');
        encoded.push_str(&BASE64.encode(shifted));
        encoded.push('-');
        shifted.clear();
    }
}

/// The name that `wire` stands for; a name that is not modified UTF-7 is taken as UTF-8 (UTF8=ACCEPT), lossily.
pub fn decode(wire: &[u8]) -> String {
    decode_strictly(wire).unwrap_or_else(|| String::from_utf8_lossy(wire).into_owned())
}

fn decode_strictly(wire: &[u8]) -> Option<String> {
    let wire = std::str::from_utf8(wire).ok()?;
    let mut decoded = String::with_capacity(wire.len());
    let mut rest = wire;
    while let Some((literal, after)) = rest.split_once('&') {
        decoded.push_str(literal);
        let (shifted, after) = after.split_once('-')?;
        if shifted.is_empty() {
            decoded.push('&');
        } else {
            decoded.push_str(&decode_shifted(shifted)?);
        }
        rest = after;
    }
    decoded.push_str(rest);
    Some(decoded)
}

fn decode_shifted(shifted: &str) -> Option<String> {
    let bytes = BASE64.decode(shifted.as_bytes()).ok()?;
    let (pairs, odd) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
    if odd.is_empty() { String::from_utf16(&units).ok() } else { None }
}

/// base64 with `,` in place of `/`, and no padding.
static BASE64: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,");
    specification.encoding().unwrap_or(data_encoding::BASE64_NOPAD)
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_as_in_the_rfc() {
        for (name, wire) in [
            ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
            ("Entwürfe", "Entw&APw-rfe"),
            ("R&D", "R&-D"),
            ("\u{7f}", "&AH8-"),
            ("📈", "&2D3cyA-"),
            ("", ""),
        ] {
            assert_eq!((encode(name).as_str(), decode(wire.as_bytes()).as_str()), (wire, name));
        }
    }

    #[test]
    fn what_is_no_modified_utf7_stays_as_it_is() {
        for odd in ["&A-", "&*-", "&2D0-", "a&b", "&"] {
            assert_eq!(decode(odd.as_bytes()), odd);
        }
        assert_eq!(decode("Größe".as_bytes()), "Größe");
        assert_eq!(decode(b"\xff"), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn every_name_survives_the_wire(name in any::<String>()) {
            let wire = encode(&name);
            prop_assert!(wire.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert_eq!(decode(wire.as_bytes()), name);
        }

        #[test]
        fn no_bytes_panic(wire in any::<Vec<u8>>()) {
            decode(&wire);
        }
    }
}
