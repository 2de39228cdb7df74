//! One socket: connect, `hello`, frames in both directions. It keeps no state beyond the socket; [`crate::Client`]
//! does.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use madang_ids::SealedCursor;
use madang_proto::limits::FRAME_BYTES_LIBRARY;
use madang_proto::{ClientFrame, Hello, Request, RequestId, SUBPROTOCOL_JSON, ServerFrame, Welcome};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::endpoint::Endpoint;
use crate::error::ClientError;
use crate::trust::Trust;

/// Largest read from the kernel. The default of the library, 128 KiB, is allocated and zeroed for each connection; this
/// value keeps thousands of idle clients in one process small.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Time limit for each step: TCP connect, TLS handshake, upgrade, `welcome`.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// RFC 6455, 7.1.5: the code of a connection that ended without a close frame.
const NO_CLOSE_FRAME: u16 = 1006;

/// Options of the socket.
#[derive(Debug, Clone, Default)]
pub struct SocketOptions {
    /// Local address of the connection. One address has too few ports for a process with many thousands of clients.
    pub source: Option<IpAddr>,
    /// Whether dropping the connection resets it at once, without a close frame, like a phone that loses its network.
    pub reset_on_drop: bool,
    /// The root certificates that a `wss://` server is checked against.
    pub trust: Trust,
}

/// A frame that was received.
#[derive(Debug)]
pub enum Incoming {
    /// A text frame. Decode it with [`Connection::decode`].
    Text(Utf8Bytes),
    /// The connection ended.
    Closed {
        /// The close code; 1006 if there was no close frame.
        code: u16,
        /// The text of the close frame.
        reason: String,
    },
}

/// TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + std::fmt::Debug> Stream for T {}

/// An open socket.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<Box<dyn Stream>>,
}

impl Connection {
    /// Opens a TCP connection, with TLS for `wss://`, and upgrades it. Each of these steps ends within 10 s.
    ///
    /// # Errors
    /// If the server is not reachable, has no certificate that is trusted, or does not speak this protocol.
    pub async fn open(endpoint: &Endpoint, options: &SocketOptions) -> Result<Self, ClientError> {
        let tcp = in_time(connect(endpoint, options)).await?;
        let stream: Box<dyn Stream> = if endpoint.is_tls {
            Box::new(in_time(secure(endpoint, tcp, &options.trust)).await?)
        } else {
            Box::new(tcp)
        };
        let request = ClientRequestBuilder::new(endpoint.uri.clone()).with_sub_protocol(SUBPROTOCOL_JSON);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_frame_size(Some(FRAME_BYTES_LIBRARY))
            .max_message_size(Some(FRAME_BYTES_LIBRARY));
        let upgrade = async { Ok(client_async_with_config(request, stream, Some(config)).await?) };
        let (socket, _response) = in_time(upgrade).await?;
        Ok(Self { socket })
    }

    /// Sends `hello` and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError::Refused`] or [`ClientError::Closed`] if the server does not accept this device.
    pub async fn hello(&mut self, token: &str, cursor: Option<SealedCursor>) -> Result<Welcome, ClientError> {
        let hello = Hello { token: token.to_owned(), cursor };
        self.send(&Request { id: Some(RequestId("hello".into())), frame: ClientFrame::Hello(hello) }).await?;
        let text = match in_time(self.next()).await? {
            Incoming::Text(text) => text,
            Incoming::Closed { code, reason } => return Err(ClientError::Closed { code, reason }),
        };
        match Self::decode(&text)? {
            ServerFrame::Welcome(welcome) => Ok(*welcome),
            ServerFrame::Error { error, .. } => Err(ClientError::Refused(error)),
            _ => Err(ClientError::Protocol("the answer to hello is neither welcome nor error".into())),
        }
    }

    /// Writes one frame and flushes it.
    ///
    /// # Errors
    /// If the socket is closed.
    pub async fn send(&mut self, request: &Request) -> Result<(), ClientError> {
        self.feed(request).await?;
        self.flush().await
    }

    /// Writes one frame into the buffer. [`Self::flush`] sends the buffer.
    ///
    /// # Errors
    /// If the socket is closed.
    pub async fn feed(&mut self, request: &Request) -> Result<(), ClientError> {
        let text =
            serde_json::to_string(request).map_err(|error| ClientError::Protocol(error.to_string()))?;
        Ok(self.socket.feed(Message::Text(text.into())).await?)
    }

    /// Sends all buffered frames.
    ///
    /// # Errors
    /// If the socket is closed.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        Ok(self.socket.flush().await?)
    }

    /// The next text frame, or the end of the connection. Answers pings meanwhile. Cancel safe.
    ///
    /// # Errors
    /// If the socket fails in another way than by ending, or if the server sends a binary frame.
    pub async fn next(&mut self) -> Result<Incoming, ClientError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Incoming::Text(text)),
                Some(Ok(Message::Close(frame))) => return Ok(closed(frame)),
                Some(Ok(Message::Binary(_))) => return Err(ClientError::Protocol("binary frame".into())),
                Some(Ok(_)) => {}
                Some(Err(error)) if is_end(&error) => return Ok(closed(None)),
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(closed(None)),
            }
        }
    }

    /// Decodes a text frame.
    ///
    /// # Errors
    /// If it is not a server frame of this protocol.
    pub fn decode(text: &str) -> Result<ServerFrame<'static>, ClientError> {
        madang_proto::json::read(text).map_err(|error| ClientError::Protocol(error.to_string()))
    }

    /// Sends a close frame. Errors are ignored: the connection ends in any case.
    pub async fn close(mut self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.socket.close(None)).await;
    }
}

/// Connects to the first address of the host that accepts: a name may have an address of IPv6 and one of IPv4 while the
/// server listens on one of them.
async fn connect(endpoint: &Endpoint, options: &SocketOptions) -> Result<TcpStream, ClientError> {
    let addresses = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await?;
    let mut failed = ClientError::Address(endpoint.to_string());
    for address in addresses {
        match dial(address, options).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error.into(),
        }
    }
    Err(failed)
}

async fn dial(address: SocketAddr, options: &SocketOptions) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = options.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    if options.reset_on_drop {
        socket.set_zero_linger()?;
    }
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

async fn secure(
    endpoint: &Endpoint,
    tcp: TcpStream,
    trust: &Trust,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| ClientError::Address(endpoint.to_string()))?;
    Ok(TlsConnector::from(trust.config()?).connect(name, tcp).await?)
}

async fn in_time<T>(step: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    match tokio::time::timeout(STEP_TIMEOUT, step).await {
        Ok(result) => result,
        Err(_) => Err(ClientError::Timeout(STEP_TIMEOUT.as_secs() * 1_000)),
    }
}

fn closed(frame: Option<CloseFrame>) -> Incoming {
    match frame {
        Some(frame) => Incoming::Closed { code: frame.code.into(), reason: frame.reason.to_string() },
        None => Incoming::Closed { code: NO_CLOSE_FRAME, reason: "connection lost".into() },
    }
}

/// Whether the error means that the connection ended. A killed process may leave its sockets in any of these ways.
const fn is_end(error: &tungstenite::Error) -> bool {
    matches!(
        error,
        tungstenite::Error::ConnectionClosed
            | tungstenite::Error::AlreadyClosed
            | tungstenite::Error::Io(_)
            | tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)
    )
}
