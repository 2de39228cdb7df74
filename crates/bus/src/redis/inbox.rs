//! Brings rows to inboxes, and reads inboxes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use madang_engine::log::Row;
use madang_engine::sync::Place;
use madang_ids::{ChannelId, Cursor, Epoch, LogId, Millis, Position, Seq, UserId};
use madang_proto::{ChannelKind, SnapshotReason};
use madang_store::{StoreError, StoreResult};
use moka::sync::Cache;
use parking_lot::Mutex;
use redis::Value;

use super::connection::PIPELINE;
use super::frames::{Content, FrameHead};
use super::scripts::{self, call};
use super::streams::StreamName;
use super::values::Reply;
use super::{RedisBus, channel_nodes, epoch_of, inbox_keys};
use crate::bounds::AUDIENCE_BYTES;
use crate::bus::{Delivery, Envelope, Loss, OpenRows, Recipient};
use crate::inbox::{Inbox, InboxItem, InboxPage, InboxRead};
use crate::roster::{Batch, Part, Roster};

/// Size of an audience without its members.
const AROUND_BYTES: usize = 256;

/// The receivers of the rows of a channel.
#[derive(Debug, Clone)]
pub(super) enum Audience {
    /// Its members, as of a place in its log.
    Members(Arc<Mutex<Followed>>),
    /// The subscribers of an open channel.
    Subscribers,
}

/// The members as of the last row that this node has brought. Another home may have appended since: a roster counts only if the
/// next rows follow that row.
#[derive(Debug)]
pub(super) struct Followed {
    roster: Roster,
    upto: Seq,
}

pub(super) type Audiences = Cache<ChannelId, Audience>;

pub(super) fn audiences() -> Audiences {
    let bytes = |audience: &Audience| match audience {
        Audience::Members(followed) => AROUND_BYTES + followed.lock().roster.bytes(),
        Audience::Subscribers => AROUND_BYTES,
    };
    let weigh = move |_: &ChannelId, audience: &Audience| u32::try_from(bytes(audience)).unwrap_or(u32::MAX);
    Cache::builder().max_capacity(AUDIENCE_BYTES as u64).weigher(weigh).build()
}

/// Rows that an inbox did not have.
pub(super) struct Brought {
    pub(super) previous: Position,
    position: Position,
    /// The first row that was brought. Below the first row of the call if earlier ones were missing.
    pub(super) from: Seq,
    nodes: Vec<String>,
}

/// What the script that brings rows has answered.
struct Moved {
    /// `None` if nothing was brought.
    brought: Option<Brought>,
    /// Channels about which something waits, and when a worker has to look at that.
    dues: Vec<(ChannelId, Millis)>,
}

#[async_trait]
impl Inbox for RedisBus {
    async fn moved(&self, log: LogId, rows: &Arc<[Row]>) -> StoreResult<()> {
        let Some(batch) = Batch::of(rows) else { return Ok(()) };
        match log {
            LogId::User(user) => self.bring(log, vec![of_own_log(user, batch.own())], Some(rows)).await,
            LogId::Channel(channel) => match self.parts(channel, &batch, rows).await? {
                Some(parts) => self.bring(log, parts, Some(rows)).await,
                None => self.publish_rows(channel, rows).await,
            },
        }
    }

    async fn moved_again(&self, log: LogId, range: RangeInclusive<Seq>) -> StoreResult<()> {
        let parts = match log {
            LogId::User(user) => vec![of_own_log(user, range)],
            LogId::Channel(channel) if self.is_open(channel).await? => {
                return self.publish_loss(channel).await;
            }
            LogId::Channel(channel) => {
                let upto = *range.end();
                // Also of those who have left within the range. A change of membership whose row is in the range counts as made.
                let roster = Roster::load(self.store.as_ref(), channel, upto.next(), *range.start()).await?;
                let parts = roster.parts(&Batch::of_range(range)).collect();
                self.follow(channel, roster, upto);
                parts
            }
        };
        self.bring(log, parts, None).await
    }

    async fn announce(&self, log: LogId) -> StoreResult<()> {
        self.announce_log(log).await
    }

    async fn retire(&self, logs: &[LogId]) -> StoreResult<()> {
        self.retire_logs(self.run, logs).await
    }

    fn wants_to_know(&self) -> bool {
        true
    }

    async fn know(&self, user: UserId, known: &[(LogId, Seq)], is_last: bool) -> StoreResult<bool> {
        let [heads, ..] = inbox_keys(user);
        let known = known.iter().flat_map(|(log, seq)| [log_name(*log), seq.to_string()]);
        let arguments: Vec<String> = std::iter::once(flag(is_last).to_owned()).chain(known).collect();
        let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
        let mut reply = Reply::of(self.redis.command(&call(&scripts::KNOW, &[&heads], &arguments)).await?)?;
        self.note_epoch(epoch_of(&reply.text()?)).await;
        Ok(reply.number()? > 0)
    }

