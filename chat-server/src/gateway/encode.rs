//! Encodes once what many connections get.

use std::borrow::Cow;

use axum::extract::ws::Utf8Bytes;
use madang_engine::body;
use madang_engine::log::Row;
use madang_ids::{Cursor, LogId};
use madang_proto::{Entry, LogKind, ServerFrame, limits};

/// A text frame, shared by whoever gets it.
pub type Frame = Utf8Bytes;

/// One `entries` frame with all of `rows`.
#[must_use]
pub fn entries(log: LogId, rows: &[Row]) -> Frame {
    let entries: Vec<Entry> = rows.iter().map(|row| row.entry.clone()).collect();
    let (kind, channel_id) = match log {
        LogId::Channel(channel) => (LogKind::Channel, Some(channel)),
        LogId::User(_) => (LogKind::User, None),
    };
    ServerFrame::Entries { log: kind, channel_id, entries: Cow::Owned(entries) }.to_json().into()
}

/// `entries` frames of at most 256 KiB each, unless one entry alone is larger.
#[must_use]
pub fn batches(log: LogId, rows: &[Row]) -> Vec<Frame> {
    let mut frames = Vec::with_capacity(1);
    let (mut start, mut bytes) = (0, 0);
    for (index, row) in rows.iter().enumerate() {
        let size = row.entry.content.message().map_or(0, |message| body::json_bytes(&message.body)) + 512;
        if bytes + size > limits::BATCH_BYTES_OUT && index > start {
            frames.push(entries(log, &rows[start..index]));
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < rows.len() {
        frames.push(entries(log, &rows[start..]));
    }
    frames
}

/// A `cursor` frame.
#[must_use]
pub fn cursor(cursor: Cursor) -> Frame {
    format!(r#"{{"type":"cursor","cursor":"{cursor}"}}"#).into()
}

/// Any other frame.
#[must_use]
pub fn frame(frame: &ServerFrame<'_>) -> Frame {
    frame.to_json().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_ids::{Epoch, Position};

    #[test]
    fn the_cursor_frame_is_what_the_protocol_says() {
        let at = Cursor { epoch: Epoch::from_raw(7), position: Position::new(9) };
        let parsed: ServerFrame<'_> = serde_json::from_str(cursor(at).as_str()).unwrap();
        assert!(matches!(parsed, ServerFrame::Cursor { cursor } if cursor == at));
    }
}
