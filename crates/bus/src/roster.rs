//! The audience of a channel's rows: its members and their spans, kept in step with the log that is fanned out.

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
    /// Loads every user who is a member or was one at `since`, as of place `at` of the log or later.
    pub(crate) async fn load(
        store: &(impl ChannelStore + ?Sized),
        channel: ChannelId,
        at: Seq,
        since: Seq,
    ) -> StoreResult<Self> {
        let mut roster = Self::default();
        let mut after = None;
        loop {
            let page = store.members_ever(channel, after, PAGE).await?;
            after = page.last().map(|member| member.user_id);
            let is_last = page.len() < PAGE;
            roster.spans.extend(page.into_iter().map(|member| (member.user_id, as_told(member, at))));
            if is_last {
                roster.forget_gone(since);
                return Ok(roster);
            }
        }
    }

    /// Applies the joins and departures in `rows`, which are one append. Spans that were loaded later already contain
    /// them, and everything after them. Returns whether there were any.
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
            // A change that is not settled may have been planned for an earlier place: another home appended first.
            if came && spans.edge() < Some(first) {
                spans.begin_later(first);
                spans.open(first);
            } else if !came && spans.edge() < Some(row.entry.seq) {
                spans.close(row.entry.seq);
                spans.extend_until(row.entry.seq);
            }
        }
        if is_changed {
            self.forget_gone(first);
        }
        is_changed
    }

    /// Approximate size in memory.
    pub(crate) fn bytes(&self) -> usize {
        const MEMBER_BYTES: usize = 80;
        const STAY_BYTES: usize = 32;
        self.spans.values().map(|spans| MEMBER_BYTES + STAY_BYTES * spans.iter().count()).sum()
    }

    /// Removes users who left before `seq`.
    fn forget_gone(&mut self, seq: Seq) {
        self.spans
            .retain(|_, spans| spans.last().is_some_and(|span| span.until.is_none_or(|until| until >= seq)));
    }

    /// Number of users who are members or left recently.
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The present members.
    pub(crate) fn members(&self) -> impl Iterator<Item = UserId> + '_ {
        self.spans.iter().filter(|(_, spans)| spans.is_open()).map(|(user, _)| *user)
    }

    /// The users whom part of a batch concerns, each with whether all of it does.
    pub(crate) fn concerned(&self, batch: &Batch) -> impl Iterator<Item = (UserId, bool)> + '_ {
        let batch = batch.clone();
        self.spans.iter().filter_map(move |(user, spans)| Some((*user, batch.sees_all(spans)?)))
    }

    /// The parts of a batch that each user may see, rising for each user.
    #[cfg(feature = "redis")]
    pub(crate) fn parts(&self, batch: &Batch) -> impl Iterator<Item = Part> + '_ {
        let batch = batch.clone();
        self.spans.iter().flat_map(move |(user, spans)| {
            let batch = batch.clone();
            spans.iter().filter_map(move |stay| {
                let (first, last) = batch.own.clone().into_inner();
                let range = stay.from.max(first)..=stay.until.map_or(last, |until| until.min(last));
                let sees_all =
                    range == batch.own && batch.targets.iter().all(|target| spans.contains(*target));
                let (stay_from, is_open) = (stay.from, stay.until.is_none());
                (!range.is_empty()).then_some(Part { user: *user, range, stay_from, is_open, sees_all })
            })
        })
    }

    /// Whether part of a batch concerns a user; `Some(true)` if all of it does.
    pub(crate) fn concerns(&self, user: UserId, batch: &Batch) -> Option<bool> {
        batch.sees_all(self.spans.get(&user)?)
    }
}

/// A part of a batch that a user may see.
#[cfg(feature = "redis")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The user.
    pub(crate) user: UserId,
    /// The rows.
    pub(crate) range: RangeInclusive<Seq>,
    /// The place at which the user's stay begins.
    pub(crate) stay_from: Seq,
    /// Whether the stay goes on.
    pub(crate) is_open: bool,
    /// Whether it is all of the batch, with everything that it is about.
    pub(crate) sees_all: bool,
}

/// The places that rows are about: their own, and for changes also the places of the changed messages.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    own: RangeInclusive<Seq>,
    targets: Vec<Seq>,
}

impl Batch {
    /// `None` if there are no rows.
    pub(crate) fn of(rows: &[Row]) -> Option<Self> {
        let own = rows.first()?.entry.seq..=rows.last()?.entry.seq;
        let targets = rows.iter().filter_map(|row| row.entry.content.change()).map(|change| change.target);
        let targets = targets.filter(|target| !own.contains(target)).collect();
        Some(Self { own, targets })
    }

