//! Reasons for which the server closes a socket. Each says whether the client reconnects.

/// A close code. After 4000–4499 the client reconnects (with backoff). After 4500–4999 it does not: something must
/// change first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The node shuts down. A `reconnect` frame said when to come back.
    Draining,
    /// No `hello` arrived within 10 s.
    HelloTimeout,
    /// No heartbeat arrived, or the peer read no byte, for too long.
    Silent,
    /// The token expired while the socket was open, and no `auth` arrived.
    TokenExpired,
    /// The server failed.
    Internal,
    /// The node, the user or the address has used up its bytes in flight.
    Overloaded,
    /// The token in `hello` is not valid.
    Unauthorized,
    /// The device was revoked or logged out.
    DeviceRevoked,
    /// A newer connection of the same device took its place.
    Replaced,
    /// The peer violated this protocol. Reserved: at present such a frame is answered with an error.
    ProtocolViolation,
    /// RFC 6455: the framing is invalid: an unmasked frame, a reserved bit or opcode, a fragmented control frame.
    BrokenFraming,
    /// RFC 6455: a binary frame. This subprotocol has none.
    UnsupportedData,
    /// RFC 6455: a text that is not UTF-8.
    InvalidUtf8,
    /// RFC 6455: a frame above 2 MiB, or above 8 KiB before `welcome`.
    TooBig,
}

impl CloseReason {
    /// All reasons.
    pub const ALL: [Self; 14] = [
        Self::Draining,
        Self::HelloTimeout,
        Self::Silent,
        Self::TokenExpired,
        Self::Internal,
        Self::Overloaded,
        Self::Unauthorized,
        Self::DeviceRevoked,
        Self::Replaced,
        Self::ProtocolViolation,
        Self::BrokenFraming,
        Self::UnsupportedData,
        Self::InvalidUtf8,
        Self::TooBig,
    ];

    /// The code of the close frame.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::BrokenFraming => 1002,
            Self::InvalidUtf8 => 1007,
            Self::TooBig => 1009,
            Self::UnsupportedData => 1003,
            Self::Draining => 4000,
            Self::HelloTimeout => 4001,
            Self::Silent => 4002,
            Self::TokenExpired => 4003,
            Self::Internal => 4004,
            Self::Overloaded => 4005,
            Self::Unauthorized => 4500,
            Self::DeviceRevoked => 4501,
            Self::Replaced => 4502,
            Self::ProtocolViolation => 4503,
        }
    }

    /// The text of the close frame.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::BrokenFraming => "the framing of RFC 6455 is broken",
            Self::InvalidUtf8 => "a text frame is not UTF-8",
            Self::TooBig => "a frame is above 2 MiB, or above 8 KiB before welcome",
            Self::UnsupportedData => "binary frames are not supported by madang.v1.json",
            Self::Draining => "this node is draining",
            Self::HelloTimeout => "no hello within 10 s",
            Self::Silent => "no frame, or no byte accepted, for too long",
            Self::TokenExpired => "the token has expired",
            Self::Internal => "internal server error",
            Self::Overloaded => "too many bytes of this user, address or node are in progress",
            Self::Unauthorized => "the token is not valid",
            Self::DeviceRevoked => "this device was revoked",
            Self::Replaced => "replaced by a newer connection of this device or user",
            Self::ProtocolViolation => "the client violated the protocol",
        }
    }

    /// Whether a client reconnects by itself after a close with this code.
    #[must_use]
    pub const fn may_reconnect(code: u16) -> bool {
        !matches!(code, 4500..=4999)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_distinct_and_texts_fit_in_a_close_frame() {
        let codes: HashSet<u16> = CloseReason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), CloseReason::ALL.len());
        assert!(CloseReason::ALL.iter().all(|reason| reason.text().len() <= 123));
    }
}
