//! Where a user wants pushes to be sent. The address is the user's, and the server calls it from within the operator's network: it is
//! checked when it is registered, and again each time a connection is made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// The longest endpoint.
pub const ENDPOINT_BYTES: usize = 2_048;

/// An endpoint that may be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    url: Url,
}

/// Why an endpoint is refused. Nothing of what the address leads to is in the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Too long.
    #[error("endpoint has {0} bytes, the limit is {ENDPOINT_BYTES}")]
    TooLong(usize),
    /// Not a URL.
    #[error("endpoint is not a URL")]
    Malformed,
    /// Not https.
    #[error("endpoint must begin with https://")]
    Scheme,
    /// A name or password.
    #[error("endpoint must not contain a user name or password")]
    Credentials,
    /// An address that is not public.
    #[error("endpoint must have a public host")]
    Host,
}

/// Push services of browsers. Every user of such a browser has an endpoint there.
const KNOWN_HOSTS: [&str; 4] = [
    "fcm.googleapis.com",
    "android.googleapis.com",
    "updates.push.services.mozilla.com",
    "web.push.apple.com",
];
/// The end of the names of Microsoft's.
const KNOWN_END: &str = ".notify.windows.com";

impl Endpoint {
    /// Checks an endpoint that a client registers. `allowed` are hosts that the operator named, which may be private, and may be
    /// reached over http.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn parse(text: &str, allowed: &[String]) -> Result<Self, EndpointError> {
        if text.len() > ENDPOINT_BYTES {
            return Err(EndpointError::TooLong(text.len()));
        }
        let url = Url::parse(text).map_err(|_| EndpointError::Malformed)?;
        let is_allowed = url.host_str().is_some_and(|host| allowed.iter().any(|other| other == host));
        match url.scheme() {
            "https" => {}
            "http" if is_allowed => {}
            _ => return Err(EndpointError::Scheme),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        let is_public = match url.host() {
            None => false,
            Some(Host::Ipv4(address)) => is_public(address.into()),
            Some(Host::Ipv6(address)) => is_public(address.into()),
            // A name may lead anywhere, and elsewhere each time: its addresses are checked when a connection is made.
            Some(Host::Domain(name)) => is_public_name(name),
        };
        if is_public || is_allowed { Ok(Self { url }) } else { Err(EndpointError::Host) }
    }

    /// Its URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Scheme, host, and the port unless it is the usual one: what a token is made for (RFC 8292, section 2).
    #[must_use]
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Whether it is at one of the large push services, or on a host that the operator allows. All others are named by users.
    #[must_use]
    pub fn is_known(&self, allowed: &[String]) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let is_large = KNOWN_HOSTS.contains(&host) || host.ends_with(KNOWN_END);
        (is_large && self.url.port().is_none()) || allowed.iter().any(|other| other == host)
    }

    /// Whether the push service slows down messages with a `Topic`: Google's treats it as a collapse key, of which it takes twenty at
    /// once and then one in three minutes.
    #[must_use]
    pub fn is_slow_with_topics(&self) -> bool {
        self.url.host_str() == Some("fcm.googleapis.com")
    }
}

/// Names that only a private network or this machine resolves.
fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.');
    let private =
        ["localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "onion", "arpa"];
    let last = name.rsplit('.').next().unwrap_or_default();
    name.contains('.') && !private.contains(&last)
}

/// Whether anybody on the internet could reach the address. A connection is made to no other, unless the operator allows the host.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The IANA registry of special-purpose IPv4 addresses.
const fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = matches!(
        (a, b, c),
        // This network; private use; shared address space of providers; loopback; link-local with the metadata of clouds.
        (0 | 10 | 127, ..) | (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _)
        // Protocol assignments; documentation; 6to4 relays; AS112; benchmarks; documentation.
        | (192, 0, 0 | 2) | (192, 31, 196) | (192, 52, 193) | (192, 88, 99) | (192, 175, 48) | (198, 18 | 19, _)
        | (198, 51, 100) | (203, 0, 113)
        // Multicast, reserved, broadcast.
        | (224..=255, ..)
    );
    !is_special
}

