//! One HTTP/2 connection: requests run side by side in the task of the connection.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::exchange::{End, exchange};
use super::frames::{FrameTap, Frames};
use super::{Port, STREAMS, Service};
use crate::faults::Fault;
use crate::notice::Blame;

/// The window of all bodies of a connection, so that bodies of many streams do not wait for each other.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// A client closes the connection after GOAWAY. One that does not is cut after this time.
const LINGER: Duration = Duration::from_secs(2);

type Http2 = Connection<FrameTap<TlsStream<TcpStream>>, Bytes>;
type Accepted = (Request<RecvStream>, SendResponse<Bytes>);

/// Serves a connection until it ends.
///
/// # Errors
/// If the connection breaks, or if the client breaks the protocol.
pub(super) async fn drive<S: Service>(port: &Port<S>, tls: TlsStream<TcpStream>) -> Result<(), h2::Error> {
    let memory = S::Connection::default();
    let (tap, frames) = FrameTap::new(tls);
    let mut is_limited = port.service.is_limited(&memory);
    let mut builder = Builder::new();
    builder.initial_connection_window_size(WINDOW_BYTES).data_frame_budget(WINDOW_BYTES as usize);
    if is_limited {
        frames.announce_streams(1);
    } else {
        builder.max_concurrent_streams(STREAMS);
    }
    let mut http2: Http2 = builder.handshake(tap).await?;
    let mut exchanges = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = http2.accept() => {
                let Some(accepted) = accepted else { return Ok(()) };
                let (request, mut respond) = accepted?;
                let path = request.uri().path();
                if is_limited && !exchanges.is_empty() {
                    refuse_stream(port, path, &mut respond);
                    continue;
                }
                let face = port.service.face(path);
                port.ledger.count_request(face);
                match port.faults.take(face) {
                    Some(Fault::GoAway) => {
                        let held = (request, respond);
                        return go_away(http2, &frames, pin!(exchanges.map(drop)), held).await;
                    }
                    Some(Fault::RefusedStream) => respond.send_reset(Reason::REFUSED_STREAM),
                    fault => exchanges.push(exchange(port, &memory, (request, respond), fault)),
                }
            }
            Some(end) = exchanges.next() => {
                if matches!(end, End::Cut) {
                    return Ok(());
                }
                if is_limited && !port.service.is_limited(&memory) {
                    is_limited = false;
                    frames.announce_streams(STREAMS);
                }
            }
        }
    }
}

/// RFC 9113, section 5.1.2: a stream above the announced number is refused.
fn refuse_stream<S: Service>(port: &Port<S>, path: &str, respond: &mut SendResponse<Bytes>) {
    let detail = "the connection may have one stream until its first authenticated request was answered";
    port.ledger.refuse(port.service.face(path), path, (0, "TooManyStreams"), detail, Blame::Request);
    respond.send_reset(Reason::REFUSED_STREAM);
}

/// Sends GOAWAY for everything from the request in `held` on. Requests below it are answered in `exchanges`; those above it, which
/// the client may have sent already, stay without an answer.
async fn go_away(
    mut http2: Http2,
    frames: &Frames,
    mut exchanges: impl futures_util::Stream<Item = ()> + Unpin,
    held: Accepted,
) -> Result<(), h2::Error> {
    let last = held.1.stream_id().as_u32().saturating_sub(2);
    frames.go_away(last);
    // Dropping a request would reset its stream.
    let mut held = vec![held];
    let until_closed = async {
        loop {
            tokio::select! {
                accepted = http2.accept() => match accepted {
                    Some(accepted) => held.push(accepted?),
                    None => return Ok(()),
                },
                Some(()) = exchanges.next() => {}
            }
        }
    };
    timeout(LINGER, until_closed).await.unwrap_or(Ok(()))
}
