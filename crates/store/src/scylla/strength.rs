//! Settings of a cluster without which the guarantees do not hold.

use std::collections::BTreeMap;
use std::fmt;

use super::cluster::{Cluster, Keyspace, Product, Release};
use super::connect::ConnectError;

/// A majority of fewer replicas is all of them, or one.
const REPLICAS: u32 = 3;
/// LWT on tablets was corrected until July 2026: releases built later have all corrections.
const TABLETS_ARE_SAFE: u32 = 20_260_801;
/// The timeout of contention must be below the timeout of the driver for a condition ([`super::session::Class::Conditional`]), or
/// an append is given up while its round still runs.
const CONTENTION_MS: u64 = 3_000;

/// A setting that cannot hold a guarantee.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weakness {
    /// The setting, and the nodes that have it if not all do.
    pub setting: String,
    /// Its value.
    pub found: String,
    /// The value that is needed, and why.
    pub needed: &'static str,
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, found, needed } = self;
        write!(f, "{setting} is {found}, needs {needed}")
    }
}

/// Everything that is weak: the keyspace, and the settings of each node that is up.
pub(super) async fn weaknesses(cluster: &Cluster, made: &Keyspace) -> Result<Vec<Weakness>, ConnectError> {
    let mut weak = of_keyspace(made, &cluster.data_center, &cluster.release);
    let mut of_nodes: BTreeMap<(&'static str, String, &'static str), Vec<String>> = BTreeMap::new();
    let nodes = cluster.live_nodes();
    for node in &nodes {
        let settings = settings(cluster, node).await?;
        for (setting, found, needed) in of_node(&settings, cluster.release.product) {
            of_nodes.entry((setting, found, needed)).or_default().push(node.address.to_string());
        }
    }
    weak.extend(of_nodes.into_iter().map(|((setting, found, needed), on)| {
        let setting = if on.len() == nodes.len() {
            setting.to_owned()
        } else {
            format!("{setting} on {}", on.join(", "))
        };
        Weakness { setting, found, needed }
    }));
    Ok(weak)
}

pub(super) fn of_keyspace(made: &Keyspace, data_center: &str, release: &Release) -> Vec<Weakness> {
    let name = &made.name;
    let mut weak = Vec::new();
    let replicas = replicas(made, data_center);
    if replicas.is_none_or(|replicas| replicas < REPLICAS) {
        weak.push(Weakness {
            setting: format!(
                "the replication factor of the keyspace {name} in the data center {data_center}"
            ),
            found: replicas.map_or_else(|| "not set".to_owned(), |replicas| replicas.to_string()),
            needed: "3 or more: with fewer a single lost disk loses messages",
        });
    }
    if !made.durable_writes {
        weak.push(Weakness {
            setting: format!("durable_writes of the keyspace {name}"),
            found: "false".to_owned(),
            needed: "true: without a commit log a restart loses messages",
        });
    }
    if made.has_tablets && !tablets_are_safe(release) {
        weak.push(Weakness {
            setting: format!("tablets of the keyspace {name}"),
            found: format!("enabled on ScyllaDB {}", release.text),
            needed: "a release that was built in August 2026 or later, or a keyspace with tablets = {'enabled': false}: earlier \
                     releases lack corrections of conditional writes on tablets",
        });
    }
    weak
}

/// Whether conditional writes on tablets are safe in a release of ScyllaDB.
pub(super) fn tablets_are_safe(release: &Release) -> bool {
    release.built().is_some_and(|built| built >= TABLETS_ARE_SAFE)
}

/// The replicas in a data center; `SimpleStrategy` ignores data centers.
pub(super) fn replicas(made: &Keyspace, data_center: &str) -> Option<u32> {
    let is_simple = made.replication.get("class").is_some_and(|class| class.ends_with("SimpleStrategy"));
    let key = if is_simple { "replication_factor" } else { data_center };
    made.replication.get(key)?.parse().ok()
}

/// The settings of one node by their names. Empty if the role may not read them.
async fn settings(
    cluster: &Cluster,
    node: &std::sync::Arc<scylla::cluster::Node>,
) -> Result<BTreeMap<String, String>, ConnectError> {
    let table = match cluster.release.product {
        Product::Cassandra => "SELECT name, value FROM system_views.settings",
        Product::ScyllaDb => "SELECT name, value FROM system.config",
    };
    let rows: Vec<(String, Option<String>)> = match cluster.rows(table, (), Some(node)).await {
        Ok(rows) => rows,
        Err(error) => {
            tracing::warn!(node = %node.address, %error, "the settings of a CQL node cannot be read");
            Vec::new()
        }
    };
    // ScyllaDB writes values as JSON.
    let plain = |value: String| value.trim_matches('"').to_owned();
    Ok(rows.into_iter().filter_map(|(name, value)| Some((name, plain(value?)))).collect())
}

