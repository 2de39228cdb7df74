//! Whom a channel's rows concern: its members and their spans, kept in step with the log that is fanned out.

use std::collections::HashMap;

use madang_engine::log::Row;
use madang_engine::spans::Spans;
use madang_ids::{ChannelId, Seq, UserId};
use madang_proto::Content;
use madang_store::{ChannelStore, Member, StoreResult};

const PAGE: usize = 500;

/// The members of one channel as of a place in its log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    spans: HashMap<UserId, Spans>,
}

impl Roster {
    /// Everybody who is or was a member, as the log tells up to `at`, or later.
    pub(crate) async fn load(
        store: &(impl ChannelStore + ?Sized),
        channel: ChannelId,
        at: Seq,
    ) -> StoreResult<Self> {
        let mut roster = Self::default();
        let mut after = None;
        loop {
            let page = store.members_ever(channel, after, PAGE).await?;
            after = page.last().map(|member| member.user_id);
            let is_last = page.len() < PAGE;
            roster.spans.extend(page.into_iter().map(|member| (member.user_id, as_told(member, at))));
            if is_last {
                roster.forget_gone(at);
                return Ok(roster);
            }
        }
    }

    /// Takes over what `rows`, one append, say of members. Spans that were loaded later than the rows know it
    /// already, and what came after it too.
    pub(crate) fn apply(&mut self, rows: &[Row]) {
        let Some(first) = rows.first().map(|row| row.entry.seq) else { return };
        let mut is_changed = false;
        for row in rows {
            let (Content::Joined { user_id, .. } | Content::Left { user_id, .. }) = row.entry.content else {
                continue;
            };
            is_changed = true;
            let spans = self.spans.entry(user_id).or_default();
            if matches!(row.entry.content, Content::Left { .. }) {
                if spans.edge() < Some(row.entry.seq) {
                    spans.close(row.entry.seq);
                }
            } else if spans.edge() < Some(first) {
                spans.open(first);
            }
        }
        if is_changed {
            self.forget_gone(first);
        }
    }

    /// Forgets who left before `seq`.
    fn forget_gone(&mut self, seq: Seq) {
        self.spans
            .retain(|_, spans| spans.last().is_some_and(|span| span.until.is_none_or(|until| until >= seq)));
    }

    /// Everybody who is a member, or left lately.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whom some of `from..=to` concerns, and whether all of it does.
    pub(crate) fn concerned(&self, from: Seq, to: Seq) -> impl Iterator<Item = (UserId, bool)> + '_ {
        self.spans.iter().filter_map(move |(user, spans)| Some((*user, sees_all(spans, from, to)?)))
    }

    /// Whether some of `from..=to` concerns a user, and whether all of it does.
    pub(crate) fn concerns(&self, user: UserId, from: Seq, to: Seq) -> Option<bool> {
        sees_all(self.spans.get(&user)?, from, to)
    }
}

fn sees_all(spans: &Spans, from: Seq, to: Seq) -> Option<bool> {
    let first = spans.clip(from..=to).next()?;
    Some(first == (from..=to))
}

/// What the log tells of a member. A change that is half-way comes with a later row; if its place has gone by, it is
/// taken as told.
fn as_told(member: Member, at: Seq) -> Spans {
    let mut spans = member.spans;
    let moves = member.pending.is_some_and(|pending| !pending.is_role);
    if moves && spans.edge() >= Some(at) {
        spans.take_back();
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{Millis, Ordinal};
    use madang_proto::{Entry, Role};
    use madang_store::Pending;

    fn seq(value: u64) -> Seq {
        Seq::new(value)
    }

    fn her() -> UserId {
        UserId::from_raw(1)
    }

    fn row(place: u64, content: Content) -> Row {
        Row { entry: Entry { seq: seq(place), at: Millis::ZERO, content }, ordinal: Ordinal::ZERO, key: None }
    }

    fn joined(place: u64) -> Row {
        row(place, Content::Joined { user_id: her(), by: her() })
    }

    fn left(place: u64) -> Row {
        row(place, Content::Left { user_id: her(), by: her() })
    }

    fn roster(spans: &Spans) -> Roster {
        Roster { spans: HashMap::from([(her(), spans.clone())]) }
    }

    #[test]
    fn a_roster_that_was_loaded_later_stays_as_it_is() {
        let mut later = Spans::since(seq(3));
        later.close(seq(7));
        later.open(seq(12));
        let mut roster = roster(&later);
        for rows in [[joined(3)], [left(7)], [joined(12)]] {
            roster.apply(&rows);
            assert_eq!(roster.spans.get(&her()), Some(&later));
        }
        roster.apply(&[left(20)]);
        assert_eq!(roster.spans[&her()].last().and_then(|span| span.until), Some(seq(20)));
        roster.apply(&[row(21, Content::Joined { user_id: UserId::from_raw(2), by: her() })]);
        assert_eq!(roster.concerned(seq(1), seq(30)).count(), 1, "who left is forgotten");
    }

    #[test]
    fn a_change_that_the_log_does_not_tell_yet_comes_with_its_row() {
        let member = |spans: Spans| Member {
            user_id: her(),
            role: Role::Member,
            joined_at: Millis::ZERO,
            pending: Some(Pending { by: her(), place: spans.edge().unwrap_or_default(), is_role: false }),
            spans,
        };
        let mut leaving = Spans::since(seq(3));
        leaving.close(seq(9));
        assert_eq!(as_told(member(leaving.clone()), seq(9)), Spans::since(seq(3)));
        assert_eq!(as_told(member(leaving.clone()), seq(10)), leaving);
        assert_eq!(as_told(member(Spans::since(seq(5))), seq(5)), Spans::default());
        assert_eq!(as_told(member(Spans::since(seq(5))), seq(6)), Spans::since(seq(5)));
        let mut promoted = member(Spans::since(seq(5)));
        promoted.pending = promoted.pending.map(|pending| Pending { is_role: true, ..pending });
        assert_eq!(as_told(promoted, seq(5)), Spans::since(seq(5)));
    }

    #[test]
    fn a_leaver_is_concerned_up_to_her_row_only() {
        let mut roster = roster(&Spans::since(seq(1)));
        roster.apply(&[left(5), row(6, Content::Created { by: her() })]);
        assert_eq!(roster.concerned(seq(5), seq(6)).collect::<Vec<_>>(), [(her(), false)]);
        assert_eq!(roster.concerned(seq(7), seq(7)).count(), 0);
    }
}
