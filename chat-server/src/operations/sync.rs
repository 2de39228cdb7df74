//! Reads of a user's inbox by a session: the verdict on a cursor, and pages with their content.

use std::collections::{HashMap, VecDeque};

use madang_bus::{InboxItem, InboxPage, InboxRead};
use madang_engine::log::Row;
use madang_ids::{Cursor, LogId, Position, SealedCursor, UserId};
use madang_proto::{Content, ErrorBody, ErrorCode, Resume, SnapshotReason, limits};

use super::Operations;
use crate::refusal::Result;
use madang_store::StoreError;

/// Rows in one page of an inbox.
const PAGE_ROWS: usize = 512;
/// The memory of the places of a page of which nothing was written yet.
pub const PAGE_BYTES: usize = PAGE_ROWS * size_of::<InboxItem>();
/// Rows in one part of a page. The item that crosses this is the last one of the part.
const PART_ROWS: u64 = 256;

/// The next page of a session.
#[derive(Debug, Clone)]
pub enum SyncPage {
    /// Items, whose content [`Operations::content`] reads.
    Items {
        /// At least one, in the inbox's order.
        parts: VecDeque<Part>,
        /// Whether there is more.
        more: bool,
    },
    /// The cursor cannot be used. The session continues from `end`.
    SnapshotRequired {
        reason: SnapshotReason,
        /// The end of the inbox.
        end: Cursor,
    },
    /// The inbox does not answer. The device takes a snapshot, and the session tries again.
    Unavailable,
}

/// A part of a page, with a cursor of its own, so that a connection that breaks in the middle of a page repeats one part only.
#[derive(Debug, Clone)]
pub struct Part {
    /// Within each log in the order of the inbox. Everything up to `upto` is in this part or in those before it.
    pub items: VecDeque<InboxItem>,
    /// The cursor behind this part.
    pub upto: Cursor,
}

/// The meaning of the cursor that a device sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There was none.
    New,
    /// It is not a cursor of this user.
    Foreign,
    /// It is valid and has this value.
    At(Cursor),
}

impl Standing {
    /// The position up to which the device has received; zero if its cursor does not say.
    #[must_use]
    pub const fn position(self) -> Position {
        match self {
            Self::At(cursor) => cursor.position,
            Self::New | Self::Foreign => Position::ZERO,
        }
    }
}

impl SyncPage {
    /// The field `resume` of `welcome`.
    #[must_use]
    pub const fn resume(&self) -> Resume {
        match self {
            Self::Items { .. } => Resume::Resumed,
            Self::SnapshotRequired { reason, .. } => Resume::SnapshotRequired { reason: *reason },
            Self::Unavailable => Resume::SnapshotRequired { reason: SnapshotReason::InboxUnavailable },
        }
    }
}

impl Operations {
    /// Opens a device's cursor.
    #[must_use]
    pub fn standing(&self, user: UserId, cursor: Option<&SealedCursor>) -> Standing {
        match cursor.map(|text| self.cursors.open(user, text)) {
            None => Standing::New,
            Some(None) => Standing::Foreign,
            Some(Some(cursor)) => Standing::At(cursor),
        }
    }

    /// Seals a cursor for `user`.
    ///
    /// # Errors
    /// `internal`.
    pub(super) fn seal(&self, user: UserId, cursor: Cursor) -> Result<SealedCursor, ErrorBody> {
        self.cursors.seal(user, cursor).map_err(|error| {
            tracing::error!(%error, user.id = %user, "sealing a cursor failed");
            ErrorBody::new(ErrorCode::Internal, "internal server error")
        })
    }

