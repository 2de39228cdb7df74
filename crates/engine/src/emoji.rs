//! Reactions: one spelling of each, so that reactions of two people with the same emoji are counted together.

use emojis::Emoji;
use madang_proto::ErrorBody;
use madang_proto::limits::EMOJI_BYTES;

use crate::text;

/// The one spelling of a reaction: an emoji fully qualified, as emoji-test.txt has it, whether the variation selectors came
/// with it or not; any other text composed (NFC). Skin tones stay apart.
///
/// # Errors
/// Names the field and the limit: the text is empty or too long, has white space or control characters, or shows nothing.
pub fn canonical(reaction: &str) -> Result<String, ErrorBody> {
    let canonical = qualified(reaction);
    let bytes = canonical.len().max(reaction.len());
    let is_plain =
        !canonical.contains(char::is_whitespace) && text::first_hidden(&canonical, false).is_none();
    if bytes <= EMOJI_BYTES && is_plain && text::is_visible(&canonical) {
        return Ok(canonical);
    }
    let message = format!(
        "emoji has {bytes} bytes, it must have 1 to {EMOJI_BYTES}, without white space or invisible characters"
    );
    Err(ErrorBody::invalid("emoji", message))
}

fn qualified(reaction: &str) -> String {
    let bare = bare(reaction);
    match emojis::get(&bare) {
        Some(emoji) if is_spelling_of(&bare, emoji) => emoji.as_str().to_owned(),
        // The library's table takes some unqualified forms with skin tones for another one.
        Some(_) => {
            all().find(|emoji| is_spelling_of(&bare, emoji)).map_or(bare, |emoji| emoji.as_str().to_owned())
        }
        None => text::compose(&bare),
    }
}

fn is_spelling_of(bare_form: &str, emoji: &Emoji) -> bool {
    bare(emoji.as_str()) == bare_form
}

fn bare(text: &str) -> String {
    text.chars().filter(|char| !matches!(char, '\u{FE0E}' | '\u{FE0F}')).collect()
}

/// Each emoji, and each with its skin tones.
fn all() -> impl Iterator<Item = &'static Emoji> {
    emojis::iter().flat_map(|emoji| std::iter::once(emoji).chain(emoji.skin_tones().into_iter().flatten()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_emoji_are_one_reaction() {
        let cases = [
            ("❤", "❤\u{FE0F}"),
            ("❤\u{FE0F}", "❤\u{FE0F}"),
            ("❤\u{FE0E}", "❤\u{FE0F}"),
            ("👍", "👍"),
            ("👍\u{FE0F}", "👍"),
            ("👍🏽", "👍🏽"),
            ("1\u{20E3}", "1\u{FE0F}\u{20E3}"),
            ("🏳\u{200D}🌈", "🏳\u{FE0F}\u{200D}🌈"),
            ("🏳\u{FE0F}\u{200D}🌈", "🏳\u{FE0F}\u{200D}🌈"),
            ("👁\u{200D}🗨", "👁\u{FE0F}\u{200D}🗨\u{FE0F}"),
            ("🤷🏽\u{200D}♂", "🤷🏽\u{200D}♂\u{FE0F}"),
            ("e\u{301}", "\u{E9}"),
            ("+1", "+1"),
            ("tea", "tea"),
        ];
        for (said, meant) in cases {
            assert_eq!(canonical(said).as_deref(), Ok(meant), "{said:?}");
        }
        assert_ne!(canonical("👍🏽"), canonical("👍🏿"));
    }

    #[test]
    fn every_emoji_is_itself_and_is_found_without_its_selectors() {
        for emoji in all() {
            let said = emoji.as_str();
            assert_eq!(canonical(said).as_deref(), Ok(said), "{said:?}");
            assert_eq!(canonical(&bare(said)).as_deref(), Ok(said), "{said:?} without selectors");
        }
    }

    #[test]
    fn a_reaction_is_short_plain_and_visible() {
        for good in ["a", "\u{1F375}", "+1", &"x".repeat(EMOJI_BYTES)] {
            assert!(canonical(good).is_ok(), "{good}");
        }
        let long = "x".repeat(EMOJI_BYTES + 1);
        let bad = [
            "",
            "a b",
            "a\n",
            "\u{7}",
            "\u{FE0F}",
            "\u{200B}",
            "\u{3164}",
            "\u{301}",
            "a\u{202E}",
            "\u{2800}",
        ];
        for bad in bad.into_iter().chain([long.as_str()]) {
            assert!(canonical(bad).is_err(), "{bad:?}");
        }
    }
}
