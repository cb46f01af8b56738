//! Writes names that the kernel has as bytes, above all of files, as text.
//!
//! Invariant: different bytes never make the same text, so that no name of a file can be taken for another.
//! Plain UTF-8 stays as it is. Bytes that are not UTF-8, control characters, and characters that end a line
//! or change the direction of text become `\xNN`, with two lower-case hexadecimal digits for each byte. A
//! backslash is doubled where it would otherwise be read together with what follows: before an `x`, another
//! backslash, or a byte written as `\xNN`.

use std::fmt::Write as _;
use std::path::Path;

/// Returns the text for `bytes`, which is up to four times as long, in bytes.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    // True while `text` ends in a single backslash, which stands for itself.
    let mut is_behind_backslash = false;
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let is_hidden = is_hidden(character);
            if is_behind_backslash && (is_hidden || matches!(character, '\\' | 'x')) {
                text.push('\\');
            }
            is_behind_backslash = character == '\\';
            if is_hidden {
                push_bytes(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(character);
            }
        }
        if !chunk.invalid().is_empty() {
            if is_behind_backslash {
                text.push('\\');
            }
            is_behind_backslash = false;
            push_bytes(&mut text, chunk.invalid());
        }
    }
    text
}

/// Returns the text for a path like [`escaped`].
pub fn escaped_path(path: &Path) -> String {
    escaped(path.as_os_str().as_encoded_bytes())
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing into a String cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Returns whether a character is written as bytes: control characters, ends of lines and paragraphs, marks
/// of direction, and the byte order mark.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn plain_names_stand_as_they_are() {
        for plain in ["/etc/passwd", "/t/für \"x\"", "/a\\b", "/dev-disk\\", "\u{fffd}", ""] {
            assert_eq!(escaped(plain.as_bytes()), plain);
        }
    }

    #[test]
    fn unprintable_and_non_utf8_bytes_are_escaped() {
        for (bytes, text) in [
            (&b"/t/a\xff"[..], r"/t/a\xff"),
            (b"/t/a\nb\x00\x7f", r"/t/a\x0ab\x00\x7f"),
            (b"/t/a\xff\xfe\\", r"/t/a\xff\xfe\"),
            (br"/t/a\xff", r"/t/a\\xff"),
            (b"\\\xff", r"\\\xff"),
            (br"\\", r"\\\"),
            ("\u{202e}txt.exe".as_bytes(), r"\xe2\x80\xaetxt.exe"),
            ("\u{85}".as_bytes(), r"\xc2\x85"),
        ] {
            assert_eq!(escaped(bytes), text);
        }
    }

    /// Returns the bytes of a text, decoded as a reader of alerts does it.
    fn unescaped(text: &str) -> Vec<u8> {
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let Some((&first, tail)) = rest.split_first() {
            let hex = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
            let (byte, taken) = match tail {
                [b'\\', ..] if first == b'\\' => (b'\\', 1),
                [b'x', high, low, ..] if first == b'\\' => (hex(&[*high, *low]), 3),
                _ => (first, 0),
            };
            bytes.push(byte);
            rest = &tail[taken..];
        }
        bytes
    }

    proptest! {
        #[test]
        fn the_bytes_come_back(bytes in vec(prop_oneof![
            any::<u8>(),
            proptest::sample::select(&b"\\x0f/\xff\xe2\x80\xa8\n"[..]),
        ], 0..24)) {
            let text = escaped(&bytes);
            prop_assert_eq!(unescaped(&text), bytes);
            prop_assert!(!text.chars().any(is_hidden));
        }
    }
}
