//! Reads a session's inbox from its cursor, at the pace of the connection: memory is bounded by one frame.

use std::collections::VecDeque;

use madang_bus::InboxItem;
use madang_ids::{Cursor, Epoch, UserId};
use madang_proto::{CloseReason, ServerFrame};

use super::connection::Connection;
use super::encode;
use super::socket::End;
use crate::operations::SyncPage;

/// Reads one page and writes its content.
pub(super) async fn read_page(connection: &mut Connection, user: UserId) -> Result<(), End> {
    let outbound = connection.outbound();
    let Some((position, epoch, fell_behind)) = outbound.begin_page() else { return Ok(()) };
    if fell_behind {
        outbound.push(encode::frame(&ServerFrame::Resync));
    }
    let cursor = Cursor { epoch: epoch.unwrap_or(Epoch::from_raw(0)), position };
    let page = connection.gateway.operations.sync_page(user, Some(cursor)).await;
    let page = page.map_err(|_| End::Close(CloseReason::Internal))?;
    if let SyncPage::SnapshotRequired { reason, .. } = page {
        outbound.push(encode::frame(&ServerFrame::SnapshotRequired { reason }));
    }
    take_page(connection, user, page).await
}

/// Writes a page's content, then moves the cursor.
pub(super) async fn take_page(connection: &mut Connection, user: UserId, page: SyncPage) -> Result<(), End> {
    match page {
        SyncPage::SnapshotRequired { end, .. } => connection.outbound().start_over(end),
        SyncPage::Items { items, upto, more } => {
            write_items(connection, user, items.into()).await?;
            connection.outbound().handle_page(upto, more);
        }
    }
    connection.write_all().await
}

async fn write_items(
    connection: &mut Connection,
    user: UserId,
    mut items: VecDeque<InboxItem>,
) -> Result<(), End> {
    let limit_bytes = connection.gateway.operations.config.gateway.outbound_bytes;
    while !items.is_empty() {
        let content = connection.gateway.operations.content(user, &items).await;
        let lists = content.map_err(|_| End::Close(CloseReason::Internal))?;
        if lists.iter().all(Vec::is_empty) {
            // Rows never vanish; without them the page is not complete, and the device must come again.
            return Err(End::Close(CloseReason::Internal));
        }
        for rows in lists {
            let (Some(item), Some(last)) = (items.front_mut(), rows.last()) else { break };
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
