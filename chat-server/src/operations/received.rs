//! How far devices have received, on its way to the store: written once a second, the last word of each device.

use std::collections::HashMap;

use madang_ids::{Cursor, DeviceId};
use parking_lot::Mutex;

use super::Operations;
use crate::refusal::refusal;

/// Marks that wait. Bounded by the devices that are connected; a lost second costs nothing but a repeated push.
#[derive(Debug, Default)]
pub struct ReceivedMarks {
    waiting: Mutex<HashMap<DeviceId, Cursor>>,
}

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
    /// Writes the marks that wait.
    pub async fn flush_received(&self) {
        let marks: Vec<(DeviceId, Cursor)> = self.received.waiting.lock().drain().collect();
        // Also without marks: a write each second tells whether the store takes writes, at the cost of no fsync.
        match self.store.set_received(&marks).await {
            Ok(()) => self.store_health.pass(),
            Err(error) => {
                let count = marks.len();
                tracing::warn!(error = %refusal(&error), marks = count, "how far devices have received was not noted");
                self.store_health.fail(error.to_string());
            }
        }
    }
}
