//! Frames over Redis: each process reads one stream of presence, beside the one for envelopes, so that neither holds up the other.

use madang_bus::redis::{Received, StreamName, StreamReader, Streams};

use super::post::{Post, Transport};
use crate::core::ProcessRun;
use crate::metrics::FleetMetrics;

impl Transport for Streams {
    fn send(&self, to: ProcessRun, frame: Vec<u8>) -> bool {
        Self::send(self, &stream_of(to), frame.into())
    }
}

/// The stream of presence of a process.
fn stream_of(run: ProcessRun) -> StreamName {
    StreamName::new(&format!("p{}.{}", run.process, run.epoch.0))
}

/// The reader of the stream of this process.
#[must_use]
pub fn reader(streams: &Streams, me: ProcessRun) -> StreamReader {
    streams.reader(&stream_of(me))
}

/// Brings the frames of a stream to the roles of this process; never returns.
///
/// What the reader says of losses is only counted. The numbers of the frames show the same, for each sender, and only those that
/// are concerned begin again.
pub async fn receive(mut reader: StreamReader, post: Post, metrics: FleetMetrics) {
    loop {
        match reader.next().await {
            Received::Frame(frame) => post.receive(&frame),
            Received::Lost => drop(metrics.stream_losses.inc()),
        }
    }
}
