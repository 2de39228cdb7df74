//! Whom a channel's rows concern: its members and their spans, kept in step with the log that is fanned out.

use std::collections::HashMap;

use madang_engine::log::Row;
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, Seq, UserId};
use madang_proto::Content;
use madang_store::{ChannelStore, StoreResult};

const PAGE: usize = 500;

/// The members of one channel as of a place in its log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    spans: HashMap<UserId, Spans>,
}

impl Roster {
    /// Everybody who is or was a member.
    pub(crate) async fn load(store: &(impl ChannelStore + ?Sized), channel: ChannelId) -> StoreResult<Self> {
        let mut roster = Self::default();
        let mut after = None;
        loop {
            let page = store.members_ever(channel, after, PAGE).await?;
            after = page.last().map(|member| member.user_id);
            let is_last = page.len() < PAGE;
            roster.spans.extend(page.into_iter().map(|member| (member.user_id, member.spans)));
            if is_last {
                return Ok(roster);
            }
        }
    }

    /// Whether `rows` say anything of members.
    pub(crate) fn is_changed_by(&self, rows: &[Row]) -> bool {
        rows.iter().any(|row| matches!(row.entry.content, Content::Joined { .. } | Content::Left { .. }))
    }

    /// Takes over what `rows` say of members. Spans that were loaded later than the rows know it already.
    pub(crate) fn apply(&mut self, rows: &[Row]) {
        let Some(first) = rows.first().map(|row| row.entry.seq) else { return };
        for row in rows {
            match row.entry.content {
                Content::Joined { user_id, .. } => {
                    let spans = self.spans.entry(user_id).or_default();
                    if !spans.contains(row.entry.seq) {
                        spans.open(first);
                    }
                }
                Content::Left { user_id, .. } => self.spans.entry(user_id).or_default().close(row.entry.seq),
                _ => {}
            }
        }
    }

    /// Forgets who left before `seq`.
    pub(crate) fn forget_gone(&mut self, seq: Seq) {
        self.spans
            .retain(|_, spans| spans.last().is_some_and(|span| span.until.is_none_or(|until| until >= seq)));
    }

    /// Whom some of `from..=to` concerns, and whether all of it does.
    pub(crate) fn concerned(&self, from: Seq, to: Seq) -> impl Iterator<Item = (UserId, bool)> + '_ {
        self.spans.iter().filter_map(move |(user, spans)| {
            let mut parts = spans.clip(from..=to);
            let first = parts.next()?;
            Some((*user, first == (from..=to)))
        })
    }
}
