//! The connection to the cluster, and how statements of each class are executed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::{CqlValue, MaybeUnset, Row};

use super::Scylla;
use crate::error::{StoreError, StoreResult};

/// Where the cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScyllaConfig {
    /// Addresses of some nodes, `host:port`.
    pub nodes: Vec<String>,
    /// The keyspace; `madang schema apply` makes its tables.
    pub keyspace: String,
}

/// Connects to the cluster.
///
/// # Errors
/// [`StoreError::Unavailable`] if no node answers, or there is no such keyspace.
pub async fn connect(config: &ScyllaConfig) -> StoreResult<Arc<Scylla>> {
    let session = SessionBuilder::new()
        .known_nodes(&config.nodes)
        .use_keyspace(config.keyspace.clone(), true)
        .default_execution_profile_handle(Class::Read.profile())
        .build()
        .await
        .map_err(|error| StoreError::Unavailable(format!("no connection to the cluster: {error}")))?;
    Ok(Arc::new(Scylla { cql: Arc::new(Cql::new(session)) }))
}

/// The tables, as statements.
const SCHEMA: &str = include_str!("../../../../schema.cql");

/// Empties the keyspace of a test; creates it with its tables if it is not there.
///
/// # Errors
/// Those of the cluster.
#[cfg(feature = "conformance")]
pub async fn fresh_keyspace(config: &ScyllaConfig) -> StoreResult<()> {
    let failed = |error: &dyn std::fmt::Display| StoreError::Unavailable(error.to_string());
    let session =
        SessionBuilder::new().known_nodes(&config.nodes).build().await.map_err(|error| failed(&error))?;
    let keyspace = &config.keyspace;
    let create = format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {{'class': 'NetworkTopologyStrategy', 'datacenter1': 1}}"
    );
    session.query_unpaged(create, ()).await.map_err(|error| failed(&error))?;
    session.use_keyspace(keyspace.clone(), true).await.map_err(|error| failed(&error))?;
    let text: String =
        SCHEMA.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n");
    for statement in text.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        let table = statement.split_whitespace().nth(2).unwrap_or_default();
        match session.query_unpaged(format!("TRUNCATE {table}"), ()).await {
            Ok(_) => {}
            Err(_) => drop(session.query_unpaged(statement, ()).await.map_err(|error| failed(&error))?),
        }
    }
    Ok(())
}

/// How a statement is executed; see the table of the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Read,
    SerialRead,
    Write,
    Conditional,
}

impl Class {
    fn profile(self) -> ExecutionProfileHandle {
        let (consistency, seconds) = match self {
            Self::Read | Self::Write => (Consistency::LocalQuorum, 2),
            Self::SerialRead => (Consistency::LocalSerial, 3),
            Self::Conditional => (Consistency::LocalQuorum, 3),
        };
        let profile = ExecutionProfile::builder()
            .consistency(consistency)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .request_timeout(Some(Duration::from_secs(seconds)));
        let profile = match self {
            Self::Conditional => profile.retry_policy(Arc::new(FallthroughRetryPolicy::new())),
            _ => profile,
        };
        profile.build().into_handle()
    }

    /// What an error of such a statement means to its caller.
    fn error(self, error: &ExecutionError) -> StoreError {
        let is_wrong = matches!(
            error,
            ExecutionError::BadQuery(_)
                | ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                    DbError::SyntaxError | DbError::Invalid | DbError::Unauthorized,
                    _,
                ))
        );
        match self {
            _ if is_wrong => StoreError::Corrupt(format!("a statement is invalid: {error}")),
            Self::Read | Self::SerialRead => StoreError::Unavailable(error.to_string()),
            Self::Write | Self::Conditional => StoreError::Unknown(error.to_string()),
        }
    }
}

/// A statement of this program.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) class: Class,
    pub(super) cql: &'static str,
}

/// Values of a statement in a batch.
pub(super) type Values = Vec<MaybeUnset<Option<CqlValue>>>;

/// Executes statements.
#[derive(Debug)]
pub(super) struct Cql {
    session: Session,
    prepared: RwLock<HashMap<&'static str, PreparedStatement>>,
    batches: ExecutionProfileHandle,
}

impl Cql {
    fn new(session: Session) -> Self {
        Self { session, prepared: RwLock::default(), batches: Class::Conditional.profile() }
    }

    async fn prepared(&self, statement: &Statement) -> StoreResult<PreparedStatement> {
        if let Some(known) = self.prepared.read().get(statement.cql) {
            return Ok(known.clone());
        }
        let prepared = self.session.prepare(statement.cql).await;
        let mut prepared = prepared.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        prepared.set_execution_profile_handle(Some(statement.class.profile()));
        prepared.set_is_idempotent(statement.class != Class::Conditional);
        self.prepared.write().insert(statement.cql, prepared.clone());
        Ok(prepared)
    }

    async fn execute(&self, statement: &Statement, values: impl SerializeRow) -> StoreResult<QueryResult> {
        let prepared = self.prepared(statement).await?;
        let result = self.session.execute_unpaged(&prepared, values).await;
        result.map_err(|error| statement.class.error(&error))
    }

    /// Reads rows.
    pub(super) async fn read<T>(
        &self,
        statement: &Statement,
        values: impl SerializeRow,
    ) -> StoreResult<Vec<T>>
    where
        T: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        let result = self.execute(statement, values).await?.into_rows_result();
        let result = result.map_err(|error| StoreError::Corrupt(error.to_string()))?;
        let rows = result.rows::<T>().map_err(|error| StoreError::Corrupt(error.to_string()))?;
        rows.map(|row| row.map_err(|error| StoreError::Corrupt(error.to_string()))).collect()
    }

    /// Reads at most one row.
    pub(super) async fn read_one<T>(
        &self,
        statement: &Statement,
        values: impl SerializeRow,
    ) -> StoreResult<Option<T>>
    where
        T: for<'frame, 'metadata> DeserializeRow<'frame, 'metadata>,
    {
        Ok(self.read(statement, values).await?.into_iter().next())
    }

    /// Writes without a condition.
    pub(super) async fn write(&self, statement: &Statement, values: impl SerializeRow) -> StoreResult<()> {
        self.execute(statement, values).await.map(drop)
    }

    /// Writes if the condition holds; says whether it did.
    pub(super) async fn conditional(
        &self,
        statement: &Statement,
        values: impl SerializeRow,
    ) -> StoreResult<bool> {
        is_applied(self.execute(statement, values).await?)
    }

    /// Writes several rows of one partition if all conditions hold; says whether they did.
    pub(super) async fn conditional_batch(&self, parts: Vec<(&Statement, Values)>) -> StoreResult<bool> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(false);
        batch.set_execution_profile_handle(Some(self.batches.clone()));
        let mut values = Vec::with_capacity(parts.len());
        for (statement, row) in parts {
            batch.append_statement(self.prepared(statement).await?);
            values.push(row);
        }
        let result = self.session.batch(&batch, values).await;
        is_applied(result.map_err(|error| Class::Conditional.error(&error))?)
    }
}

fn is_applied(result: QueryResult) -> StoreResult<bool> {
    let unknown = |why: String| StoreError::Unknown(format!("no answer to a condition: {why}"));
    let rows = result.into_rows_result().map_err(|error| unknown(error.to_string()))?;
    let row = rows.maybe_first_row::<Row>().map_err(|error| unknown(error.to_string()))?;
    match row.and_then(|row| row.columns.into_iter().next().flatten()) {
        Some(CqlValue::Boolean(is_applied)) => Ok(is_applied),
        other => Err(unknown(format!("{other:?}"))),
    }
}
