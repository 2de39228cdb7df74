//! How far devices have received, on its way to the store: written once a second, the last word of each device.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use madang_ids::{Cursor, DeviceId, SealedCursor};
use madang_proto::ErrorBody;
use parking_lot::Mutex;

use super::{Caller, Operations};

/// Marks that wait. Bounded by the devices that are connected; a lost second costs nothing but a repeated push.
#[derive(Debug, Default)]
pub struct ReceivedMarks {
    waiting: Mutex<HashMap<DeviceId, Cursor>>,
    /// Rounds since something was written; many after a failure.
    idle_rounds: AtomicU32,
}

/// A round without marks writes all the same, one in so many or after a failure, to tell whether the store takes writes.
const PROBE_ROUNDS: u32 = 10;

impl ReceivedMarks {
    /// A device has received everything up to `cursor`.
    pub fn put(&self, device: DeviceId, cursor: Cursor) {
        let mut waiting = self.waiting.lock();
        let mark = waiting.entry(device).or_insert(cursor);
        if mark.epoch != cursor.epoch || mark.position < cursor.position {
            *mark = cursor;
        }
    }
}

impl Operations {
    /// The caller's device says that it keeps everything up to `cursor`.
    ///
    /// # Errors
    /// `invalid` for what is no cursor of the caller.
    pub fn note_received(&self, caller: Caller, cursor: &SealedCursor) -> Result<(), ErrorBody> {
        let opened = self.cursors.open(caller.user_id, cursor).ok_or_else(|| {
            ErrorBody::invalid("cursor", "cursor is none that this server gave to this user")
        })?;
        self.received.put(caller.device_id, opened);
        Ok(())
    }

    /// Writes the marks that wait.
    pub async fn flush_received(&self) {
        let marks: Vec<(DeviceId, Cursor)> = self.received.waiting.lock().drain().collect();
        let idle = self.received.idle_rounds.fetch_add(1, Ordering::Relaxed);
        if marks.is_empty() && idle < PROBE_ROUNDS {
            return;
        }
        match self.store.set_received(&marks).await {
            Ok(()) => {
                self.received.idle_rounds.store(0, Ordering::Relaxed);
                if self.store_health.pass() {
                    tracing::info!("the store takes writes again");
                }
            }
            Err(error) => {
                let count = marks.len();
                // They are written by the next round, unless a later word of the same device is.
                marks.into_iter().for_each(|(device, cursor)| self.received.put(device, cursor));
                self.received.idle_rounds.store(PROBE_ROUNDS, Ordering::Relaxed);
                // Tried again each second; the change is what an operator needs to hear of.
                if self.store_health.fail(error.to_string()) {
                    tracing::warn!(%error, marks = count, "the store takes no writes: how far devices have received was not noted");
                }
            }
        }
    }
}
