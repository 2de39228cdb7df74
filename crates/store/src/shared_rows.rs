//! Rows on their way from the writer to the gateway, which share one bound of bytes.

use std::ops::Deref;
use std::sync::Arc;

use madang_engine::body;
use tokio::sync::OwnedSemaphorePermit;

use crate::log::Row;

/// Rows that several places hold at once. Cheap to clone. The rows occupy their room in the feed of their store until the last
/// clone is dropped: rows that wait behind the feed count against the same bytes.
#[derive(Debug, Clone)]
pub struct SharedRows {
    rows: Arc<[Row]>,
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

impl SharedRows {
    /// The same rows, which hold `room` until the last clone is dropped.
    #[must_use]
    pub fn in_room(self, room: OwnedSemaphorePermit) -> Self {
        Self { _room: Some(Arc::new(room)), ..self }
    }

    /// About the bytes that they take in memory, with the messages that changes carry.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.rows.iter().map(|row| body::entry_bytes(&row.entry.content)).sum()
    }
}

impl Deref for SharedRows {
    type Target = [Row];

    fn deref(&self) -> &[Row] {
        &self.rows
    }
}

impl From<Arc<[Row]>> for SharedRows {
    fn from(rows: Arc<[Row]>) -> Self {
        Self { rows, _room: None }
    }
}

impl From<&[Row]> for SharedRows {
    fn from(rows: &[Row]) -> Self {
        Arc::<[Row]>::from(rows).into()
    }
}
