//! Follows the headers of WebSocket frames (RFC 6455 §5.2) in the bytes of one connection, before the library decodes them.
//!
//! The library returns only whole messages and control frames, and reserves memory for the length that a header announces. This
//! module counts and bounds the fragments and the bytes of a message that is not complete.

use madang_proto::CloseReason;

/// Two bytes, and at most eight bytes of length. The mask is counted with the payload.
const HEADER_BYTES: usize = 10;
const MASK_BYTES: u64 = 4;
/// The largest payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES: u64 = 125;

/// The state of the frame that is being received, and of the message that it belongs to.
#[derive(Debug)]
pub(in crate::gateway) struct Incoming {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that have arrived.
    filled: u8,
    /// Whether the header is complete.
    is_in_payload: bool,
    /// Bytes of the mask and the payload that have not arrived.
    left: u64,
    /// Payload bytes of the incomplete message, including the announced length of its last frame.
    message_bytes: usize,
    /// The largest message that is accepted, in bytes.
    limit_bytes: usize,
    /// The largest payload of a frame since [`Self::reset_largest`], in bytes.
    largest: usize,
    /// Frames that began since [`Self::take_frames`].
    frames: u32,
}

impl Incoming {
    /// A connection that has received no frame and accepts messages of at most `limit_bytes`.
    pub(in crate::gateway) const fn new(limit_bytes: usize) -> Self {
        Self {
            header: [0; HEADER_BYTES],
            filled: 0,
            is_in_payload: false,
            left: 0,
            message_bytes: 0,
            limit_bytes,
            largest: 0,
            frames: 0,
        }
    }

    /// Accepts messages of at most `limit_bytes` from now on.
    pub(in crate::gateway) const fn set_limit(&mut self, limit_bytes: usize) {
        self.limit_bytes = limit_bytes;
    }

    /// Payload bytes of the incomplete message, including the announced length of its last frame.
    pub(in crate::gateway) const fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Whether the next byte begins a frame and no message is incomplete.
    pub(in crate::gateway) const fn is_between_messages(&self) -> bool {
        self.filled == 0 && self.message_bytes == 0
    }

    /// The largest payload of a frame since [`Self::reset_largest`], in bytes.
    pub(in crate::gateway) const fn largest(&self) -> usize {
        self.largest
    }

    /// Forgets the largest payload.
    pub(in crate::gateway) const fn reset_largest(&mut self) {
        self.largest = 0;
    }

    /// The number of frames that began since the last call.
    pub(in crate::gateway) const fn take_frames(&mut self) -> u32 {
        std::mem::replace(&mut self.frames, 0)
    }

    /// Takes bytes up to the end of the frame to which the first byte belongs. Returns how many bytes that is.
    ///
    /// # Errors
    /// The frame is refused, and the connection must be closed with this reason.
    pub(in crate::gateway) fn take(&mut self, bytes: &[u8]) -> Result<usize, CloseReason> {
        let mut taken = 0;
        while !self.is_in_payload {
            let Some(&byte) = bytes.get(taken) else { return Ok(taken) };
            self.take_header_byte(byte)?;
            taken += 1;
        }
        let rest = u64::try_from(bytes.len() - taken).unwrap_or(u64::MAX).min(self.left);
        self.left -= rest;
        if self.left == 0 {
            self.end_frame();
        }
        Ok(taken + usize::try_from(rest).unwrap_or(usize::MAX))
    }

    fn take_header_byte(&mut self, byte: u8) -> Result<(), CloseReason> {
        self.header[usize::from(self.filled)] = byte;
        self.filled += 1;
        let length_bytes = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if self.filled < 2 || self.filled < 2 + length_bytes {
            return Ok(());
        }
        let length = match length_bytes {
            0 => u64::from(self.header[1] & 0x7f),
            _ => {
                let bytes = &self.header[2..usize::from(self.filled)];
                bytes.iter().fold(0, |length, &byte| length << 8 | u64::from(byte))
            }
        };
        self.begin_frame(length)
    }

    fn begin_frame(&mut self, length: u64) -> Result<(), CloseReason> {
        self.frames = self.frames.saturating_add(1);
        let (is_control, is_masked) = (self.header[0] & 0x08 != 0, self.header[1] & 0x80 != 0);
        if is_control && length > CONTROL_BYTES {
            return Err(CloseReason::BrokenFraming);
        }
        let payload = usize::try_from(length).unwrap_or(usize::MAX);
        if !is_control {
            self.message_bytes = self.message_bytes.saturating_add(payload);
            if self.message_bytes > self.limit_bytes {
                // Refused by the announced length, before a byte of the payload has arrived and before the library reserves
                // memory for it.
                return Err(CloseReason::TooBig);
            }
        }
        self.largest = self.largest.max(payload);
        self.is_in_payload = true;
        self.left = length + if is_masked { MASK_BYTES } else { 0 };
        Ok(())
    }

    const fn end_frame(&mut self) {
        let (is_control, is_last) = (self.header[0] & 0x08 != 0, self.header[0] & 0x80 != 0);
        if is_last && !is_control {
            self.message_bytes = 0;
        }
        self.filled = 0;
        self.is_in_payload = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

    fn written(frame: Frame) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.format(&mut bytes).unwrap();
        bytes
    }

    proptest! {
        /// Each call ends at the end of a frame and all frames are counted, whatever the size of the chunks.
        #[test]
        fn each_call_ends_at_the_end_of_a_frame(
            sizes in proptest::collection::vec(prop_oneof![0_usize..130, 65_000_usize..66_000], 1..8),
            chunk in 1_usize..3_000,
        ) {
            let frames: Vec<Vec<u8>> = sizes
                .iter()
                .map(|&size| written(Frame::message(vec![7; size], OpCode::Data(Data::Text), true)))
                .collect();
            let bytes = frames.concat();
            let mut ends: Vec<usize> =
                frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            let (mut incoming, mut at) = (Incoming::new(1 << 20), 0);
            while at < bytes.len() {
                let taken = incoming.take(&bytes[at..bytes.len().min(at + chunk)]).unwrap();
                prop_assert!(taken > 0);
                at += taken;
                prop_assert!(at <= ends[0]);
                prop_assert_eq!(incoming.is_between_messages(), at == ends[0]);
                if at == ends[0] {
                    ends.remove(0);
                }
            }
            prop_assert_eq!(incoming.take_frames() as usize, sizes.len());
            prop_assert_eq!(incoming.largest(), *sizes.iter().max().unwrap());
        }
    }

    #[test]
    fn a_message_is_counted_with_all_its_fragments_by_their_announced_length() {
        let mut incoming = Incoming::new(1_000);
        // A first fragment that announces 600 bytes, without a mask.
        assert_eq!(incoming.take(&[0x01, 126, 2, 88]), Ok(4));
        assert_eq!(incoming.message_bytes(), 600);
        assert_eq!(incoming.take(&[0; 1_000]), Ok(600));
        // A ping in between does not belong to the message.
        assert_eq!(incoming.take(&[0x89, 0]), Ok(2));
        assert_eq!(incoming.message_bytes(), 600);
        assert_eq!(incoming.take(&[0x80, 126, 1, 145]), Err(CloseReason::TooBig));
    }

    #[test]
    fn impossible_lengths_and_large_control_frames_are_refused_by_their_headers() {
        let announced = [&[0x81, 0xff][..], &[0xff; 8]].concat();
        assert_eq!(Incoming::new(1_000).take(&announced), Err(CloseReason::TooBig));
        assert_eq!(Incoming::new(1_000).take(&[0x89, 0xfe, 0, 126]), Err(CloseReason::BrokenFraming));
    }
}
