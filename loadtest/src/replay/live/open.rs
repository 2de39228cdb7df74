//! Subscriptions of a connection to open channels, and the pages of history that fill their gaps.

use std::collections::{BTreeMap, HashMap, HashSet};

use madang_client::ClientError;
use madang_ids::{ChannelId, Seq};
use madang_proto::rest::HistoryQuery;
use madang_proto::{ClientFrame, ErrorBody, ErrorCode, Mode, Request, RequestId, limits};
use tokio::time::{Duration, Instant};

use super::{Live, Moment};
use crate::judge::faults::{Fault, FaultKind};
use crate::judge::frame::RawFrame;
use crate::replay::world::{count, lock};

/// Prefix of the numbers in the names of `subscribe` requests.
pub(super) const SUBSCRIBE: char = 's';
pub(super) const HISTORY: char = 'h';
/// Wait before a retry if the server named none.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Requests of this connection.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// By day: the membership for which `subscribe` was sent.
    asked: HashMap<u32, u32>,
    /// Days for which a page of history was requested.
    filling: HashSet<u32>,
    /// Days to subscribe to again, and when.
    again: BTreeMap<u32, Instant>,
}

impl Subscriptions {
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.again.values().min().copied()
    }
}

impl Live<'_> {
    /// Subscribes to open channels of which the user is a member and to which this connection is not subscribed, and
    /// requests history for gaps. Returns `true` if it sent anything.
    pub(super) async fn feed_subscriptions(&mut self) -> Result<bool, ClientError> {
        let requests = self.due_subscriptions();
        for request in &requests {
            self.connection.feed(request).await?;
        }
        Ok(!requests.is_empty())
    }

    fn due_subscriptions(&mut self) -> Vec<Request> {
        let now = Instant::now();
        let mut requests = self.due_pages(now);
        let mut memory = lock(&self.device.memory);
        let memory = &mut *memory;
        for (day, membership) in &memory.open {
            if self.open.again.get(day).is_some_and(|at| *at > now) {
                continue;
            }
            self.open.again.remove(day);
            let (channel_id, base) = {
                let book = lock(&self.world.day(*day).book);
                (book.channel, book.base)
            };
            let record = memory.records.entry(*day).or_default();
            if self.open.asked.insert(*day, *membership) != Some(*membership) {
                let after = record.contiguous(base);
                let id = Some(RequestId(format!("{SUBSCRIBE}{day}.{membership}.{after}")));
                let frame = ClientFrame::Subscribe {
                    channel_id,
                    after_seq: Some(Seq::new(after)),
                    mode: Mode::Active,
                };
                requests.push(Request { id, frame });
            } else if let Some(after) = record.gap_after(base).filter(|_| self.open.filling.insert(*day)) {
                requests.push(page(*day, channel_id, after));
            }
        }
        requests
    }

    /// Pages of history that groups need after a snapshot.
    fn due_pages(&mut self, now: Instant) -> Vec<Request> {
        let mut requests = Vec::new();
        for (day, after) in self.holes() {
            if self.open.again.get(&day).is_some_and(|at| *at > now) {
                continue;
            }
            self.open.again.remove(&day);
            if self.open.filling.insert(day) {
                let channel = lock(&self.world.day(day).book).channel;
                requests.push(page(day, channel, after));
            }
        }
        requests
    }

    /// Handles the answer to `subscribe`, or a gap. Returns `true` if history must be requested.
    pub(super) fn handle_heads(&mut self, frame: &RawFrame<'_>) -> bool {
        let mut memory = lock(&self.device.memory);
        let answered = frame.id.and_then(subscribed);
        if let Some((day, _, after)) = answered {
            memory.records.entry(day).or_default().subscribe(after);
        }
        let mut has_gap = false;
        for head in &frame.heads {
            let Some(day) = self.world.books_by_channel.get(&head.channel_id.raw()) else { continue };
            let mut book = lock(&self.world.day(*day).book);
            book.know(head.seq.get());
            if head.gap {
                has_gap = true;
                count(&self.world.counters.gaps);
                memory.records.entry(*day).or_default().leave_gap(head.seq.get());
            }
        }
        has_gap
    }

    /// Handles a page that fills a gap. Returns `true` if another page may be needed.
    pub(super) fn handle_history(&mut self, frame: &RawFrame<'_>) -> bool {
        let Some(day) = frame.id.and_then(|id| id.strip_prefix(HISTORY)?.parse::<u32>().ok()) else {
            return false;
        };
        let moment = Moment { now_us: self.world.now_us(), welcome_at_ms: self.welcome_at_ms };
        let mut memory = lock(&self.device.memory);
        let record = memory.records.entry(day).or_default();
        let mut book = lock(&self.world.day(day).book);
        for entry in &frame.entries {
            book.fill(entry, record, moment, &|| self.device.name.clone(), &self.world.faults);
        }
        // After a page without entries no further page is requested: history has no more, and the judge reports what is
        // missing.
        record.end_page(frame.entries.last().map(|entry| entry.seq));
        self.open.filling.remove(&day)
    }

    /// Handles a refused `subscribe` or `history`.
    pub(super) fn handle_open_refused(&mut self, id: &RequestId, error: &ErrorBody) {
        let wait = error.retry_after_ms.map_or(RETRY_AFTER, Duration::from_millis);
        let again = error.retryable || error.code == ErrorCode::Unauthorized;
        if let Some(day) = id.0.strip_prefix(HISTORY).and_then(|day| day.parse().ok()) {
            if again {
                self.open.filling.remove(&day);
                self.open.again.insert(day, Instant::now() + wait);
            }
            return;
        }
        let Some((day, membership, _)) = subscribed(&id.0) else { return };
        if again {
            self.open.asked.remove(&day);
            self.open.again.insert(day, Instant::now() + wait);
            return;
        }
        let memory = lock(&self.device.memory);
        let is_away = memory.records.get(&day).is_some_and(|record| record.is_away());
        // It is correct to refuse a user who has left meanwhile.
        if memory.open.get(&day) == Some(&membership) && !is_away {
            let what = format!("a member's subscription was refused, {:?}: {}", error.code, error.message);
            let fault = lock(&self.world.day(day).book).fault(0, what);
            let device = Some(self.device.name.clone());
            self.world.faults.note(FaultKind::Conflict, Fault { device, ..fault });
        }
    }
}

fn page(day: u32, channel_id: ChannelId, after: u64) -> Request {
    let page = HistoryQuery {
        after: Some(Seq::new(after)),
        limit: Some(limits::HISTORY_PAGE),
        ..HistoryQuery::default()
    };
    let id = Some(RequestId(format!("{HISTORY}{day}")));
    Request { id, frame: ClientFrame::History { channel_id, page } }
}

/// Day, membership and place in the name of a `subscribe` request.
fn subscribed(id: &str) -> Option<(u32, u32, u64)> {
    let mut numbers = id.strip_prefix(SUBSCRIBE)?.split('.');
    let (day, membership) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some((day, membership, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::subscribed;

    #[test]
    fn the_name_of_a_request_round_trips() {
        assert_eq!(subscribed("s12.3.456"), Some((12, 3, 456)));
        assert_eq!(subscribed("h12"), None);
        assert_eq!(subscribed("s12.3"), None);
    }
}
