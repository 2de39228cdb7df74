//! The files that run a fleet in containers agree with each other and with the programs: deploy/compose.yaml, fleet.toml, haproxy.cfg
//! and Containerfile. No container engine is needed, and none is asked.

mod agreement;
mod haproxy;
mod programs;
mod settings;
mod yaml;

use toml::Table;

use super::tree::{Tree, Violation};
use haproxy::Haproxy;
use yaml::Node;

const COMPOSE: &str = "deploy/compose.yaml";
const FLEET: &str = "deploy/fleet.toml";
const EXAMPLE: &str = "deploy/madang.toml";
const HAPROXY: &str = "deploy/haproxy.cfg";
const CONTAINERFILE: &str = "deploy/Containerfile";

/// Checks the files against each other.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    match Fleet::read(tree) {
        Ok(fleet) => [settings::check, agreement::check, programs::check]
            .iter()
            .flat_map(|check| check(&fleet))
            .collect(),
        Err(unreadable) => vec![unreadable],
    }
}

/// What the files say.
struct Fleet<'a> {
    tree: &'a Tree,
    services: Vec<Service>,
    compose: Node,
    /// fleet.toml.
    config: Table,
    /// madang.toml, which has every key with its default.
    defaults: Table,
    haproxy: Haproxy<'a>,
    containerfile: &'a str,
}

/// A service of compose.yaml.
struct Service {
    name: String,
    node: Node,
}

/// The program that a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Chat,
    Discovery,
    Presence,
    /// `madang schema apply`, which ends.
    Schema,
    /// A program that is not of this tree, by its image.
    Scylla,
    Valkey,
    Haproxy,
    Unknown,
}

impl<'a> Fleet<'a> {
    fn read(tree: &'a Tree) -> Result<Self, Violation> {
        let text = |path: &str| {
            let found = tree.files().find(|(known, _)| *known == path).map(|(_, text)| text);
            found.ok_or_else(|| Violation::new(path, 0, "is missing"))
        };
        let table = |path: &str, text: &str| {
            text.parse::<Table>().map_err(|error| Violation::new(path, 0, error.message()))
        };
        let compose = Node::read(text(COMPOSE)?);
        let compose = compose.map_err(|(line, reason)| Violation::new(COMPOSE, line, reason))?;
        let services = compose.get("services").map_or(&[][..], Node::entries).iter();
        Ok(Self {
            tree,
            services: services
                .map(|(name, node)| Service { name: name.clone(), node: node.clone() })
                .collect(),
            config: table(FLEET, text(FLEET)?)?,
            defaults: table(EXAMPLE, &without_marks(text(EXAMPLE)?))?,
            haproxy: Haproxy::read(text(HAPROXY)?),
            containerfile: text(CONTAINERFILE)?,
            compose,
        })
    }

    fn of(&self, role: Role) -> impl Iterator<Item = &Service> {
        self.services.iter().filter(move |service| service.role() == role)
    }

    /// The value of a key of fleet.toml, or its default.
    fn value(&self, section: &str, key: &str) -> Option<&toml::Value> {
        let tables = [&self.config, &self.defaults];
        tables.into_iter().find_map(|table| table.get(section)?.get(key))
    }

    fn number(&self, section: &str, key: &str) -> u64 {
        self.value(section, key)
            .and_then(toml::Value::as_integer)
            .and_then(|number| number.try_into().ok())
            .unwrap_or(0)
    }

    fn text(&self, section: &str, key: &str) -> &str {
        self.value(section, key).and_then(toml::Value::as_str).unwrap_or_default()
    }

    fn list(&self, section: &str, key: &str) -> Vec<&str> {
        let list = self.value(section, key).and_then(toml::Value::as_array).map_or(&[][..], Vec::as_slice);
        list.iter().filter_map(toml::Value::as_str).collect()
    }

    /// The port of an address to listen on.
    fn port(&self, section: &str, key: &str) -> &str {
        self.text(section, key).rsplit_once(':').map_or("", |(_, port)| port)
    }
}

