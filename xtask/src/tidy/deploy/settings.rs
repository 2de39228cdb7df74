//! Keys, environment variables, names and files: what a process of the fleet reads is there.

use toml::{Table, Value};

use super::super::tree::Violation;
use super::yaml::Node;
use super::{COMPOSE, FLEET, Fleet, Role, Service};

/// The path of the configuration, which is not a key.
const CONFIG_VARIABLE: &str = "MADANG_CONFIG";
/// The name of a chat node.
const NAME_VARIABLE: &str = "MADANG_NODE__NAME";
/// Where a container finds its secrets.
const SECRETS: &str = "/run/secrets/";

pub(super) fn check(fleet: &Fleet<'_>) -> Vec<Violation> {
    let mut found = keys(fleet);
    for service in fleet.services.iter().filter(|service| service.is_ours()) {
        variables(fleet, service, &mut found);
        names(service, &mut found);
        paths(fleet, service, &mut found);
    }
    found.extend(fleet.services.iter().flat_map(|service| mounts(fleet, service)));
    let is_shared = fleet.text("node", "url").is_empty();
    if !is_shared {
        let message = "node.url: all nodes would have the same; behind HAProxy it is empty";
        found.push(Violation::new(FLEET, 0, message));
    }
    found
}

/// Every key of fleet.toml is in the example, with a value of the same type.
fn keys(fleet: &Fleet<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for (section, keys) in &fleet.config {
        for (key, value) in keys.as_table().unwrap_or(&Table::new()) {
            let known = fleet.defaults.get(section).and_then(|keys| keys.get(key));
            found.extend(mismatch(&format!("{section}.{key}"), value, known));
        }
    }
    found
}

fn mismatch(key: &str, value: &Value, known: Option<&Value>) -> Option<Violation> {
    let message = match known {
        None => format!("madang.toml has no key `{key}`"),
        Some(known) if known.type_str() != value.type_str() => {
            format!("`{key}` is not a {}, as in madang.toml", known.type_str())
        }
        Some(_) => return None,
    };
    Some(Violation::new(FLEET, 0, message))
}

/// Every variable names a key of the example, and every process has the configuration.
fn variables(fleet: &Fleet<'_>, service: &Service, found: &mut Vec<Violation>) {
    let variables = service.node.get("environment").map_or(&[][..], Node::entries);
    for (name, node) in variables {
        let Some(key) = name.strip_prefix("MADANG_").filter(|_| name != CONFIG_VARIABLE) else { continue };
        let key = key.to_lowercase().replace("__", ".");
        let (section, field) = key.split_once('.').unwrap_or((&key, ""));
        if fleet.defaults.get(section).and_then(|keys| keys.get(field)).is_none() {
            found.push(Violation::new(COMPOSE, node.line, format!("madang.toml has no key `{key}`")));
        }
    }
    let config = service.node.at(&["environment", CONFIG_VARIABLE]).map_or("", Node::text);
    let volumes = service.node.get("volumes").map(Node::texts).unwrap_or_default();
    if !volumes.contains(&format!("./fleet.toml:{config}:ro").as_str()) {
        found.push(service.violation("MADANG_CONFIG is not the mounted fleet.toml"));
    }
}

/// Processes are named like their services, so that names are unique.
fn names(service: &Service, found: &mut Vec<Violation>) {
    let command = service.command();
    let (what, name) = match service.role() {
        Role::Chat => (NAME_VARIABLE, service.node.at(&["environment", NAME_VARIABLE]).map(Node::text)),
        Role::Presence => {
            let at = command.iter().position(|word| *word == "--name");
            ("--name", at.and_then(|at| command.get(at + 1).copied()))
        }
        _ => return,
    };
    if name != Some(service.name.as_str()) {
        found.push(service.violation(&format!("has another name in {what}")));
    }
}

/// The secret is mounted where the configuration says, and the data folder can be written to.
fn paths(fleet: &Fleet<'_>, service: &Service, found: &mut Vec<Violation>) {
    let file = fleet.text("tokens", "secret_file");
    let secrets = service.node.get("secrets").map(Node::texts).unwrap_or_default();
    let is_mounted = file.strip_prefix(SECRETS).is_some_and(|name| secrets.contains(&name));
    if !is_mounted {
        found.push(service.violation(&format!("has no secret at {file}")));
    }
    for secret in secrets.iter().filter(|name| fleet.compose.at(&["secrets", name]).is_none()) {
        found.push(service.violation(&format!("the secret {secret} is not defined")));
    }
    let data = fleet.text("server", "data");
    let folders = service.node.get("tmpfs").map(Node::texts).unwrap_or_default();
    if !folders.iter().any(|folder| folder.split(':').next() == Some(data)) {
        found.push(service.violation(&format!("cannot write to server.data {data}")));
    }
}

/// Files that a service mounts are in this folder.
fn mounts(fleet: &Fleet<'_>, service: &Service) -> Vec<Violation> {
    let volumes = service.node.get("volumes").map(Node::texts).unwrap_or_default().into_iter();
    let files = volumes.filter_map(|volume| volume.strip_prefix("./")?.split(':').next());
    let paths = files.map(|file| format!("deploy/{file}")).filter(|path| !fleet.tree.has(path));
    paths.map(|path| service.violation(&format!("mounts {path}, which is not there"))).collect()
}
