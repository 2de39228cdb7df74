//! Pages of a channel's log.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use madang_engine::body;
use madang_engine::log::Row;
use madang_engine::overload::Class;
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, LogId, Seq};
use madang_proto::rest::{HistoryPage, HistoryQuery};
use madang_proto::{ChannelKind, Entry, ErrorBody, limits};

use super::shared_reads::{Order, Wanted};
use crate::operations::channels::members::no_longer;
use crate::operations::costs::Cost;
use crate::operations::people::names::named_in;
use crate::operations::{Caller, Operations, check_not_deleted};
use crate::refusal::Result;

const PAGE: u32 = 50;

/// Which rows a query asks for.
enum Want {
    /// The rows up to and including this place, the nearest first.
    Back(Seq),
    /// The rows from this place on.
    On(Seq),
    /// Half of the rows below this place, half from it on.
    Around(Seq),
}

/// The caller who reads a page, and the channel.
#[derive(Clone, Copy)]
struct Reader<'a> {
    caller: Caller,
    channel: ChannelId,
    /// The stays of the caller: what they may read.
    spans: &'a Spans,
}

impl Want {
    /// The places on both sides of an empty page: the last one before it, and the first one after it.
    fn edge(&self) -> (Seq, Seq) {
        match *self {
            Self::Back(end) => (end, end.next()),
            Self::On(start) | Self::Around(start) => (start.minus(1), start),
        }
    }
}

impl Operations {
    /// A page of the log of a channel that the caller is or was a member of, within what they may read.
    ///
    /// # Errors
    /// `invalid` for more than one of `before`, `after`, `around`, `at`, or a limit out of bounds; `not_found`;
    /// `forbidden` for a user who has left an open channel.
    pub async fn history(
        &self,
        caller: Caller,
        channel: ChannelId,
        query: &HistoryQuery,
    ) -> Result<HistoryPage> {
        let limit = check_limit(query)?;
        self.shedding.admit(Class::History, caller.user_id.raw())?;
        let overview = self.overview_of(caller.user_id, channel).await?;
        check_not_deleted(&overview.channel)?;
        let spans = &*readable(overview.channel.card.kind, &overview.membership.spans)?;
        let head = overview.head.seq;
        let want = self.want(channel, query, head).await?;
        let edge = want.edge();
        let reader = Reader { caller, channel, spans };
        let mut rows = match want {
            Want::Back(end) => self.back(reader, end, limit).await?,
            Want::On(start) => self.on(reader, start..=head, limit).await?,
            Want::Around(middle) => self.around(reader, middle, head, limit).await?,
        };
        let hidden = self.hidden_from(caller.user_id, [(LogId::Channel(channel), &rows[..])]).await?;
        hidden.withhold(channel, &mut rows);
        let mut page = page(rows, edge, spans, head);
        self.callers.charge(caller.user_id, Cost::entries(&page.entries));
        if query.users {
            page.users = self.cards(caller, named_in(&page.entries)).await?;
        }
        Ok(page)
    }

    async fn want(&self, channel: ChannelId, query: &HistoryQuery, head: Seq) -> Result<Want> {
        Ok(match *query {
            HistoryQuery { before: Some(seq), .. } => Want::Back(seq.minus(1).min(head)),
            HistoryQuery { after: Some(seq), .. } => Want::On(seq.next()),
            HistoryQuery { around: Some(seq), .. } => Want::Around(seq.min(head.next())),
            HistoryQuery { at: Some(at), .. } => {
                Want::On(self.logs.seq_at(LogId::Channel(channel), at).await?)
            }
            _ => Want::Back(head),
        })
    }

    async fn back(&self, reader: Reader<'_>, end: Seq, limit: u32) -> Result<Vec<Row>> {
        let Some(part) = reader.spans.clip(Seq::new(1)..=end).next_back() else { return Ok(Vec::new()) };
        let (start, end) = part.into_inner();
        let start = start.max(end.minus(u64::from(limit) - 1));
        self.falling(reader, start..=end, limits::BATCH_BYTES_OUT).await
    }

