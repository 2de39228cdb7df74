//! The store of users' settings of channels, hidden messages and erasures, in memory.

use std::ops::RangeInclusive;

use async_trait::async_trait;
use madang_ids::{ChannelId, LogId, Seq, UserId};
use madang_proto::ChannelSettings;

use super::{Model, Mutant, State};
use crate::erasure::{Erasure, ErasureStore};
use crate::error::StoreResult;
use crate::log::RowChange;
use crate::settings::SettingStore;

#[async_trait]
impl SettingStore for Model {
    async fn put_channel_settings(
        &self,
        user: UserId,
        channel: ChannelId,
        settings: &ChannelSettings,
    ) -> StoreResult<bool> {
        let _call = self.journal.begin("put_channel_settings");
        let is_blind = self.is_mutant(Mutant::SettingsIgnoreRevision);
        self.write(|state| {
            let found = state.settings.entry((user, channel)).or_default();
            let is_next = found.rev + 1 == settings.rev;
            if is_next || is_blind {
                *found = *settings;
            }
            is_next || is_blind
        })
        .await
    }

    async fn channel_settings(&self, user: UserId, channel: ChannelId) -> StoreResult<ChannelSettings> {
        let _call = self.journal.begin("channel_settings");
        self.read(|state| state.settings_of(user, channel)).await
    }

    async fn hide_message(
        &self,
        user: UserId,
        channel: ChannelId,
        seq: Seq,
        at_most: usize,
    ) -> StoreResult<bool> {
        let _call = self.journal.begin("hide_message");
        self.write(|state| {
            let others =
                state.hidden.iter().filter(|(of, at, other)| (*of, *at) == (user, channel) && *other != seq);
            let has_room = others.count() < at_most;
            if has_room {
                state.hidden.insert((user, channel, seq));
            }
            has_room
        })
        .await
    }

    async fn hidden_messages(
        &self,
        user: UserId,
        ranges: &[(ChannelId, RangeInclusive<Seq>)],
    ) -> StoreResult<Vec<(ChannelId, Seq)>> {
        let _call = self.journal.begin("hidden_messages");
        let is_blind = self.is_mutant(Mutant::HiddenFromEverybody);
        self.read(|state| {
            let of_user = state.hidden.iter().filter(|(of, _, _)| *of == user || is_blind);
            let in_ranges = of_user.filter(|(_, at, seq)| {
                ranges.iter().any(|(channel, range)| channel == at && range.contains(seq))
            });
            in_ranges.map(|&(_, channel, seq)| (channel, seq)).collect()
        })
        .await
    }
}

#[async_trait]
impl ErasureStore for Model {
    async fn put_erasure(&self, erasure: Erasure) -> StoreResult<()> {
        let _call = self.journal.begin("put_erasure");
        self.write(|state| {
            let found = state.erasures.entry(erasure.channel_id).or_insert(erasure);
            found.upto = found.upto.max(erasure.upto);
        })
        .await
    }

    async fn erasures(&self, limit: usize) -> StoreResult<Vec<Erasure>> {
        let _call = self.journal.begin("erasures");
        self.read(|state| state.erasures.values().take(limit).copied().collect()).await
    }

    async fn end_erasure(&self, channel: ChannelId) -> StoreResult<()> {
        let _call = self.journal.begin("end_erasure");
        self.write(|state| {
            state.erasures.remove(&channel);
        })
        .await
    }

    async fn replace_rows(&self, channel: ChannelId, changes: &[RowChange]) -> StoreResult<()> {
        let _call = self.journal.begin("replace_rows");
        let is_blind = self.is_mutant(Mutant::ReplaceIgnoresVersion);
        self.write_each(changes, |state, change| {
            let log = LogId::Channel(channel);
            let has_version = state
                .stored(log, &(change.target..=change.target))
                .any(|row| row.version == change.if_version);
            if has_version || is_blind {
                state.change_row(log, change);
            }
        })
        .await
    }
}

impl State {
    pub(super) fn settings_of(&self, user: UserId, channel: ChannelId) -> ChannelSettings {
        self.settings.get(&(user, channel)).copied().unwrap_or_default()
    }
}
