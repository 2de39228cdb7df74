//! Entries of open channels on their way out of one connection. They do not move the inbox cursor.

use std::cell::RefCell;
use std::sync::Arc;

use madang_engine::log::Row;
use madang_engine::subscriptions::{At, Live, Started, Stretch, Subscriptions};
use madang_ids::{ChannelId, LogId, Seq};
use madang_proto::{ChannelHead, Mode, Pacing, ServerFrame};

use super::state::State;
use super::{Frames, Outbound};
use crate::gateway::delivery::encode::{self, Frame};

/// Rows of an open channel, encoded once for all subscribers.
#[derive(Debug)]
pub(crate) struct OpenFrames<'a> {
    stretch: Stretch,
    rows: &'a [Row],
    frames: Frames,
    size: usize,
    /// The last rows alone, for subscriptions that began within them. Those of one place usually follow each other.
    tail: RefCell<Option<(Seq, Frames)>>,
    /// For connections that are [slow](State::is_slow).
    digest: Option<Digest>,
}

/// The last rows of a delivery; a gap covers those before them.
#[derive(Debug)]
struct Digest {
    stretch: Stretch,
    frames: Frames,
    size: usize,
}

impl<'a> OpenFrames<'a> {
    /// `None` if there are no rows.
    pub(crate) fn new(channel: ChannelId, rows: &'a [Row]) -> Option<Self> {
        let Digest { stretch, frames, size } = Digest::new(channel, rows)?;
        Some(Self { stretch, rows, frames, size, tail: RefCell::new(None), digest: None })
    }

    /// Connections that are [slow](State::is_slow) get the last `count` rows only, with a gap before them.
    pub(crate) fn with_digest(mut self, count: usize) -> Self {
        let left_out = self.rows.len().saturating_sub(count);
        if left_out > 0 {
            self.digest = Digest::new(self.stretch.channel, &self.rows[left_out..]);
        }
        self
    }

    /// The bytes of all of it.
    pub(crate) const fn size(&self) -> usize {
        self.size
    }

    /// The rows after a place.
    fn after(&self, place: Seq) -> Frames {
        let mut tail = self.tail.borrow_mut();
        match &*tail {
            Some((known, frames)) if *known == place => Frames::clone(frames),
            _ => {
                let first = self.rows.partition_point(|row| row.entry.seq <= place);
                let frames = encode::batches(LogId::Channel(self.stretch.channel), &self.rows[first..]);
                Frames::clone(&tail.insert((place, frames.into())).1)
            }
        }
    }
}

impl Digest {
    /// All of these rows. `None` if there are none.
    fn new(channel: ChannelId, rows: &[Row]) -> Option<Self> {
        let stretch = Stretch::of(channel, rows)?;
        let frames = Frames::from(encode::batches(LogId::Channel(channel), rows));
        let size = frames.iter().map(Frame::len).sum();
        Some(Self { stretch, frames, size })
    }
}

/// Encodes `heads` frames that answer no request. The last one is kept, because connections with the same heads usually follow
/// each other.
#[derive(Debug, Default)]
pub(crate) struct HeadsFrames {
    last: Option<(Vec<ChannelHead>, Frame)>,
}

impl HeadsFrames {
    fn get(&mut self, heads: Vec<ChannelHead>) -> Frame {
        match &self.last {
            Some((last, frame)) if *last == heads => frame.clone(),
            _ => {
                let frame = heads_frame(heads.clone());
                self.last = Some((heads, frame.clone()));
                frame
            }
        }
    }
}

fn heads_frame(heads: Vec<ChannelHead>) -> Frame {
    encode::frame(&ServerFrame::Heads { id: None, heads })
}

impl State {
    /// Enqueues the gaps of rows that were left out. Called when everything was written. `false` if there are none.
    pub(super) fn push_gaps(&mut self) -> bool {
        let gaps = self.subscriptions.as_mut().and_then(|subscriptions| subscriptions.take_gaps());
        let Some(heads) = gaps else { return false };
        self.push(heads_frame(heads));
        true
    }
}

impl Outbound {
    /// Begins a subscription, or begins it again. Nothing is delivered before [`Self::handle_open_read`]. `false` if the
    /// connection has reached its limit of subscriptions.
    pub(crate) fn begin_subscription(&self, channel: ChannelId, mode: Mode) -> bool {
        self.state.lock().subscriptions.get_or_insert_default().begin(channel, mode)
    }

    /// The rows up to `upto` were enqueued, for a user who has been a member since `since`.
    pub(crate) fn handle_open_read(&self, channel: ChannelId, upto: At, since: Seq) -> Started {
        let mut state = self.state.lock();
        state.subscriptions.as_mut().map_or(Started::Ended, |it| it.handle_read(channel, upto, since))
    }

    /// As [`Self::handle_open_read`], but rows after `upto` that were not read become a gap.
    pub(crate) fn give_up_open_read(&self, channel: ChannelId, upto: At, since: Seq) -> Started {
        let mut state = self.state.lock();
        state.subscriptions.as_mut().map_or(Started::Ended, |it| it.give_up_reading(channel, upto, since))
    }

