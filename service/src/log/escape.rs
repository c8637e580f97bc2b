//! Whatever a client sends, a line stays one line, and a terminal that shows it stays as it was.
//!
//! # Invariants
//!
//! 1. What [`push_quoted`] writes is printable ASCII without `"` and `\` of its own: no client can end a field or a line.
//! 2. What [`push_json`] writes is JSON whose text holds no control character, no terminal escape, and no character that
//!    changes the direction of what stands beside it.

use serde_json::Value;

/// The most bytes of one field that are kept.
pub(super) const LONGEST: usize = 4096;

/// What stands at the end of a field that was cut.
const CUT: &str = "...";

/// Writes bytes that a client chose into a quoted field of an access line: `"`, `\`, and all that is not printable
/// ASCII, as `\xHH`.
pub(super) fn push_quoted(out: &mut String, bytes: &[u8]) {
    let kept = &bytes[..bytes.len().min(LONGEST)];
    match std::str::from_utf8(kept) {
        // Nearly every field is of this kind.
        Ok(text) if text.bytes().all(is_plain) => out.push_str(text),
        _ => {
            for &byte in kept {
                match byte {
                    byte if is_plain(byte) => out.push(char::from(byte)),
                    byte => push_hex(out, byte),
                }
            }
        }
    }
    if kept.len() < bytes.len() {
        out.push_str(CUT);
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

/// Writes a number in decimal, with zeros before it up to a width.
pub(super) fn push_number(out: &mut String, number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let (mut left, mut from) = (number, digits.len());
    while left > 0 {
        from -= 1;
        // Below ten, so nothing is cut off.
        digits[from] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    let from = from.min(digits.len() - width.min(digits.len()));
    out.extend(digits[from..].iter().map(|&digit| char::from(digit)));
}

fn push_hex(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push_str("\\x");
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// Writes a value as JSON on one line. What JSON leaves as it is and a terminal or a reader would not, is escaped.
pub(super) fn push_json(out: &mut String, value: &Value) {
    let text = value.to_string();
    let mut rest = text.as_str();
    // All of these can only stand inside strings, where an escape means the same.
    while let Some(at) = rest.find(is_treacherous) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let mut chars = from.chars();
        if let Some(c) = chars.next() {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}

/// `text`, cut if it is too long for a log.
pub(super) fn capped(text: &str) -> std::borrow::Cow<'_, str> {
    if text.len() <= LONGEST {
        return text.into();
    }
    let end = (0..=LONGEST)
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    format!("{}{CUT}", &text[..end]).into()
}

/// Whether a character does more than being shown: control characters beyond ASCII's, marks and overrides of direction,
/// breaks of lines, invisible joiners and tags.
fn is_treacherous(c: char) -> bool {
    matches!(c,
        '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_quoted_field_cannot_be_left() {
        let mut out = String::new();
        push_quoted(&mut out, b"a\"b\\c\r\n\x1b[31m\x7f\xe2\x80\xae");
        assert_eq!(out, r"a\x22b\x5Cc\x0D\x0A\x1B[31m\x7F\xE2\x80\xAE");
    }

    #[test]
    fn numbers_are_written_as_by_the_standard_library() {
        for number in [0, 1, 9, 10, 99, 200, 65_535, u64::MAX] {
            for width in [1, 2, 4, 20] {
                let mut out = String::new();
                push_number(&mut out, number, width);
                assert_eq!(out, format!("{number:0width$}"));
            }
        }
    }

    #[test]
    fn json_shows_no_direction_and_no_control() {
        let value = json!({ "m": "\u{1b}[2J\u{202e}evil\u{9b}31m\u{2028}\u{e0041} 취소" });
        let mut out = String::new();
        push_json(&mut out, &value);
        assert_eq!(
            out,
            r#"{"m":"\u001b[2J\u202eevil\u009b31m\u2028\udb40\udc41 취소"}"#
        );
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), value);
    }

    #[test]
    fn long_fields_are_cut_between_characters() {
        let text = "é".repeat(LONGEST);
        let cut = capped(&text);
        assert!(cut.len() <= LONGEST + CUT.len() && cut.ends_with("é..."));
        let mut out = String::new();
        push_quoted(&mut out, &[b'a'; LONGEST + 1]);
        assert!(out.ends_with("a...") && out.len() == LONGEST + CUT.len());
        assert_eq!(capped("short"), "short");
    }
}