    /// The places of the rows.
    #[cfg(feature = "redis")]
    pub(crate) fn own(&self) -> RangeInclusive<Seq> {
        self.own.clone()
    }

    /// Rows that are not at hand.
    #[cfg(feature = "redis")]
    pub(crate) const fn of_range(own: RangeInclusive<Seq>) -> Self {
        Self { own, targets: Vec::new() }
    }

    fn sees_all(&self, spans: &Spans) -> Option<bool> {
        let first = spans.clip(self.own.clone()).next()?;
        Some(first == self.own && self.targets.iter().all(|target| spans.contains(*target)))
    }
}

/// The spans of a member as of place `at` of the log. A change that is not settled takes effect with its own row, which
/// follows; if the place of that row has passed, the change counts as made.
fn as_told(member: Member, at: Seq) -> Spans {
    let is_moving = member.is_moving();
    let mut spans = member.spans;
    // Founders may read the log from its beginning, even founders whose join is recorded by a later append.
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

    fn user() -> UserId {
        UserId::from_raw(1)
    }

    fn row(place: u64, content: Content) -> Row {
        Row { entry: Entry { seq: seq(place), at: Millis::ZERO, content }, ordinal: Ordinal::ZERO, key: None }
    }

    fn joined(place: u64) -> Row {
        row(place, Content::Joined { user_id: user(), by: user() })
    }

    fn left(place: u64) -> Row {
        row(place, Content::Left { user_id: user(), by: user() })
    }

    fn roster(spans: &Spans) -> Roster {
        Roster { spans: HashMap::from([(user(), spans.clone())]) }
    }

    #[test]
    fn a_roster_that_was_loaded_later_is_unchanged() {
        let mut later = Spans::since(seq(3));
        later.close(seq(7));
        later.open(seq(12));
        let mut roster = roster(&later);
        for rows in [[joined(3)], [left(7)], [joined(12)]] {
            roster.apply(&rows);
            assert_eq!(roster.spans.get(&user()), Some(&later));
        }
        roster.apply(&[left(20)]);
        assert_eq!(roster.spans[&user()].last().and_then(|span| span.until), Some(seq(20)));
        roster.apply(&[row(21, Content::Joined { user_id: UserId::from_raw(2), by: user() })]);
        let all = Batch { own: seq(1)..=seq(30), targets: Vec::new() };
        assert_eq!(roster.concerned(&all).count(), 1, "a user who left is removed");
    }

    #[test]
    fn an_unsettled_change_takes_effect_with_its_row() {
        let member = |spans: Spans| Member {
            user_id: user(),
            role: Role::Member,
            joined_at: Millis::ZERO,
            has_accepted: true,
            muted: None,
            banned: None,
            pending: Some(Pending {
                by: user(),
                place: spans.edge().unwrap_or_default(),
                change: PendingChange::Seat,
                is_recorded: false,
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
    fn a_change_that_came_later_than_planned_takes_effect_with_its_row() {
        // Planned for place 7, where another home appended a message.
        let mut roster = roster(&Spans::since(seq(7)));
        roster.apply(&[joined(8)]);
        assert_eq!(roster.spans[&user()], Spans::since(seq(8)));
        let mut leaving = Spans::since(seq(8));
        leaving.close(seq(11));
        roster.spans.insert(user(), leaving);
        roster.apply(&[left(13)]);
        assert_eq!(roster.spans[&user()].last().and_then(|span| span.until), Some(seq(13)));
    }

    #[test]
    fn a_leaving_member_is_concerned_up_to_the_own_row_only() {
        let mut roster = roster(&Spans::since(seq(1)));
        roster.apply(&[left(5), row(6, Content::Created { by: user() })]);
        let batch = |from, to| Batch { own: seq(from)..=seq(to), targets: Vec::new() };
        assert_eq!(roster.concerned(&batch(5, 6)).collect::<Vec<_>>(), [(user(), false)]);
        assert_eq!(roster.concerned(&batch(7, 7)).count(), 0);
    }

    #[test]
    fn a_change_of_an_unreadable_message_is_not_seen_whole() {
        let roster = roster(&Spans::since(seq(4)));
        let edited = |target| {
            let change = Change { target: seq(target), version: 2, by: user(), message: None };
            Batch::of(&[row(9, Content::Edited(change))]).unwrap()
        };
        assert_eq!(roster.concerns(user(), &edited(3)), Some(false));
        assert_eq!(roster.concerns(user(), &edited(4)), Some(true));
    }
}
