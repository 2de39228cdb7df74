//! Reads a session's inbox from its cursor, at the pace of the connection: memory is bounded by one frame.

use std::collections::VecDeque;
use std::sync::Arc;

use madang_bus::InboxItem;
use madang_ids::{Cursor, Epoch};
use madang_proto::{CloseReason, ServerFrame};

use super::connection::{Connection, End};
use super::encode;
use super::outbound::Outbound;
use crate::operations::SyncPage;

/// Reads one page and writes its content.
pub(super) async fn read_page(connection: &mut Connection, outbound: &Arc<Outbound>) -> Result<(), End> {
    let Some((position, epoch, fell_behind)) = outbound.begin_page() else { return Ok(()) };
    if fell_behind {
        outbound.push(encode::frame(&ServerFrame::Resync));
    }
    let cursor = Cursor { epoch: epoch.unwrap_or(Epoch::from_raw(0)), position };
    let page = connection.gateway.operations.sync_page(outbound.user_id, Some(cursor)).await;
    let page = page.map_err(|_| End::Close(CloseReason::Internal))?;
    if let SyncPage::SnapshotRequired { reason, .. } = page {
        outbound.push(encode::frame(&ServerFrame::SnapshotRequired { reason }));
    }
    take_page(connection, outbound, page).await
}

/// Writes a page's content, then moves the cursor.
pub(super) async fn take_page(
    connection: &mut Connection,
    outbound: &Arc<Outbound>,
    page: SyncPage,
) -> Result<(), End> {
    match page {
        SyncPage::SnapshotRequired { end, .. } => outbound.start_over(end),
        SyncPage::Items { items, upto, more } => {
            write_items(connection, outbound, items.into()).await?;
            outbound.handle_page(upto, more);
        }
    }
    connection.write_waiting(outbound).await
}

async fn write_items(
    connection: &mut Connection,
    outbound: &Arc<Outbound>,
    mut items: VecDeque<InboxItem>,
) -> Result<(), End> {
    let limit_bytes = connection.gateway.operations.config.gateway.outbound_bytes;
    while !items.is_empty() {
        let content = connection.gateway.operations.content(&items).await;
        let lists = content.map_err(|_| End::Close(CloseReason::Internal))?;
        if lists.iter().all(Vec::is_empty) {
            // Rows never vanish; without them the page is not complete, and the device must come again.
            return Err(End::Close(CloseReason::Internal));
        }
        for rows in lists {
            let (Some(item), Some(last)) = (items.front_mut(), rows.last()) else { break };
            item.from = last.entry.seq.next();
            outbound.push(encode::entries(item.log, &rows));
            if item.from > item.to {
                items.pop_front();
            }
        }
        if !outbound.may_read(u32::MAX, limit_bytes) {
            connection.write_waiting(outbound).await?;
        }
    }
    Ok(())
}
