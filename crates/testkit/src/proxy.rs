//! A proxy in front of a node that causes faults which a node cannot be asked for: it loses a frame, replaces one, cuts
//! a connection, or refuses connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::Context;
use parking_lot::Mutex;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::raw::{TEXT, frame_head, read_frame};

/// What happens to a text frame of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is forwarded.
    Pass,
    /// It is dropped.
    Lose,
    /// This text is forwarded instead.
    Replace(String),
    /// The connection is cut before it.
    Cut,
}

type Rule = Box<dyn FnMut(&str) -> Fate + Send>;

/// Listens on a port of its own. Its connections are cut when it is dropped.
pub struct Proxy {
    /// The address on which it listens.
    pub addr: SocketAddr,
    line: Arc<Line>,
    _serving: JoinSet<()>,
}

struct Line {
    server: SocketAddr,
    rule: Mutex<Option<Rule>>,
    is_away: AtomicBool,
    tries: AtomicUsize,
    cuts: watch::Sender<()>,
}

impl Proxy {
    /// Starts a proxy in front of `server`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let line = Arc::new(Line {
            server,
            rule: Mutex::new(None),
            is_away: AtomicBool::new(false),
            tries: AtomicUsize::new(0),
            cuts: watch::channel(()).0,
        });
        let mut serving = JoinSet::new();
        serving.spawn(Arc::clone(&line).serve(listener));
        Ok(Self { addr, line, _serving: serving })
    }

    /// The base URL, `http://…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Applies `rule` to every text frame of the server from now on, on all sockets.
    pub fn rule(&self, rule: impl FnMut(&str) -> Fate + Send + 'static) {
        *self.line.rule.lock() = Some(Box::new(rule));
    }

    /// Cuts every open connection without a close frame.
    pub fn cut(&self) {
        self.line.cuts.send_replace(());
    }

    /// While it is away, it closes each new connection at once, and each connection of REST calls at its next call. Open
    /// sockets stay.
    pub fn set_away(&self, is_away: bool) {
        self.line.is_away.store(is_away, Ordering::SeqCst);
    }

    /// Number of connections that were opened so far, and of calls that it refused on open connections.
    #[must_use]
    pub fn tries(&self) -> usize {
        self.line.tries.load(Ordering::SeqCst)
    }
}

impl Line {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    self.tries.fetch_add(1, Ordering::SeqCst);
                    let away = self.is_away.load(Ordering::SeqCst);
                    if let (Ok((client, _)), false) = (accepted, away) {
                        connections.spawn(Arc::clone(&self).hold(client));
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Forwards one connection until either side or a cut ends it.
    async fn hold(self: Arc<Self>, client: TcpStream) {
        let mut cuts = self.cuts.subscribe();
        tokio::select! {
            // The test sees from its own side how a connection ends.
            _ = self.carry(client) => {}
            _ = cuts.changed() => {}
        }
    }

    async fn carry(&self, client: TcpStream) -> anyhow::Result<()> {
        let server = TcpStream::connect(self.server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, mut to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        let (mut from_client, mut from_server) = (BufReader::new(from_client), BufReader::new(from_server));
        let request = head(&mut from_client).await?;
        to_server.write_all(&request).await?;
        let is_socket = request.starts_with(b"GET /v1/ws");
        let up = async {
            if is_socket {
                Ok(tokio::io::copy_buf(&mut from_client, &mut to_server).await.map(drop)?)
            } else {
                self.calls(&mut from_client, &mut to_server).await
            }
        };
        let down = async {
            if is_socket {
                self.frames(&mut from_server, &mut to_client).await
            } else {
                Ok(tokio::io::copy_buf(&mut from_server, &mut to_client).await.map(drop)?)
            }
        };
        // If one direction ends, the other ends too.
        tokio::select! {
            ended = up => ended,
            ended = down => ended,
        }
    }

    /// Forwards REST calls until the client ends or the proxy is away.
    async fn calls(
        &self,
        client: &mut (impl AsyncBufRead + Unpin),
        server: &mut OwnedWriteHalf,
    ) -> anyhow::Result<()> {
        loop {
            let bytes = client.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(());
            }
            if self.is_away.load(Ordering::SeqCst) {
                self.tries.fetch_add(1, Ordering::SeqCst);
                return Ok(());
            }
            let count = bytes.len();
            server.write_all(bytes).await?;
            client.consume(count);
        }
    }

    async fn frames(
        &self,
        server: &mut (impl AsyncRead + Unpin),
        client: &mut OwnedWriteHalf,
    ) -> anyhow::Result<()> {
        client.write_all(&head(server).await?).await?;
        loop {
            let (opcode, payload) = read_frame(server).await?;
            let fate = if opcode == TEXT { self.fate(std::str::from_utf8(&payload)?) } else { Fate::Pass };
            let payload = match fate {
                Fate::Pass => payload,
                Fate::Lose => continue,
                Fate::Replace(text) => text.into_bytes(),
                Fate::Cut => return Ok(()),
            };
            let mut frame = frame_head(true, opcode, payload.len(), false);
            frame.extend(payload);
            client.write_all(&frame).await?;
        }
    }

    fn fate(&self, text: &str) -> Fate {
        self.rule.lock().as_mut().map_or(Fate::Pass, |rule| rule(text))
    }
}

/// The bytes before the body of a request or an answer.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.context("a head")?);
    }
    Ok(head)
}
