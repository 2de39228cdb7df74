//! The cursors that this store has given out: an epoch for each process start, and the position at which it began.

use madang_ids::{Cursor, Position};
use madang_proto::SnapshotReason;
use madang_store::EpochRow;

/// The process starts of one store, in order. The last one is this process.
#[derive(Debug)]
pub(super) struct Epochs {
    rows: Vec<EpochRow>,
    current: EpochRow,
}

impl Epochs {
    pub(super) const fn new(rows: Vec<EpochRow>, current: EpochRow) -> Self {
        Self { rows, current }
    }

    /// A cursor of this start.
    pub(super) const fn cursor(&self, position: Position) -> Cursor {
        Cursor { epoch: self.current.epoch, position }
    }

    /// A cursor is valid if its epoch is listed and its position is not beyond the next epoch's start: a restored
    /// backup lacks the epochs after it, or what was committed after it.
    pub(super) fn check(&self, cursor: Cursor, end: Position) -> Result<(), SnapshotReason> {
        let index = self.rows.iter().rposition(|row| row.epoch == cursor.epoch);
        let index = index.ok_or(SnapshotReason::ForeignCursor)?;
        let end = self.rows.get(index + 1).map_or(end, |next| next.start);
        if cursor.position <= end { Ok(()) } else { Err(SnapshotReason::BeyondStore) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::Epoch;

    #[test]
    fn a_cursor_is_accepted_if_its_start_is_known_and_reached_it() {
        let row = |epoch, start| EpochRow { epoch: Epoch::from_raw(epoch), start: Position::new(start) };
        let epochs = Epochs::new(vec![row(1, 0), row(2, 10), row(3, 25)], row(3, 25));
        let check = |epoch, position| {
            let cursor = Cursor { epoch: Epoch::from_raw(epoch), position: Position::new(position) };
            epochs.check(cursor, Position::new(30))
        };
        assert_eq!(check(1, 10), Ok(()));
        assert_eq!(check(1, 11), Err(SnapshotReason::BeyondStore));
        assert_eq!(check(2, 3), Ok(()));
        assert_eq!(check(3, 30), Ok(()));
        assert_eq!(check(3, 31), Err(SnapshotReason::BeyondStore));
        assert_eq!(check(4, 1), Err(SnapshotReason::ForeignCursor));
    }
}
