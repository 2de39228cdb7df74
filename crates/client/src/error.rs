//! Errors between this client and a server.

use madang_proto::ErrorBody;

/// Why a call or a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered with an error.
    #[error("refused: {0}")]
    Refused(ErrorBody),
    /// The address cannot be used by this client.
    #[error("{0:?} is not an address of a server: expected http://host:port or https://host:port")]
    Address(String),
    /// The root certificates that this client should trust cannot be read.
    #[error("no usable root certificates: {0}")]
    Trust(String),
    /// The call did not reach the server, or the answer was not received completely. The outcome is unknown.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Socket(#[from] Box<tokio_tungstenite::tungstenite::Error>),
    /// The connection could not be opened.
    #[error("could not connect: {0}")]
    Connect(#[from] std::io::Error),
    /// Nothing was received in time.
    #[error("no answer within {0} ms")]
    Timeout(u64),
    /// The server closed the connection.
    #[error("closed with {code}: {reason}")]
    Closed {
        /// The close code; 1006 if there was no close frame (RFC 6455, 7.1.5).
        code: u16,
        /// The text of the close frame.
        reason: String,
    },
    /// The server sent something that this client does not understand.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The server's error, if it answered with one.
    #[must_use]
    pub const fn refusal(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused(body) => Some(body),
            _ => None,
        }
    }

    /// Whether the same call may succeed later: true for everything except a final refusal, an invalid address and
    /// missing root certificates.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(body) => body.retryable,
            Self::Address(_) | Self::Trust(_) | Self::Protocol(_) => false,
            _ => true,
        }
    }
}

impl From<tokio_tungstenite::tungstenite::Error> for ClientError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::Socket(Box::new(error))
    }
}