    async fn end(&self, user: UserId) -> StoreResult<Cursor> {
        let [heads, ..] = inbox_keys(user);
        let mut reply = Reply::of(self.redis.command(&call(&scripts::END, &[&heads], &[])).await?)?;
        let (epoch, position) = (epoch_of(&reply.text()?), Position::new(reply.number()?));
        Ok(Cursor { epoch, position })
    }

    async fn read(&self, user: UserId, after: Cursor, max_rows: usize) -> StoreResult<InboxRead> {
        let [heads, items, _] = inbox_keys(user);
        let (position, count) = (after.position.get().to_string(), max_rows.to_string());
        let command = call(&scripts::READ, &[&heads, &items], &[position.as_bytes(), count.as_bytes()]);
        match self.redis.command(&command).await {
            Ok(answer) => Ok(Page::parse(answer)?.after(after, max_rows)),
            Err(error) => {
                tracing::debug!(%error, user.id = %user, "an inbox was not read");
                Ok(InboxRead::Unavailable)
            }
        }
    }
}

/// What the inbox has after a position.
struct Page {
    epoch: Epoch,
    end: Position,
    /// The position before the oldest item that is kept.
    bound: Position,
    items: Vec<InboxItem>,
}

impl Page {
    fn parse(answer: Value) -> StoreResult<Self> {
        let mut reply = Reply::of(answer)?;
        let (epoch, end) = (epoch_of(&reply.text()?), Position::new(reply.number()?));
        let bound = item_of(reply.list()?.next_list()?)?.map_or(end, |item| before(&item));
        let mut list = reply.list()?;
        let mut items = Vec::new();
        while let Some(item) = item_of(list.next_list()?)? {
            items.push(item);
        }
        Ok(Self { epoch, end, bound, items })
    }

    fn after(self, cursor: Cursor, max_rows: usize) -> InboxRead {
        if cursor.epoch != self.epoch {
            return InboxRead::SnapshotRequired(SnapshotReason::InboxReset);
        }
        if cursor.position > self.end {
            return InboxRead::SnapshotRequired(SnapshotReason::BeyondStore);
        }
        if cursor.position < self.bound {
            return InboxRead::SnapshotRequired(SnapshotReason::TooFarBehind);
        }
        let (mut upto, mut room, mut taken) = (cursor.position.get(), max_rows as u64, Vec::new());
        for mut item in self.items {
            // A page may have ended inside the item.
            item.from = Seq::new(item.from.get() + upto.saturating_sub(before(&item).get()));
            let rows = (item.to.get() + 1 - item.from.get()).min(room);
            if rows == 0 {
                break;
            }
            (upto, room) = (upto + rows, room - rows);
            item.to = Seq::new(item.from.get() + rows - 1);
            item.position = Position::new(upto);
            taken.push(item);
        }
        let upto = Position::new(upto);
        let more = upto < self.end;
        InboxRead::Page(InboxPage { items: taken, upto: Cursor { position: upto, ..cursor }, more })
    }
}

/// The position before an item.
fn before(item: &InboxItem) -> Position {
    Position::new(item.position.get() - (item.to.get() + 1 - item.from.get()))
}

/// An entry of a stream of items.
fn item_of(entry: Option<Reply>) -> StoreResult<Option<InboxItem>> {
    let Some(mut entry) = entry else { return Ok(None) };
    let (id, content) = (entry.text()?, entry.list()?.skip().text()?);
    let item = parse_item(&id, &content);
    item.map(Some)
        .ok_or_else(|| StoreError::Unavailable(format!("Redis: {content} is not an item of an inbox")))
}

fn parse_item(id: &str, content: &str) -> Option<InboxItem> {
    let position = Position::new(id.strip_suffix("-0")?.parse().ok()?);
    let mut parts = content.split(':');
    let log = parse_log(parts.next()?)?;
    let (from, to) = (Seq::new(parts.next()?.parse().ok()?), Seq::new(parts.next()?.parse().ok()?));
    let is_sound = from <= to && to.get() - from.get() < position.get();
    is_sound.then_some(InboxItem { log, from, to, position })
}

/// A log in an inbox: `c7` for a channel, `u5` for the user's own.
pub(super) fn log_name(log: LogId) -> String {
    match log {
        LogId::Channel(channel) => format!("c{channel}"),
        LogId::User(user) => format!("u{user}"),
    }
}

pub(super) fn parse_log(name: &str) -> Option<LogId> {
    match name.split_at_checked(1)? {
        ("c", id) => id.parse().ok().map(LogId::Channel),
        ("u", id) => id.parse().ok().map(LogId::User),
        _ => None,
    }
}

