//! Whom a channel's rows concern: its members and their spans, kept in step with the log that is fanned out.

use std::collections::HashMap;
use std::ops::RangeInclusive;

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
    /// Says whether they say something.
    pub(crate) fn apply(&mut self, rows: &[Row]) -> bool {
        let Some(first) = rows.first().map(|row| row.entry.seq) else { return false };
        let mut is_changed = false;
        for row in rows {
            let (user_id, came) = match row.entry.content {
                Content::Joined { user_id, .. } => (user_id, true),
                Content::Left { user_id, .. } | Content::Banned { user_id, .. } => (user_id, false),
                _ => continue,
            };
            is_changed = true;
            let spans = self.spans.entry(user_id).or_default();
            if came && spans.edge() < Some(first) {
                spans.open(first);
            } else if !came && spans.edge() < Some(row.entry.seq) {
                spans.close(row.entry.seq);
            }
        }
        if is_changed {
            self.forget_gone(first);
        }
        is_changed
    }

    /// About what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        const MEMBER_BYTES: usize = 80;
        const STAY_BYTES: usize = 32;
        self.spans.values().map(|spans| MEMBER_BYTES + STAY_BYTES * spans.iter().count()).sum()
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

    /// Who is a member now.
    pub(crate) fn members(&self) -> impl Iterator<Item = UserId> + '_ {
        self.spans.iter().filter(|(_, spans)| spans.is_open()).map(|(user, _)| *user)
    }

    /// Whom some of a batch concerns, and whether all of it does.
    pub(crate) fn concerned(&self, batch: &Batch) -> impl Iterator<Item = (UserId, bool)> + '_ {
        let batch = batch.clone();
        self.spans.iter().filter_map(move |(user, spans)| Some((*user, batch.sees_all(spans)?)))
    }

    /// Whether some of a batch concerns a user, and whether all of it does.
    pub(crate) fn concerns(&self, user: UserId, batch: &Batch) -> Option<bool> {
        batch.sees_all(self.spans.get(&user)?)
    }
}

/// The places that rows are about: their own, and of changes those of the messages that these carry.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    own: RangeInclusive<Seq>,
    targets: Vec<Seq>,
}

impl Batch {
    /// `None` without rows.
    pub(crate) fn of(rows: &[Row]) -> Option<Self> {
        let own = rows.first()?.entry.seq..=rows.last()?.entry.seq;
        let targets = rows.iter().filter_map(|row| row.entry.content.change()).map(|change| change.target);
        let targets = targets.filter(|target| !own.contains(target)).collect();
        Some(Self { own, targets })
    }

    fn sees_all(&self, spans: &Spans) -> Option<bool> {
        let first = spans.clip(self.own.clone()).next()?;
        Some(first == self.own && self.targets.iter().all(|target| spans.contains(*target)))
    }
}

/// What the log tells of a member. A change that is half-way comes with a later row; if its place has gone by, it is
/// taken as told.
fn as_told(member: Member, at: Seq) -> Spans {
    let is_moving = member.is_moving();
    let mut spans = member.spans;
    // Founders read the log from its beginning, also those of whom a later append tells.
    let is_founder = spans.last().is_some_and(|stay| stay.until.is_none() && stay.from <= Seq::new(1));
    if is_moving && !is_founder && spans.edge() >= Some(at) {
        spans.take_back();
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{Millis, Ordinal};
    use madang_proto::{Change, Entry, Role};
    use madang_store::{Pending, PendingChange};

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
        let all = Batch { own: seq(1)..=seq(30), targets: Vec::new() };
        assert_eq!(roster.concerned(&all).count(), 1, "who left is forgotten");
    }

    #[test]
    fn a_change_that_the_log_does_not_tell_yet_comes_with_its_row() {
        let member = |spans: Spans| Member {
            user_id: her(),
            role: Role::Member,
            joined_at: Millis::ZERO,
            has_accepted: true,
            muted: None,
            banned: None,
            pending: Some(Pending {
                by: her(),
                place: spans.edge().unwrap_or_default(),
                change: PendingChange::Seat,
            }),
            spans,
        };
        let mut leaving = Spans::since(seq(3));
        leaving.close(seq(9));
        assert_eq!(as_told(member(leaving.clone()), seq(9)), Spans::since(seq(3)));
        assert_eq!(as_told(member(leaving.clone()), seq(10)), leaving);
        assert_eq!(as_told(member(Spans::since(seq(5))), seq(5)), Spans::default());
        assert_eq!(as_told(member(Spans::since(seq(5))), seq(6)), Spans::since(seq(5)));
        let mut promoted = member(Spans::since(seq(5)));
        promoted.pending = promoted.pending.map(|pending| Pending { change: PendingChange::Role, ..pending });
        assert_eq!(as_told(promoted, seq(5)), Spans::since(seq(5)));
    }

    #[test]
    fn a_leaver_is_concerned_up_to_her_row_only() {
        let mut roster = roster(&Spans::since(seq(1)));
        roster.apply(&[left(5), row(6, Content::Created { by: her() })]);
        let batch = |from, to| Batch { own: seq(from)..=seq(to), targets: Vec::new() };
        assert_eq!(roster.concerned(&batch(5, 6)).collect::<Vec<_>>(), [(her(), false)]);
        assert_eq!(roster.concerned(&batch(7, 7)).count(), 0);
    }

    #[test]
    fn who_may_not_read_a_message_does_not_see_its_change_whole() {
        let roster = roster(&Spans::since(seq(4)));
        let edited = |target| {
            let change = Change { target: seq(target), version: 2, by: her(), message: None };
            Batch::of(&[row(9, Content::Edited(change))]).unwrap()
        };
        assert_eq!(roster.concerns(her(), &edited(3)), Some(false));
        assert_eq!(roster.concerns(her(), &edited(4)), Some(true));
    }
}
