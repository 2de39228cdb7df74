//! The address of a socket.

use std::fmt;
use std::net::IpAddr;

use tokio_tungstenite::tungstenite::http::Uri;

use crate::error::ClientError;

/// The path of the socket on a server.
const SOCKET: &str = "/v1/ws";

/// The address of a socket on a server, with the ticket that it may contain.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) uri: Uri,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) is_tls: bool,
}

impl Endpoint {
    /// Parses the base URL of a server, `http://host:port` or `https://host:port`, or the URL of a socket,
    /// `ws://host:port/v1/ws` or `wss://…`, which is kept as it is.
    ///
    /// # Errors
    /// [`ClientError::Address`] for other schemes and for texts that are no URL.
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        Self::read(url).ok_or_else(|| ClientError::Address(without_query(url).to_owned()))
    }

    fn read(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (is_tls, is_base) = match scheme {
            "http" => (false, true),
            "https" => (true, true),
            "ws" => (false, false),
            "wss" => (true, false),
            _ => return None,
        };
        let base = rest.trim_end_matches('/');
        let has_path = base.contains(['/', '?']);
        let rest = if is_base || !has_path { format!("{base}{SOCKET}") } else { rest.to_owned() };
        let scheme = if is_tls { "wss" } else { "ws" };
        let uri: Uri = format!("{scheme}://{rest}").parse().ok()?;
        let host = uri.host()?.trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let is_base_with_query = is_base && uri.query().is_some();
        (!host.is_empty() && !is_base_with_query).then_some(Self { uri, host, port, is_tls })
    }

    /// The address that a server named: a URL, or a path on the server of this endpoint.
    ///
    /// # Errors
    /// [`ClientError::Address`] if it is neither.
    pub fn join(&self, url: &str) -> Result<Self, ClientError> {
        match self.uri.authority() {
            Some(authority) if url.starts_with('/') => {
                let scheme = if self.is_tls { "wss" } else { "ws" };
                Self::parse(&format!("{scheme}://{authority}{url}"))
            }
            _ => Self::parse(url),
        }
    }

    /// Whether the address is an IPv4 loopback address, so the server runs on this machine.
    #[must_use]
    pub fn is_loopback_v4(&self) -> bool {
        matches!(self.host.parse(), Ok(IpAddr::V4(address)) if address.is_loopback())
    }
}

/// Without the query, which contains a ticket: `ws://host:port/v1/ws`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(without_query(&self.uri.to_string()))
    }
}

/// As [`fmt::Display`], so that no ticket is logged.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> String {
        Endpoint::parse(url).unwrap().uri.to_string()
    }

    #[test]
    fn valid_addresses_are_parsed_and_others_refused() {
        assert_eq!(parsed("http://127.0.0.1:8080/"), "ws://127.0.0.1:8080/v1/ws");
        assert_eq!(parsed("https://chat.example"), "wss://chat.example/v1/ws");
        assert_eq!(parsed("http://chat.example/madang/"), "ws://chat.example/madang/v1/ws");
        assert_eq!(parsed("ws://127.0.0.1:8080"), "ws://127.0.0.1:8080/v1/ws");
        assert_eq!(
            parsed("wss://chat.example:444/v1/ws?ticket=a/b"),
            "wss://chat.example:444/v1/ws?ticket=a/b"
        );
        let tls = Endpoint::parse("https://[::1]").unwrap();
        assert_eq!((tls.host.as_str(), tls.port, tls.is_tls), ("::1", 443, true));
        assert_eq!(Endpoint::parse("http://chat.example").unwrap().port, 80);
        assert!(Endpoint::parse("http://127.0.0.1:8080").unwrap().is_loopback_v4());
        for url in ["", "127.0.0.1:8080", "ftp://example.org", "http://", "wss://", "/v1/ws", "http://x?a=b"]
        {
            assert!(Endpoint::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_path_belongs_to_the_server_that_named_it() {
        let base = Endpoint::parse("https://chat.example:444/prefix").unwrap();
        let joined = |url| base.join(url).unwrap().uri.to_string();
        assert_eq!(joined("/v1/ws?ticket=x"), "wss://chat.example:444/v1/ws?ticket=x");
        assert_eq!(joined("ws://10.0.0.7/v1/ws?ticket=y"), "ws://10.0.0.7/v1/ws?ticket=y");
        assert!(base.join("somewhere").is_err());
    }

    #[test]
    fn no_text_contains_the_ticket() {
        let endpoint = Endpoint::parse("ws://chat.example/v1/ws?ticket=secret").unwrap();
        assert_eq!(
            format!("{endpoint} {endpoint:?}"),
            "ws://chat.example/v1/ws Endpoint(ws://chat.example/v1/ws)"
        );
        let refused = Endpoint::parse("gopher://chat.example/v1/ws?ticket=secret").unwrap_err();
        assert!(!refused.to_string().contains("secret"), "{refused}");
    }
}
