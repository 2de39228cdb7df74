//! Finds the address of the client: the peer itself, or the address that a trusted proxy names.
//!
//! Each proxy appends the address that it was asked from, so the list is read from its end, and only as far as its writers are
//! trusted. Addresses that a client wrote itself stand before that part and are not read.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::{HeaderMap, HeaderValue, header};
use parking_lot::Mutex;

use crate::config::{ProxyHeader, ServerConfig};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Whether the header of this peer is trusted.
#[must_use]
pub fn is_trusted(address: IpAddr, config: &ServerConfig) -> bool {
    let address = address.to_canonical();
    config.trusted_proxies.iter().any(|network| network.contains(&address))
}

/// Untrusted peers that send a proxy header. Each is logged once, and at most [`UNNAMED`] are, because anybody may send the
/// header.
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
                "a peer that is not in server.trusted_proxies sends X-Forwarded-For or Forwarded: if it is your \
                 proxy, add it there; until then all of its clients count as one address"
            );
        }
    }

    fn is_new(&self, peer: IpAddr) -> bool {
        let mut peers = self.0.lock();
        peers.len() < UNNAMED && peers.insert(peer)
    }
}

/// The address of the client behind `peer`: the last address in the list that is not a trusted proxy. If a proxy names nobody, or
/// something that is not an address, the result is the address of that proxy.
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

/// The elements from the last to the first. A comma within quotes separates as well: see [`forwarded_for`].
fn hops(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .as_bytes()
        .rsplit(|&byte| byte == b',')
        .map(|hop| std::str::from_utf8(hop).unwrap_or_default().trim())
}

/// The single `for` of an element of `Forwarded` (RFC 7239 §4). An element with a backslash or an odd number of quotes is
/// ignored: it may be part of a text that a client made the proxy quote, such as its `Host`.
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

/// An address with or without a port, and with or without the brackets of IPv6.
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
    fn an_unnamed_peer_is_logged_once_and_the_number_of_peers_is_bounded() {
        let unnamed = Unnamed::default();
        let peer = |last: usize| IpAddr::from([10, 0, 0, u8::try_from(last).unwrap()]);
        assert!(unnamed.is_new(peer(1)) && !unnamed.is_new(peer(1)));
        let logged = (1..100).filter(|&last| unnamed.is_new(peer(last))).count();
        assert_eq!(logged, UNNAMED - 1);
    }

    #[test]
    fn the_header_of_an_untrusted_peer_is_ignored() {
        assert_eq!(x("203.0.113.7", &["198.51.100.1"]), "203.0.113.7");
        assert_eq!(x("::ffff:203.0.113.7", &["198.51.100.1"]), "203.0.113.7");
        let nobody = ServerConfig::default();
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, "198.51.100.1".parse().unwrap());
        assert_eq!(client(PROXY.parse().unwrap(), &headers, &nobody).to_string(), PROXY);
    }

    #[test]
    fn addresses_that_the_client_wrote_are_ignored() {
        assert_eq!(x(PROXY, &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(x(PROXY, &["1.1.1.1, 198.51.100.1"]), "198.51.100.1");
        // In a header of its own, or with the address of a proxy.
        assert_eq!(x(PROXY, &["1.1.1.1", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(x(PROXY, &["1.1.1.1, 10.9.9.9, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(x("::ffff:10.0.0.1", &["198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn several_trusted_hops_are_skipped() {
        assert_eq!(x(PROXY, &["1.1.1.1, 198.51.100.1, 10.2.2.2,10.3.3.3:4711"]), "198.51.100.1");
        assert_eq!(x(PROXY, &["198.51.100.1, 10.2.2.2", "fd00::9"]), "198.51.100.1");
        // All hops are trusted: the first one is the client.
        assert_eq!(x(PROXY, &["10.2.2.2, 10.3.3.3"]), "10.2.2.2");
        assert_eq!(x(PROXY, &[]), PROXY);
    }

    #[test]
    fn addresses_are_read_in_every_form() {
        for text in ["2001:db8::1", "[2001:db8::1]", "[2001:db8::1]:443"] {
            assert_eq!(x(PROXY, &[text]), "2001:db8::1", "{text}");
        }
        assert_eq!(x(PROXY, &["198.51.100.1:443"]), "198.51.100.1");
        assert_eq!(x(PROXY, &["::ffff:198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn garbage_yields_the_address_of_its_writer() {
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
    fn quotes_do_not_hide_a_forged_address() {
        // The client left a quote open, and the element of the proxy stands behind it.
        assert_eq!(forwarded("for=\"1.1.1.1, for=198.51.100.1"), "198.51.100.1");
        // The client put it into a text that the proxy quotes.
        assert_eq!(forwarded("for=198.51.100.1;host=\"x,for=1.1.1.1\""), PROXY);
        assert_eq!(forwarded("for=198.51.100.1;host=\"x\\\",for=1.1.1.1;x=\\\"\""), PROXY);
    }

    #[test]
    fn only_the_configured_header_is_read() {
        let both = [("forwarded", "for=1.1.1.1"), (X_FORWARDED_FOR, "198.51.100.1")];
        assert_eq!(seen_in(ProxyHeader::XForwardedFor, PROXY, &both), "198.51.100.1");
        assert_eq!(seen_in(ProxyHeader::Forwarded, PROXY, &both), "1.1.1.1");
        assert_eq!(seen_in(ProxyHeader::Forwarded, PROXY, &both[1..]), PROXY);
    }
}
