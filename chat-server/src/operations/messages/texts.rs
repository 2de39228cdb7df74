//! Short texts that users write: names, topics, status texts. The same rules hold for all of them, except the length.

use std::ops::RangeInclusive;

use madang_engine::text;
use madang_proto::ErrorBody;

/// Returns the text as it is stored: trimmed, composed (NFC), in one line.
///
/// # Errors
/// `invalid` with the field, and either the length and its limit, or the character that is not allowed.
pub(in crate::operations) fn check_text(
    field: &str,
    text: &str,
    allowed: RangeInclusive<usize>,
) -> Result<String, ErrorBody> {
    check(field, text, allowed, false)
}

/// As [`check_text`], for a text of one or more lines.
pub(in crate::operations) fn check_lines(
    field: &str,
    text: &str,
    allowed: RangeInclusive<usize>,
) -> Result<String, ErrorBody> {
    check(field, &text.replace("\r\n", "\n"), allowed, true)
}

fn check(
    field: &str,
    text: &str,
    allowed: RangeInclusive<usize>,
    may_break_lines: bool,
) -> Result<String, ErrorBody> {
    let text = text::compose(text.trim());
    let chars = text.chars().count();
    if !allowed.contains(&chars) {
        let (min, max) = allowed.into_inner();
        let bounds = if min == 0 { format!("at most {max}") } else { format!("{min} to {max}") };
        let message = format!("{field} has {chars} characters, it must be {bounds}");
        return Err(ErrorBody::invalid(field, message));
    }
    if let Some(hidden) = text::first_hidden(&text, may_break_lines) {
        let message = format!(
            "{field} contains the character U+{:04X}, which is invisible or controls other text",
            u32::from(hidden)
        );
        return Err(ErrorBody::invalid(field, message));
    }
    if !text.is_empty() && !text::is_visible(&text) {
        return Err(ErrorBody::invalid(field, format!("{field} has no visible character")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_trimmed_composed_and_visible() {
        let good = [
            ("Ada", "Ada"),
            ("  Ada \u{3000}\n", "Ada"),
            ("Zoe\u{308}", "Zo\u{EB}"),
            ("👩\u{200D}👩\u{200D}👧", "👩\u{200D}👩\u{200D}👧"),
            ("a  b", "a  b"),
        ];
        for (said, kept) in good {
            assert_eq!(check_text("name", said, 1..=8).as_deref(), Ok(kept), "{said:?}");
        }
        let bad = [
            "",
            "   ",
            "\u{200B}",
            "\u{3164}",
            "\u{2800}",
            "\u{301}",
            "a\u{202E}b",
            "a\u{2028}b",
            "a\nb",
            "123456789",
        ];
        for said in bad {
            let refused = check_text("name", said, 1..=8).unwrap_err();
            assert_eq!(refused.field.as_deref(), Some("name"), "{said:?}");
        }
        assert_eq!(check_text("status", " \t", 0..=8).as_deref(), Ok(""));
        assert_eq!(check_lines("topic", "a\r\nb\n", 0..=8).as_deref(), Ok("a\nb"));
        assert!(check_lines("topic", "a\u{2029}b", 0..=8).is_err());
    }
}