    /// Ends a subscription, if there is one.
    pub(crate) fn end_subscription(&self, channel: ChannelId) {
        let mut state = self.state.lock();
        // Afterwards nothing would remember the gap, so it is enqueued now even if there is little room.
        if state.subscriptions.as_ref().is_some_and(|it| it.is_behind(channel)) {
            state.push_gaps();
        }
        let Some(subscriptions) = &mut state.subscriptions else { return };
        subscriptions.end(channel);
        if subscriptions.channels().next().is_none() {
            state.subscriptions = None;
        }
    }

    /// Ends all subscriptions and returns their channels.
    pub(crate) fn end_subscriptions(&self) -> Vec<ChannelId> {
        let ended: Option<Box<Subscriptions>> = self.state.lock().subscriptions.take();
        ended.map(|ended| ended.channels().collect()).unwrap_or_default()
    }

    /// The row at `at` says that the user has left a channel. Returns whether the subscription ends with it.
    pub(crate) fn handle_left(&self, channel: ChannelId, at: Seq) -> bool {
        self.state.lock().subscriptions.as_mut().is_some_and(|it| it.handle_left(channel, at))
    }

    /// Offers an event if entries of the channel are delivered to this connection at the moment. It may be dropped.
    pub(crate) fn offer_open(self: &Arc<Self>, channel: ChannelId, frame: &Frame, limit_bytes: usize) {
        let is_active = self.state.lock().subscriptions.as_ref().is_some_and(|it| it.is_active(channel));
        if is_active {
            self.offer(frame, limit_bytes);
        }
    }

    /// Delivers live rows of an open channel.
    pub(crate) fn deliver_open(self: &Arc<Self>, open: &OpenFrames<'_>, limit_bytes: usize) -> Live {
        let mut state = self.state.lock();
        if !state.life.takes_deliveries() {
            return Live::Drop;
        }
        let digest = open.digest.as_ref().filter(|_| state.is_slow(limit_bytes));
        let (stretch, frames, size) = match digest {
            Some(digest) => (&digest.stretch, &digest.frames, digest.size),
            None => (&open.stretch, &open.frames, open.size),
        };
        let has_room = state.has_room(size, limit_bytes);
        let Some(subscriptions) = &mut state.subscriptions else { return Live::Drop };
        let live = subscriptions.handle_rows(stretch, has_room);
        if let Live::DeliverBehind(gap) = live {
            state.push(heads_frame(vec![gap]));
        }
        match live {
            Live::Deliver | Live::DeliverBehind(_) => state.enqueue(frames),
            Live::DeliverAfter(place) => state.enqueue(&open.after(place)),
            Live::Drop | Live::FellBehind | Live::Moved => return live,
        }
        self.make_due_in_crowd(&mut state);
        live
    }

    /// Rows up to `head` may have been lost on the way to this node.
    pub(crate) fn lose_open(self: &Arc<Self>, channel: ChannelId, head: At) -> Live {
        let mut state = self.state.lock();
        let Some(subscriptions) = &mut state.subscriptions else { return Live::Drop };
        let live = subscriptions.handle_loss(channel, head);
        if live == Live::FellBehind {
            self.make_due_in_crowd(&mut state);
        }
        live
    }

    /// Enqueues the heads of passive subscriptions that have moved and are due. `false` if heads remain: they are not due yet, or
    /// there is no room for them now.
    pub(crate) fn send_moved_heads(
        self: &Arc<Self>,
        frames: &mut HeadsFrames,
        is_due: impl Fn(ChannelId) -> bool,
        limit_bytes: usize,
    ) -> bool {
        let mut state = self.state.lock();
        if state.queue.bytes() > limit_bytes {
            return false;
        }
        let Some(subscriptions) = &mut state.subscriptions else { return true };
        let moved = subscriptions.take_moved(is_due);
        let is_done = !subscriptions.has_moved();
        if let Some(heads) = moved {
            state.push(frames.get(heads));
            self.make_due_in_crowd(&mut state);
        }
        is_done
    }

