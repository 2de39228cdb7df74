//! A cluster as an operator sees it: what it is, which nodes it has, what its system tables say.
//!
//! Statements of this file are few and not prepared; those of the product are in [`super::session`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::cluster::Node;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, RequestAttemptError,
};
use scylla::policies::load_balancing::{
    DefaultPolicy, LoadBalancingPolicy, NodeIdentifier, SingleTargetLoadBalancingPolicy,
};
use scylla::serialize::row::SerializeRow;
use scylla::statement::unprepared::Statement as Unprepared;
use scylla::statement::{Consistency, SerialConsistency};
use tokio::time::timeout;

use super::connect::ConnectError;
use crate::config::StoreConfig;

/// How long a node may take to accept a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(3);
/// How long all nodes together may take to answer for the first time.
const REACH_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that answers nothing for the sum of both is closed, so that a link which drops packets costs 10 s.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long one statement may take. A change of the schema waits for all nodes.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What speaks CQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Apache Cassandra.
    Cassandra,
    /// ScyllaDB.
    ScyllaDb,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cassandra => "Cassandra",
            Self::ScyllaDb => "ScyllaDB",
        })
    }
}

/// A release of a product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    pub(super) product: Product,
    pub(super) text: String,
}

impl Release {
    /// The first two numbers. Text without numbers is 0.0, which is too old.
    fn number(&self) -> (u32, u32) {
        let mut numbers =
            self.text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// The day on which a ScyllaDB was built, as the number 20260831: a release is `2026.3.1-0.20260831.3f2a`.
    pub(super) fn built(&self) -> Option<u32> {
        let build = self.text.split('-').nth(1)?;
        build.split('.').find(|part| part.len() == 8 && part.starts_with("20"))?.parse().ok()
    }

    /// The release that is needed, if this is an earlier one: Cassandra 4.1 brought `paxos_variant: v2`; ScyllaDB 6.0 consistent
    /// changes of the schema.
    fn lacks(&self) -> Option<&'static str> {
        let (needed, text) = match self.product {
            Product::Cassandra => ((4, 1), "4.1"),
            Product::ScyllaDb => ((6, 0), "6.0"),
        };
        (self.number() < needed).then_some(text)
    }
}

/// A keyspace, as its cluster describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keyspace {
    pub(super) name: String,
    pub(super) replication: BTreeMap<String, String>,
    pub(super) durable_writes: bool,
    pub(super) has_tablets: bool,
}

/// A cluster that answers.
pub(super) struct Cluster {
    pub(super) session: Session,
    pub(super) data_center: String,
    pub(super) release: Release,
    nodes: String,
}

impl Cluster {
    /// Connects once.
    pub(super) async fn reach(config: &StoreConfig) -> Result<Self, ConnectError> {
        let nodes = config.nodes.join(", ");
        let unreachable = |reason: String| ConnectError::Unreachable { nodes: nodes.clone(), reason };
        let profile = ExecutionProfile::builder()
            .consistency(Consistency::LocalQuorum)
            .request_timeout(Some(TIMEOUT))
            .build()
            .into_handle();
        let mut builder = SessionBuilder::new()
            .known_nodes(&config.nodes)
            .connection_timeout(CONNECTION_TIMEOUT)
            .keepalive_interval(KEEPALIVE)
            .keepalive_timeout(KEEPALIVE)
            // Tables change while nobody reads their description.
            .refresh_metadata_on_auto_schema_agreement(false)
            .default_execution_profile_handle(profile);
        if !config.user.is_empty() {
            builder = builder.user(&config.user, password(config)?);
        }
        let session = match timeout(REACH_TIMEOUT, builder.build()).await {
            Err(_) => return Err(unreachable("no answer in time".to_owned())),
            Ok(Err(error)) => {
                return Err(refusal(config, &error).unwrap_or_else(|| unreachable(error.to_string())));
            }
            Ok(Ok(session)) => session,
        };
        let (product, text, data_center) =
            identify(&session).await.map_err(|error| unreachable(error.to_string()))?;
        let release = Release { product, text };
        if let Some(needed) = release.lacks() {
            return Err(ConnectError::TooOld { product, found: release.text, needed });
        }
        let mut cluster = Self { session, data_center, release, nodes };
        if !config.data_center.is_empty() {
            let found = cluster.data_centers();
            let wanted = config.data_center.clone();
            if !found.contains(&wanted) {
                return Err(ConnectError::NoDataCenter { wanted, found: found.into_iter().collect() });
            }
            cluster.data_center = wanted;
        }
        Ok(cluster)
    }

