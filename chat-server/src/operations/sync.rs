//! A session's reads of its user's inbox: the verdict on a cursor, and pages with their content.

use std::collections::{HashMap, VecDeque};

use madang_bus::{InboxItem, InboxPage, InboxRead};
use madang_engine::log::Row;
use madang_ids::{Cursor, LogId, Position, SealedCursor, UserId};
use madang_proto::{Content, ErrorBody, ErrorCode, Resume, SnapshotReason, limits};

use super::Operations;
use crate::refusal::refusal;

/// Rows of one page of an inbox.
const PAGE_ROWS: usize = 512;
/// Places of a page of which nothing was written yet.
pub const PAGE_BYTES: usize = PAGE_ROWS * size_of::<InboxItem>();
/// Rows of one part of a page; the item that crosses it is the last one.
const PART_ROWS: u64 = 256;

/// What a session reads next.
#[derive(Debug, Clone)]
pub enum SyncPage {
    /// Items, whose content [`Operations::content`] reads.
    Items {
        /// At least one, in the inbox's order.
        parts: VecDeque<Part>,
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

/// A part of a page, with a cursor of its own: a connection that breaks in the middle of a page repeats one part.
#[derive(Debug, Clone)]
pub struct Part {
    /// Within each log in the inbox's order; everything up to the cursor is in them or in the parts before.
    pub items: VecDeque<InboxItem>,
    /// Where the session stands afterwards.
    pub upto: Cursor,
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
                        return Ok(SyncPage::Items { more: page.more, parts: parts(page) });
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

/// Divides a page. What is behind the last item belongs to the last part.
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

/// Joins what follows each other in one log: a part is written whole before its cursor is sent, and only the order
/// within each log matters to a client. Fewer, larger reads.
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
    fn runs_of_one_log_are_joined_across_others_but_not_across_a_gap() {
        let items = [(1, 1, 2, 2), (2, 5, 5, 3), (1, 3, 3, 4), (2, 9, 9, 5), (1, 4, 6, 8)];
        let joined = join_runs(items.map(item).to_vec());
        assert_eq!(joined, [(1, 1, 6, 8), (2, 5, 5, 3), (2, 9, 9, 5)].map(item));
    }

    #[test]
    fn a_page_is_divided_where_its_parts_are_full_and_ends_where_it_ended() {
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