    async fn on(&self, reader: Reader<'_>, range: RangeInclusive<Seq>, limit: u32) -> Result<Vec<Row>> {
        let Some(part) = reader.spans.clip(range).next() else { return Ok(Vec::new()) };
        let (start, end) = part.into_inner();
        let end = end.min(start.plus(u64::from(limit) - 1));
        self.rising(reader, start..=end, limits::BATCH_BYTES_OUT).await
    }

    /// Rows on both sides of `middle`, within one stay and the bytes of one page. The entry at `middle` is included even if it is
    /// larger.
    async fn around(&self, reader: Reader<'_>, middle: Seq, head: Seq, limit: u32) -> Result<Vec<Row>> {
        let Some((start, middle, end)) = window(reader.spans, middle, head, limit) else {
            return Ok(Vec::new());
        };
        let mut after = self.rising(reader, middle..=end, limits::BATCH_BYTES_OUT / 2).await?;
        let mut room = limits::BATCH_BYTES_OUT.saturating_sub(bytes(&after));
        let mut rows = Vec::new();
        if start < middle {
            let before = self.falling(reader, start..=middle.minus(1), room).await?;
            // A read returns at least one row, which may be too large.
            if bytes(&before) <= room {
                room -= bytes(&before);
                rows = before;
            }
        }
        // The upper half gets the room that the lower half did not use.
        if let Some(next) = after.last().map(|row| row.entry.seq.next()).filter(|next| *next <= end) {
            let more = self.rising(reader, next..=end, room).await?;
            if bytes(&more) <= room {
                after.extend(more);
            }
        }
        rows.extend(after);
        Ok(rows)
    }

    /// The last rows of a range that fit, in rising order; at least one.
    async fn falling(
        &self,
        reader: Reader<'_>,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> Result<Vec<Row>> {
        let mut rows = self
            .read_rows(Wanted { channel: reader.channel, range, max_bytes, order: Order::Falling })
            .await?;
        // The nearest row first, so that the farthest ones are left out.
        self.carry_for(reader, &mut rows, max_bytes).await?;
        rows.reverse();
        Ok(rows)
    }

    /// The first rows of a range that fit, at least one.
    async fn rising(
        &self,
        reader: Reader<'_>,
        range: RangeInclusive<Seq>,
        max_bytes: usize,
    ) -> Result<Vec<Row>> {
        let mut rows = self
            .read_rows(Wanted { channel: reader.channel, range, max_bytes, order: Order::Rising })
            .await?;
        self.carry_for(reader, &mut rows, max_bytes).await?;
        Ok(rows)
    }

    /// Completes the rows, and charges the bytes that were read and are not served. The entries themselves are charged when the
    /// page is made.
    async fn carry_for(&self, reader: Reader<'_>, rows: &mut Vec<Row>, max_bytes: usize) -> Result<()> {
        let carried = self.carry(reader.channel, reader.spans, rows, max_bytes).await?;
        self.callers
            .charge(reader.caller.user_id, Cost::bytes(carried.read_bytes.saturating_sub(carried.bytes)));
        Ok(())
    }
}

fn bytes(rows: &[Row]) -> usize {
    rows.iter().map(|row| body::entry_bytes(&row.entry.content)).sum()
}

/// The first place, the middle and the last place of a page around `middle`. The page lies in the stay that contains `middle`,
/// else in the next one, else in the last one. Where one side ends, the other one fills the page.
fn window(spans: &Spans, middle: Seq, head: Seq, limit: u32) -> Option<(Seq, Seq, Seq)> {
    let stays = || spans.clip(Seq::new(1)..=head);
    let stay = stays().find(|stay| *stay.end() >= middle).or_else(|| stays().next_back())?;
    let (first, last) = stay.into_inner();
    let middle = middle.clamp(first, last);
    let rest = u64::from(limit) - 1;
    let start = middle.minus(u64::from(limit) / 2).max(first);
    let end = start.plus(rest).min(last);
    Some((end.minus(rest).max(first), middle, end))
}