    /// Notifies the client how a channel is paced from now on, unless it knows.
    pub(crate) fn notify_pacing(
        self: &Arc<Self>,
        frames: &mut HeadsFrames,
        channel: ChannelId,
        pacing: Pacing,
    ) {
        let mut state = self.state.lock();
        let head = state.subscriptions.as_mut().and_then(|it| it.notice(channel, pacing));
        if let Some(head) = head {
            state.push(frames.get(vec![head]));
            self.make_due_in_crowd(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Pair, frame, frames, place};
    use super::*;
    use madang_ids::{Millis, Ordinal, UserId};
    use madang_proto::{Content, Entry};

    const TEA: ChannelId = ChannelId::from_raw(7);
    const LIMIT: usize = 400;

    fn at(place: u64) -> At {
        At { seq: Seq::new(place), ordinal: Ordinal::ZERO }
    }

    fn row(place: u64) -> Row {
        let content = Content::Created { by: UserId::from_raw(1) };
        let entry = Entry { seq: Seq::new(place), at: Millis::new(1), content };
        Row { entry, ordinal: Ordinal::ZERO, key: None }
    }

    fn rows(place: u64) -> OpenFrames<'static> {
        OpenFrames::new(TEA, vec![row(place)].leak()).unwrap()
    }

    fn gap(place: u64) -> Frame {
        heads_frame(vec![ChannelHead {
            channel_id: TEA,
            seq: Seq::new(place),
            ordinal: Ordinal::ZERO,
            gap: true,
            pacing: None,
        }])
    }

    fn subscribe(pair: &Pair, mode: Mode) {
        assert!(pair.outbound.begin_subscription(TEA, mode));
        assert_eq!(pair.outbound.handle_open_read(TEA, at(0), Seq::ZERO), Started::Live);
    }

    #[tokio::test]
    async fn rows_that_find_no_room_become_a_gap_once_there_is_room() {
        let mut pair = Pair::live().await;
        subscribe(&pair, Mode::Active);
        let lives: Vec<Live> = (1..=5).map(|at| pair.outbound.deliver_open(&rows(at), LIMIT)).collect();
        assert_eq!(lives, [Live::Deliver, Live::Deliver, Live::FellBehind, Live::Drop, Live::Drop]);
        let written = [rows(1), rows(2)].map(|rows| rows.frames[0].clone());
        pair.written(&[&written[0], &written[1], &gap(5)]).await;
        assert_eq!(pair.outbound.deliver_open(&rows(6), LIMIT), Live::Deliver);
        pair.written(&[&rows(6).frames[0]]).await;
    }

    #[tokio::test]
    async fn a_full_queue_causes_an_inbox_read_and_a_gap_in_the_subscription() {
        let mut pair = Pair::live().await;
        subscribe(&pair, Mode::Active);
        let long = "x".repeat(380);
        assert!(!pair.outbound.deliver(&frames(&long), place(4, 5), true, LIMIT));
        assert_eq!(pair.outbound.deliver_open(&rows(1), LIMIT), Live::FellBehind);
        assert!(pair.outbound.deliver(&frames(&long), place(5, 6), true, LIMIT));
        let cursor = super::super::tests::said(5);
        pair.written(&[&frame(&long), &cursor, &gap(1)]).await;
        assert!(pair.outbound.is_reading());
        assert_eq!(pair.outbound.deliver_open(&rows(2), LIMIT), Live::Deliver);
    }

    #[tokio::test]
    async fn a_slow_connection_gets_the_end_of_a_delivery_with_a_gap_and_a_fast_one_all_of_it() {
        let rows: &[Row] = (1..=9).map(row).collect::<Vec<_>>().leak();
        let open = |digest| OpenFrames::new(TEA, rows).unwrap().with_digest(digest);
        let mut fast = Pair::live().await;
        subscribe(&fast, Mode::Active);
        assert_eq!(fast.outbound.deliver_open(&open(2), 100_000), Live::Deliver);
        fast.written(&[&open(9).frames[0]]).await;
        let mut slow = Pair::live().await;
        subscribe(&slow, Mode::Active);
        let waiting = "x".repeat(20_000);
        assert!(!slow.outbound.deliver(&frames(&waiting), place(4, 5), true, 64_000));
        let ends = OpenFrames::new(TEA, &rows[7..]).unwrap();
        assert!(matches!(slow.outbound.deliver_open(&open(2), 64_000), Live::DeliverBehind(_)));
        let cursor = super::super::tests::said(5);
        slow.written(&[&frame(&waiting), &gap(7), &ends.frames[0], &cursor]).await;
    }

    #[tokio::test]
    async fn a_loss_becomes_a_gap_although_nothing_waits() {
        let mut pair = Pair::live().await;
        subscribe(&pair, Mode::Active);
        assert_eq!(pair.outbound.lose_open(TEA, at(9)), Live::FellBehind);
        pair.written(&[&gap(9)]).await;
        pair.outbound.end_subscription(TEA);
        assert_eq!(pair.outbound.deliver_open(&rows(10), LIMIT), Live::Drop);
        assert!(pair.outbound.end_subscriptions().is_empty());
    }

    #[tokio::test]
    async fn a_passive_subscription_gets_heads_only() {
        let mut pair = Pair::live().await;
        subscribe(&pair, Mode::Passive);
        assert_eq!(pair.outbound.deliver_open(&rows(1), LIMIT), Live::Moved);
        assert_eq!(pair.outbound.deliver_open(&rows(2), LIMIT), Live::Drop);
        pair.written(&[]).await;
        let mut heads = HeadsFrames::default();
        assert!(pair.outbound.send_moved_heads(&mut heads, |_| true, LIMIT));
        let head = ChannelHead {
            channel_id: TEA,
            seq: Seq::new(2),
            ordinal: Ordinal::ZERO,
            gap: false,
            pacing: None,
        };
        pair.written(&[&heads_frame(vec![head])]).await;
        assert!(pair.outbound.send_moved_heads(&mut heads, |_| true, LIMIT));
        pair.written(&[]).await;
    }
}
