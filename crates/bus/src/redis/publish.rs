//! Publishes what may be lost: events and profiles.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use madang_ids::{ChannelId, UserId};
use madang_proto::UserCard;
use madang_store::StoreResult;
use moka::sync::Cache;
use redis::Pipeline;
use tokio::sync::mpsc;

use super::connection::PIPELINE;
use super::frames::{Content, FrameHead};
use super::inbox::texts;
use super::scripts::{self, call};
use super::values::Reply;
use super::{RedisBus, brief, channel_nodes, inbox_keys};
use crate::bus::{Bus, Envelope, Event, Receivers};

/// For how long it is remembered where a user is connected, and who the members of a channel are. A user who types causes an event
/// every few seconds, in one channel mostly.
const KNOWN: Duration = Duration::from_secs(5);
/// Users, and channels, of which that is remembered.
const KNOWN_MAX: u64 = 10_000;
/// Profiles that are published together.
const AT_ONCE: usize = 64;

/// A profile, and the users who are notified of it.
pub(super) type Publication = (UserCard, Vec<UserId>);

/// Where events go.
pub(super) struct Whereabouts {
    nodes: Cache<UserId, Arc<[String]>>,
    /// `None`: the subscribers of an open channel.
    members: Cache<ChannelId, Option<Arc<[UserId]>>>,
    subscribers: Cache<ChannelId, Arc<[String]>>,
}

pub(super) fn whereabouts() -> Whereabouts {
    Whereabouts {
        nodes: brief(KNOWN_MAX, KNOWN),
        members: brief(KNOWN_MAX, KNOWN),
        subscribers: brief(KNOWN_MAX, KNOWN),
    }
}

impl RedisBus {
    /// The nodes of users, with the users of each.
    async fn nodes_of(&self, users: &[UserId]) -> StoreResult<BTreeMap<String, Vec<UserId>>> {
        let unknown: Vec<UserId> =
            users.iter().copied().filter(|user| !self.whereabouts.nodes.contains_key(user)).collect();
        for unknown in unknown.chunks(PIPELINE) {
            let mut pipeline = Pipeline::with_capacity(unknown.len());
            for user in unknown {
                pipeline.add_command(call(&scripts::NODES_OF, &[&inbox_keys(*user)[2]], &[]));
            }
            for (user, answer) in unknown.iter().zip(self.redis.pipeline(&pipeline).await?) {
                let nodes = texts(Reply::of(answer)?.skip().list()?)?;
                self.whereabouts.nodes.insert(*user, nodes.into());
            }
        }
        let mut of_nodes = BTreeMap::<String, Vec<UserId>>::new();
        for user in users {
            for node in self.whereabouts.nodes.get(user).iter().flat_map(|nodes| nodes.iter()) {
                of_nodes.entry(node.clone()).or_default().push(*user);
            }
        }
        Ok(of_nodes)
    }

    /// The members of a channel, at most `limit` or those of the last call; `None` for an open channel.
    async fn members(&self, channel: ChannelId, limit: usize) -> StoreResult<Option<Arc<[UserId]>>> {
        if let Some(members) = self.whereabouts.members.get(&channel) {
            return Ok(members);
        }
        let members = match self.is_open(channel).await? {
            true => None,
            false => {
                let members = self.store.members(channel, None, limit).await?;
                Some(members.into_iter().map(|member| member.user_id).collect())
            }
        };
        self.whereabouts.members.insert(channel, members.clone());
        Ok(members)
    }

    async fn subscriber_nodes(&self, channel: ChannelId) -> StoreResult<Arc<[String]>> {
        if let Some(nodes) = self.whereabouts.subscribers.get(&channel) {
            return Ok(nodes);
        }
        let answer = self.redis.command(&call(&scripts::NODES_OF, &[&channel_nodes(channel)], &[])).await?;
        let nodes: Arc<[String]> = texts(Reply::of(answer)?.skip().list()?)?.into();
        self.whereabouts.subscribers.insert(channel, Arc::clone(&nodes));
        Ok(nodes)
    }

    /// Publishes profiles; ends with the bus.
    pub(super) async fn publish_all(&self, mut publications: mpsc::Receiver<Publication>) {
        let mut taken = Vec::with_capacity(AT_ONCE);
        while publications.recv_many(&mut taken, AT_ONCE).await > 0 {
            for (card, users) in taken.drain(..) {
                if let Err(error) = self.publish_card(card, &users).await {
                    tracing::debug!(%error, "a changed profile was not published");
                }
            }
        }
    }

    async fn publish_card(&self, card: UserCard, users: &[UserId]) -> StoreResult<()> {
        for (node, users) in self.nodes_of(users).await? {
            // Those of this node were notified already.
            if node != self.me.as_str() {
                let head = FrameHead::Profile { card: Box::new(card.clone()), to: users };
                self.send(&node, head, &Content::none());
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Bus for RedisBus {
    fn take_envelopes(&self) -> Option<mpsc::Receiver<Envelope>> {
        self.envelopes.lock().take()
    }

    async fn attach(&self, user: UserId) -> StoreResult<()> {
        self.attach_user(user).await
    }

    fn detach(&self, user: UserId) {
        self.detach_user(user);
    }

    async fn subscribe(&self, channel: ChannelId) -> StoreResult<()> {
        self.subscribe_channel(channel).await
    }

    fn unsubscribe(&self, channel: ChannelId) {
        self.unsubscribe_channel(channel);
    }

    async fn publish(&self, event: Event, at_most: usize) -> StoreResult<()> {
        let Some(members) = self.members(event.channel_id, at_most + 1).await? else {
            for node in self.subscriber_nodes(event.channel_id).await?.iter() {
                if node == self.me.as_str() {
                    self.hand_over_if_room(Envelope::Event(event.clone(), Receivers::Subscribers));
                } else {
                    self.send(node, FrameHead::event(&event, Vec::new()), &Content::none());
                }
            }
            return Ok(());
        };
        if members.len() > at_most {
            return Ok(());
        }
        let receivers: Vec<UserId> = members.iter().copied().filter(|user| event.is_for(*user)).collect();
        for (node, users) in self.nodes_of(&receivers).await? {
            if node == self.me.as_str() {
                self.hand_over_if_room(Envelope::Event(event.clone(), Receivers::Users(users)));
            } else {
                self.send(&node, FrameHead::event(&event, users), &Content::none());
            }
        }
        Ok(())
    }

    fn publish_profile(&self, card: UserCard, users: Vec<UserId>) {
        self.hand_over_if_room(Envelope::Profile(Box::new(card.clone()), users.clone()));
        if self.publications.try_send((card, users)).is_err() {
            self.metrics.frames_dropped.inc();
        }
    }
}
