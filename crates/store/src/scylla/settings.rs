//! Settings of users about channels, and messages that users deleted for themselves.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use madang_ids::{ChannelId, Seq, UserId};
use madang_proto::ChannelSettings;

use super::Scylla;
use super::codec::{bound, int, json, number};
use super::log::each;
use super::session::{Class, Statement};
use crate::error::{StoreError, StoreResult};
use crate::settings::SettingStore;

const SETTINGS: Statement = Statement {
    class: Class::Read,
    cql: "SELECT settings FROM channel_settings WHERE user = ? AND channel = ?",
};
const FIRST: Statement = Statement {
    class: Class::Conditional,
    cql: "INSERT INTO channel_settings (user, channel, rev, settings) VALUES (?, ?, ?, ?) IF NOT EXISTS",
};
const NEXT: Statement = Statement {
    class: Class::Conditional,
    cql: "UPDATE channel_settings SET rev = ?, settings = ? WHERE user = ? AND channel = ? IF rev = ?",
};
const HIDDEN_COUNT: Statement =
    Statement { class: Class::Read, cql: "SELECT seq FROM hidden WHERE user = ? AND channel = ? LIMIT ?" };
const HIDE: Statement =
    Statement { class: Class::Write, cql: "INSERT INTO hidden (user, channel, seq) VALUES (?, ?, ?)" };
/// Whether a user has hidden anything: almost nobody has.
const ANY_HIDDEN: Statement =
    Statement { class: Class::Read, cql: "SELECT channel FROM hidden WHERE user = ? LIMIT 1" };
const HIDDEN: Statement = Statement {
    class: Class::Read,
    cql: "SELECT seq FROM hidden WHERE user = ? AND channel = ? AND seq >= ? AND seq <= ?",
};

impl Scylla {
    pub(super) async fn settings_of(&self, user: UserId, channel: ChannelId) -> StoreResult<ChannelSettings> {
        let row: Option<(String,)> =
            self.cql.read_one(&SETTINGS, (int(user.raw()), int(channel.raw()))).await?;
        let Some((text,)) = row else { return Ok(ChannelSettings::default()) };
        serde_json::from_str(&text)
            .map_err(|error| StoreError::Corrupt(format!("settings of a channel: {error}")))
    }
}

#[async_trait]
impl SettingStore for Scylla {
    async fn put_channel_settings(
        &self,
        user: UserId,
        channel: ChannelId,
        settings: &ChannelSettings,
    ) -> StoreResult<bool> {
        let (user, channel, rev, text) =
            (int(user.raw()), int(channel.raw()), int(settings.rev), json(settings)?);
        match settings.rev {
            0 => Ok(false),
            1 => self.cql.conditional(&FIRST, (user, channel, rev, text)).await,
            _ => self.cql.conditional(&NEXT, (rev, text, user, channel, rev - 1)).await,
        }
    }

    async fn channel_settings(&self, user: UserId, channel: ChannelId) -> StoreResult<ChannelSettings> {
        self.settings_of(user, channel).await
    }

    async fn hide_message(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        at_most: usize,
    ) -> StoreResult<bool> {
        let (user, channel, seq) = (int(user.raw()), int(channel.raw()), int(seq.get()));
        let limit = i32::try_from(at_most).unwrap_or(i32::MAX - 1) + 1;
        let hidden: Vec<(i64,)> = self.cql.read(&HIDDEN_COUNT, (user, channel, limit)).await?;
        if hidden.iter().filter(|(other,)| *other != seq).count() >= at_most {
            return Ok(false);
        }
        self.cql.write(&HIDE, (user, channel, seq)).await?;
        Ok(true)
    }

    async fn hidden_messages(
        &self,
        user: UserId,
        ranges: &[(ChannelId, RangeInclusive<Seq>)],
    ) -> StoreResult<Vec<(ChannelId, Seq)>> {
        let any: Option<(i64,)> = self.cql.read_one(&ANY_HIDDEN, (int(user.raw()),)).await?;
        if any.is_none() {
            return Ok(Vec::new());
        }
        let find = |(channel, range): (ChannelId, RangeInclusive<Seq>)| async move {
            let values = (int(user.raw()), int(channel.raw()), bound(*range.start()), bound(*range.end()));
            let found: Vec<(i64,)> = self.cql.read(&HIDDEN, values).await?;
            Ok(found.into_iter().map(|(seq,)| (channel, Seq::new(number(seq)))).collect::<Vec<_>>())
        };
        let mut found = each(ranges.to_vec(), find).await?.concat();
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}