pub(super) const fn flag(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}

fn of_own_log(user: UserId, range: RangeInclusive<Seq>) -> Part {
    Part { user, range, stay_from: Seq::new(1), is_open: true, sees_all: true }
}

impl RedisBus {
    /// The parts of rows that members may see; `None` for an open channel.
    async fn parts(&self, channel: ChannelId, batch: &Batch, rows: &[Row]) -> StoreResult<Option<Vec<Part>>> {
        let (first, last) = batch.own().into_inner();
        match self.audiences.get(&channel) {
            Some(Audience::Subscribers) => return Ok(None),
            Some(Audience::Members(followed)) => {
                let mut now = followed.lock();
                if now.upto.next() == first {
                    let is_changed = now.roster.apply(rows);
                    now.upto = last;
                    let parts = now.roster.parts(batch).collect();
                    drop(now);
                    if is_changed {
                        // Measured again.
                        self.audiences.insert(channel, Audience::Members(followed));
                    }
                    return Ok(Some(parts));
                }
            }
            None if self.is_open(channel).await? => return Ok(None),
            None => {}
        }
        let mut roster = Roster::load(self.store.as_ref(), channel, first, first).await?;
        roster.apply(rows);
        let parts = roster.parts(batch).collect();
        self.follow(channel, roster, last);
        Ok(Some(parts))
    }

    fn follow(&self, channel: ChannelId, roster: Roster, upto: Seq) {
        let followed = Arc::new(Mutex::new(Followed { roster, upto }));
        self.audiences.insert(channel, Audience::Members(followed));
    }

    pub(super) async fn is_open(&self, channel: ChannelId) -> StoreResult<bool> {
        match self.audiences.get(&channel) {
            Some(Audience::Subscribers) => return Ok(true),
            Some(Audience::Members(_)) => return Ok(false),
            None => {}
        }
        let row = self.store.channel(channel).await?;
        let is_open = row.is_some_and(|row| row.card.kind == ChannelKind::Open);
        if is_open {
            self.audiences.insert(channel, Audience::Subscribers);
        }
        Ok(is_open)
    }

    /// Brings rows to inboxes, and to the nodes of their users. Without `rows` the nodes are notified that there are some.
    async fn bring(&self, log: LogId, parts: Vec<Part>, rows: Option<&Arc<[Row]>>) -> StoreResult<()> {
        let mut of_nodes = BTreeMap::<String, Vec<Recipient>>::new();
        let mut epoch = None;
        let events = self.alert_events(log, &parts, rows).await?;
        for parts in parts.chunks(PIPELINE) {
            let answers = self.redis.pipeline(&self.moved(log, parts, rows.is_some(), &events)).await?;
            let (mut dues, mut missing) = (Vec::new(), Vec::new());
            for (part, answer) in parts.iter().zip(answers) {
                let mut reply = Reply::of(answer)?;
                epoch = Some(epoch_of(&reply.text()?));
                let moved = Moved::parse(reply)?;
                dues.extend(moved.dues.into_iter().map(|(channel, due)| ((part.user, channel), due)));
                match moved.brought {
                    None => _ = self.metrics.moved_before.inc(),
                    Some(brought) => {
                        missing.extend(self.missing(log, part, &brought));
                        self.take(part, brought, &mut of_nodes);
                    }
                }
            }
            // Before anything is delivered: if it fails, the rows are brought again, and the script says again what waits.
            if let Some((_, alerts)) = self.alerts.as_ref().filter(|_| !dues.is_empty()) {
                alerts.note_due(&dues).await?;
            }
            if let (Some(epoch), false) = (epoch, missing.is_empty()) {
                self.note_missing(epoch, missing).await?;
            }
        }
        let Some(epoch) = epoch else { return Ok(()) };
        self.note_epoch(epoch).await;
        let mut encoded = None;
        for (node, recipients) in of_nodes {
            match rows {
                _ if node == self.me.as_str() => self.deliver(log, epoch, rows, recipients).await,
                Some(rows) => {
                    let to = recipients.into_iter().map(Into::into).collect();
                    let head = FrameHead::Rows { log: log.into(), epoch: epoch.raw(), to };
                    let encoded = encoded.get_or_insert_with(|| Content::of(rows));
                    self.send(&node, head, encoded);
                }
                None => {
                    let to = recipients.into_iter().map(|recipient| recipient.user_id).collect();
                    self.send(&node, FrameHead::Unread { to }, &Content::none());
                }
            }
        }
        Ok(())
    }