    fn data_centers(&self) -> BTreeSet<String> {
        let state = self.session.get_cluster_state();
        state.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect()
    }

    /// The nodes that are connected, in an order that all programs see.
    pub(super) fn live_nodes(&self) -> Vec<Arc<Node>> {
        let state = self.session.get_cluster_state();
        let mut live: Vec<Arc<Node>> =
            state.get_nodes_info().iter().filter(|node| node.is_connected()).cloned().collect();
        live.sort_by_key(|node| node.host_id);
        live
    }

    pub(super) fn unreachable(&self, reason: &dyn fmt::Display) -> ConnectError {
        ConnectError::Unreachable { nodes: self.nodes.clone(), reason: reason.to_string() }
    }

    /// Reads a system table of the local data center, or of one node.
    pub(super) async fn rows<T>(
        &self,
        cql: &str,
        values: impl SerializeRow,
        node: Option<&Arc<Node>>,
    ) -> Result<Vec<T>, ConnectError>
    where
        T: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let policy = node.map_or_else(|| local(&self.data_center), one);
        let mut statement = Unprepared::new(cql);
        statement.set_load_balancing_policy(Some(policy));
        let rows = rows(&self.session, statement, values).await;
        rows.map_err(|error| self.unreachable(&error))
    }

    /// Executes a change of the schema on the first live node: one node executes one change after the other, so that two programs
    /// that make the same table at the same time do not make two.
    pub(super) async fn change(&self, what: &str, cql: &str) -> Result<(), ConnectError> {
        let mut statement = Unprepared::new(cql);
        statement.set_load_balancing_policy(self.live_nodes().first().map(one));
        let changed = self.session.query_unpaged(statement, ()).await;
        changed
            .map(drop)
            .map_err(|error| ConnectError::Refused { what: what.to_owned(), reason: error.to_string() })
    }

    /// Executes a conditional write. Whether it was applied is not returned: read what is there.
    pub(super) async fn condition(&self, what: &str, cql: &str) -> Result<(), ConnectError> {
        let mut statement = Unprepared::new(cql);
        statement.set_serial_consistency(Some(SerialConsistency::LocalSerial));
        statement.set_load_balancing_policy(Some(local(&self.data_center)));
        let written = self.session.query_unpaged(statement, ()).await;
        written
            .map(drop)
            .map_err(|error| ConnectError::Refused { what: what.to_owned(), reason: error.to_string() })
    }

    /// The keyspace, if it exists.
    pub(super) async fn keyspace(&self, name: &str) -> Result<Option<Keyspace>, ConnectError> {
        const KEYSPACE: &str =
            "SELECT replication, durable_writes FROM system_schema.keyspaces WHERE keyspace_name = ?";
        const TABLETS: &str =
            "SELECT initial_tablets FROM system_schema.scylla_keyspaces WHERE keyspace_name = ?";
        let found: Vec<(BTreeMap<String, String>, bool)> = self.rows(KEYSPACE, (name,), None).await?;
        let Some((replication, durable_writes)) = found.into_iter().next() else { return Ok(None) };
        let has_tablets = match self.release.product {
            Product::Cassandra => false,
            Product::ScyllaDb => {
                let tablets: Vec<(Option<i32>,)> = self.rows(TABLETS, (name,), None).await?;
                tablets.iter().any(|(tablets,)| tablets.is_some())
            }
        };
        Ok(Some(Keyspace { name: name.to_owned(), replication, durable_writes, has_tablets }))
    }
}

/// A plan over the nodes of one data center, those with the data first. Another data center never coordinates: LOCAL_SERIAL would
/// mean its own replicas.
pub(super) fn local(data_center: &str) -> Arc<dyn LoadBalancingPolicy> {
    DefaultPolicy::builder().prefer_datacenter(data_center.to_owned()).permit_dc_failover(false).build()
}

