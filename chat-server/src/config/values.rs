//! Parses values that can be written in several ways into one form, and says what to write instead of values that can never work.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use serde::Serializer;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::ProxyHeader;

const EXAMPLE: &str = "https://chat.example";

/// Reads a text, also where the environment has turned it into a number.
struct Text<T>(&'static str, fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text.trim()).map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

/// Reads a list of texts, or one text. Each is parsed by the function.
struct Texts<T>(&'static str, fn(&str) -> Result<T, String>);

impl<'de, T> Visitor<'de> for Texts<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of {}", self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        Ok(vec![(self.1)(text.trim()).map_err(E::custom)?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut values = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            values.push((self.1)(text.trim()).map_err(A::Error::custom)?);
        }
        Ok(values)
    }
}

pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    from.deserialize_any(Text("an address with a port, such as 127.0.0.1:8080", listen_address))
}

/// An address, or nothing for an empty text.
pub(super) fn optional_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let parse = |text: &str| match text {
        "" => Ok(None),
        text => listen_address(text).map(Some),
    };
    from.deserialize_any(Text("an address with a port, such as 127.0.0.1:7400, or nothing", parse))
}

/// As [`optional_address`] reads it.
#[expect(clippy::ref_option, reason = "serde passes a reference")]
pub(super) fn write_optional_address<S: Serializer>(
    address: &Option<SocketAddr>,
    to: S,
) -> Result<S::Ok, S::Error> {
    to.serialize_str(&address.map(|address| address.to_string()).unwrap_or_default())
}

pub(super) fn origins<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    from.deserialize_any(Texts("origins, such as https://chat.example", origin))
}

pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    from.deserialize_any(Texts("networks, such as 10.0.0.0/8", network))
}

pub(super) fn proxy_header<'de, D: Deserializer<'de>>(from: D) -> Result<ProxyHeader, D::Error> {
    from.deserialize_any(Text("\"x-forwarded-for\" or \"forwarded\"", header))
}

/// An address to listen on.
///
/// # Errors
/// Says what to write instead.
pub(crate) fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        let example = SocketAddr::from((address, 8080));
        return Err(format!("{text:?} has no port: write \"{example}\""));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port = port.parse::<u16>().ok();
    match (host.to_ascii_lowercase().as_str(), port) {
        ("localhost", Some(port)) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        ("" | "*", Some(port)) => Err(format!(
            "{text:?} does not name an address: write \"127.0.0.1:{port}\" for this machine only, \"[::]:{port}\" \
             for all networks"
        )),
        (_, None) if text.parse::<u16>().is_ok() => {
            Err(format!("{text:?} is only a port: write \"127.0.0.1:{text}\", or \"[::]:{text}\""))
        }
        _ => Err(format!(
            "{text:?} is not an address of this machine: write an address and a port, such as \"127.0.0.1:8080\"; \
             names are not resolved"
        )),
    }
}

/// A network. An address is the network of itself.
fn network(text: &str) -> Result<IpNet, String> {
    let wrong = || format!("{text:?} is not a network: write one such as \"10.0.0.0/8\", or an address");
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().into(),
        Err(_) => canonical(text.parse().map_err(|_| wrong())?),
    };
    if network.prefix_len() == 0 {
        return Err(format!(
            "{text:?} are all addresses: every client could forge its address; name the networks of your proxies"
        ));
    }
    Ok(network.trunc())
}

/// Maps a network of IPv4 addresses within IPv6 to IPv4, as the addresses of peers are mapped.
fn canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().zip(network.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    let canonical = mapped.and_then(|(address, bits)| Ipv4Net::new(address, bits).ok());
    canonical.map_or(network, IpNet::V4)
}

fn header(text: &str) -> Result<ProxyHeader, String> {
    match text.to_ascii_lowercase().as_str() {
        "x-forwarded-for" => Ok(ProxyHeader::XForwardedFor),
        "forwarded" => Ok(ProxyHeader::Forwarded),
        _ => Err(format!(
            "{text:?} is not supported: write \"x-forwarded-for\" or \"forwarded\", and let the proxy set that header"
        )),
    }
}

/// An origin as a browser writes it (RFC 6454 §6.2): in lower case, without the default port of its scheme.
pub(super) fn origin(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    if text.eq_ignore_ascii_case("null") {
        return Err(
            "every sandboxed page and local file sends \"null\", so it identifies no page; give the page an \
             origin"
                .to_owned(),
        );
    }
    let lower = text.to_ascii_lowercase();
    let Some((scheme, rest)) = lower.split_once("://") else {
        let meant = format!("https://{}", lower.trim_start_matches("https:").trim_matches('/'));
        let meant = origin(&meant).unwrap_or_else(|_| EXAMPLE.to_owned());
        return Err(format!("{text:?} has no scheme: write one such as {meant:?}"));
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let refuse = |why: &str| Err(format!("{text:?} {why}"));
    if matches!(scheme, "ws" | "wss") {
        let http = scheme.replace("ws", "http");
        return refuse(&format!("is the address of a socket: write the page's, \"{http}://{authority}\""));
    }
    if !path.is_empty() || authority.contains(['?', '#']) {
        let host = authority.split(['?', '#', ',']).next().unwrap_or_default();
        let meant = origin(&format!("{scheme}://{host}")).unwrap_or_else(|_| EXAMPLE.to_owned());
        return refuse(&format!("has a path: write one such as {meant:?}; several are a list"));
    }
    if authority.contains('*') {
        return refuse("has a wildcard: list each origin, or \"*\" alone for all");
    }
    if !authority.is_ascii() {
        return refuse("is not in ASCII: write the name as browsers send it, with xn--");
    }
    let (host, port) = host_and_port(authority).ok_or_else(|| {
        format!("{text:?} is not an origin: write scheme, host and port, such as \"https://chat.example\"")
    })?;
    let is_usual = matches!((scheme, port), ("https", Some(443)) | ("http", Some(80)));
    let port = port.filter(|_| !is_usual).map_or_else(String::new, |port| format!(":{port}"));
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    if !is_scheme {
        return refuse("is no origin: write scheme, host and port, such as \"https://chat.example\"");
    }
    Ok(format!("{scheme}://{host}{port}"))
}

fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let address: Ipv6Addr = address.parse().ok()?;
        let port = rest.strip_prefix(':').map(str::parse::<u16>).transpose().ok()?;
        return (rest.is_empty() || port.is_some()).then(|| (format!("[{address}]"), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port.parse::<u16>().ok().filter(|port| *port > 0)?)),
        None => (authority, None),
    };
    let is_label = |label: &str| {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        !label.is_empty() && !label.starts_with('-') && label.chars().all(is_allowed)
    };
    if !host.strip_suffix('.').unwrap_or(host).split('.').all(is_label) {
        return None;
    }
    // Browsers turn a number in any form into an address.
    url::Host::parse(host).ok().map(|host| (host.to_string(), port))
}

/// Whether a text is a host with a port.
pub(super) fn is_host_and_port(text: &str) -> bool {
    host_and_port(text).is_some_and(|(_, port)| port.is_some())
}

/// Whether a text can be a handle. Other texts are never equal to one.
pub(super) fn is_handle(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
    (2..=madang_proto::limits::HANDLE_CHARS).contains(&text.len()) && text.bytes().all(is_allowed)
}
