//! For whom a connection asks: the peer itself, or the client that a trusted proxy names.
//!
//! Each proxy writes the address that it was asked from behind what was there, so the list is read from its end, and
//! only as far as those who wrote it are trusted. What a client wrote into it herself is left of that.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;

use crate::config::{ProxyHeader, ServerConfig};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Whether what this peer says about its client is believed.
#[must_use]
pub fn is_trusted(address: IpAddr, config: &ServerConfig) -> bool {
    let address = address.to_canonical();
    config.trusted_proxies.iter().any(|network| network.contains(&address))
}

/// Peers that say for whom they ask and are not believed. Each is logged once, and so are few: anybody may send the header.
#[derive(Debug, Default)]
pub(crate) struct Unnamed(Mutex<HashSet<IpAddr>>);

/// Peers that are logged.
const UNNAMED: usize = 32;

impl Unnamed {
    /// Warns if `peer` seems to be a proxy that is not in `server.trusted_proxies`.
    pub(crate) fn note(&self, peer: IpAddr, headers: &HeaderMap) {
        let is_said = headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED);
        if is_said && self.is_new(peer.to_canonical()) {
            tracing::warn!(
                peer.address = %peer.to_canonical(),
                "a peer that is not in server.trusted_proxies sends X-Forwarded-For or Forwarded: if it is your proxy, name it \
                 there; until then all of its clients count as one address"
            );
        }
    }

    fn is_new(&self, peer: IpAddr) -> bool {
        let mut peers = self.0.lock();
        peers.len() < UNNAMED && peers.insert(peer)
    }
}

/// The address of the client behind `peer`: the last one that no trusted proxy has. Where a proxy names nobody, or
/// something that is no address, it is the proxy's own.
#[must_use]
pub fn client(peer: IpAddr, headers: &HeaderMap, config: &ServerConfig) -> IpAddr {
    let mut client = peer.to_canonical();
    if config.trusted_proxies.is_empty() {
        return client;
    }
    let name = match config.proxy_header {
        ProxyHeader::XForwardedFor => header::HeaderName::from_static(X_FORWARDED_FOR),
        ProxyHeader::Forwarded => header::FORWARDED,
    };
    for hop in headers.get_all(name).iter().rev().flat_map(hops) {
        let named = match config.proxy_header {
            ProxyHeader::XForwardedFor => address(hop),
            ProxyHeader::Forwarded => forwarded_for(hop).and_then(address),
        };
        match named.filter(|_| is_trusted(client, config)) {
            Some(named) => client = named,
            None => break,
        }
    }
    client
}

/// From the last to the first. Commas in quotes part as well: see [`forwarded_for`].
fn hops(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .as_bytes()
        .rsplit(|&byte| byte == b',')
        .map(|hop| std::str::from_utf8(hop).unwrap_or_default().trim())
}

/// The one `for` of an element of `Forwarded` (RFC 7239 §4). An element with a backslash or half a quote may be part of
/// something that a client made the proxy quote, such as her `Host`, and says nothing.
fn forwarded_for(element: &str) -> Option<&str> {
    if element.contains('\\') || !element.matches('"').count().is_multiple_of(2) {
        return None;
    }
    let mut values = element.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value.trim())
    });
    let value = values.next().filter(|_| values.next().is_none())?;
    Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
}