    /// The next page of a user's inbox, or the verdict that the device needs a snapshot.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sync_page(&self, user: UserId, standing: Standing) -> Result<SyncPage> {
        let reason = match standing {
            Standing::New => SnapshotReason::NoCursor,
            Standing::Foreign => SnapshotReason::ForeignCursor,
            Standing::At(cursor) => match self.inbox.read(user, cursor, PAGE_ROWS).await? {
                InboxRead::Page(page) => {
                    return Ok(SyncPage::Items { more: page.more, parts: parts(page) });
                }
                InboxRead::SnapshotRequired(reason) => reason,
                InboxRead::Unavailable => return Ok(SyncPage::Unavailable),
            },
        };
        // The end is read after the connection is registered. What comes later arrives live.
        let Some(end) = self.inbox_end(user).await? else { return Ok(SyncPage::Unavailable) };
        self.metrics.count_snapshot(reason);
        Ok(SyncPage::SnapshotRequired { reason, end })
    }

    /// The end of a user's inbox; `None` if the inbox does not answer.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn inbox_end(&self, user: UserId) -> Result<Option<Cursor>> {
        match self.inbox.end(user).await {
            Ok(end) => Ok(Some(end)),
            Err(StoreError::Unavailable(reason)) => {
                tracing::debug!(%reason, user.id = %user, "the end of an inbox is not known");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The content of inbox items in their order: one list for each item, until a frame is full. The last list may lack its end,
    /// and lists behind it may be missing.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn content(&self, user: UserId, items: &VecDeque<InboxItem>) -> Result<Vec<Vec<Row>>> {
        let ranges: Vec<_> =
            items.iter().take(PAGE_ROWS).map(|item| (item.log, item.from..=item.to)).collect();
        let mut lists = self.logs.rows_of(&ranges, limits::BATCH_BYTES_OUT).await?;
        let pages = ranges.iter().zip(&lists).map(|((log, _), rows)| (*log, &rows[..]));
        let hidden = self.hidden_from(user, pages).await?;
        let mut room = limits::BATCH_BYTES_OUT;
        for index in 0..lists.len() {
            let LogId::Channel(channel) = ranges[index].0 else { continue };
            // A message that was never changed may be read by everybody who was a member then.
            if !lists[index].iter().any(|row| has_changed(&row.entry.content)) {
                hidden.withhold(channel, &mut lists[index]);
                continue;
            }
            let membership = self.store.membership(user, channel).await?;
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

/// Whether this is a change, or a message that was edited.
fn has_changed(content: &Content) -> bool {
    content.change().is_some() || content.message().is_some_and(|message| message.edited.is_some())
}

/// Divides a page into parts. The last part ends where the page ends, which may be behind the last item.
fn parts(page: InboxPage) -> VecDeque<Part> {
    let mut parts = VecDeque::new();
    let (mut items, mut rows) = (Vec::new(), 0);
    for item in page.items {
        rows += item.to.get() - item.from.get() + 1;
        items.push(item);
        if rows >= PART_ROWS {
            let upto = Cursor { position: item.position, ..page.upto };
            parts.push_back(Part { items: join_runs(std::mem::take(&mut items)), upto });
            rows = 0;
        }
    }
    match parts.back_mut() {
        Some(last) if items.is_empty() => last.upto = page.upto,
        _ => parts.push_back(Part { items: join_runs(items), upto: page.upto }),
    }
    parts
}

/// Joins items that continue each other in one log, to make fewer and larger reads. A part is written whole before its cursor is
/// sent, and only the order within each log matters to a client.
fn join_runs(items: Vec<InboxItem>) -> VecDeque<InboxItem> {
    let mut joined: VecDeque<InboxItem> = VecDeque::with_capacity(items.len());
    let mut last: HashMap<LogId, usize> = HashMap::new();
    for item in items {
        match last.get(&item.log) {
            Some(&index) if joined[index].to.next() == item.from => {
                joined[index].to = item.to;
                joined[index].position = item.position;
            }
            _ => {
                last.insert(item.log, joined.len());
                joined.push_back(item);
            }
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{ChannelId, Epoch, Seq};

    #[test]
    fn items_of_one_log_are_joined_across_other_logs_but_not_across_a_gap() {
        let items = [(1, 1, 2, 2), (2, 5, 5, 3), (1, 3, 3, 4), (2, 9, 9, 5), (1, 4, 6, 8)];
        let joined = join_runs(items.map(item).to_vec());
        assert_eq!(joined, [(1, 1, 6, 8), (2, 5, 5, 3), (2, 9, 9, 5)].map(item));
    }

    #[test]
    fn a_page_is_divided_into_full_parts_and_keeps_its_end() {
        let epoch = Epoch::from_raw(7);
        let divide = |items: &[(u64, u64, u64, u64)], upto: u64| {
            let upto = Cursor { epoch, position: Position::new(upto) };
            let page = InboxPage { items: items.iter().copied().map(item).collect(), upto, more: false };
            let parts = parts(page).into_iter();
            parts.map(|part| (part.items.len(), part.upto.position.get())).collect::<Vec<_>>()
        };
        let (first, second) = ((1, 1, 200, 200), (2, 1, 56, 256));
        assert_eq!(divide(&[], 9), [(0, 9)]);
        assert_eq!(divide(&[first], 300), [(1, 300)]);
        assert_eq!(divide(&[first, second], 300), [(2, 300)]);
        assert_eq!(divide(&[first, second, (1, 201, 201, 257)], 300), [(2, 256), (1, 300)]);
    }

    fn item((log, from, to, position): (u64, u64, u64, u64)) -> InboxItem {
        InboxItem {
            log: LogId::Channel(ChannelId::from_raw(log)),
            from: Seq::new(from),
            to: Seq::new(to),
            position: Position::new(position),
        }
    }
}
