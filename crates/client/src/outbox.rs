//! Messages that are not acked yet: a bounded queue that survives reconnects. Pure.
//!
//! The server appends the sends of one connection to one channel in their order. If one of them fails and may be
//! retried, those in flight after it fail too. So after such a failure the channel's lane *holds* until everything in
//! flight in it has been answered, and then continues from the first message that failed. This keeps the order of the
//! user's messages through any number of failures, crashes and reconnects; `client_msg_id` ensures that each of them is
//! appended once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use madang_ids::ChannelId;
use madang_proto::{Ack, ErrorBody, ErrorCode, RequestId, Send};

/// Wait before the first retry if the server named none. It doubles with each further retry.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(32);

/// Unacked messages, in order for each channel. `T` is a value that the caller gets back with the answer.
#[derive(Debug)]
pub struct Outbox<T> {
    lanes: BTreeMap<ChannelId, Lane<T>>,
    in_flight: HashMap<u64, ChannelId>,
    len: usize,
    capacity: usize,
    max_in_flight: usize,
    last_request: u64,
    last_served: Option<ChannelId>,
}

#[derive(Debug)]
struct Lane<T> {
    queue: VecDeque<Item<T>>,
    in_flight: usize,
    /// Set by a failure. Nothing is sent before this time, nor before all messages in flight are answered.
    hold_until: Option<Instant>,
}

#[derive(Debug)]
struct Item<T> {
    send: Send,
    tag: T,
    tries: u32,
    /// The request with which it is in flight on the present connection.
    request: Option<u64>,
}

/// The queue is full. The message is returned.
#[derive(Debug)]
pub struct Full<T>(pub Box<Send>, pub T);

/// A message to be written to the socket now.
#[derive(Debug)]
pub struct Outgoing<'a, T> {
    /// The name of the request.
    pub request: RequestId,
    /// The message.
    pub send: &'a Send,
    /// The value that the caller gave with it.
    pub tag: &'a T,
    /// Number of attempts including this one.
    pub tries: u32,
}

/// A message that left the queue.
#[derive(Debug)]
pub struct Settled<T> {
    /// The message.
    pub send: Send,
    /// The value that the caller gave with it.
    pub tag: T,
    /// Number of attempts.
    pub tries: u32,
}

/// Meaning of an answer.
#[derive(Debug)]
pub enum Answer<T> {
    /// The message is durable.
    Acked(Settled<T>, Ack),
    /// The message was refused for good.
    Refused(Settled<T>, ErrorBody),
    /// The message will be sent again.
    Again,
    /// The request does not belong to this queue.
    Unknown,
}