/// With or without a port, with or without the brackets of IPv6.
fn address(text: &str) -> Option<IpAddr> {
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let address = text.parse().ok().or_else(with_port).or_else(in_brackets)?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn config(header: ProxyHeader) -> ServerConfig {
        let trusted_proxies = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).into();
        ServerConfig { trusted_proxies, proxy_header: header, ..ServerConfig::default() }
    }

    fn seen_in(header: ProxyHeader, peer: &str, values: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in values {
            headers.append(*name, value.parse().unwrap());
        }
        client(peer.parse().unwrap(), &headers, &config(header)).to_string()
    }

    /// Each value is a header of its own.
    fn x(peer: &str, values: &[&str]) -> String {
        let values: Vec<_> = values.iter().map(|&value| (X_FORWARDED_FOR, value)).collect();
        seen_in(ProxyHeader::XForwardedFor, peer, &values)
    }

    fn forwarded(value: &str) -> String {
        seen_in(ProxyHeader::Forwarded, PROXY, &[("forwarded", value)])
    }

    #[test]
    fn a_peer_that_is_not_named_is_logged_once_and_there_is_a_bound() {
        let unnamed = Unnamed::default();
        let peer = |last: usize| IpAddr::from([10, 0, 0, u8::try_from(last).unwrap()]);
        assert!(unnamed.is_new(peer(1)) && !unnamed.is_new(peer(1)));
        let logged = (1..100).filter(|&last| unnamed.is_new(peer(last))).count();
        assert_eq!(logged, UNNAMED - 1);
    }

    #[test]
    fn nobody_else_is_believed() {
        assert_eq!(x("203.0.113.7", &["198.51.100.1"]), "203.0.113.7");
        assert_eq!(x("::ffff:203.0.113.7", &["198.51.100.1"]), "203.0.113.7");
        let nobody = ServerConfig::default();
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, "198.51.100.1".parse().unwrap());
        assert_eq!(client(PROXY.parse().unwrap(), &headers, &nobody).to_string(), PROXY);
    }

    #[test]
    fn what_the_client_wrote_herself_is_not_read() {
        assert_eq!(x(PROXY, &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(x(PROXY, &["1.1.1.1, 198.51.100.1"]), "198.51.100.1");
        // As a header of its own, or pretending to be a proxy.
        assert_eq!(x(PROXY, &["1.1.1.1", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(x(PROXY, &["1.1.1.1, 10.9.9.9, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(x("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn several_trusted_hops_are_passed() {
        assert_eq!(x(PROXY, &["1.1.1.1, 198.51.100.1, 10.2.2.2,10.3.3.3:4711"]), "198.51.100.1");
        assert_eq!(x(PROXY, &["198.51.100.1, 10.2.2.2", "fd00::9"]), "198.51.100.1");
        // All are ours: the first is who asks.
        assert_eq!(x(PROXY, &["10.2.2.2, 10.3.3.3"]), "10.2.2.2");
        assert_eq!(x(PROXY, &[]), PROXY);
    }

    #[test]
    fn addresses_come_in_every_form() {
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443"] {
            assert_eq!(x(PROXY, &[text]), "2001:db8::1", "{text}");
        }
        assert_eq!(x(PROXY, &["198.51.100.1:443"]), "198.51.100.1");
        assert_eq!(x(PROXY, &["::ffff:198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn garbage_ends_at_who_wrote_it() {
        for text in
            ["", "unknown", "1.1.1.1,", "1.1.1.1, 300.1.1.1", "1.1.1.1, [::1", "1.1.1.1 2.2.2.2", "\u{e9}"]
        {
            assert_eq!(x(PROXY, &[text]), PROXY, "{text}");
        }
        assert_eq!(x(PROXY, &["1.1.1.1, nonsense, 10.2.2.2"]), "10.2.2.2");
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_says() {
        assert_eq!(forwarded("for=198.51.100.1"), "198.51.100.1");
        assert_eq!(forwarded("For=198.51.100.1;proto=https;by=10.0.0.1"), "198.51.100.1");
        assert_eq!(forwarded("proto=https; for=\"[2001:db8::1]:4711\""), "2001:db8::1");
        assert_eq!(forwarded("for=1.1.1.1, for=198.51.100.1, for=10.2.2.2"), "198.51.100.1");
        for text in ["for=unknown", "for=_hidden", "by=1.1.1.1", "for=1.1.1.1;for=2.2.2.2", "1.1.1.1"] {
            assert_eq!(forwarded(text), PROXY, "{text}");
        }
    }

    #[test]
    fn quotes_hide_no_forgery() {
        // She left a quote open; the proxy's element stands behind it.
        assert_eq!(forwarded("for=\"1.1.1.1, for=198.51.100.1"), "198.51.100.1");
        // She put it into what the proxy quotes.
        assert_eq!(forwarded("for=198.51.100.1;host=\"x,for=1.1.1.1\""), PROXY);
        assert_eq!(forwarded("for=198.51.100.1;host=\"x\\\",for=1.1.1.1;x=\\\"\""), PROXY);
    }

    #[test]
    fn the_header_that_the_proxy_does_not_write_is_not_read() {
        let both = [("forwarded", "for=1.1.1.1"), (X_FORWARDED_FOR, "198.51.100.1")];
        assert_eq!(seen_in(ProxyHeader::XForwardedFor, PROXY, &both), "198.51.100.1");
        assert_eq!(seen_in(ProxyHeader::Forwarded, PROXY, &both), "1.1.1.1");
        assert_eq!(seen_in(ProxyHeader::Forwarded, PROXY, &both[1..]), PROXY);
    }
}