impl Service {
    fn role(&self) -> Role {
        match self.command()[..] {
            ["madang", "serve", ..] => return Role::Chat,
            ["madang", "schema", ..] => return Role::Schema,
            ["madang-discovery", ..] => return Role::Discovery,
            ["madang-presence", ..] => return Role::Presence,
            _ => {}
        }
        let image = self.node.get("image").map_or("", Node::text).split(':').next().unwrap_or_default();
        match image.rsplit('/').next() {
            Some("scylla") => Role::Scylla,
            Some("valkey") => Role::Valkey,
            Some("haproxy") => Role::Haproxy,
            _ => Role::Unknown,
        }
    }

    fn command(&self) -> Vec<&str> {
        self.node.get("command").map(Node::texts).unwrap_or_default()
    }

    /// Whether the service runs the image of this tree.
    fn is_ours(&self) -> bool {
        matches!(self.role(), Role::Chat | Role::Discovery | Role::Presence | Role::Schema)
    }

    /// The most open files of the service.
    fn open_files(&self) -> u64 {
        self.node.at(&["ulimits", "nofile"]).and_then(|node| node.text().parse().ok()).unwrap_or(0)
    }

    fn violation(&self, message: &str) -> Violation {
        Violation::new(COMPOSE, self.node.line, format!("{}: {message}", self.name))
    }
}