impl<T> Outbox<T> {
    /// A queue of at most `capacity` messages, of which at most `max_in_flight` are unanswered on one connection. The
    /// server stops reading at 256 messages in flight, so stay below that.
    #[must_use]
    pub fn new(capacity: usize, max_in_flight: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            in_flight: HashMap::new(),
            len: 0,
            capacity,
            max_in_flight,
            last_request: 0,
            last_served: None,
        }
    }

    /// Number of messages that are not settled.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether every message is settled.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether there is room for another message.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.len < self.capacity
    }

    /// Number of messages that are unanswered on the present connection.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Enqueues a message after the others of its channel.
    ///
    /// # Errors
    /// Returns the message if the queue is full.
    pub fn enqueue(&mut self, send: Send, tag: T) -> Result<(), Full<T>> {
        if !self.has_room() {
            return Err(Full(Box::new(send), tag));
        }
        self.len += 1;
        let lane = self.lanes.entry(send.channel_id).or_insert_with(Lane::new);
        lane.queue.push_back(Item { send, tag, tries: 0, request: None });
        Ok(())
    }

    /// The next message to write to the socket, if one may be sent now. Channels take turns.
    pub fn poll_send(&mut self, now: Instant) -> Option<Outgoing<'_, T>> {
        if self.in_flight.len() >= self.max_in_flight {
            return None;
        }
        let channel = self.next_channel(now)?;
        self.last_served = Some(channel);
        self.last_request += 1;
        let request = self.last_request;
        self.in_flight.insert(request, channel);
        let lane = self.lanes.get_mut(&channel)?;
        lane.hold_until = None;
        lane.in_flight += 1;
        let item = lane.queue.iter_mut().find(|item| item.request.is_none())?;
        item.request = Some(request);
        item.tries += 1;
        let request = RequestId(request.to_string());
        Some(Outgoing { request, send: &item.send, tag: &item.tag, tries: item.tries })
    }

    /// When to call [`Self::poll_send`] again although nothing was answered or enqueued: the end of a wait.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.in_flight.len() >= self.max_in_flight {
            // An answer must arrive first. A deadline in the past would wake the caller again and again.
            return None;
        }
        let waiting = self.lanes.values().filter(|lane| lane.in_flight == 0);
        waiting.filter_map(|lane| lane.hold_until).min()
    }

    /// Handles an ack.
    pub fn handle_ack(&mut self, ack: Ack) -> Answer<T> {
        match ack.id.as_ref().and_then(|id| self.settle(id)) {
            Some(settled) => Answer::Acked(settled, ack),
            None => Answer::Unknown,
        }
    }

    /// Handles an error.
    pub fn handle_error(&mut self, id: &RequestId, error: ErrorBody, now: Instant) -> Answer<T> {
        // An expired token is renewed, and then the same message may succeed.
        if !error.retryable && error.code != ErrorCode::Unauthorized {
            return self.settle(id).map_or(Answer::Unknown, |settled| Answer::Refused(settled, error));
        }
        let Some((lane, tries)) = parse(id).and_then(|request| self.take_request(request)) else {
            return Answer::Unknown;
        };
        let growing = || (RETRY_AFTER * 2_u32.pow(tries.clamp(1, 6) - 1)).min(RETRY_AFTER_MOST);
        let wait = error.retry_after_ms.map_or_else(growing, Duration::from_millis);
        lane.hold_until = lane.hold_until.max(Some(now + wait));
        Answer::Again
    }

    /// The connection is closed. Messages in flight have an unknown outcome and are sent again on the next connection.
    pub fn handle_disconnected(&mut self) {
        self.in_flight.clear();
        for lane in self.lanes.values_mut() {
            lane.in_flight = 0;
            lane.hold_until = None;
            lane.queue.iter_mut().for_each(|item| item.request = None);
        }
    }

    fn next_channel(&self, now: Instant) -> Option<ChannelId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let ready = |(channel, lane): (&ChannelId, &Lane<T>)| lane.is_ready(now).then_some(*channel);
        let behind = self.last_served.map_or(Unbounded, Excluded);
        let rest = self.lanes.range((behind, Unbounded)).find_map(ready);
        rest.or_else(|| self.lanes.iter().find_map(ready))
    }

    /// Marks a request as answered. Returns its lane and the number of attempts; the caller settles or retries the
    /// message.
    fn take_request(&mut self, request: u64) -> Option<(&mut Lane<T>, u32)> {
        let channel = self.in_flight.remove(&request)?;
        let lane = self.lanes.get_mut(&channel)?;
        lane.in_flight -= 1;
        let item = lane.queue.iter_mut().find(|item| item.request == Some(request))?;
        item.request = None;
        let tries = item.tries;
        Some((lane, tries))
    }

    /// Removes the message of a request from the queue.
    fn settle(&mut self, id: &RequestId) -> Option<Settled<T>> {
        let request = parse(id)?;
        let channel = self.in_flight.remove(&request)?;
        let lane = self.lanes.get_mut(&channel)?;
        let index = lane.queue.iter().position(|item| item.request == Some(request))?;
        let item = lane.queue.remove(index)?;
        lane.in_flight -= 1;
        self.len -= 1;
        if lane.queue.is_empty() {
            self.lanes.remove(&channel);
        }
        Some(Settled { send: item.send, tag: item.tag, tries: item.tries })
    }
}

impl<T> Lane<T> {
    const fn new() -> Self {
        Self { queue: VecDeque::new(), in_flight: 0, hold_until: None }
    }

    fn is_ready(&self, now: Instant) -> bool {
        let held = self.hold_until.is_some_and(|until| self.in_flight > 0 || now < until);
        !held && self.in_flight < self.queue.len()
    }
}

fn parse(id: &RequestId) -> Option<u64> {
    id.0.parse().ok()
}

#[cfg(test)]
mod tests;
