//! Bare servers: what the machine and the library can do when there is no other work.

use std::io::Write;
use std::net::TcpListener as BlockingListener;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::StreamExt;
use madang_proto::SUBPROTOCOL_JSON;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use tokio_util::task::TaskTracker;

use super::args::Reference;
use super::reader::ENTRIES;
use super::readers;
use super::socket::put_frame;

/// The same as in the server.
const READ_BUFFER_BYTES: usize = 1024;

/// Runs a bare server until it is killed.
pub(crate) async fn run(reference: Reference) -> anyhow::Result<()> {
    match reference {
        Reference::Idle => idle().await,
        Reference::Readers(args) => readers::serve(args).await,
        Reference::Watchers(args) => crate::hot::serve_watchers(args).await,
        Reference::Fanout { connections, write_bytes, frames, rate, seconds } => {
            let block = block(write_bytes, frames);
            let every = Duration::try_from_secs_f64(1.0 / rate)?;
            let lasts = Duration::from_secs(seconds);
            tokio::task::spawn_blocking(move || fanout(connections, &block, every, lasts)).await?
        }
    }
}

/// Accepts WebSockets and reads them, but sends nothing.
async fn idle() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("the reference listens on http://{}", listener.local_addr()?);
    let tasks = TaskTracker::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let of_handshake = tasks.clone();
        tasks.spawn(async move {
            match handshake(stream).await {
                // A new task as in the server: the present one still has the memory of the handshake.
                Ok(socket) => drop(of_handshake.spawn(hold(socket))),
                Err(error) => eprintln!("no handshake: {error:#}"),
            }
        });
    }
}

async fn handshake(stream: TcpStream) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    #[expect(clippy::result_large_err, reason = "the library's type")]
    let with_protocol = |_: &Request, mut response: Response| {
        let protocol = HeaderValue::from_static(SUBPROTOCOL_JSON);
        response.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        Ok(response)
    };
    Ok(accept_hdr_async_with_config(stream, with_protocol, Some(config)).await?)
}

async fn hold(mut socket: WebSocketStream<TcpStream>) {
    while let Some(Ok(_)) = socket.next().await {}
}

/// One thread that writes the same block to each connection in turn, repeatedly.
fn fanout(connections: usize, block: &[u8], every: Duration, lasts: Duration) -> anyhow::Result<()> {
    let listener = BlockingListener::bind("127.0.0.1:0")?;
    println!("the reference listens on http://{}", listener.local_addr()?);
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let (stream, _) = listener.accept().context("a reader did not connect")?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let begun = Instant::now();
    let mut next = begun;
    while begun.elapsed() < lasts {
        for stream in &mut streams {
            stream.write_all(block)?;
        }
        next += every;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    // Waits to be killed: its CPU time is read while it exists.
    loop {
        std::thread::park();
    }
}

/// Frames of about the given total size. Each begins as a frame of entries does.
fn block(write_bytes: usize, frames: usize) -> Vec<u8> {
    let frames = frames.max(1);
    let mut payload = ENTRIES.to_vec();
    payload.resize((write_bytes / frames).saturating_sub(4).max(ENTRIES.len()), b'x');
    let mut block = Vec::with_capacity(write_bytes);
    (0..frames).for_each(|_| put_frame(&mut block, &payload, false));
    block
}

#[cfg(test)]
mod tests {
    use super::block;

    #[test]
    fn a_block_has_the_bytes_of_a_write() {
        assert_eq!(block(4_000, 4).len(), 4_000);
    }
}
