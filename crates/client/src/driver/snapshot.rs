//! Snapshots on an open connection: at once, or when the server wants one.

use std::time::Duration;

use madang_proto::SnapshotReason;
use madang_proto::rest::SnapshotQuery;
use tokio::time::{Instant, sleep_until};

use super::Driver;
use super::live::Live;
use crate::error::ClientError;
use crate::event::Event;

/// A server that names a longer wait is not believed.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Waits until a snapshot is due. Cancel safe.
pub(super) async fn due(snapshot: Option<(Instant, SnapshotReason)>) -> Option<SnapshotReason> {
    let (at, reason) = snapshot?;
    sleep_until(at).await;
    Some(reason)
}

impl Driver {
    /// Takes a snapshot after the wait. Entries that come meanwhile are live; cursors are not kept, because they are behind what is
    /// missing.
    pub(super) async fn owe_snapshot(
        &mut self,
        live: &mut Live,
        reason: SnapshotReason,
        wait_ms: u64,
    ) -> Result<(), ClientError> {
        if wait_ms == 0 {
            return self.take_snapshot(live, reason).await;
        }
        // What it invalidates is invalid from now on.
        self.received.begin_snapshot(reason);
        live.snapshot = Some((Instant::now() + Duration::from_millis(wait_ms).min(LONGEST_WAIT), reason));
        Ok(())
    }

    /// Reads all pages of the snapshot. The connection is registered already, so entries that are appended meanwhile
    /// arrive on it, and its cursors count from here on.
    pub(super) async fn take_snapshot(
        &mut self,
        live: &mut Live,
        reason: SnapshotReason,
    ) -> Result<(), ClientError> {
        live.snapshot = None;
        let since = self.received.begin_snapshot(reason);
        let mut query = SnapshotQuery { since, ..SnapshotQuery::default() };
        let (mut cursor, mut channels, mut gone) = (None, Vec::new(), Vec::new());
        loop {
            let page = live.beating(self.rest.snapshot(&self.tokens.access, &query)).await??;
            cursor = cursor.or(page.cursor);
            channels.extend(page.channels);
            gone.extend(page.gone);
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        self.received.apply_snapshot(&channels);
        self.received.forget(&gone);
        self.emit_alive(live, Event::SnapshotRequired { reason, channels, gone }).await?;
        if let Some(cursor) = cursor {
            self.received.apply_cursor(cursor.clone());
            self.emit_alive(live, Event::CursorMoved(cursor)).await?;
        }
        Ok(())
    }
}
