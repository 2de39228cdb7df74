//! A link to a CQL server that fails on demand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Whole,
    /// Connections are closed, and new ones too.
    Cut,
    /// Each piece of an answer is late by this.
    Slow(Duration),
    /// Requests arrive, and answers are lost. Connections stay open.
    HalfOpen,
}

/// The link. It ends with its handle.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    link: Arc<watch::Sender<Link>>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let link = Arc::new(watch::Sender::new(Link::Whole));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&link)));
        Self { addr, link, _tasks: tasks }
    }

    pub(crate) fn set(&self, link: Link) {
        self.link.send_replace(link);
    }
}

async fn accept(listener: TcpListener, server: String, link: Arc<watch::Sender<Link>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        if *link.borrow() == Link::Cut {
            continue;
        }
        let Ok(server) = TcpStream::connect(&server).await else { continue };
        let link = link.subscribe();
        connections.spawn(async move {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let mut cut = link.clone();
            tokio::select! {
                () = requests(from_client, to_server) => {}
                () = answers(from_server, to_client, link) => {}
                _ = cut.wait_for(|link| *link == Link::Cut) => {}
            }
        });
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    drop(tokio::io::copy(&mut from, &mut to).await);
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, link: watch::Receiver<Link>) {
    let mut bytes = vec![0; 65_536];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let now = *link.borrow();
        match now {
            Link::HalfOpen => continue,
            // waits for: nothing; the delay is what is tested
            Link::Slow(late) => sleep(late).await,
            Link::Whole | Link::Cut => {}
        }
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
