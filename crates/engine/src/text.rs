//! The rules of Unicode for short texts that people write: invisible characters, and where they are allowed.
//!
//! People compare names by eye. A character that is invisible, or that changes the direction of the text behind it, gives two names
//! the same look or hides a part of one (RFC 8264, RFC 8266; the data is that of ICU4X). Such a character is allowed only where
//! it has a visible effect: inside an emoji, or between letters of a script that joins them.

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::props::{
    BidiControl, DefaultIgnorableCodePoint, Emoji, GeneralCategory, NoncharacterCodePoint,
};
use icu_properties::{CodePointMapData, CodePointSetData};

const ZERO_WIDTH_NON_JOINER: char = '\u{200C}';
const ZERO_WIDTH_JOINER: char = '\u{200D}';
const KEYCAP: char = '\u{20E3}';
/// Looks like a space, although Unicode counts it among the symbols.
const BLANK_PATTERN: char = '\u{2800}';
const BLACK_FLAG: char = '\u{1F3F4}';

/// The composed form (NFC): one spelling of what looks the same and means the same.
#[must_use]
pub fn compose(text: &str) -> String {
    ComposingNormalizerBorrowed::new_nfc().normalize(text).into_owned()
}

/// The first character that is not allowed at its place: a control character (a line feed may be allowed), a separator of
/// lines or paragraphs, one that controls the direction of text, or an invisible one.
#[must_use]
pub fn first_hidden(text: &str, may_break_lines: bool) -> Option<char> {
    let mut before = None;
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let is_line_feed = char == '\n' && may_break_lines;
        if !is_line_feed && is_hidden(before, char, chars.peek().copied()) {
            return Some(char);
        }
        before = Some(char);
    }
    None
}

/// Whether a part of the text is visible. A combining mark is visible on another character only.
#[must_use]
pub fn is_visible(text: &str) -> bool {
    text.chars().any(|char| {
        let shows = !matches!(
            category(char),
            GeneralCategory::Control
                | GeneralCategory::Format
                | GeneralCategory::Unassigned
                | GeneralCategory::PrivateUse
                | GeneralCategory::SpaceSeparator
                | GeneralCategory::LineSeparator
                | GeneralCategory::ParagraphSeparator
                | GeneralCategory::NonspacingMark
                | GeneralCategory::EnclosingMark
        );
        shows && char != BLANK_PATTERN && !is_ignorable(char)
    })
}

fn category(char: char) -> GeneralCategory {
    CodePointMapData::<GeneralCategory>::new().get(char)
}

fn is_ignorable(char: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char)
}

fn is_emoji(char: char) -> bool {
    CodePointSetData::new::<Emoji>().contains(char)
}

fn is_hidden(before: Option<char>, char: char, after: Option<char>) -> bool {
    let is_separator = matches!(
        category(char),
        GeneralCategory::Control | GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator
    );
    let is_never_text = CodePointSetData::new::<BidiControl>().contains(char)
        || CodePointSetData::new::<NoncharacterCodePoint>().contains(char);
    if is_separator || is_never_text {
        return true;
    }
    let is_format = category(char) == GeneralCategory::Format && !is_joining(char);
    (is_format || is_ignorable(char)) && !does_something(before, char, after)
}

/// Whether an invisible character changes the look of its neighbours.
fn does_something(before: Option<char>, char: char, after: Option<char>) -> bool {
    let Some(before) = before else { return false };
    match char {
        ZERO_WIDTH_JOINER | ZERO_WIDTH_NON_JOINER => {
            joins(before) && after.is_some_and(|after| is_joining(after) || is_emoji_part(after))
        }
        // The variation selectors of emoji; a digit takes one only as a keycap.
        '\u{FE0E}' | '\u{FE0F}' => is_emoji(before) && (!before.is_ascii() || after == Some(KEYCAP)),
        // The variation selectors of ideographs and symbols.
        '\u{FE00}'..='\u{FE0D}' | '\u{E0100}'..='\u{E01EF}' => matches!(
            category(before),
            GeneralCategory::OtherLetter | GeneralCategory::MathSymbol | GeneralCategory::OtherSymbol
        ),
        // The variation selectors of Mongolian letters.
        '\u{180B}'..='\u{180D}' | '\u{180F}' => ('\u{1820}'..='\u{18AF}').contains(&before),
        // The flags of countries without a code of their own.
        '\u{E0020}'..='\u{E007F}' => before == BLACK_FLAG || ('\u{E0020}'..='\u{E007E}').contains(&before),
        _ => false,
    }
}

