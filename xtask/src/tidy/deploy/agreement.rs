//! Addresses, times and numbers that are in more than one of the files.

use std::collections::BTreeMap;

use super::super::tree::Violation;
use super::haproxy::{Server, seconds};
use super::yaml::Node;
use super::{COMPOSE, FLEET, Fleet, HAPROXY, Role, Service};

/// The ports of programs that are not of this tree; compose.yaml does not change them.
const CQL_PORT: &str = "9042";
const VALKEY_PORT: &str = "6379";
/// What a drain may take beyond `gateway.drain_ms`, in seconds: ten for requests in progress, two for the last cursors, two to leave
/// the fleet, and one to abort the rest.
const AFTER_DRAIN: u64 = 15;
/// Open files of a process beside its connections.
const OTHER_FILES: u64 = 500;
/// The settings of Valkey that docs/operations.md requires.
const VALKEY: [[&str; 2]; 3] =
    [["--appendonly", "yes"], ["--maxmemory-policy", "noeviction"], ["--stream-node-max-bytes", "512"]];

pub(super) fn check(fleet: &Fleet<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    addresses(fleet, &mut found);
    servers(fleet, &mut found);
    listeners(fleet, &mut found);
    proxy(fleet, &mut found);
    times(fleet, &mut found);
    places(fleet, &mut found);
    images(fleet, &mut found);
    stores(fleet, &mut found);
    found
}

/// Addresses in fleet.toml name a service and its port, and every such service is named.
fn addresses(fleet: &Fleet<'_>, found: &mut Vec<Violation>) {
    let internal = fleet.port("discovery", "internal_addr");
    let bus = vec![fleet.text("bus", "url")];
    for (key, addresses, role, port) in [
        ("store.nodes", fleet.list("store", "nodes"), Role::Scylla, CQL_PORT),
        ("bus.url", bus, Role::Valkey, VALKEY_PORT),
        ("discovery.urls", fleet.list("discovery", "urls"), Role::Discovery, internal),
    ] {
        let hosts = addresses.iter().map(|address| host_and_port(address).0).collect::<Vec<_>>();
        for address in addresses {
            found.extend(wrong(fleet, address, role, port).map(|message| Violation::new(FLEET, 0, message)));
        }
        let missing = fleet.of(role).filter(|service| !hosts.contains(&service.name.as_str()));
        found.extend(missing.map(|service| service.violation(&format!("is not in {key}"))));
    }
}

/// Why an address does not lead to a service of this role.
fn wrong(fleet: &Fleet<'_>, address: &str, role: Role, port: &str) -> Option<String> {
    let (host, named) = host_and_port(address);
    match fleet.of(role).any(|service| service.name == host) {
        false => Some(format!("`{address}` names no service that is {role:?}")),
        true if named != port => {
            Some(format!("{host} does not listen on the port of `{address}`, but on {port}"))
        }
        true => None,
    }
}

fn host_and_port(address: &str) -> (&str, &str) {
    let address = address.split_once("://").map_or(address, |(_, rest)| rest);
    address.rsplit_once(':').unwrap_or((address, ""))
}

/// Servers of HAProxy are services, and every chat node and discovery process is a server.
fn servers(fleet: &Fleet<'_>, found: &mut Vec<Violation>) {
    let mut backends: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Server { line, backend, name, address } in fleet.haproxy.servers() {
        backends.entry(backend).or_default().push(name);
        let (role, port) = match backend {
            "discovery" => (Role::Discovery, fleet.port("discovery", "addr")),
            _ => (Role::Chat, fleet.port("server", "addr")),
        };
        let host = host_and_port(address).0;
        let misnamed = (host != name).then(|| format!("`{name}` is {host}"));
        let messages = wrong(fleet, address, role, port).into_iter().chain(misnamed);
        found.extend(messages.map(|message| Violation::new(HAPROXY, line, message)));
    }
    for (backend, role) in [("discovery", Role::Discovery), ("rest", Role::Chat), ("sockets", Role::Chat)] {
        let named = backends.get(backend).map_or(&[][..], Vec::as_slice);
        let missing = fleet.of(role).filter(|service| !named.contains(&service.name.as_str()));
        found.extend(missing.map(|service| service.violation(&format!("is not in the backend {backend}"))));
    }
}

/// Processes listen where other containers, health checks and the published port reach them.
fn listeners(fleet: &Fleet<'_>, found: &mut Vec<Violation>) {
    for (role, section, key) in [
        (Role::Chat, "server", "addr"),
        (Role::Discovery, "discovery", "addr"),
        (Role::Discovery, "discovery", "internal_addr"),
        (Role::Presence, "presence", "addr"),
    ] {
        if !fleet.text(section, key).starts_with("0.0.0.0:") {
            let message = format!("{section}.{key} cannot be reached from other containers: write 0.0.0.0");
            found.push(Violation::new(FLEET, 0, message));
        }
        if key == "addr" {
            let port = fleet.port(section, key);
            let unasked = fleet.of(role).filter(|service| !asks(service, &[port]));
            found.extend(
                unasked.map(|service| {
                    service.violation(&format!("its health check does not ask the port {port}"))
                }),
            );
        }
    }
    let ports = fleet.haproxy.ports();
    for service in fleet.of(Role::Haproxy) {
        if !asks(service, &ports) {
            found.push(service.violation("its health check does not ask a port of haproxy.cfg"));
        }
        let published = service.node.get("ports").map(Node::texts).unwrap_or_default().into_iter();
        let inside = published.map(|port| port.rsplit(':').next().unwrap_or_default());
        let unbound = inside.filter(|port| !ports.contains(port));
        found.extend(
            unbound.map(|port| {
                service.violation(&format!("publishes {port}, on which haproxy.cfg binds nothing"))
            }),
        );
    }
}

