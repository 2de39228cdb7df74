//! How statements of each class are executed.

use std::collections::HashMap;
use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use madang_ids::rendezvous;
use parking_lot::RwLock;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::retry::FallthroughRetryPolicy;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};
use scylla::value::{CqlValue, MaybeUnset, Row};
use tokio::time::timeout;

use super::cluster::local;
use super::metrics::ScyllaMetrics;
use crate::error::{StoreError, StoreResult};

/// How long preparing a statement may take; the driver has no bound of its own for it.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(3);

/// How a statement is executed; see the table of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Read,
    SerialRead,
    Write,
    Conditional,
}

impl Class {
    /// As the table of the module has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::SerialRead => "serial read",
            Self::Write => "write",
            Self::Conditional => "conditional",
        }
    }

    fn profile(self, data_center: &str) -> ExecutionProfileHandle {
        let (consistency, seconds) = match self {
            Self::Read | Self::Write => (Consistency::LocalQuorum, 2),
            Self::SerialRead => (Consistency::LocalSerial, 3),
            Self::Conditional => (Consistency::LocalQuorum, 3),
        };
        let profile = ExecutionProfile::builder()
            .consistency(consistency)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .load_balancing_policy(local(data_center))
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
    /// By class.
    profiles: [ExecutionProfileHandle; 4],
    pub(super) metrics: ScyllaMetrics,
}

impl Cql {
    pub(super) fn new(session: Session, data_center: &str) -> Self {
        let profiles = [Class::Read, Class::SerialRead, Class::Write, Class::Conditional]
            .map(|class| class.profile(data_center));
        Self { session, prepared: RwLock::default(), profiles, metrics: ScyllaMetrics::default() }
    }

    /// The node that comes first for a partition, and its shard, as one number. `None` while the driver does not know the table.
    pub(super) fn shard(&self, table: &str, partition: &dyn SerializeRow) -> Option<u64> {
        let (keyspace, cluster) = (self.session.get_keyspace()?, self.session.get_cluster_state());
        let replicas = cluster.get_endpoints(&keyspace, table, partition).ok()?;
        let (node, shard) = replicas.first()?;
        let (high, low) = node.host_id.as_u64_pair();
        Some(rendezvous::mix(high ^ rendezvous::mix(low ^ u64::from(*shard))))
    }

    fn profile(&self, class: Class) -> ExecutionProfileHandle {
        self.profiles[class as usize].clone()
    }

    async fn prepared(&self, statement: &Statement) -> StoreResult<PreparedStatement> {
        if let Some(known) = self.prepared.read().get(statement.cql) {
            return Ok(known.clone());
        }
        let unavailable = |error: &dyn Display| {
            self.metrics.count_unavailable(statement.class);
            StoreError::Unavailable(format!("a statement cannot be prepared: {error}"))
        };
        let prepared = timeout(PREPARE_TIMEOUT, self.session.prepare(statement.cql)).await;
        let mut prepared =
            prepared.map_err(|late| unavailable(&late))?.map_err(|error| unavailable(&error))?;
        prepared.set_execution_profile_handle(Some(self.profile(statement.class)));
        prepared.set_is_idempotent(statement.class != Class::Conditional);
        self.prepared.write().insert(statement.cql, prepared.clone());
        Ok(prepared)
    }

    async fn execute(&self, statement: &Statement, values: impl SerializeRow) -> StoreResult<QueryResult> {
        let prepared = self.prepared(statement).await?;
        let result = self.measured(statement.class, self.session.execute_unpaged(&prepared, values));
        result.await
    }

    async fn measured(
        &self,
        class: Class,
        work: impl Future<Output = Result<QueryResult, ExecutionError>>,
    ) -> StoreResult<QueryResult> {
        let begin = Instant::now();
        let result = work.await.map_err(|error| class.error(&error));
        self.metrics.record(class, begin.elapsed(), result.as_ref().err());
        result
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
        batch.set_execution_profile_handle(Some(self.profile(Class::Conditional)));
        let mut values = Vec::with_capacity(parts.len());
        for (statement, row) in parts {
            batch.append_statement(self.prepared(statement).await?);
            values.push(row);
        }
        is_applied(self.measured(Class::Conditional, self.session.batch(&batch, values)).await?)
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
