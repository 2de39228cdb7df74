//! Pages of a channel's log.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use madang_engine::log::Row;
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, LogId, Seq};
use madang_proto::rest::{HistoryPage, HistoryQuery};
use madang_proto::{ChannelKind, Entry, ErrorBody, limits};

use super::members::no_longer;
use super::{Caller, Operations, check_not_deleted};
use crate::plant;
use crate::refusal::refusal;

const PAGE: u32 = 50;

/// Which rows a query wants.
enum Want {
    /// Those up to and including this place, the nearest first.
    Back(Seq),
    /// Those from this place on.
    On(Seq),
    /// Half below, half from this place on.
    Around(Seq),
}

impl Operations {
    /// A page of the log of a channel that the caller is or was a member of, within what she may read.
    ///
    /// # Errors
    /// `invalid` for more than one of `before`, `after`, `around`, `at`, or a limit out of bounds; `not_found`;
    /// `forbidden` for who has left an open channel.
    pub async fn history(
        &self,
        caller: Caller,
        channel: ChannelId,
        query: &HistoryQuery,
    ) -> Result<HistoryPage, ErrorBody> {
        let limit = check_limit(query)?;
        let overview = self.overview_of(caller.user_id, channel).await?;
        check_not_deleted(&overview.channel)?;
        let spans = &*readable(overview.channel.card.kind, &overview.membership.spans)?;
        let head = overview.head.seq;
        let want = self.want(channel, query, head).await?;
        let mut rows = match want {
            Want::Back(end) => self.back(channel, spans, end, limit).await?,
            Want::On(start) => self.on(channel, spans, start..=head, limit).await?,
            Want::Around(middle) => {
                let mut rows = self.back(channel, spans, middle.minus(1), limit / 2).await?;
                let rest = limit - u32::try_from(rows.len()).unwrap_or(limit).min(limit);
                let after = self.on(channel, spans, middle..=head, rest.max(1)).await?;
                // Two stays with an absence between them do not make one page.
                if rows
                    .last()
                    .zip(after.first())
                    .is_some_and(|(last, first)| last.entry.seq.next() != first.entry.seq)
                {
                    rows.clear();
                }
                rows.extend(after);
                rows
            }
        };
        let hidden = self.hidden_from(caller.user_id, [(LogId::Channel(channel), &rows[..])]).await?;
        hidden.withhold(channel, &mut rows);
        let mut page = page(rows, spans, head);
        if !page.entries.is_empty() && plant::strikes(plant::Fault::HistoryWithoutRow) {
            page.entries.remove(page.entries.len() / 2);
        }
        Ok(page)
    }

    async fn want(&self, channel: ChannelId, query: &HistoryQuery, head: Seq) -> Result<Want, ErrorBody> {
        Ok(match *query {
            HistoryQuery { before: Some(seq), .. } => Want::Back(seq.minus(1).min(head)),
            HistoryQuery { after: Some(seq), .. } => Want::On(seq.next()),
            HistoryQuery { around: Some(seq), .. } => Want::Around(seq.min(head.next())),
            HistoryQuery { at: Some(at), .. } => {
                let found = self.store.seq_at(LogId::Channel(channel), at).await;
                Want::On(found.map_err(|error| refusal(&error))?)
            }
            _ => Want::Back(head),
        })
    }

    async fn back(
        &self,
        channel: ChannelId,
        spans: &Spans,
        end: Seq,
        limit: u32,
    ) -> Result<Vec<Row>, ErrorBody> {
        let Some(part) = spans.clip(Seq::new(1)..=end).next_back().filter(|_| limit > 0) else {
            return Ok(Vec::new());
        };
        let (start, end) = part.into_inner();
        let start = start.max(end.minus(u64::from(limit) - 1));
        let rows = self.store.rows_back(LogId::Channel(channel), start..=end, limits::BATCH_BYTES_OUT).await;
        let mut rows = rows.map_err(|error| refusal(&error))?;
        // The nearest first, so that what does not fit is the farthest.
        self.carry(channel, spans, &mut rows, limits::BATCH_BYTES_OUT).await?;
        rows.reverse();
        Ok(rows)
    }

    async fn on(
        &self,
        channel: ChannelId,
        spans: &Spans,
        range: RangeInclusive<Seq>,
        limit: u32,
    ) -> Result<Vec<Row>, ErrorBody> {
        let Some(part) = spans.clip(range).next() else { return Ok(Vec::new()) };
        let (start, end) = part.into_inner();
        let end = end.min(start.plus(u64::from(limit) - 1));
        let rows = self.store.rows(LogId::Channel(channel), start..=end, limits::BATCH_BYTES_OUT).await;
        let mut rows = rows.map_err(|error| refusal(&error))?;
        self.carry(channel, spans, &mut rows, limits::BATCH_BYTES_OUT).await?;
        Ok(rows)
    }
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

/// What a member may read: of an open channel everything while she is one, and nothing later.
pub(super) fn readable(kind: ChannelKind, spans: &Spans) -> Result<Cow<'_, Spans>, ErrorBody> {
    match kind {
        ChannelKind::Direct | ChannelKind::Group => Ok(Cow::Borrowed(spans)),
        ChannelKind::Open if spans.is_open() => Ok(Cow::Owned(Spans::since(Seq::new(1)))),
        ChannelKind::Open => Err(no_longer()),
    }
}

fn page(rows: Vec<Row>, spans: &Spans, head: Seq) -> HistoryPage {
    let edges = rows.first().zip(rows.last()).map(|(first, last)| (first.entry.seq, last.entry.seq));
    let readable = |range: RangeInclusive<Seq>| spans.clip(range).next().is_some();
    let (more_before, more_after) = edges.map_or((false, false), |(first, last)| {
        (
            first > Seq::new(1) && readable(Seq::new(1)..=first.minus(1)),
            last < head && readable(last.next()..=head),
        )
    });
    let entries: Vec<Entry> = rows.into_iter().map(|row| row.entry).collect();
    HistoryPage { as_of: head, entries, more_before, more_after }
}
