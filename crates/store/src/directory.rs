//! The directory of open channels.

use async_trait::async_trait;
use caseless::Caseless;
use madang_ids::ChannelId;
use madang_proto::ChannelCard;
use unicode_normalization::UnicodeNormalization;

use crate::error::StoreResult;

/// An open channel, as a search returns it to any user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundChannel {
    /// The channel.
    pub card: ChannelCard,
    /// The number of present members.
    pub members: u32,
}

/// Open channels of one page of a search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FoundPage {
    /// By id.
    pub channels: Vec<FoundChannel>,
    /// The channel after which the search continues; `None` at its end. A page may be short or empty although the search
    /// continues: it ends after a number of channels that were looked at.
    pub next: Option<ChannelId>,
}

/// The text in which an open channel is searched: its name and topic, caseless.
pub(crate) fn searched(name: Option<&str>, topic: &str) -> String {
    caseless(&format!("{} {topic}", name.unwrap_or_default()))
}

/// The form in which texts are compared without case and width: compatibility caseless matching (Unicode 3.13, D146),
/// without invisible characters.
pub(crate) fn caseless(text: &str) -> String {
    let folded = text.chars().filter(|char| !is_ignorable(*char)).nfd().default_case_fold();
    folded.nfkd().default_case_fold().nfkd().collect()
}

/// Default ignorable code points that occur in texts: soft hyphen, joiners, marks of direction, variation selectors.
const fn is_ignorable(char: char) -> bool {
    matches!(char, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// Finds open channels by text. Apart from [`ChannelStore`](crate::ChannelStore), because a store of partitions has no such search:
/// in a fleet another service may stand behind it.
#[async_trait]
pub trait DirectoryStore: Send + Sync + 'static {
    /// Active open channels that have been joined, whose name or topic holds `query`, caseless, by id, after `after`: at most
    /// `limit` of them, found among the next `scan` open channels.
    async fn find_open(
        &self,
        query: &str,
        after: Option<ChannelId>,
        limit: usize,
        scan: usize,
    ) -> StoreResult<FoundPage>;
}