    /// Delivers rows to those of the recipients who are connected to this node. A place of another epoch says nothing about the
    /// cursors of this one: those users read their inboxes.
    pub(super) async fn deliver(
        &self,
        log: LogId,
        epoch: Epoch,
        rows: Option<&Arc<[Row]>>,
        mut recipients: Vec<Recipient>,
    ) {
        let is_present = *self.epoch.lock() == Some(epoch);
        recipients.retain(|recipient| {
            let last = if is_present { recipient.place.last } else { Position::ZERO };
            self.registrations.reached(recipient.user_id, last)
        });
        if recipients.is_empty() {
            return;
        }
        let envelope = match rows.filter(|_| is_present) {
            Some(rows) => {
                let rows = self.in_room(Arc::clone(rows).into()).await;
                Envelope::Delivery(Delivery { log, rows, recipients })
            }
            None => {
                let users = recipients.into_iter().map(|recipient| recipient.user_id).collect();
                Envelope::Lost(Loss::Users(users))
            }
        };
        self.hand_over(envelope).await;
    }

    /// Counts rows that an inbox has taken, and notes the nodes to which they go.
    fn take(&self, part: &Part, brought: Brought, of_nodes: &mut BTreeMap<String, Vec<Recipient>>) {
        let Brought { previous, position, from, nodes } = brought;
        self.metrics.moved.inc();
        self.metrics.repaired.inc_by(u64::from(from < *part.range.start()));
        let sees_all = part.sees_all && from == *part.range.start();
        let place = Place { previous, first: Position::new(previous.get() + 1), last: position };
        for node in nodes {
            let recipient = Recipient { user_id: part.user, place, sees_all };
            of_nodes.entry(node).or_default().push(recipient);
        }
    }

    async fn publish_rows(&self, channel: ChannelId, rows: &Arc<[Row]>) -> StoreResult<()> {
        let Some(last) = rows.last().map(|row| row.entry.seq) else { return Ok(()) };
        let (key, last) = (channel_nodes(channel), last.to_string());
        let nodes = self.nodes(&call(&scripts::PUBLISH, &[&key], &[last.as_bytes()])).await?;
        let mut encoded = None;
        for node in nodes {
            if node == self.me.as_str() {
                self.deliver_open(channel, rows).await;
            } else {
                let encoded = encoded.get_or_insert_with(|| Content::of(rows));
                self.send(&node, FrameHead::Open { channel }, encoded);
            }
        }
        Ok(())
    }

    /// Delivers rows to the subscribers here. If rows before them are missing, their subscribers learn that instead: the missing ones
    /// may say that one of them has left, or was banned.
    pub(super) async fn deliver_open(&self, channel: ChannelId, rows: &Arc<[Row]>) {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        match self.registrations.reached_open(channel, first.entry.seq, last.entry.seq) {
            None => {}
            Some(true) => {
                let rows = self.in_room(Arc::clone(rows).into()).await;
                self.hand_over(Envelope::Open(OpenRows { channel, rows })).await;
            }
            Some(false) => self.hand_over(Envelope::Lost(Loss::Channel(channel))).await,
        }
    }

    /// Notifies the subscribers of an open channel that rows may be missing.
    async fn publish_loss(&self, channel: ChannelId) -> StoreResult<()> {
        let key = channel_nodes(channel);
        for node in self.nodes(&call(&scripts::NODES_OF, &[&key], &[])).await? {
            if node == self.me.as_str() {
                self.hand_over(Envelope::Lost(Loss::Channel(channel))).await;
            } else {
                self.send(&node, FrameHead::UnreadOpen { channel }, &Content::none());
            }
        }
        Ok(())
    }

    async fn nodes(&self, command: &redis::Cmd) -> StoreResult<Vec<String>> {
        let mut reply = Reply::of(self.redis.command(command).await?)?;
        self.note_epoch(epoch_of(&reply.text()?)).await;
        texts(reply.list()?)
    }

    pub(super) fn send(&self, node: &str, head: FrameHead, rows: &Content) {
        if !self.streams.send(&StreamName::new(node), head.encode(rows)) {
            self.metrics.frames_dropped.inc();
        }
    }
}

impl Moved {
    fn parse(mut reply: Reply) -> StoreResult<Self> {
        let brought = match reply.len() {
            1 => None,
            _ => Some(Brought {
                previous: Position::new(reply.number()?),
                position: Position::new(reply.number()?),
                from: Seq::new(reply.number()?),
                nodes: texts(reply.list()?)?,
            }),
        };
        let (mut waiting, mut dues) = (reply.list()?, Vec::new());
        while !waiting.is_empty() {
            dues.push((ChannelId::from_raw(waiting.number()?), Millis::new(waiting.number()?)));
        }
        Ok(Self { brought, dues })
    }
}

pub(super) fn texts(mut list: Reply) -> StoreResult<Vec<String>> {
    let mut texts = Vec::new();
    while !list.is_empty() {
        texts.push(list.text()?);
    }
    Ok(texts)
}
