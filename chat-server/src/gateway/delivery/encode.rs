//! Encodes frames once for many connections.

use std::borrow::Cow;

use bytes::Bytes;
use madang_engine::body;
use madang_engine::log::Row;
use madang_ids::{LogId, SealedCursor};
use madang_proto::{CloseReason, Entry, LogKind, ServerFrame, limits};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame as Framed;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

/// One or more whole WebSocket frames as they go over the wire (RFC 6455 §5). A server does not mask its frames, so all receivers
/// share the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    pub(in crate::gateway) fn text(json: String) -> Self {
        Self::of(Framed::message(json, OpCode::Data(Data::Text), true))
    }

    pub(in crate::gateway) fn binary(bytes: Bytes) -> Self {
        Self::of(Framed::message(bytes, OpCode::Data(Data::Binary), true))
    }

    /// The last frame of a connection.
    #[must_use]
    pub fn close(reason: CloseReason) -> Self {
        let frame = CloseFrame { code: reason.code().into(), reason: reason.text().into() };
        Self::of(Framed::close(Some(frame)))
    }

    /// Bytes that the library wrote: the answer to a ping or to a close frame.
    #[must_use]
    pub fn written(bytes: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(bytes))
    }

    fn of(frame: Framed) -> Self {
        let mut bytes = Vec::with_capacity(frame.len());
        // Writing to a `Vec` cannot fail.
        let written = frame.format(&mut bytes);
        debug_assert!(written.is_ok(), "encoding a frame failed");
        Self(bytes.into())
    }

    /// The header and the payload.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The number of bytes on the wire.
    #[expect(clippy::len_without_is_empty, reason = "no frame is empty")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// One `entries` frame with all of `rows`.
#[must_use]
pub fn entries(log: LogId, rows: &[Row]) -> Frame {
    let entries: Vec<Entry> = rows.iter().map(|row| row.entry.clone()).collect();
    let (kind, channel_id) = match log {
        LogId::Channel(channel) => (LogKind::Channel, Some(channel)),
        LogId::User(_) => (LogKind::User, None),
    };
    frame(&ServerFrame::Entries { log: kind, channel_id, entries: Cow::Owned(entries) })
}

/// Encodes rows as `entries` frames of at most 256 KiB each. One larger entry gets a frame of its own.
#[must_use]
pub fn batches(log: LogId, rows: &[Row]) -> Vec<Frame> {
    let mut frames = Vec::with_capacity(1);
    let (mut start, mut bytes) = (0, 0);
    for (index, row) in rows.iter().enumerate() {
        let size = body::entry_bytes(&row.entry.content);
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

/// Any other text frame.
#[must_use]
pub fn frame(frame: &ServerFrame<'_>) -> Frame {
    Frame::text(frame.to_json())
}

/// A `cursor` frame. The text of a sealed cursor needs no JSON escapes.
#[must_use]
pub fn cursor(cursor: &SealedCursor) -> Frame {
    Frame::text(format!(r#"{{"type":"cursor","cursor":"{cursor}"}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;
    use madang_auth::Cursors;
    use madang_ids::{Cursor, Epoch, Position, UserId};

    #[test]
    fn the_cursor_frame_is_what_the_protocol_says() {
        let cursors = Cursors::new(&[7; 32]).unwrap();
        for position in [9, 10] {
            let at = Cursor { epoch: Epoch::from_raw(7), position: Position::new(position) };
            let sealed = cursors.seal(UserId::from_raw(1), at).unwrap();
            let frame = cursor(&sealed);
            let [0x81, length, payload @ ..] = frame.bytes() else { panic!("no short text frame") };
            assert_eq!(usize::from(*length), payload.len());
            let parsed: ServerFrame<'_> = serde_json::from_slice(payload).unwrap();
            assert!(matches!(parsed, ServerFrame::Cursor { cursor } if cursor == sealed));
        }
    }

    #[test]
    fn a_close_frame_carries_code_and_reason() {
        let frame = Frame::close(CloseReason::DeviceRevoked);
        let [0x88, _, high, low, text @ ..] = frame.bytes() else { panic!("no close frame") };
        assert_eq!(u16::from_be_bytes([*high, *low]), CloseReason::DeviceRevoked.code());
        assert_eq!(text, CloseReason::DeviceRevoked.text().as_bytes());
    }
}
