//! Codes with which users sign up where sign-up is by invitation.

use std::fmt;

use sha2::{Digest, Sha256};

/// Digits that are not mistaken for each other when a person reads them out (Crockford's base 32, in lower case).
pub(crate) const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// Number of digits. With 5 bits each they have 80 bits, which cannot be guessed at the rate limit of sign-ups.
const LENGTH: usize = 16;
const GROUP: usize = 4;

/// An invitation code. Servers store only its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct InvitationCode([u8; LENGTH]);

impl InvitationCode {
    /// Draws a new code.
    #[must_use]
    pub fn random() -> Self {
        let bytes: [u8; LENGTH] = rand::random();
        Self(bytes.map(|byte| DIGITS[usize::from(byte % 32)]))
    }

    /// Parses a code as people type it: in any case, with or without hyphens and spaces, `o` for `0`, `i` or `l` for
    /// `1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |char: &char| !matches!(char, '-' | ' ');
        let digits: Vec<u8> =
            text.chars().filter(is_digit).take(LENGTH + 1).map(digit).collect::<Option<_>>()?;
        digits.try_into().ok().map(Self)
    }

    /// SHA-256 of the code.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

fn digit(char: char) -> Option<u8> {
    let digit = match char.to_ascii_lowercase() {
        'o' => b'0',
        'i' | 'l' => b'1',
        other => u8::try_from(other).ok()?,
    };
    DIGITS.contains(&digit).then_some(digit)
}

impl fmt::Display for InvitationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, digit) in self.0.iter().enumerate() {
            if index > 0 && index % GROUP == 0 {
                f.write_str("-")?;
            }
            write!(f, "{}", char::from(*digit))?;
        }
        Ok(())
    }
}

impl fmt::Debug for InvitationCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationCode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_parsed_as_people_type_it() {
        let code = InvitationCode::random();
        let text = code.to_string();
        assert_eq!(text.len(), 19);
        for typed in [text.clone(), text.to_uppercase(), text.replace('-', ""), format!(" {text} ")] {
            assert_eq!(InvitationCode::parse(&typed), Some(code.clone()), "{typed}");
        }
        let (typed, meant) = ("OIL0-1111-2222-3333", "0110-1111-2222-3333");
        assert_eq!(InvitationCode::parse(typed), InvitationCode::parse(meant));
        assert_ne!(code.hash(), InvitationCode::random().hash());
        for bad in ["", "short", "u000-0000-0000-0000", "0000-0000-0000-00000", "마당"] {
            assert_eq!(InvitationCode::parse(bad), None, "{bad}");
        }
    }
}