/// Whether the health check of a service asks one of these ports.
fn asks(service: &Service, ports: &[&str]) -> bool {
    let test = service.node.at(&["healthcheck", "test"]).map(Node::texts).unwrap_or_default();
    let url = test.iter().find_map(|word| word.strip_prefix("http://127.0.0.1:"));
    url.and_then(|url| url.split('/').next()).is_some_and(|port| ports.contains(&port))
}

/// The nodes trust HAProxy and nobody else, and HAProxy asks their health and hides their metrics.
fn proxy(fleet: &Fleet<'_>, found: &mut Vec<Violation>) {
    for service in fleet.of(Role::Haproxy) {
        let address = service.node.at(&["networks", "fleet", "ipv4_address"]).map_or("", Node::text);
        if fleet.list("server", "trusted_proxies") != [address] {
            found.push(service.violation("its address is not server.trusted_proxies"));
        }
    }
    let denies = |words: &[&str]| words.ends_with(&["if", "{", "path", "/metrics", "}"]);
    for (holds, message) in [
        (fleet.haproxy.with(&["option", "forwardfor"]).next().is_some(), "does not append X-Forwarded-For"),
        (
            fleet.haproxy.with(&["option", "httpchk", "GET", "/readyz"]).next().is_some(),
            "asks /readyz of no server",
        ),
        (
            fleet.haproxy.with(&["http-request", "deny"]).any(|setting| denies(&setting.words)),
            "/metrics is open to clients",
        ),
    ] {
        if !holds {
            found.push(Violation::new(HAPROXY, 0, message));
        }
    }
}

/// A container is killed after its drain, and a socket is cut only after its node has closed it.
fn times(fleet: &Fleet<'_>, found: &mut Vec<Violation>) {
    let drain = fleet.number("gateway", "drain_ms").div_ceil(1_000) + AFTER_DRAIN;
    for service in fleet.of(Role::Chat) {
        let patience = service.node.get("stop_grace_period").and_then(|node| seconds(node.text()));
        if patience.is_none_or(|patience| patience <= drain) {
            let message = format!("its drain may take {drain} s, and stop_grace_period is not longer");
            found.push(service.violation(&message));
        }
    }
    let silence = fleet.number("gateway", "silence_ms").div_ceil(1_000);
    let tunnel = fleet.haproxy.after(&["timeout", "tunnel"]);
    if tunnel.and_then(|(_, time)| seconds(time)).is_none_or(|tunnel| tunnel <= silence) {
        let message = format!("`timeout tunnel` is not longer than gateway.silence_ms, {silence} s");
        found.push(Violation::new(HAPROXY, tunnel.map_or(0, |(line, _)| line), message));
    }
}

/// Every socket that a node accepts has an open file there, and a place and two open files in HAProxy.
fn places(fleet: &Fleet<'_>, found: &mut Vec<Violation>) {
    let of_node = fleet.number("gateway", "connections");
    let few = fleet.of(Role::Chat).filter(|service| service.open_files() < of_node + OTHER_FILES);
    found.extend(few.map(|service| service.violation(&format!("{of_node} sockets need more open files"))));
    let of_all = of_node * fleet.of(Role::Chat).count() as u64;
    let (line, maxconn) = fleet.haproxy.after(&["maxconn"]).unwrap_or_default();
    let maxconn: u64 = maxconn.parse().unwrap_or(0);
    if maxconn < of_all {
        let message = format!("maxconn {maxconn} is less than the sockets of all nodes, {of_all}");
        found.push(Violation::new(HAPROXY, line, message));
    }
    let few = fleet.of(Role::Haproxy).filter(|service| service.open_files() < 2 * maxconn + OTHER_FILES);
    found
        .extend(few.map(|service| service.violation(&format!("{maxconn} connections need more open files"))));
}

/// Images have a version, and the name of no registry.
fn images(fleet: &Fleet<'_>, found: &mut Vec<Violation>) {
    for service in &fleet.services {
        let image = service.node.get("image").map_or("", Node::text);
        found.extend(image_problem(image).map(|problem| service.violation(&problem)));
    }
}

/// What is wrong with the name of an image.
pub(super) fn image_problem(image: &str) -> Option<String> {
    let (path, version) = image.rsplit_once(':').unwrap_or((image, ""));
    let has_registry = path.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']));
    match version {
        _ if has_registry => {
            Some(format!("the image `{image}` names a registry: each machine has its own default"))
        }
        "" | "latest" => Some(format!("the image `{image}` has no version")),
        _ => None,
    }
}

/// The store and the bus keep what they acknowledge.
fn stores(fleet: &Fleet<'_>, found: &mut Vec<Violation>) {
    for service in fleet.of(Role::Valkey) {
        let command = service.command();
        let missing = VALKEY.iter().filter(|pair| !command.windows(2).any(|words| words == *pair));
        found.extend(missing.map(|pair| service.violation(&format!("must run with {}", pair.join(" ")))));
    }
    let batch = "--commitlog-sync=batch";
    let weak = fleet.of(Role::Scylla).filter(|service| !service.command().contains(&batch));
    found.extend(weak.map(|service| service.violation(&format!("must run with {batch}"))));
    for service in fleet.of(Role::Schema) {
        let command = service.command();
        let at = command.iter().position(|word| *word == "--replication");
        let replicas = at.and_then(|at| command.get(at + 1)?.parse().ok()).unwrap_or(3);
        if replicas > fleet.of(Role::Scylla).count() {
            found.push(service.violation("more replicas than nodes of the cluster"));
        }
    }
    for service in fleet.of(Role::Unknown) {
        found.push(Violation::new(
            COMPOSE,
            service.node.line,
            format!("{}: runs no program that this check knows", service.name),
        ));
    }
}
