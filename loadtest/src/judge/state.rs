//! The content of a message as a few numbers: of millions of copies only these are kept.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::OnceLock;

use madang_proto::{Message, ReactedState, Reaction};

use super::frame::{RawMessage, RawReacted};

/// Version and content of one copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) version: u32,
    /// The version that gave the message its body.
    body_version: u32,
    /// Hash of text and deletion. One in 2^32 differences goes unnoticed.
    body: u32,
    /// Hash of the reactions.
    reactions: u32,
    pub(crate) is_deleted: bool,
}

/// The reactions to a message as an entry contains them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reacted {
    pub(crate) version: u32,
    body_version: u32,
    reactions: u32,
}

impl State {
    /// The state of a message in a frame; `None` if it cannot be parsed.
    pub(crate) fn of_raw(message: RawMessage<'_>) -> Option<Self> {
        let text: String = serde_json::from_str(message.text).ok()?;
        let reactions: Vec<Reaction> = match message.reactions {
            Some(json) => serde_json::from_str(json).ok()?,
            None => Vec::new(),
        };
        let versions = (message.version, message.body_version);
        Some(Self::new(versions, &text, message.is_deleted, &reactions))
    }

    /// The state of a message in history.
    pub(crate) fn of(message: &Message) -> Self {
        let versions = (message.version, message.body_version());
        Self::new(versions, &message.body.text, message.deleted.is_some(), &message.reactions)
    }

    /// The state of a message that was never changed.
    pub(crate) fn said(text: &str) -> Self {
        Self::new((1, 1), text, false, &[])
    }

    fn new(
        (version, body_version): (u32, u32),
        text: &str,
        is_deleted: bool,
        reactions: &[Reaction],
    ) -> Self {
        let body = folded(state().hash_one((text, is_deleted)));
        Self { version, body_version, body, reactions: reactions_hash(reactions), is_deleted }
    }

    /// Applies reactions, like [`ReactedState::apply_to`].
    pub(crate) const fn react(&mut self, reacted: Reacted) {
        if self.version < reacted.version && self.body_version == reacted.body_version && !self.is_deleted {
            (self.version, self.reactions) = (reacted.version, reacted.reactions);
        }
    }

    /// The state that a change of reactions must contain; `None` once the message is deleted.
    pub(crate) fn reacted(self) -> Option<Reacted> {
        let Self { version, body_version, reactions, .. } = self;
        (!self.is_deleted).then_some(Reacted { version, body_version, reactions })
    }
}

impl Reacted {
    /// The reactions in a frame; `None` if they cannot be parsed.
    pub(crate) fn of_raw(raw: RawReacted<'_>) -> Option<Self> {
        let reactions: Vec<Reaction> = serde_json::from_str(raw.reactions?.get()).ok()?;
        let RawReacted { version, body_version, .. } = raw;
        Some(Self { version, body_version, reactions: reactions_hash(&reactions) })
    }

    /// The reactions in history.
    pub(crate) fn of(told: &ReactedState) -> Self {
        let &ReactedState { version, body_version, ref reactions } = told;
        Self { version, body_version, reactions: reactions_hash(reactions) }
    }
}

/// The order of reactions is irrelevant.
fn reactions_hash(reactions: &[Reaction]) -> u32 {
    let mut hasher = state().build_hasher();
    reactions.len().hash(&mut hasher);
    let mut sorted: Vec<&Reaction> = reactions.iter().collect();
    sorted.sort_by(|one, two| one.emoji.cmp(&two.emoji));
    for reaction in sorted {
        let mut users = reaction.users.clone();
        users.sort_unstable();
        (&reaction.emoji, reaction.count, users).hash(&mut hasher);
    }
    folded(hasher.finish())
}

/// Hash of a text as it is in its frame.
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
    fn it_depends_on_all_visible_content_and_on_no_order() {
        let (tea, cup) = (reaction("tea", &[1, 2]), reaction("cup", &[3]));
        let base = State::new((3, 2), "hi", false, &[tea.clone(), cup.clone()]);
        let same = State::new((3, 2), "hi", false, &[cup.clone(), reaction("tea", &[2, 1])]);
        assert_eq!(base, same);
        for other in [
            State::new((4, 2), "hi", false, &[tea.clone(), cup.clone()]),
            State::new((3, 1), "hi", false, &[tea.clone(), cup.clone()]),
            State::new((3, 2), "ho", false, &[tea.clone(), cup.clone()]),
            State::new((3, 2), "hi", true, &[tea.clone(), cup.clone()]),
            State::new((3, 2), "hi", false, &[tea]),
            State::new((3, 2), "hi", false, &[reaction("tea", &[1, 4]), cup]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn reactions_apply_only_to_a_copy_with_the_same_body() {
        let now = State::new((4, 3), "hi!", false, &[reaction("tea", &[1])]);
        let told = now.reacted().unwrap();
        let mut edited = State::new((3, 3), "hi!", false, &[]);
        edited.react(told);
        assert_eq!(edited, now);
        let mut behind = State::said("hi");
        behind.react(told);
        assert_eq!(behind, State::said("hi"));
        assert_eq!(State::new((5, 1), "", true, &[]).reacted(), None);
    }

    #[test]
    fn frame_and_history_have_the_same_state() {
        let raw = RawMessage {
            message_id: 1,
            key: 1,
            text: r#""\u00e9""#,
            version: 2,
            body_version: 1,
            is_deleted: false,
            reactions: Some(r#"[{"emoji":"tea","count":1,"users":["7"]}]"#),
        };
        assert_eq!(State::of_raw(raw), Some(State::new((2, 1), "é", false, &[reaction("tea", &[7])])));
        assert_eq!(State::of_raw(RawMessage { reactions: Some("{}"), ..raw }), None);
    }
}
