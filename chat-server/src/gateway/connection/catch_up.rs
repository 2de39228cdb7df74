//! Reads a session's inbox from its cursor, at the pace of the connection. Memory is bounded by one frame and the places of one
//! page. If the store becomes unavailable, the catch-up is interrupted and retried ([`crate::gateway::retry`]); no entry is sent twice
//! because of that.
//!
//! The client's own frames do not wait for the catch-up. After a restart a device may have thousands of rows to read, and its
//! sends are taken between two frames and while the store reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use madang_bus::InboxItem;
use madang_engine::log::Row;
use madang_ids::{Cursor, DeviceId, LogId, UserId};
use madang_proto::{CloseReason, Content, ErrorBody, ErrorCode, ServerFrame, SnapshotReason};
use madang_service::spread;
use tokio::sync::oneshot;

use crate::gateway::connection::retry::{Interrupted, is_for_later};
use crate::gateway::connection::{Connection, Taken};
use crate::gateway::delivery::encode;
use crate::gateway::socket::ConnectionEnd;
use crate::operations::{Standing, SyncPage};
use crate::refusal::OperationError;

/// Snapshots that one node serves while the inboxes of all its devices were reset.
const SNAPSHOTS_A_SECOND: u32 = 500;
/// The longest wait for a snapshot.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a step failed.
enum Failure {
    Read(OperationError),
    End(ConnectionEnd),
}

impl From<ConnectionEnd> for Failure {
    fn from(end: ConnectionEnd) -> Self {
        Self::End(end)
    }
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        Self::Read(error)
    }
}

/// Takes one step: reads a page if there is none, and writes about one frame of it. The cursor moves behind each finished part.
pub(in crate::gateway) async fn step(connection: &mut Connection, user: UserId) -> Result<(), ConnectionEnd> {
    match try_step(connection, user).await {
        Ok(()) => {
            connection.interrupted = None;
            Ok(())
        }
        Err(Failure::End(end)) => Err(end),
        Err(Failure::Read(error)) => interrupt(connection, &error),
    }
}

async fn try_step(connection: &mut Connection, user: UserId) -> Result<(), Failure> {
    let page = match connection.page.take() {
        Some(page) => Some(*page),
        None => next_page(connection, user).await?,
    };
    match page {
        None => {}
        Some(SyncPage::SnapshotRequired { end, .. }) => connection.outbound().start_over(end),
        Some(SyncPage::Unavailable) => return Err(inbox_unavailable()),
        Some(SyncPage::Items { mut parts, more }) => {
            let written = match parts.front_mut() {
                Some(part) => write_some(connection, user, &mut part.items).await,
                None => Ok(()),
            };
            // The cursor moves only behind a whole part. If the connection ends in the middle of one, the device reads the part
            // again.
            if let Some(part) = parts.pop_front_if(|part| part.items.is_empty()) {
                connection.outbound().handle_page(part.upto, more || !parts.is_empty());
            }
            // Put back before the error is returned: a step that the store interrupted continues in this page.
            if !parts.is_empty() {
                connection.page = Some(Box::new(SyncPage::Items { parts, more }));
            }
            written?;
        }
    }
    Ok(())
}

/// The next page, or `None` if the inbox need not be read any more.
async fn next_page(connection: &mut Connection, user: UserId) -> Result<Option<SyncPage>, Failure> {
    let outbound = connection.outbound();
    let Some((position, epoch, fell_behind)) = outbound.begin_page() else { return Ok(None) };
    if fell_behind {
        outbound.push(encode::frame(&ServerFrame::Resync));
    }
    // Before the first page the cursor is the one of `hello`.
    let standing = epoch.map_or(connection.standing, |epoch| Standing::At(Cursor { epoch, position }));
    // `begin_page` came before this read. A loss that is reported while the page is read asks for one more page, because this one
    // may have begun before the lost rows were committed.
    let reading = connection.gateway.page_reads.page(user, connection.device()?, standing);
    let page = match beside(connection, reading).await? {
        Err(error) if error.code() == ErrorCode::Revoked => {
            return Err(Failure::End(ConnectionEnd::Close(CloseReason::DeviceRevoked)));
        }
        page => page?,
    };
    if matches!(page, SyncPage::Unavailable) {
        return Err(inbox_unavailable());
    }
    if let SyncPage::SnapshotRequired { reason, .. } = page {
        let connections = connection.gateway.operations.metrics.connections.get();
        let wait = match reason {
            SnapshotReason::InboxReset => spread(wait_after_reset(connections), connection.device()?.raw()),
            _ => Duration::ZERO,
        };
        let wait_ms = u64::try_from(wait.as_millis()).ok().filter(|wait| *wait > 0);
        connection.outbound().push(encode::frame(&ServerFrame::SnapshotRequired { reason, wait_ms }));
    }
    Ok(Some(page))
}