fn check_limit(query: &HistoryQuery) -> Result<u32, ErrorBody> {
    let places = [query.before.is_some(), query.after.is_some(), query.around.is_some(), query.at.is_some()];
    if places.iter().filter(|&&is_set| is_set).count() > 1 {
        return Err(ErrorBody::invalid("before", "only one of before, after, around, at may be given"));
    }
    let (limit, max) = (query.limit.unwrap_or(PAGE), limits::HISTORY_PAGE);
    if (1..=max).contains(&limit) {
        return Ok(limit);
    }
    Err(ErrorBody::invalid("limit", format!("limit is {limit}, it must be 1 to {max}")))
}

/// What a member may read. Of an open channel: everything while they are a member, and nothing afterwards.
pub(in crate::operations) fn readable(kind: ChannelKind, spans: &Spans) -> Result<Cow<'_, Spans>, ErrorBody> {
    match kind {
        ChannelKind::Direct | ChannelKind::Group => Ok(Cow::Borrowed(spans)),
        ChannelKind::Open if spans.is_open() => Ok(Cow::Owned(Spans::since(Seq::new(1)))),
        ChannelKind::Open => Err(no_longer()),
    }
}

/// Makes the page. `edge` holds the places on both sides of it if it is empty.
fn page(rows: Vec<Row>, edge: (Seq, Seq), spans: &Spans, head: Seq) -> HistoryPage {
    let ends = rows.first().zip(rows.last());
    let (below, above) = ends.map_or(edge, |(first, last)| (first.entry.seq.minus(1), last.entry.seq.next()));
    let is_readable = |range: RangeInclusive<Seq>| spans.clip(range).next().is_some();
    let more_before = is_readable(Seq::new(1)..=below.min(head));
    let more_after = is_readable(above.max(Seq::new(1))..=head);
    let entries: Vec<Entry> = rows.into_iter().map(|row| row.entry).collect();
    HistoryPage { as_of: head, entries, more_before, more_after, users: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two stays, 3 to 9 and from 20 on, in a log of 30.
    fn places(middle: u64, limit: u32) -> Option<(u64, u64, u64)> {
        let mut spans = Spans::since(Seq::new(3));
        spans.close(Seq::new(9));
        spans.open(Seq::new(20));
        let found = window(&spans, Seq::new(middle), Seq::new(30), limit);
        found.map(|(start, middle, end)| (start.get(), middle.get(), end.get()))
    }

    #[test]
    fn a_page_around_a_place_is_filled_at_both_ends_of_a_stay() {
        let cases = [
            ((25, 5), (23, 25, 27)),
            ((25, 4), (23, 25, 26)),
            ((25, 1), (25, 25, 25)),
            ((20, 5), (20, 20, 24)),
            ((30, 5), (26, 30, 30)),
            ((31, 5), (26, 30, 30)),
            ((u64::MAX, 1), (30, 30, 30)),
            ((0, 3), (3, 3, 5)),
            ((9, 4), (6, 9, 9)),
            ((6, 200), (3, 6, 9)),
            // In an absence the next stay is used.
            ((12, 3), (20, 20, 22)),
        ];
        for ((middle, limit), expected) in cases {
            assert_eq!(places(middle, limit), Some(expected), "around {middle}, limit {limit}");
        }
        assert_eq!(window(&Spans::default(), Seq::new(1), Seq::new(30), 5), None);
    }

    #[test]
    fn an_empty_page_says_what_lies_on_both_sides_of_it() {
        let spans = Spans::since(Seq::new(3));
        let sides = |want: Want| {
            let page = page(Vec::new(), want.edge(), &spans, Seq::new(30));
            (page.more_before, page.more_after)
        };
        assert_eq!(sides(Want::Back(Seq::new(2))), (false, true));
        assert_eq!(sides(Want::Back(Seq::ZERO)), (false, true));
        assert_eq!(sides(Want::On(Seq::new(31))), (true, false));
        assert_eq!(sides(Want::On(Seq::new(u64::MAX))), (true, false));
    }
}
