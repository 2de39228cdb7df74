//! The positions up to which devices have received. The last position of each device is written once a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use madang_ids::{Cursor, DeviceId, SealedCursor, UserId};
use madang_proto::ErrorBody;
use parking_lot::Mutex;

use crate::operations::{Caller, Operations};

/// Positions that wait to be written, bounded by the number of connected devices. If a second of them is lost, only a push may be
/// repeated.
#[derive(Debug, Default)]
pub struct ReceivedMarks {
    waiting: Mutex<BTreeMap<(UserId, DeviceId), Cursor>>,
    /// Those that are being written. Until the write has returned, no reader of the store sees them.
    writing: Mutex<BTreeMap<(UserId, DeviceId), Cursor>>,
    /// Rounds since the last write. Set to [`PROBE_ROUNDS`] after a failure.
    idle_rounds: AtomicU32,
}

/// After this many rounds without a write, and after a failure, an empty set is written to find out whether the store accepts
/// writes.
const PROBE_ROUNDS: u32 = 10;

impl ReceivedMarks {
    /// A device has received everything up to `cursor`.
    pub fn put(&self, user: UserId, device: DeviceId, cursor: Cursor) {
        let mut waiting = self.waiting.lock();
        let mark = waiting.entry((user, device)).or_insert(cursor);
        if mark.epoch != cursor.epoch || mark.position < cursor.position {
            *mark = cursor;
        }
    }
}

impl ReceivedMarks {
    /// Positions that devices of a user have received, and that may not be in the store yet.
    #[must_use]
    pub fn of_user(&self, user: UserId) -> Vec<Cursor> {
        let devices = (user, DeviceId::from_raw(0))..=(user, DeviceId::from_raw(u64::MAX));
        let of = |marks: &Mutex<BTreeMap<_, Cursor>>| {
            marks.lock().range(devices.clone()).map(|(_, cursor)| *cursor).collect::<Vec<_>>()
        };
        // In this order: a mark goes from the first to the second.
        let waiting = of(&self.waiting);
        [waiting, of(&self.writing)].concat()
    }
}

impl Operations {
    /// Notes that the caller's device keeps everything up to `cursor`.
    ///
    /// # Errors
    /// `invalid` for a text that is not a cursor of the caller.
    pub fn note_received(&self, caller: Caller, cursor: &SealedCursor) -> Result<(), ErrorBody> {
        let opened = self.cursors.open(caller.user_id, cursor).ok_or_else(|| {
            ErrorBody::invalid("cursor", "cursor was not issued by this server to this user")
        })?;
        self.received.put(caller.user_id, caller.device_id, opened);
        Ok(())
    }

    /// Writes the positions that wait.
    pub async fn flush_received(&self) {
        let marks: Vec<(UserId, DeviceId, Cursor)> = {
            let (mut waiting, mut writing) = (self.received.waiting.lock(), self.received.writing.lock());
            *writing = std::mem::take(&mut *waiting);
            writing.iter().map(|((user, device), cursor)| (*user, *device, *cursor)).collect()
        };
        let idle = self.received.idle_rounds.fetch_add(1, Ordering::Relaxed);
        if marks.is_empty() && idle < PROBE_ROUNDS {
            return;
        }
        let written = match &self.upkeep {
            Some(upkeep) if marks.is_empty() => upkeep.probe().await,
            _ => self.store.set_received(&marks).await,
        };
        match written {
            Ok(()) => {
                self.received.writing.lock().clear();
                self.received.idle_rounds.store(0, Ordering::Relaxed);
                if self.store_health.pass() {
                    tracing::info!("the store accepts writes again");
                }
            }
            Err(error) => {
                let count = marks.len();
                // Written by the next round, unless the device has reported a later position meanwhile.
                marks.into_iter().for_each(|(user, device, cursor)| self.received.put(user, device, cursor));
                self.received.idle_rounds.store(PROBE_ROUNDS, Ordering::Relaxed);
                // The write is repeated each second. Only the change of state is logged.
                if self.store_health.fail(error.to_string()) {
                    tracing::warn!(%error, marks = count, "the store accepts no writes: saving the cursors of \
                         devices failed");
                }
            }
        }
    }
}
