//! The frames that wait for one socket, and how much of the first one is written.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use smallvec::SmallVec;

use crate::gateway::delivery::encode::Frame;

/// Frames that are given to the kernel in one call.
const SLICES: usize = 32;
/// The capacity, in frames, that an empty queue may keep.
const KEPT: usize = 4;
/// The memory that a waiting frame costs besides its bytes.
const FRAME_COST: usize = 64;

/// Frames in order. Nothing is copied: the kernel reads the shared bytes of the frames.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Queue {
    frames: VecDeque<Frame>,
    /// The memory that the frames cost. A frame is counted until its last byte is written.
    bytes: usize,
    /// The bytes of the first frame that are written.
    written: usize,
}

impl Queue {
    pub(in crate::gateway) fn push(&mut self, frame: Frame) {
        self.bytes += frame.len() + FRAME_COST;
        self.frames.push_back(frame);
    }

    /// The memory that the waiting frames cost, in bytes: a frame of two bytes costs more than two.
    pub(in crate::gateway) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::gateway) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub(in crate::gateway) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Passes the first frames to `write`, which returns how many bytes it took. With `keeps_room` an empty queue keeps a
    /// capacity of up to [`KEPT`] frames, for a connection that soon needs it again.
    ///
    /// # Errors
    /// The error of `write`. Nothing is lost.
    pub(in crate::gateway) fn write(
        &mut self,
        keeps_room: bool,
        write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut slices: SmallVec<[IoSlice<'_>; SLICES]> = SmallVec::new();
        slices.extend(self.frames.iter().take(SLICES).map(|frame| IoSlice::new(frame.bytes())));
        if let Some(first) = slices.first_mut() {
            first.advance(self.written);
        }
        let taken = write(&slices)?;
        drop(slices);
        self.written += taken;
        while let Some(first) = self.frames.front().filter(|first| first.len() <= self.written) {
            self.written -= first.len();
            self.bytes -= first.len() + FRAME_COST;
            self.frames.pop_front();
        }
        if self.frames.is_empty() && (!keeps_room || self.frames.capacity() > KEPT) {
            // An idle connection keeps no memory of a burst.
            self.frames = VecDeque::new();
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The bytes come out in order, each once, in whatever portions the kernel takes them.
        #[test]
        fn pushed_bytes_come_out_in_order(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..80),
            takes in proptest::collection::vec(1_usize..300, 1..20),
        ) {
            let mut queue = Queue::default();
            let (mut expected, mut seen) = (Vec::new(), Vec::new());
            let mut takes = takes.into_iter().cycle();
            for frame in frames {
                queue.push(Frame::written(&frame));
                expected.extend(frame);
                if queue.bytes() > 1_000 {
                    take(&mut queue, &mut takes, &mut seen);
                }
            }
            while !queue.is_empty() {
                prop_assert!(queue.bytes() > expected.len() - seen.len());
                take(&mut queue, &mut takes, &mut seen);
            }
            prop_assert_eq!((queue.bytes(), seen), (0, expected));
        }
    }

    fn take(queue: &mut Queue, takes: &mut impl Iterator<Item = usize>, seen: &mut Vec<u8>) {
        let room = takes.next().unwrap_or(1);
        let write = |slices: &[IoSlice<'_>]| {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let count = room.min(bytes.len());
            seen.extend(&bytes[..count]);
            Ok(count)
        };
        queue.write(room.is_multiple_of(2), write).unwrap();
    }

    #[test]
    fn a_frame_that_was_refused_still_waits() {
        let mut queue = Queue::default();
        queue.push(Frame::written(b"frame"));
        assert!(queue.write(false, |_| Err(io::ErrorKind::WouldBlock.into())).is_err());
        assert_eq!((queue.bytes(), queue.is_empty()), (5 + FRAME_COST, false));
    }
}