/// Whether a joiner may stand behind this character.
fn joins(before: char) -> bool {
    is_joining(before) || is_emoji_part(before) || before == '\u{FE0F}'
}

fn is_emoji_part(char: char) -> bool {
    is_emoji(char) && !char.is_ascii()
}

/// Letters, marks and signs of scripts in which a joiner changes the shape of its neighbours: from Arabic to Myanmar,
/// Khmer and Mongolian, and those of the same kind that were added later.
const fn is_joining(char: char) -> bool {
    matches!(
        char,
        '\u{0600}'..='\u{061B}'
            | '\u{061D}'..='\u{109F}'
            | '\u{1780}'..='\u{17B3}'
            | '\u{17B6}'..='\u{180A}'
            | '\u{1810}'..='\u{18AF}'
            | '\u{1900}'..='\u{1CFF}'
            | '\u{A800}'..='\u{ABFF}'
            | '\u{FB50}'..='\u{FDCF}'
            | '\u{FDF0}'..='\u{FDFF}'
            | '\u{FE70}'..='\u{FEFC}'
            | '\u{10A00}'..='\u{11FFF}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_show_stands_only_where_it_does_something() {
        let good = [
            "Ada",
            "마당",
            "Zoë van der Berg",
            "می\u{200C}خواهم",
            "क्\u{200D}ष",
            "👩\u{200D}👩\u{200D}👧",
            "❤\u{FE0F}",
            "🏳\u{FE0F}\u{200D}🌈",
            "1\u{FE0F}\u{20E3}",
            "👍🏽",
            "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
            "葛\u{E0100}城",
            "ᠮᠣᠩᠭᠣᠯ\u{180B}",
        ];
        for text in good {
            assert_eq!(first_hidden(text, false), None, "{text:?}");
            assert!(is_visible(text), "{text:?}");
        }
        let bad = [
            ("a\u{200B}b", '\u{200B}'),
            ("a\u{202E}b", '\u{202E}'),
            ("\u{2066}a", '\u{2066}'),
            ("a\u{200F}", '\u{200F}'),
            ("\u{061C}a", '\u{061C}'),
            ("a\u{2028}b", '\u{2028}'),
            ("a\u{2029}b", '\u{2029}'),
            ("a\u{0}b", '\u{0}'),
            ("a\u{85}b", '\u{85}'),
            ("a\tb", '\t'),
            ("a\nb", '\n'),
            ("a\u{AD}b", '\u{AD}'),
            ("a\u{34F}b", '\u{34F}'),
            ("\u{3164}", '\u{3164}'),
            ("\u{115F}\u{1160}", '\u{115F}'),
            ("a\u{FFA0}", '\u{FFA0}'),
            ("a\u{2060}b", '\u{2060}'),
            ("a\u{2064}b", '\u{2064}'),
            ("a\u{206A}b", '\u{206A}'),
            ("a\u{FEFF}b", '\u{FEFF}'),
            ("a\u{FFF9}b", '\u{FFF9}'),
            ("a\u{FFFE}b", '\u{FFFE}'),
            ("a\u{180E}b", '\u{180E}'),
            ("ad\u{200D}a", '\u{200D}'),
            ("می\u{200C}", '\u{200C}'),
            ("\u{200D}", '\u{200D}'),
            ("a\u{FE0F}", '\u{FE0F}'),
            ("1\u{FE0F}", '\u{FE0F}'),
            ("❤\u{FE0F}\u{FE0F}", '\u{FE0F}'),
            ("a\u{E0041}\u{E007F}", '\u{E0041}'),
            ("a\u{E0100}", '\u{E0100}'),
            ("a\u{1D173}b", '\u{1D173}'),
            ("a\u{1BCA0}b", '\u{1BCA0}'),
        ];
        for (text, hidden) in bad {
            assert_eq!(first_hidden(text, false), Some(hidden), "{text:?}");
        }
        assert_eq!(first_hidden("a\nb", true), None);
    }

    #[test]
    fn what_has_only_spaces_and_marks_is_not_visible() {
        for text in ["", " ", "\u{2800}", "\u{301}", "\u{3000}", "\u{200D}", "\u{E000}", "\u{3164}"] {
            assert!(!is_visible(text), "{text:?}");
        }
    }

    #[test]
    fn two_spellings_are_one() {
        assert_eq!(compose("Zoe\u{308}"), "Zo\u{EB}");
        assert_eq!(compose("\u{1106}\u{1161}"), "마");
    }
}