/// When the inboxes of all users were reset, every connected device needs a snapshot: each waits for its part of this time, so that
/// a node serves [`SNAPSHOTS_A_SECOND`]. A node with few devices has them all current at once.
fn wait_after_reset(connections: i64) -> Duration {
    let connections = u32::try_from(connections).unwrap_or(0);
    (Duration::from_secs(1) * connections / SNAPSHOTS_A_SECOND).min(LONGEST_WAIT)
}

fn inbox_unavailable() -> Failure {
    Failure::Read(ErrorBody::unavailable("the inbox does not answer", 1_000).into())
}

/// Whether the rows of an item begin with its first one.
fn begins(rows: &[Row], item: &InboxItem) -> bool {
    rows.first().is_some_and(|row| row.entry.seq == item.from)
}

/// Writes the content of the first `items`, about one frame. Written rows are removed from `items`.
async fn write_some(
    connection: &mut Connection,
    user: UserId,
    items: &mut VecDeque<InboxItem>,
) -> Result<(), Failure> {
    if items.is_empty() {
        return Ok(());
    }
    let reading = connection.gateway.page_reads.content(user, std::mem::take(items));
    let (lists, asked) = beside(connection, reading).await?;
    *items = asked;
    let lists = lists?;
    let mut lists = lists.into_iter().peekable();
    if !lists.peek().zip(items.front()).is_some_and(|(rows, item)| begins(rows, item)) {
        // Rows are deleted only from a user's own log, and only after enough appends to make this page out of date. The
        // device must connect again; its cursor is then too old and it takes a snapshot.
        return Err(Failure::End(ConnectionEnd::Close(CloseReason::Internal)));
    }
    for rows in lists {
        let Some(item) = items.front_mut().filter(|item| begins(&rows, item)) else { break };
        let Some(last) = rows.last() else { break };
        // The envelope that would have closed the connection may have been lost (G5).
        if item.log == LogId::User(user) && revokes(&rows, connection.device()?) {
            return Err(Failure::End(ConnectionEnd::Close(CloseReason::DeviceRevoked)));
        }
        // Advanced together with the push, so that a later failure does not send these rows twice.
        item.from = last.entry.seq.next();
        for frame in encode::batches(item.log, &rows) {
            connection.outbound().push(frame);
        }
        if item.from > item.to {
            items.pop_front();
        }
    }
    Ok(())
}

/// Whether rows of a user's own log revoke a device.
fn revokes(rows: &[Row], device: DeviceId) -> bool {
    let is_it =
        |row: &Row| matches!(row.entry.content, Content::DeviceRevoked { device_id } if device_id == device);
    rows.iter().any(is_it)
}

/// Waits for a read of the store and takes the client's frames meanwhile.
async fn beside<T>(
    connection: &mut Connection,
    mut reading: oneshot::Receiver<T>,
) -> Result<T, ConnectionEnd> {
    loop {
        let (outbound, may_read) = (Arc::clone(connection.outbound()), connection.may_read());
        tokio::select! {
            biased;
            read = &mut reading => {
                // The connection may have been cut off during the read, by a revocation for example. It must not get the result
                // then.
                connection.write_and_look(false)?;
                return read.map_err(|_| ConnectionEnd::Close(CloseReason::Internal));
            }
            () = outbound.woken() => {}
            // If the socket has failed, the next read reports the error.
            _ = outbound.tcp().readable(), if may_read => {}
        }
        let taken = connection.take_waiting().await?;
        connection.write_and_look(taken == Taken::All)?;
    }
}

/// The store failed. Schedules another try, or ends the connection if a retry cannot help.
fn interrupt(connection: &mut Connection, error: &OperationError) -> Result<(), ConnectionEnd> {
    if !is_for_later(error) {
        tracing::error!(%error, "reading the inbox failed; closing the connection");
        return Err(ConnectionEnd::Close(CloseReason::Internal));
    }
    tracing::warn!(%error, "reading the inbox failed; retrying");
    let (now, number) = (connection.gateway.operations.clock.elapsed(), connection.outbound().number);
    let before = connection.interrupted.take();
    connection.interrupted = Some(Interrupted::new(before, now, number));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_after_a_reset_are_spread_over_a_minute_at_most() {
        assert_eq!(wait_after_reset(0), Duration::ZERO);
        assert_eq!(wait_after_reset(1_000), Duration::from_secs(2));
        assert_eq!(wait_after_reset(1_000_000), LONGEST_WAIT);
    }
}
