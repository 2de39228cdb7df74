//! Finds users by the beginning of a handle or of a word of a name. Only users whom the caller knows are searched, so that nobody
//! can list the users of a server. Any user is found by the whole handle.

pub(super) mod blocks;
pub(super) mod consent;
pub(super) mod contacts;
pub(super) mod names;
pub(super) mod presence;

use madang_engine::text;
use madang_proto::rest::{List, UserSearch};
use madang_proto::{UserCard, limits};
use madang_store::User;

use super::accounts::card;
use super::messages::texts::check_text;
use super::{Caller, Operations};
use crate::refusal::Result;

/// Users that one search returns. A longer prefix finds the others.
const FOUND: usize = 20;

impl Operations {
    /// Contacts and members of the caller's small groups whose handle, or a word of whose name, begins with the prefix; and the
    /// user whose whole handle it is, first. The others are ordered by handle. At most 1,000 users are looked at.
    ///
    /// # Errors
    /// `invalid` for a prefix that is empty or too long.
    pub async fn search_people(&self, caller: Caller, query: &UserSearch) -> Result<List<UserCard>> {
        let prefix = folded(&check_text("prefix", &query.prefix, 1..=limits::DISPLAY_NAME_CHARS)?);
        let (members, most) = (limits::WATCHED_GROUP_MEMBERS, limits::CONTACTS as usize);
        let known = self.store.circle(caller.user_id, members, most).await?;
        let known = self.store.users(&known).await?;
        let mut found: Vec<User> = known.into_iter().flatten().filter(|user| begins(user, &prefix)).collect();
        found.sort_by(|one, other| one.handle.cmp(&other.handle));
        let whole = self.store.user_by_handle(&prefix).await?;
        if let Some(whole) = whole {
            found.retain(|user| user.id != whole.id);
            found.insert(0, whole);
        }
        found.truncate(FOUND);
        Ok(List { items: found.into_iter().map(card).collect() })
    }
}

fn begins(user: &User, prefix: &str) -> bool {
    let name = folded(&user.display_name);
    let words = name.split_whitespace();
    user.handle.starts_with(prefix)
        || name.starts_with(prefix)
        || words.into_iter().any(|word| word.starts_with(prefix))
}

/// For comparison without regard to case.
fn folded(text: &str) -> String {
    text::compose(&text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{Millis, UserId};

    #[test]
    fn a_prefix_of_the_handle_or_of_a_word_of_the_name_matches_in_any_case() {
        let user = |handle: &str, name: &str| {
            User::new(UserId::from_raw(1), handle.into(), name.into(), Millis::new(1))
        };
        let zoe = user("zb", "Zo\u{EB} van den BERG");
        for prefix in ["z", "zb", "ZO", "zo\u{EB}", "Zoe\u{308}", "berg", "den b", "van"] {
            let is_found = begins(&zoe, &folded(prefix));
            assert_eq!(is_found, prefix != "den b", "{prefix}");
        }
        for prefix in ["o", "erg", "bz"] {
            assert!(!begins(&zoe, &folded(prefix)), "{prefix}");
        }
    }
}
