//! Bytes that the kernel has for names, of files above all, as text.
//!
//! Invariant: different bytes never make the same text, so that nobody can name a file to be taken for another. What is plain
//! UTF-8 stands as it is. Bytes that are not UTF-8, control characters, and those that end a line or turn the direction of
//! what is shown, stand as `\xNN`, two lower-case hexadecimal digits a byte. A backslash is doubled where it would else be
//! read with what follows: before an `x`, another backslash, or a byte that stands as `\xNN`.

use std::fmt::Write as _;
use std::path::Path;

/// The text for `bytes`; up to four times as long, in bytes.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    // Whether the last of `text` is a backslash that stands for itself, once.
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

/// The text for a path, in the same way.
pub fn escaped_path(path: &Path) -> String {
    escaped(path.as_os_str().as_encoded_bytes())
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing into a String cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// Control characters, ends of lines and paragraphs, marks of direction, and the byte order mark.
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
    fn what_is_no_text_or_would_change_what_is_shown_stands_as_bytes() {
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

    /// As a reader of alerts gets the bytes back.
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