/// The weak settings of a node: name, value, what is needed.
fn of_node(
    settings: &BTreeMap<String, String>,
    product: Product,
) -> Vec<(&'static str, String, &'static str)> {
    let mut weak = Vec::new();
    let mut check = |name: &'static str, holds: &dyn Fn(&str) -> bool, needed: &'static str| {
        let found = settings.get(name).map_or("not readable", String::as_str);
        if !holds(found) {
            weak.push((name, found.to_owned(), needed));
        }
    };
    match product {
        Product::Cassandra => {
            let synced = |value: &str| value == "group" || value == "batch";
            check(
                "commitlog_sync",
                &synced,
                "group or batch: with periodic a power failure of the replicas loses the messages of the last seconds",
            );
            check(
                "paxos_variant",
                &|value| value == "v2",
                "v2: with v1 a failed append may still be applied after a read has shown that it was not",
            );
            check("cas_contention_timeout", &is_short, "less than 3 s, the client's timeout");
        }
        Product::ScyllaDb => {
            check(
                "commitlog_sync",
                &|value| value == "batch",
                "batch: with periodic a power failure of the replicas loses the messages of the last seconds",
            );
            check("cas_contention_timeout_in_ms", &is_short, "less than 3000, the client's timeout");
        }
    }
    weak
}

/// A duration below [`CONTENTION_MS`]: `1000`, `1000ms` or `1s`.
fn is_short(value: &str) -> bool {
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let ms = match (number.parse::<u64>(), unit) {
        (Ok(number), "" | "ms") => number,
        (Ok(number), "s") => number.saturating_mul(1_000),
        _ => return false,
    };
    ms < CONTENTION_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyspace(replication: &[(&str, &str)]) -> Keyspace {
        Keyspace {
            name: "k".to_owned(),
            replication: pairs(replication),
            durable_writes: true,
            has_tablets: false,
        }
    }

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn scylla(text: &str) -> Release {
        Release { product: Product::ScyllaDb, text: text.to_owned() }
    }

    fn weak_settings(made: &Keyspace, release: &str) -> Vec<String> {
        of_keyspace(made, "dc1", &scylla(release))
            .into_iter()
            .map(|weak| format!("{}: {}", weak.setting, weak.found))
            .collect()
    }

    #[test]
    fn three_replicas_in_the_local_data_center_are_needed() {
        let network = "org.apache.cassandra.locator.NetworkTopologyStrategy";
        let strong = keyspace(&[("class", network), ("dc1", "3"), ("dc2", "1")]);
        assert!(weak_settings(&strong, "").is_empty());
        let other = keyspace(&[("class", network), ("dc2", "3")]);
        let setting = "the replication factor of the keyspace k in the data center dc1";
        assert_eq!(weak_settings(&other, ""), [format!("{setting}: not set")]);
        let simple = keyspace(&[("class", "SimpleStrategy"), ("replication_factor", "2")]);
        assert_eq!(weak_settings(&simple, ""), [format!("{setting}: 2")]);
    }

    #[test]
    fn tablets_and_a_missing_commit_log_are_weak() {
        let mut made = keyspace(&[("class", "SimpleStrategy"), ("replication_factor", "3")]);
        made.has_tablets = true;
        assert!(weak_settings(&made, "2026.3.0-0.20260801.abc").is_empty());
        assert_eq!(
            weak_settings(&made, "2026.2.0-0.20260731.abc"),
            ["tablets of the keyspace k: enabled on ScyllaDB 2026.2.0-0.20260731.abc"]
        );
        made.has_tablets = false;
        made.durable_writes = false;
        assert_eq!(weak_settings(&made, ""), ["durable_writes of the keyspace k: false"]);
    }

    #[test]
    fn settings_of_a_node_are_named_with_their_values() {
        let names = |settings: &[(&str, &str)], product| {
            of_node(&pairs(settings), product)
                .into_iter()
                .map(|(name, found, _)| format!("{name}={found}"))
                .collect::<Vec<_>>()
        };
        let good =
            [("commitlog_sync", "group"), ("paxos_variant", "v2"), ("cas_contention_timeout", "1800ms")];
        assert!(names(&good, Product::Cassandra).is_empty());
        let bad = [("commitlog_sync", "periodic"), ("paxos_variant", "v1"), ("cas_contention_timeout", "5s")];
        assert_eq!(
            names(&bad, Product::Cassandra),
            ["commitlog_sync=periodic", "paxos_variant=v1", "cas_contention_timeout=5s"]
        );
        assert_eq!(
            names(&[("cas_contention_timeout_in_ms", "1000")], Product::ScyllaDb),
            ["commitlog_sync=not readable"]
        );
    }

    #[test]
    fn durations_have_units() {
        for short in ["1000", "1000ms", "2s", "2999ms"] {
            assert!(is_short(short), "{short}");
        }
        for long in ["3000", "3s", "1m", "", "soon"] {
            assert!(!is_short(long), "{long}");
        }
    }
}