/// Global unicast is `2000::/3`. Within it, addresses that carry an IPv4 address are as public as that one.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        // NAT64 (RFC 6052), which networks without IPv4 use for every IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Protocol assignments with Teredo and ORCHID; documentation; documentation (RFC 9637).
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> EndpointError {
        Endpoint::parse(text, &[]).unwrap_err()
    }

    #[test]
    fn endpoints_of_browsers_are_taken() {
        for (text, origin) in [
            ("https://fcm.googleapis.com/fcm/send/abc:def", "https://fcm.googleapis.com"),
            (
                "https://updates.push.services.mozilla.com/wpush/v2/g",
                "https://updates.push.services.mozilla.com",
            ),
            ("https://web.push.apple.com/Q", "https://web.push.apple.com"),
            ("https://push.example.net:8443/up?x=1", "https://push.example.net:8443"),
            ("https://8.8.8.8/x", "https://8.8.8.8"),
        ] {
            assert_eq!(Endpoint::parse(text, &[]).unwrap().origin(), origin);
        }
        assert!(Endpoint::parse("https://fcm.googleapis.com/x", &[]).unwrap().is_slow_with_topics());
        assert!(!Endpoint::parse("https://web.push.apple.com/x", &[]).unwrap().is_slow_with_topics());
    }

    #[test]
    fn endpoints_within_the_network_are_refused() {
        for text in [
            "https://localhost/x",
            "https://db/x",
            "https://db./x",
            "https://redis.internal/x",
            "https://printer.local./x",
            "https://127.0.0.1/x",
            "https://127.1/x",
            "https://2130706433/x",
            "https://0x7f000001/x",
            "https://0177.0.0.1/x",
            "https://10.0.0.1/x",
            "https://172.31.255.255/x",
            "https://192.168.1.1/x",
            "https://100.64.0.1/x",
            "https://169.254.169.254/latest/meta-data",
            "https://0.0.0.0/x",
            "https://224.0.0.1/x",
            "https://255.255.255.255/x",
            "https://[::1]/x",
            "https://[::]/x",
            "https://[fe80::1]/x",
            "https://[fd00:ec2::254]/x",
            "https://[::ffff:127.0.0.1]/x",
            "https://[::127.0.0.1]/x",
            "https://[64:ff9b::a9fe:a9fe]/x",
            "https://[2002:7f00:1::]/x",
            "https://[2001:db8::1]/x",
            "https://[2001::1]/x",
            "https://[ff02::1]/x",
        ] {
            assert_eq!(refused(text), EndpointError::Host, "{text}");
        }
    }

    #[test]
    fn other_bad_endpoints_are_refused_with_the_reason() {
        for text in ["http://push.example.net/x", "ftp://push.example.net/x", "file:///etc/passwd", "data:,x"]
        {
            assert_eq!(refused(text), EndpointError::Scheme, "{text}");
        }
        for text in ["", "push.example.net/x", "https://", "https://[::1"] {
            assert_eq!(refused(text), EndpointError::Malformed, "{text}");
        }
        for text in ["https://user@push.example.net/x", "https://user:word@push.example.net/x"] {
            assert_eq!(refused(text), EndpointError::Credentials, "{text}");
        }
        let long = format!("https://push.example.net/{}", "a".repeat(ENDPOINT_BYTES));
        assert_eq!(refused(&long), EndpointError::TooLong(long.len()));
    }

    #[test]
    fn the_operator_may_allow_a_host_of_the_network() {
        let allowed = ["ntfy.lan".to_owned(), "192.168.1.9".to_owned()];
        for text in ["https://ntfy.lan/up", "http://ntfy.lan:8080/up", "http://192.168.1.9/up"] {
            assert!(Endpoint::parse(text, &allowed).is_ok(), "{text}");
        }
        assert_eq!(Endpoint::parse("https://other.lan/up", &allowed), Err(EndpointError::Host));
        assert_eq!(Endpoint::parse("https://192.168.1.10/up", &allowed), Err(EndpointError::Host));
    }

    #[test]
    fn public_addresses_are_told_from_all_others() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for text in
            ["1.1.1.1", "100.63.255.255", "172.32.0.1", "198.20.0.1", "223.255.255.255", "2606:4700::1"]
        {
            assert!(public(text), "{text}");
        }
        for text in ["64:ff9b::101:101", "2002:101:101::1", "2a00:1450::1"] {
            assert!(public(text), "{text}");
        }
        for text in ["198.19.255.255", "240.0.0.1", "4000::1", "fec0::1", "::ffff:8.8.8.8", "3fff:1::1"] {
            assert!(!public(text), "{text}");
        }
    }
}
