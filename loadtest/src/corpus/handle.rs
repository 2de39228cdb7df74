//! Handles derived from nicks: every nick becomes a unique handle `[a-z0-9_.-]{2,32}`.

use std::collections::HashSet;

use madang_proto::limits::{HANDLE_CHARS, RESERVED_HANDLES};

/// The handles that are taken.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    taken: HashSet<String>,
}

impl Handles {
    /// The nick in lower case, with `-` for characters that a handle cannot have, and a number at the end if the handle
    /// is taken.
    pub(crate) fn derive(&mut self, nick: &str) -> String {
        let plain = plain(nick);
        let numbered = |number: u32| match number {
            0 => plain.clone(),
            _ => with_number(&plain, number),
        };
        let is_free = |handle: &String| {
            !self.taken.contains(handle)
                && !RESERVED_HANDLES.contains(&handle.replace(['_', '.', '-'], "").as_str())
        };
        let free = (0..).map(numbered).find(is_free).unwrap_or_default();
        self.taken.insert(free.clone());
        free
    }
}

fn plain(nick: &str) -> String {
    let letter = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '_' | '.' | '-') => letter,
        _ => '-',
    };
    let mut handle: String = nick.chars().map(letter).take(HANDLE_CHARS - 1).collect();
    // A handle has at least one letter or digit, and does not begin or end with a dot.
    handle = handle.trim_matches('.').to_owned();
    if !handle.bytes().any(|byte| byte.is_ascii_alphanumeric()) {
        handle.insert(0, 'n');
    }
    while handle.len() < 2 {
        handle.push('_');
    }
    handle
}

fn with_number(plain: &str, number: u32) -> String {
    let ending = format!(".{number}");
    let room = HANDLE_CHARS - ending.len();
    format!("{}{ending}", plain.get(..room).unwrap_or(plain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn unusual_nicks_become_similar_handles() {
        let mut handles = Handles::default();
        for (nick, handle) in [
            ("Chetwin", "chetwin"),
            ("chetwin", "chetwin.1"),
            ("CHETWIN", "chetwin.2"),
            ("[optik]", "-optik-"),
            ("p", "p_"),
            ("", "n_"),
            ("_", "n_.1"),
            ("...", "n_.2"),
            (".net.", "net"),
            ("bur[n] er", "bur-n--er"),
            ("Élan", "-lan"),
        ] {
            assert_eq!(handles.derive(nick), handle);
        }
    }

    #[test]
    fn long_nicks_stay_distinct_and_within_the_limit() {
        let mut handles = Handles::default();
        let made: HashSet<String> = (0..300).map(|_| handles.derive(&"x".repeat(60))).collect();
        assert_eq!(made.len(), 300);
        assert!(made.iter().all(|handle| (2..=HANDLE_CHARS).contains(&handle.len())));
    }
}
