//! Listens for one group of faces, and drives its connections. No connection outlives the listening task.

mod connection;
mod exchange;
mod frames;

use std::sync::Arc;

use rustls::Error as RustlsError;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::answer::{Answer, Request};
use crate::faults::FaultPlan;
use crate::ledger::Ledger;
use crate::notice::{Blame, Face};
use crate::tls::ALPN;

/// Streams that a connection may have at the same time.
const STREAMS: u32 = 1_000;

/// What a face decides. It never waits, so that no lock is held across an `.await`.
pub(crate) trait Service: Send + Sync + 'static {
    /// What a face remembers of one connection.
    type Connection: Default + Send + Sync + 'static;

    /// The face to which a path belongs: faults and counts are by face.
    fn face(&self, path: &str) -> Face;

    /// Checks a request, records what follows, and answers.
    fn answer(&self, connection: &Self::Connection, request: &Request) -> Answer;

    /// Whether the connection may have only one stream for now. It never changes back to true.
    fn is_limited(&self, _connection: &Self::Connection) -> bool {
        false
    }
}

/// What all connections of a port share.
pub(crate) struct Port<S> {
    pub(crate) service: Arc<S>,
    pub(crate) faults: Arc<FaultPlan>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) acceptor: TlsAcceptor,
}

impl<S: Service> Port<S> {
    /// Accepts connections until it is dropped.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let port = Arc::new(self);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    // An error concerns one connection that ended early, or a lack of file descriptors that ends with others.
                    if let Ok((stream, _)) = accepted {
                        let port = Arc::clone(&port);
                        connections.spawn(async move { port.connection(stream).await });
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        // Answers are small: waiting for more to send would delay each by up to 40 ms.
        let _ = stream.set_nodelay(true);
        match self.acceptor.accept(stream).await {
            Ok(tls) if tls.get_ref().1.alpn_protocol() == Some(ALPN) => self.drive(tls).await,
            Ok(_) => self.refuse_protocol("the client did not offer h2 by ALPN"),
            Err(error) if is_without_protocol(&error) => {
                self.refuse_protocol("the client offered other protocols than h2 by ALPN");
            }
            // The client does not trust the certificate, or gave up.
            Err(_) => {}
        }
    }

    async fn drive(&self, tls: TlsStream<TcpStream>) {
        self.ledger.count_connection(self.service.face(""));
        // The connection broke or the client broke the protocol: its requests failed visibly, so that nothing is to be recorded.
        let _ = connection::drive(self, tls).await;
    }

    fn refuse_protocol(&self, detail: &str) {
        self.ledger.refuse(self.service.face(""), "", (0, "NotHttp2"), detail, Blame::Request);
    }
}

fn is_without_protocol(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<RustlsError>());
    matches!(inner, Some(RustlsError::NoApplicationProtocol))
}