/// The example with its keys, which are comments.
fn without_marks(example: &str) -> String {
    let lines = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// The line of a file on which a text is first, or 0.
fn line_of(text: &str, part: &str) -> usize {
    text.lines().position(|line| line.contains(part)).map_or(0, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The real files, and what the checks read beside them.
    const FILES: [(&str, &str); 17] = [
        (COMPOSE, include_str!("../../../../deploy/compose.yaml")),
        (FLEET, include_str!("../../../../deploy/fleet.toml")),
        (EXAMPLE, include_str!("../../../../deploy/madang.toml")),
        (HAPROXY, include_str!("../../../../deploy/haproxy.cfg")),
        (CONTAINERFILE, include_str!("../../../../deploy/Containerfile")),
        ("Cargo.toml", include_str!("../../../../Cargo.toml")),
        ("rust-toolchain.toml", include_str!("../../../../rust-toolchain.toml")),
        ("chat-server/Cargo.toml", include_str!("../../../../chat-server/Cargo.toml")),
        ("chat-server/src/cli/mod.rs", include_str!("../../../../chat-server/src/cli/mod.rs")),
        ("chat-server/src/cli/serve.rs", include_str!("../../../../chat-server/src/cli/serve.rs")),
        ("chat-server/src/cli/schema.rs", include_str!("../../../../chat-server/src/cli/schema.rs")),
        ("discovery/Cargo.toml", include_str!("../../../../discovery/Cargo.toml")),
        ("discovery/src/main.rs", include_str!("../../../../discovery/src/main.rs")),
        ("presence/Cargo.toml", include_str!("../../../../presence/Cargo.toml")),
        ("presence/src/main.rs", include_str!("../../../../presence/src/main.rs")),
        ("push/Cargo.toml", include_str!("../../../../push/Cargo.toml")),
        ("push/src/main.rs", include_str!("../../../../push/src/main.rs")),
    ];

    /// The messages after each `from` in the file was replaced by `to`.
    fn after(file: &str, from: &str, to: &str) -> Vec<String> {
        let broken = |(path, text): (&'static str, &'static str)| {
            assert!(path != file || text.contains(from), "{file} has no {from:?}");
            (path, if path == file { text.replace(from, to) } else { text.to_owned() })
        };
        let files: Vec<_> = FILES.into_iter().map(broken).collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        check(&Tree::of(&files)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_files_agree() {
        assert_eq!(after(COMPOSE, "", ""), [""; 0]);
    }

    #[test]
    fn each_check_can_fail() {
        let mut missed = Vec::new();
        for (file, from, to, expected) in [
            (FLEET, "placement", "place", "madang.toml has no key `discovery.place`"),
            (FLEET, "[tokens]", "[token]", "madang.toml has no key `token.secret_file`"),
            (FLEET, "kind = \"redis\"", "kind = 1", "`bus.kind` is not a string, as in madang.toml"),
            (FLEET, "/run/secrets/token.secret", "/secret", "chat-1: has no secret at /secret"),
            (
                FLEET,
                "data = \"/var/lib/madang\"",
                "data = \"/data\"",
                "chat-1: cannot write to server.data /data",
            ),
            (
                FLEET,
                "\"10.213.0.10\"",
                "\"10.213.0.0/24\"",
                "haproxy: its address is not server.trusted_proxies",
            ),
            (FLEET, "scylla-3:9042", "scylla-4:9042", "`scylla-4:9042` names no service"),
            (
                FLEET,
                "scylla-3:9042",
                "scylla-3:9043",
                "scylla-3 does not listen on the port of `scylla-3:9043`",
            ),
            (FLEET, ", \"scylla-3:9042\"", "", "scylla-3: is not in store.nodes"),
            (
                FLEET,
                "valkey:6379",
                "valkey:6380",
                "valkey does not listen on the port of `redis://valkey:6380`",
            ),
            (
                FLEET,
                "discovery-2:7100",
                "discovery-2:7000",
                "does not listen on the port of `http://discovery-2:7000`",
            ),
            (
                FLEET,
                "0.0.0.0:7200",
                "127.0.0.1:7200",
                "presence.addr cannot be reached from other containers",
            ),
            (
                FLEET,
                "0.0.0.0:7200",
                "0.0.0.0:7201",
                "presence-1: its health check does not ask the port 7201",
            ),
            (FLEET, "[bus]", "[gateway]\ndrain_ms = 15000\n[bus]", "chat-1: its drain may take 30 s"),
            (
                FLEET,
                "[bus]",
                "[gateway]\nconnections = 65100\n[bus]",
                "chat-1: 65100 sockets need more open files",
            ),
            (
                FLEET,
                "[bus]",
                "[gateway]\nconnections = 17000\n[bus]",
                "is less than the sockets of all nodes, 51000",
            ),
            (FLEET, "[bus]", "[gateway]\nsilence_ms = 3600000\n[bus]", "`timeout tunnel` is not longer than"),
            (FLEET, "[bus]", "[node]\nurl = \"wss://a\"\n[bus]", "node.url: all nodes would have the same"),
            (COMPOSE, "NODE__NAME: chat-3", "NODE__NAMES: chat-3", "madang.toml has no key `node.names`"),
            (
                COMPOSE,
                "NODE__NAME: chat-3",
                "NODE__NAME: chat-2",
                "chat-3: has another name in MADANG_NODE__NAME",
            ),
            (COMPOSE, "--name, presence-2", "--name, presence-1", "presence-2: has another name in --name"),
            (
                COMPOSE,
                "fleet.toml:/etc/madang",
                "fleet.toml:/etc",
                "chat-1: MADANG_CONFIG is not the mounted fleet.toml",
            ),
            (COMPOSE, "./haproxy.cfg", "./proxy.cfg", "haproxy: mounts deploy/proxy.cfg, which is not there"),
            (
                COMPOSE,
                "ipv4_address: 10.213.0.10",
                "ipv4_address: 10.213.0.11",
                "haproxy: its address is not",
            ),
            (
                COMPOSE,
                "\n  chat-3:\n",
                "\n  chat-4:\n",
                "deploy/haproxy.cfg:69: `chat-3:8080` names no service",
            ),
            (COMPOSE, "\n  chat-3:\n", "\n  chat-4:\n", "chat-4: is not in the backend rest"),
            (
                COMPOSE,
                "\"8080:8080\"",
                "\"80:80\"",
                "haproxy: publishes 80, on which haproxy.cfg binds nothing",
            ),
            (COMPOSE, "127.0.0.1:8404", "127.0.0.1:8405", "haproxy: its health check does not ask"),
            (COMPOSE, "nofile: 131072", "nofile: 65536", "haproxy: 50000 connections need more open files"),
            (COMPOSE, "stop_grace_period: 30s", "stop_grace_period: 20s", "chat-1: its drain may take 20 s"),
            (COMPOSE, "stop_grace_period: 30s", "stop_time: 30s", "chat-1: its drain may take 20 s"),
            (COMPOSE, "valkey/valkey:8", "valkey/valkey", "valkey: the image `valkey/valkey` has no version"),
            (COMPOSE, "valkey/valkey:8", "docker.io/valkey:8", "names a registry"),
            (COMPOSE, "noeviction", "allkeys-lru", "valkey: must run with --maxmemory-policy noeviction"),
            (
                COMPOSE,
                "--commitlog-sync=batch",
                "--commitlog-sync=periodic",
                "scylla-1: must run with --commitlog-sync=batch",
            ),
            (
                COMPOSE,
                "--replication, \"3\"",
                "--replication, \"4\"",
                "schema: more replicas than nodes of the cluster",
            ),
            (
                COMPOSE,
                "[madang-presence",
                "[madang-presense",
                "presence-1: runs no program that this check knows",
            ),
            (COMPOSE, "--replication", "--replicas", "schema: `madang schema apply` has no --replicas"),
            (COMPOSE, "schema, apply", "schema, make", "schema: `madang schema` has no command `make`"),
            (COMPOSE, "--name", "--names", "presence-1: `madang-presence` has no --names"),
            (COMPOSE, "busybox, wget", "curl", "chat-1: its health check runs `curl`, which the image lacks"),
            (COMPOSE, "uid=10001", "uid=1000", "chat-1: its data belongs to another user than 10001"),
            (
                HAPROXY,
                "server chat-2 chat-2:8080 check",
                "server chat-2 chat-2:80 check",
                "does not listen on the port of `chat-2:80`",
            ),
            (
                HAPROXY,
                "    server chat-2 chat-2:8080 track rest/chat-2\n",
                "",
                "chat-2: is not in the backend sockets",
            ),
            (HAPROXY, "server discovery-2 ", "server d ", "`d` is discovery-2"),
            (HAPROXY, "option forwardfor", "option http-no-delay", "does not append X-Forwarded-For"),
            (HAPROXY, "maxconn 50000", "maxconn 30000", "is less than the sockets of all nodes, 45000"),
            (HAPROXY, "timeout tunnel 1h", "timeout tunnel 20s", "`timeout tunnel` is not longer than"),
            (HAPROXY, "GET /readyz", "GET /ready", "asks /readyz of no server"),
            (HAPROXY, "{ path /metrics }", "{ path /metric }", "/metrics is open to clients"),
            (CONTAINERFILE, "RUST=1.95.0", "RUST=1.94.0", "rust-toolchain.toml has 1.95.0"),
            (CONTAINERFILE, "FROM debian:trixie-slim", "FROM debian", "the image `debian` has no version"),
            (
                CONTAINERFILE,
                "FROM debian:trixie-slim",
                "FROM debian:bookworm-slim",
                "is of another release of Debian",
            ),
            (
                CONTAINERFILE,
                "--package madang-presence",
                "--package madang-present",
                "there is no package `madang-present`",
            ),
            (
                CONTAINERFILE,
                "--bin madang-presence",
                "--bin madang-present",
                "there is no program `madang-present`",
            ),
            (
                CONTAINERFILE,
                ",madang-presence/fleet",
                "",
                "madang-presence is built without its feature `fleet`",
            ),
            (
                CONTAINERFILE,
                "madang-presence/fleet",
                "madang-presence/flet",
                "there is no feature `madang-presence/flet`",
            ),
            (CONTAINERFILE, "--profile dist", "--profile distribution", "there is no profile `distribution`"),
            (CONTAINERFILE, " target/dist/madang-presence", "", "`madang-presence` is not in the image"),
            (CONTAINERFILE, "--locked ", "", "is built without --locked"),
            (CONTAINERFILE, "USER 10001:10001", "USER root", "runs as root"),
            (
                "presence/src/main.rs",
                "name: Option<String>",
                "title: Option<String>",
                "`madang-presence` has no --name",
            ),
        ] {
            let found = after(file, from, to);
            if !found.iter().any(|message| message.contains(expected)) {
                missed.push(format!("{from:?} to {to:?} in {file}: {expected:?} is not in {found:?}"));
            }
        }
        assert_eq!(missed, [""; 0]);
    }

    #[test]
    fn files_that_are_missing_or_damaged_are_reported() {
        assert_eq!(check(&Tree::of(&[]))[0].to_string(), "deploy/compose.yaml:1: is missing");
        let found = after(COMPOSE, "image: madang:local", "image: {}}");
        assert!(found.len() == 1 && found[0].starts_with("deploy/compose.yaml:"), "{found:?}");
        assert!(after(FLEET, "[bus]", "[bus")[0].starts_with("deploy/fleet.toml:"));
    }
}
