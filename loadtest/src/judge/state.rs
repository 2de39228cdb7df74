//! What a message says now, as one number: of millions of copies only that is kept.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::OnceLock;

use madang_proto::{Message, Reaction};

use super::frame::RawMessage;

/// Version and content of one copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) version: u32,
    /// Of text, deletion and reactions. Of one in four thousand million differences nothing would be seen.
    content: u32,
    pub(crate) is_deleted: bool,
}

impl State {
    /// Of a message in a frame; nothing if it cannot be read.
    pub(crate) fn of_raw(message: RawMessage<'_>) -> Option<Self> {
        let text: String = serde_json::from_str(message.text).ok()?;
        let reactions: Vec<Reaction> = match message.reactions {
            Some(json) => serde_json::from_str(json).ok()?,
            None => Vec::new(),
        };
        Some(Self::new(message.version, &text, message.is_deleted, &reactions))
    }

    /// Of a message of history.
    pub(crate) fn of(message: &Message) -> Self {
        Self::new(message.version, &message.body.text, message.deleted.is_some(), &message.reactions)
    }

    fn new(version: u32, text: &str, is_deleted: bool, reactions: &[Reaction]) -> Self {
        let mut hasher = state().build_hasher();
        (text, is_deleted, reactions.len()).hash(&mut hasher);
        // In which order reactions are listed says nothing.
        let mut sorted: Vec<&Reaction> = reactions.iter().collect();
        sorted.sort_by(|one, two| one.emoji.cmp(&two.emoji));
        for reaction in sorted {
            let mut users = reaction.users.clone();
            users.sort_unstable();
            (&reaction.emoji, reaction.count, users).hash(&mut hasher);
        }
        Self { version, content: folded(hasher.finish()), is_deleted }
    }
}

/// Of a text as it stands in its frame.
pub(super) fn hash(text: &str) -> u64 {
    state().hash_one(text)
}

fn state() -> &'static RandomState {
    static STATE: OnceLock<RandomState> = OnceLock::new();
    STATE.get_or_init(RandomState::new)
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are folded into one")]
const fn folded(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::UserId;

    fn reaction(emoji: &str, users: &[u64]) -> Reaction {
        let users: Vec<UserId> = users.iter().map(|id| UserId::from_raw(*id)).collect();
        Reaction { emoji: emoji.to_owned(), count: users.len() as u32, users }
    }

    #[test]
    fn it_differs_by_all_that_a_reader_sees_and_by_no_order() {
        let (tea, cup) = (reaction("tea", &[1, 2]), reaction("cup", &[3]));
        let base = State::new(3, "hi", false, &[tea.clone(), cup.clone()]);
        assert_eq!(base, State::new(3, "hi", false, &[cup.clone(), reaction("tea", &[2, 1])]));
        for other in [
            State::new(4, "hi", false, &[tea.clone(), cup.clone()]),
            State::new(3, "ho", false, &[tea.clone(), cup.clone()]),
            State::new(3, "hi", true, &[tea.clone(), cup.clone()]),
            State::new(3, "hi", false, &[tea]),
            State::new(3, "hi", false, &[reaction("tea", &[1, 4]), cup]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_frame_and_history_give_the_same() {
        let raw = RawMessage {
            message_id: 1,
            key: 1,
            text: r#""\u00e9""#,
            version: 2,
            is_deleted: false,
            reactions: Some(r#"[{"emoji":"tea","count":1,"users":["7"]}]"#),
        };
        assert_eq!(State::of_raw(raw), Some(State::new(2, "é", false, &[reaction("tea", &[7])])));
        assert_eq!(State::of_raw(RawMessage { reactions: Some("{}"), ..raw }), None);
    }
}