fn one(node: &Arc<Node>) -> Arc<dyn LoadBalancingPolicy> {
    SingleTargetLoadBalancingPolicy::new(NodeIdentifier::Node(Arc::clone(node)), None)
}

/// The reason why a system table was not read.
#[derive(Debug, thiserror::Error)]
enum RowsError {
    #[error(transparent)]
    Execution(Box<ExecutionError>),
    #[error("a system table has another shape than this program knows: {0}")]
    Shape(String),
}

impl RowsError {
    /// There is no such table, for example.
    fn is_invalid(&self) -> bool {
        let Self::Execution(error) = self else { return false };
        matches!(
            &**error,
            ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))
        )
    }
}

impl From<ExecutionError> for RowsError {
    fn from(error: ExecutionError) -> Self {
        Self::Execution(Box::new(error))
    }
}

async fn rows<T>(
    session: &Session,
    statement: impl Into<Unprepared>,
    values: impl SerializeRow,
) -> Result<Vec<T>, RowsError>
where
    T: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
{
    let shape = |error: &dyn fmt::Display| RowsError::Shape(error.to_string());
    let result = session.query_unpaged(statement, values).await?;
    let result = result.into_rows_result().map_err(|error| shape(&error))?;
    let rows = result.rows::<T>().map_err(|error| shape(&error))?;
    rows.map(|row| row.map_err(|error| shape(&error))).collect()
}

/// Product, release and data center of the node that answers.
async fn identify(session: &Session) -> Result<(Product, String, String), RowsError> {
    const LOCAL: &str = "SELECT release_version, data_center FROM system.local WHERE key = 'local'";
    const SCYLLA: &str = "SELECT version FROM system.versions WHERE key = 'local'";
    let local: Vec<(String, String)> = rows(session, LOCAL, ()).await?;
    let (release, data_center) = local.into_iter().next().unwrap_or_default();
    match rows::<(String,)>(session, SCYLLA, ()).await {
        Ok(version) => {
            let version = version.into_iter().next().map_or(release, |(version,)| version);
            Ok((Product::ScyllaDb, version, data_center))
        }
        // Cassandra has no such table.
        Err(error) if error.is_invalid() => Ok((Product::Cassandra, release, data_center)),
        Err(error) => Err(error),
    }
}

fn password(config: &StoreConfig) -> Result<String, ConnectError> {
    let path = &config.password_file;
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| ConnectError::PasswordFile { path: path.clone(), error })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// An error that names the credentials: the node answers, and asks for others.
fn refusal(config: &StoreConfig, error: &NewSessionError) -> Option<ConnectError> {
    let NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
        last_connection_error: ConnectionError::ConnectionSetupRequestError(setup),
    })) = error
    else {
        return None;
    };
    let reason = match setup.get_error() {
        ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, reason) => reason.clone(),
        ConnectionSetupRequestErrorKind::MissingAuthentication => {
            "it asks for a role and a password".to_owned()
        }
        _ => return None,
    };
    let role = if config.user.is_empty() { "nobody".to_owned() } else { format!("the role {}", config.user) };
    Some(ConnectError::Credentials { role, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(product: Product, text: &str) -> Release {
        Release { product, text: text.to_owned() }
    }

    #[test]
    fn releases_are_compared_as_numbers() {
        for (product, text, lacks) in [
            (Product::Cassandra, "5.0.6", None),
            (Product::Cassandra, "4.1-alpha1", None),
            (Product::Cassandra, "4.0.17", Some("4.1")),
            (Product::Cassandra, "3.11.19", Some("4.1")),
            (Product::ScyllaDb, "2026.3.1-0.20260831.3f2a", None),
            (Product::ScyllaDb, "5.4.9-0.20240703.8c33", Some("6.0")),
            (Product::ScyllaDb, "", Some("6.0")),
        ] {
            assert_eq!(release(product, text).lacks(), lacks, "{product} {text}");
        }
    }

    #[test]
    fn the_day_of_a_build_is_read() {
        let built = |text| release(Product::ScyllaDb, text).built();
        assert_eq!(built("2026.3.1-0.20260831.3f2a"), Some(20_260_831));
        assert_eq!(built("2026.3.1"), None);
        assert_eq!(built("6.2.0-rc1"), None);
    }
}
