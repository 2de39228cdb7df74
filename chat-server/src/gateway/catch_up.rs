//! Reads a session's inbox from its cursor, at the pace of the connection: memory is bounded by one frame and the places
//! of one page. A store that is unavailable interrupts it ([`super::retry`]); nothing comes twice by that.

use std::collections::VecDeque;

use madang_bus::InboxItem;
use madang_engine::log::Row;
use madang_ids::{Cursor, Epoch, UserId};
use madang_proto::{CloseReason, ErrorBody, ServerFrame};

use super::connection::Connection;
use super::encode;
use super::retry::{Interrupted, is_for_later};
use super::socket::End;
use crate::operations::{Standing, SyncPage};

/// Reads one page, or what an interruption has left of one, and writes its content.
pub(super) async fn read_page(connection: &mut Connection, user: UserId) -> Result<(), End> {
    if let Some(rest) = connection.interrupted.as_mut().and_then(|interrupted| interrupted.rest.take()) {
        return take_page(connection, user, rest).await;
    }
    let outbound = connection.outbound();
    let Some((position, epoch, fell_behind)) = outbound.begin_page() else { return Ok(()) };
    if fell_behind {
        outbound.push(encode::frame(&ServerFrame::Resync));
    }
    let cursor = Cursor { epoch: epoch.unwrap_or(Epoch::from_raw(0)), position };
    let page = match connection.gateway.operations.sync_page(user, Standing::At(cursor)).await {
        Ok(page) => page,
        Err(error) => return interrupt(connection, &error, None),
    };
    if let SyncPage::SnapshotRequired { reason, .. } = page {
        connection.outbound().push(encode::frame(&ServerFrame::SnapshotRequired { reason }));
    }
    take_page(connection, user, page).await
}

/// Writes a page's content, then moves the cursor.
pub(super) async fn take_page(connection: &mut Connection, user: UserId, page: SyncPage) -> Result<(), End> {
    match page {
        SyncPage::SnapshotRequired { end, .. } => connection.outbound().start_over(end),
        SyncPage::Items { items, upto, more } => {
            let mut items = items.into();
            if let Err(failure) = write_items(connection, user, &mut items).await {
                let rest = SyncPage::Items { items: items.into(), upto, more };
                return match failure {
                    Failure::End(end) => Err(end),
                    Failure::Store(error) => interrupt(connection, &error, Some(rest)),
                };
            }
            connection.outbound().handle_page(upto, more);
        }
    }
    connection.interrupted = None;
    connection.write_all().await
}

/// The store failed: it is asked again later, or the connection ends if that is of no use.
fn interrupt(connection: &mut Connection, error: &ErrorBody, rest: Option<SyncPage>) -> Result<(), End> {
    if !is_for_later(error) {
        return Err(End::Close(CloseReason::Internal));
    }
    let (now, number) = (connection.gateway.operations.clock.elapsed(), connection.outbound().number);
    let before = connection.interrupted.take();
    connection.interrupted = Some(Box::new(Interrupted::new(before, rest, now, number)));
    Ok(())
}

/// Why not all of a page was written.
enum Failure {
    Store(ErrorBody),
    End(End),
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// Whether the rows of an item are there from its first one on.
fn begins(rows: &[Row], item: &InboxItem) -> bool {
    rows.first().is_some_and(|row| row.entry.seq == item.from)
}

/// Writes the content of `items`; what is written leaves them.
async fn write_items(
    connection: &mut Connection,
    user: UserId,
    items: &mut VecDeque<InboxItem>,
) -> Result<(), Failure> {
    let limit_bytes = connection.gateway.operations.config.gateway.outbound_bytes;
    while !items.is_empty() {
        let lists = connection.gateway.operations.content(user, items).await.map_err(Failure::Store)?;
        let mut lists = lists.into_iter().peekable();
        if !lists.peek().zip(items.front()).is_some_and(|(rows, item)| begins(rows, item)) {
            // Rows vanish from an own log alone, when so much was appended meanwhile that the page is no longer needed: the
            // device must come again, and is too far behind then.
            return Err(Failure::End(End::Close(CloseReason::Internal)));
        }
        for rows in lists {
            let Some(item) = items.front_mut().filter(|item| begins(&rows, item)) else { break };
            let Some(last) = rows.last() else { break };
            item.from = last.entry.seq.next();
            for frame in encode::batches(item.log, &rows) {
                connection.outbound().push(frame);
            }
            if item.from > item.to {
                items.pop_front();
            }
        }
        if connection.outbound().waiting_bytes() > limit_bytes {
            connection.write_all().await?;
        }
    }
    Ok(())
}
