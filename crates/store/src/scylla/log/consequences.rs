//! Consequences of appends in other partitions: markers, mentions, reactions.

use futures_util::future::try_join;
use madang_ids::{ChannelId, Seq, UserId};
use madang_proto::Reaction;

use super::each;
use super::statements::{
    FORGET_REACTIONS, MENTION_AT, PUT_MARKER, PUT_MENTION, PUT_MENTION_BY_CHANNEL, PUT_OWN_REACTION,
    PUT_REACTION, REACTIONS, REMOVE_MENTION, REMOVE_MENTION_BY_CHANNEL, REMOVE_OWN_REACTION, REMOVE_REACTION,
};
use crate::error::StoreResult;
use crate::log::{Consequences, Marker, ReactionChange};
use crate::scylla::Scylla;
use crate::scylla::codec::{int, number};

/// Microseconds by which the clocks of nodes and of the cluster differ at most, with a margin.
const CLOCKS_US: i64 = 10_000_000;

/// Everybody, among the mentioned users.
const EVERYBODY: i64 = 0;

impl Scylla {
    /// See [`crate::LogStore::apply_consequences`].
    pub(super) async fn apply(&self, channel: ChannelId, consequences: &Consequences) -> StoreResult<()> {
        let Consequences { markers, mentions, deleted } = consequences;
        let channel = int(channel.raw());
        each(markers.clone(), |(user, marker)| self.put_marker(user, channel, marker)).await?;
        let notes: Vec<_> = mentions
            .iter()
            .flat_map(|of| {
                let place = (int(of.at.get()), int(of.seq.get()), int(of.sender.raw()));
                of.users.iter().map(move |user| (place, *user))
            })
            .collect();
        let note = |((at, seq, sender), user): ((i64, i64, i64), Option<UserId>)| async move {
            let id = user.map_or(EVERYBODY, |user| int(user.raw()));
            self.cql.write(&PUT_MENTION_BY_CHANNEL, (id, channel, seq, at, sender)).await?;
            match user {
                Some(_) => self.cql.write(&PUT_MENTION, (id, at, channel, seq, sender)).await,
                None => Ok(()),
            }
        };
        each(notes, note).await?;
        for of in deleted {
            let target = int(of.target.get());
            for user in &of.mentioned {
                let user = user.map_or(EVERYBODY, |user| int(user.raw()));
                let at: Option<(i64,)> = self.cql.read_one(&MENTION_AT, (user, channel, target)).await?;
                if let Some((at,)) = at.filter(|_| user != EVERYBODY) {
                    self.cql.write(&REMOVE_MENTION, (user, at, channel, target)).await?;
                }
                self.cql.write(&REMOVE_MENTION_BY_CHANNEL, (user, channel, target)).await?;
            }
            let all: Vec<(String, i64)> = self.cql.read(&REACTIONS, (channel, target)).await?;
            // Behind every reaction: nobody reacts to a deleted message any more.
            let at_us = self.now_ms().await? * 1_000 + CLOCKS_US;
            let forget = |(emoji, user): (String, i64)| async move {
                self.cql.write(&REMOVE_OWN_REACTION, (at_us, channel, user, target, emoji)).await
            };
            each(all, forget).await?;
            self.cql.write(&FORGET_REACTIONS, (at_us, channel, target)).await?;
        }
        Ok(())
    }

    /// See [`crate::LogStore::react`].
    pub(super) async fn change_reactions(
        &self,
        channel: ChannelId,
        target: Seq,
        changes: &[ReactionChange],
        named: usize,
    ) -> StoreResult<Vec<Reaction>> {
        let (channel, target) = (int(channel.raw()), int(target.get()));
        for ReactionChange { user_id, emoji, on, at_us } in changes {
            let (user, at_us) = (int(user_id.raw()), int(*at_us));
            if *on {
                let here = self.cql.write(&PUT_REACTION, (channel, target, emoji, user, at_us));
                let own = self.cql.write(&PUT_OWN_REACTION, (channel, user, target, emoji, at_us));
                try_join(here, own).await?;
            } else {
                let here = self.cql.write(&REMOVE_REACTION, (at_us, channel, target, emoji, user));
                let own = self.cql.write(&REMOVE_OWN_REACTION, (at_us, channel, user, target, emoji));
                try_join(here, own).await?;
            }
        }
        let all: Vec<(String, i64)> = self.cql.read(&REACTIONS, (channel, target)).await?;
        let mut reactions: Vec<Reaction> = Vec::new();
        for (emoji, user) in all {
            let user = UserId::from_raw(number(user));
            match reactions.last_mut().filter(|last| last.emoji == emoji) {
                Some(last) => {
                    last.count += 1;
                    if last.users.len() < named {
                        last.users.push(user);
                    }
                }
                None => reactions.push(Reaction { emoji, count: 1, users: vec![user] }),
            }
        }
        Ok(reactions)
    }

    pub(in crate::scylla) async fn put_marker(
        &self,
        user: UserId,
        channel: i64,
        marker: Marker,
    ) -> StoreResult<()> {
        let (seq, ordinal) = (int(marker.seq.get()), int(marker.ordinal.get()));
        self.cql.write(&PUT_MARKER, (int(user.raw()), channel, seq, ordinal, seq)).await
    }
}
