//! The way to a cluster: reach it, look at it, refuse one that cannot keep the guarantees.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Scylla;
use super::acts::LastBucket;
use super::cluster::{Cluster, Product};
use super::schema::{self, Versions};
use super::session::Cql;
use super::strength::{self, Weakness};
use crate::config::StoreConfig;

/// The pause after a try that found no node. It doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The reason why a cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No node answers, or the one that does answers no query.
    #[error("no node of the CQL cluster answers at {nodes}: {reason}")]
    Unreachable {
        /// The addresses of the configuration.
        nodes: String,
        /// The error of the last one.
        reason: String,
    },
    /// The cluster wants other credentials.
    #[error(
        "the CQL cluster refuses the login of {role}: {reason}; check store.user and store.password_file"
    )]
    Credentials {
        /// The role that tried to log in.
        role: String,
        /// The cluster's answer.
        reason: String,
    },
    /// The password cannot be read.
    #[error("store.password_file {}: {error}", path.display())]
    PasswordFile {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
    /// The servers lack what this program needs.
    #[error("the CQL cluster runs {product} {found}, which is too old: this program needs {needed} or later")]
    TooOld {
        /// What it is.
        product: Product,
        /// Its release.
        found: String,
        /// The first release that is good enough.
        needed: &'static str,
    },
    /// `store.data_center` names none of the cluster.
    #[error("the CQL cluster has no data center {wanted} (store.data_center); it has: {}", found.join(", "))]
    NoDataCenter {
        /// The configured one.
        wanted: String,
        /// Those of the cluster.
        found: Vec<String>,
    },
    /// There is no such keyspace.
    #[error(
        "the CQL cluster has no keyspace {0} (store.keyspace); create it and its tables: madang schema apply"
    )]
    NoKeyspace(String),
    /// The keyspace has no tables, or not all of them.
    #[error("the keyspace {0} has no complete schema; create its tables: madang schema apply")]
    NoSchema(String),
    /// The schema is of an earlier program.
    #[error(
        "the schema of the keyspace {keyspace} has version {found}, and this program needs {needed}; bring it up to date: madang \
         schema apply"
    )]
    OlderSchema {
        /// The keyspace.
        keyspace: String,
        /// Its version.
        found: i32,
        /// The version of this program.
        needed: i32,
    },
    /// The schema is of a later program.
    #[error(
        "the schema of the keyspace {keyspace} has version {found}, and this program knows {known}; start a newer program, because \
         this one could damage data that it does not know"
    )]
    NewerSchema {
        /// The keyspace.
        keyspace: String,
        /// Its version.
        found: i32,
        /// The version of this program.
        known: i32,
    },
    /// Settings that cannot hold G1.
    #[error(
        "the CQL cluster may lose acknowledged messages or order them twice:{}\nchange these settings, or accept the risk with \
         --accept-weak-store (for tests only)",
        lines(.0)
    )]
    Weak(Vec<Weakness>),
    /// A change of the schema failed.
    #[error("the CQL cluster refuses to {what}: {reason}")]
    Refused {
        /// What was tried.
        what: String,
        /// The cluster's answer.
        reason: String,
    },
}

fn lines(weaknesses: &[Weakness]) -> String {
    weaknesses.iter().map(|weakness| format!("\n  {weakness}")).collect()
}

impl ConnectError {
    /// Whether only an operator can change it: trying again does not help.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        !matches!(self, Self::Unreachable { .. })
    }
}

/// Connects to the cluster, and checks whether it keeps the guarantees. While no node answers it tries again until `patience` is
/// over, and logs each try. Settings that cannot hold G1 are an error, or are logged if `accept_weak`. Cancel safe.
///
/// # Errors
/// See [`ConnectError`]. A server should go on trying while the error is not lasting.
pub async fn connect(
    config: &StoreConfig,
    accept_weak: bool,
    patience: Duration,
) -> Result<Arc<Scylla>, ConnectError> {
    let cluster = persist(patience, || async {
        let cluster = Cluster::reach(config).await?;
        inspect(&cluster, config, accept_weak).await?;
        let used = cluster.session.use_keyspace(config.keyspace.clone(), true).await;
        used.map_err(|error| cluster.unreachable(&error))?;
        Ok(cluster)
    });
    let cluster = cluster.await?;
    let cql = Cql::new(cluster.session, &cluster.data_center);
    Ok(Arc::new(Scylla { cql: Arc::new(cql), last_bucket: LastBucket::default() }))
}

/// Reaches the cluster, with pauses between the tries.
pub(super) async fn reach(config: &StoreConfig, patience: Duration) -> Result<Cluster, ConnectError> {
    persist(patience, || Cluster::reach(config)).await
}

/// Repeats what fails because no node answers.
async fn persist<T, F>(patience: Duration, work: impl Fn() -> F) -> Result<T, ConnectError>
where
    F: Future<Output = Result<T, ConnectError>>,
{
    let (until, mut pause) = (Instant::now() + patience, FIRST_PAUSE);
    loop {
        match work().await {
            Err(error) if !error.is_lasting() && Instant::now() + pause < until => {
                let retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(%error, retry_in_ms, "connecting to the CQL cluster failed; retrying");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Checks everything that `serve` needs of the cluster.
pub(super) async fn inspect(
    cluster: &Cluster,
    config: &StoreConfig,
    accept_weak: bool,
) -> Result<(), ConnectError> {
    let keyspace = &config.keyspace;
    let Some(made) = cluster.keyspace(keyspace).await? else {
        return Err(ConnectError::NoKeyspace(keyspace.clone()));
    };
    if strength::replicas(&made, &cluster.data_center).is_none() {
        // No statement of this data center would be executed, not even the one that reads the version.
        return Err(ConnectError::Weak(strength::of_keyspace(&made, &cluster.data_center, &cluster.release)));
    }
    match schema::version(cluster, keyspace).await? {
        Versions::Same => {}
        Versions::None => return Err(ConnectError::NoSchema(keyspace.clone())),
        Versions::Older { found, needed } => {
            return Err(ConnectError::OlderSchema { keyspace: keyspace.clone(), found, needed });
        }
        Versions::Newer { found, known } => {
            return Err(ConnectError::NewerSchema { keyspace: keyspace.clone(), found, known });
        }
    }
    let weaknesses = strength::weaknesses(cluster, &made).await?;
    if weaknesses.is_empty() {
        return Ok(());
    }
    if !accept_weak {
        return Err(ConnectError::Weak(weaknesses));
    }
    for weakness in weaknesses {
        tracing::error!(
            %weakness,
            "--accept-weak-store: this cluster may lose acknowledged messages or order them twice"
        );
    }
    Ok(())
}
