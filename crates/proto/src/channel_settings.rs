//! A user's own settings of a channel. No other user sees them.

use madang_ids::{Millis, Ordinal};
use serde::{Deserialize, Serialize};

use crate::alerts::AlertLevel;

/// A user's own settings of one channel.
///
/// Two devices may change them at the same time. Of two copies the one with the greater `rev` is newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ChannelSettings {
    /// Rises by 1 with each change; 0 if the settings were never changed.
    pub rev: u64,
    /// Whether the user marked the channel as a favourite.
    #[serde(default, skip_serializing_if = "is_false")]
    pub favourite: bool,
    /// Whether the user marked the channel as unread. Independent of the read marker.
    #[serde(default, skip_serializing_if = "is_false")]
    pub marked_unread: bool,
    /// Time until which the channel makes no alerts; absent means that it makes alerts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muted_until: Option<Millis>,
    /// The channel is hidden while its `head_ordinal` is not above this number. A new message shows it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_ordinal: Option<Ordinal>,
    /// The messages of which the user wants to be alerted; absent: those of the user's own settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<AlertLevel>,
}

impl ChannelSettings {
    /// Whether the settings were never changed.
    #[must_use]
    pub const fn is_default(&self) -> bool {
        self.rev == 0
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
const fn is_false(value: &bool) -> bool {
    !*value
}
