//! Reads a session's inbox from its cursor, at the pace of the connection: memory is bounded by one frame and the places
//! of one page. A store that is unavailable interrupts it ([`super::retry`]); nothing comes twice by that.
//!
//! What the client says meanwhile does not wait for it: after a restart a device may have a long way to go, and its sends
//! are taken between two frames and while the store reads.

use std::collections::VecDeque;
use std::sync::Arc;

use madang_bus::InboxItem;
use madang_engine::log::Row;
use madang_ids::{Cursor, Epoch, UserId};
use madang_proto::{CloseReason, ErrorBody, ServerFrame};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::connection::{Connection, Taken};
use super::encode;
use super::retry::{Interrupted, is_for_later};
use super::socket::End;
use crate::operations::{Standing, SyncPage};

/// Why a step was not taken.
enum Failure {
    Store(ErrorBody),
    End(End),
}

impl From<End> for Failure {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<ErrorBody> for Failure {
    fn from(error: ErrorBody) -> Self {
        Self::Store(error)
    }
}

/// Takes one step: reads a page if none is at hand, and writes about a frame of it. Behind each part the cursor moves.
pub(super) async fn step(connection: &mut Connection, user: UserId) -> Result<(), End> {
    match try_step(connection, user).await {
        Ok(()) => {
            connection.interrupted = None;
            Ok(())
        }
        Err(Failure::End(end)) => Err(end),
        Err(Failure::Store(error)) => interrupt(connection, &error),
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
        Some(SyncPage::Items { mut parts, more }) => {
            let written = match parts.front_mut() {
                Some(part) => write_some(connection, user, &mut part.items).await,
                None => Ok(()),
            };
            if let Some(part) = parts.pop_front_if(|part| part.items.is_empty()) {
                connection.outbound().handle_page(part.upto, more || !parts.is_empty());
            }
            if !parts.is_empty() {
                connection.page = Some(Box::new(SyncPage::Items { parts, more }));
            }
            written?;
        }
    }
    Ok(())
}

/// The next page; `None` if the inbox need not be read any more.
async fn next_page(connection: &mut Connection, user: UserId) -> Result<Option<SyncPage>, Failure> {
    let outbound = connection.outbound();
    let Some((position, epoch, fell_behind)) = outbound.begin_page() else { return Ok(None) };
    if fell_behind {
        outbound.push(encode::frame(&ServerFrame::Resync));
    }
    let cursor = Cursor { epoch: epoch.unwrap_or(Epoch::from_raw(0)), position };
    let operations = Arc::clone(&connection.gateway.operations);
    let reading = async move { operations.sync_page(user, Standing::At(cursor)).await };
    let page = beside(connection, reading).await??;
    if let SyncPage::SnapshotRequired { reason, .. } = page {
        connection.outbound().push(encode::frame(&ServerFrame::SnapshotRequired { reason }));
    }
    Ok(Some(page))
}

/// Whether the rows of an item are there from its first one on.
fn begins(rows: &[Row], item: &InboxItem) -> bool {
    rows.first().is_some_and(|row| row.entry.seq == item.from)
}

/// Writes the content of the first of `items`, about a frame of it; what is written leaves them.
async fn write_some(
    connection: &mut Connection,
    user: UserId,
    items: &mut VecDeque<InboxItem>,
) -> Result<(), Failure> {
    if items.is_empty() {
        return Ok(());
    }
    let gateway = Arc::clone(&connection.gateway);
    let asked = std::mem::take(items);
    let reading = async move { (gateway.read_content(user, &asked).await, asked) };
    let (lists, asked) = beside(connection, reading).await?;
    *items = asked;
    let lists = lists?;
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
    Ok(())
}

/// Carries out a read of the store, and takes the frames that come meanwhile. The read is a task of its own: one that nobody
/// polled while a request is carried out would keep its place in the store's line, and those behind it.
async fn beside<T, F>(connection: &mut Connection, read: F) -> Result<T, End>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let (sender, mut receiver) = oneshot::channel();
    let task = async move { drop(sender.send(read.await)) };
    let _task = AbortOnDropHandle::new(connection.gateway.tasks.spawn("page", task.in_current_span()));
    loop {
        let (outbound, may_read) = (Arc::clone(connection.outbound()), connection.may_read());
        tokio::select! {
            biased;
            read = &mut receiver => {
                // It is not for a device that was cut off meanwhile.
                connection.write_and_look(false)?;
                return read.map_err(|_| End::Close(CloseReason::Internal));
            }
            () = outbound.woken() => {}
            // What is wrong with it, the next read tells.
            _ = outbound.tcp().readable(), if may_read => {}
        }
        let taken = connection.take_waiting().await?;
        connection.write_and_look(taken == Taken::All)?;
    }
}

/// The store failed: it is asked again later, or the connection ends if that is of no use.
fn interrupt(connection: &mut Connection, error: &ErrorBody) -> Result<(), End> {
    if !is_for_later(error) {
        return Err(End::Close(CloseReason::Internal));
    }
    let (now, number) = (connection.gateway.operations.clock.elapsed(), connection.outbound().number);
    let before = connection.interrupted.take();
    connection.interrupted = Some(Interrupted::new(before, now, number));
    Ok(())
}
