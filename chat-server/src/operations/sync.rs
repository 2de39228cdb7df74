//! A session's reads of its user's inbox: the verdict on a cursor, and pages with their content.

use std::collections::{HashMap, VecDeque};

use madang_bus::{InboxItem, InboxRead};
use madang_engine::log::Row;
use madang_ids::{Cursor, LogId, Position, SealedCursor, UserId};
use madang_proto::{Content, ErrorBody, ErrorCode, Resume, SnapshotReason, limits};

use super::Operations;
use crate::refusal::refusal;

/// Rows of one page of an inbox.
const PAGE_ROWS: usize = 1_000;

/// What a session reads next.
#[derive(Debug, Clone)]
pub enum SyncPage {
    /// Items, whose content [`Operations::content`] reads; everything up to the cursor is in them.
    Items {
        /// In the inbox's order.
        items: VecDeque<InboxItem>,
        /// Where the session stands afterwards.
        upto: Cursor,
        /// Whether there is more.
        more: bool,
    },
    /// The cursor does not serve. The session goes on from `end`.
    SnapshotRequired {
        /// Why.
        reason: SnapshotReason,
        /// Where the inbox ends.
        end: Cursor,
    },
}

/// Where a device stands, by the cursor that it came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It came without one.
    New,
    /// It came with what is no cursor of its user.
    Foreign,
    /// Here.
    At(Cursor),
}

impl Standing {
    /// Up to where the device has received; nothing if its cursor does not say.
    #[must_use]
    pub const fn position(self) -> Position {
        match self {
            Self::At(cursor) => cursor.position,
            Self::New | Self::Foreign => Position::ZERO,
        }
    }
}

impl SyncPage {
    /// What `welcome` says of it.
    #[must_use]
    pub const fn resume(&self) -> Resume {
        match self {
            Self::Items { .. } => Resume::Resumed,
            Self::SnapshotRequired { reason, .. } => Resume::SnapshotRequired { reason: *reason },
        }
    }
}

impl Operations {
    /// What a device's cursor says.
    #[must_use]
    pub fn standing(&self, user: UserId, cursor: Option<&SealedCursor>) -> Standing {
        match cursor.map(|text| self.cursors.open(user, text)) {
            None => Standing::New,
            Some(None) => Standing::Foreign,
            Some(Some(cursor)) => Standing::At(cursor),
        }
    }

    /// A cursor as `user` gets it.
    ///
    /// # Errors
    /// `internal`.
    pub(super) fn seal(&self, user: UserId, cursor: Cursor) -> Result<SealedCursor, ErrorBody> {
        self.cursors.seal(user, cursor).map_err(|error| {
            tracing::error!(%error, user.id = %user, "sealing a cursor failed");
            ErrorBody::new(ErrorCode::Internal, "the server failed")
        })
    }

    /// The next page of a user's inbox after where a device stands, or the verdict that it needs a snapshot.
    ///
    /// # Errors
    /// The store's.
    pub async fn sync_page(&self, user: UserId, standing: Standing) -> Result<SyncPage, ErrorBody> {
        let reason = match standing {
            Standing::New => SnapshotReason::NoCursor,
            Standing::Foreign => SnapshotReason::ForeignCursor,
            Standing::At(cursor) => {
                match self.inbox.read(user, cursor, PAGE_ROWS).await.map_err(|error| refusal(&error))? {
                    InboxRead::Page(page) => {
                        return Ok(SyncPage::Items {
                            items: join_runs(page.items).into(),
                            upto: page.upto,
                            more: page.more,
                        });
                    }
                    InboxRead::SnapshotRequired(reason) => reason,
                }
            }
        };
        self.metrics.count_snapshot(reason);
        let end = self.inbox.end(user).await.map_err(|error| refusal(&error))?;
        Ok(SyncPage::SnapshotRequired { reason, end })
    }

    /// The content of items of a user's inbox, in their order: a list for each, up to where a frame is full; the last
    /// list may lack its end, and lists may be missing behind it.
    ///
    /// # Errors
    /// The store's.
    pub async fn content(
        &self,
        user: UserId,
        items: &VecDeque<InboxItem>,
    ) -> Result<Vec<Vec<Row>>, ErrorBody> {
        let ranges: Vec<_> =
            items.iter().take(PAGE_ROWS).map(|item| (item.log, item.from..=item.to)).collect();
        let lists = self.store.rows_of(&ranges, limits::BATCH_BYTES_OUT).await;
        let mut lists = lists.map_err(|error| refusal(&error))?;
        let pages = ranges.iter().zip(&lists).map(|((log, _), rows)| (*log, &rows[..]));
        let hidden = self.hidden_from(user, pages).await?;
        let mut room = limits::BATCH_BYTES_OUT;
        for index in 0..lists.len() {
            let LogId::Channel(channel) = ranges[index].0 else { continue };
            // What was said and never changed is for everybody who was there.
            if !lists[index].iter().any(|row| has_changed(&row.entry.content)) {
                hidden.withhold(channel, &mut lists[index]);
                continue;
            }
            let membership = self.store.membership(user, channel).await.map_err(|error| refusal(&error))?;
            let spans = membership.map(|membership| membership.spans).unwrap_or_default();
            let carried = self.carry(channel, &spans, &mut lists[index], room).await?;
            hidden.withhold(channel, &mut lists[index]);
            if !carried.is_whole {
                lists.truncate(index + 1);
                break;
            }
            room = room.saturating_sub(carried.bytes);
        }
        Ok(lists)
    }
}

/// Whether it is a change, or a message that was.
fn has_changed(content: &Content) -> bool {
    content.change().is_some() || content.message().is_some_and(|message| message.edited.is_some())
}

/// Joins what follows each other in one log: a page is written whole before its cursor is told, and only the order
/// within each log matters to a client. Fewer, larger reads.
fn join_runs(items: Vec<InboxItem>) -> Vec<InboxItem> {
    let mut joined: Vec<InboxItem> = Vec::with_capacity(items.len());
    let mut last: HashMap<LogId, usize> = HashMap::new();
    for item in items {
        match last.get(&item.log) {
            Some(&index) if joined[index].to.next() == item.from => joined[index].to = item.to,
            _ => {
                last.insert(item.log, joined.len());
                joined.push(item);
            }
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{ChannelId, Seq};

    #[test]
    fn runs_of_one_log_are_joined_across_others_but_not_across_a_gap() {
        let item = |log: u64, from: u64, to: u64| InboxItem {
            log: LogId::Channel(ChannelId::from_raw(log)),
            from: Seq::new(from),
            to: Seq::new(to),
        };
        let items = vec![item(1, 1, 2), item(2, 5, 5), item(1, 3, 3), item(2, 9, 9), item(1, 4, 6)];
        assert_eq!(join_runs(items), [item(1, 1, 6), item(2, 5, 5), item(2, 9, 9)]);
    }
}
