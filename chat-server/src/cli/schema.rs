//! `madang schema`: the tables of a cluster.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Subcommand};
use madang_service::{TelemetryConfig, telemetry};
use madang_store::scylla::schema::{self, ApplyOptions};
use madang_store::{StoreConfig, StoreKind};

/// How long the command waits for a node that answers: as long as a cluster takes to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// The driver logs each connection.
const LOGGED: &str = "warn,madang_store=info";

/// Make, or check, the tables of the cluster in `[store]`.
#[derive(Debug, Subcommand)]
pub(super) enum Schema {
    /// Create the keyspace and the tables where they are missing, and bring an older schema up to date. Repeating it is harmless,
    /// and so are two at once; servers may be running.
    Apply(Apply),
    /// Compare the cluster with what this program needs, and change nothing. Exit code 0: `madang serve` starts, 1: it refuses,
    /// 2: the check could not run.
    Check(Check),
}

#[derive(Debug, Args)]
pub(super) struct Apply {
    /// The replicas of a keyspace that is created. With fewer than 3 `serve` refuses it.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    replication: u32,
    /// The data center with the replicas; default: `store.data_center`, or that of the first node that answers.
    #[arg(long)]
    data_center: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    /// The data center, as of `apply`.
    #[arg(long)]
    data_center: Option<String>,
}

impl Schema {
    pub(super) fn run(self, file: Option<&Path>) -> anyhow::Result<ExitCode> {
        let config = super::load(file)?;
        let (Self::Apply(Apply { data_center, .. }) | Self::Check(Check { data_center })) = &self;
        let mut config = config;
        if let Some(data_center) = data_center {
            config.store.data_center.clone_from(data_center);
        }
        config.validate()?;
        let store = &config.store;
        ensure!(
            store.kind == StoreKind::Scylla,
            "store.kind is \"embedded\", which has no schema to apply: set it to \"scylla\", and store.nodes"
        );
        // The answer is on standard output. Of the log only the tries to connect are of interest.
        telemetry::init(&TelemetryConfig { filter: LOGGED.to_owned(), ..config.telemetry.clone() })?;
        super::runtime()?.block_on(async {
            match self {
                Self::Apply(Apply { replication, .. }) => apply(store, replication).await,
                Self::Check(_) => check(store).await,
            }
        })
    }
}

async fn apply(store: &StoreConfig, replication: u32) -> anyhow::Result<ExitCode> {
    let done = schema::apply(store, ApplyOptions { replication }, PATIENCE).await?;
    for line in &done {
        say!("{line}");
    }
    if done.is_empty() {
        say!("the keyspace {} is up to date", store.keyspace);
    }
    Ok(ExitCode::SUCCESS)
}

async fn check(store: &StoreConfig) -> anyhow::Result<ExitCode> {
    let report = schema::check(store, PATIENCE).await?;
    for fact in &report.facts {
        say!("ok  {fact}");
    }
    for difference in &report.differences {
        say!("BAD {difference}");
    }
    match report.refusal {
        Some(refusal) => {
            say!("BAD madang serve does not start: {refusal}");
            Ok(ExitCode::FAILURE)
        }
        None if !report.differences.is_empty() => {
            say!("BAD the tables differ from those of this program: madang schema apply");
            Ok(ExitCode::FAILURE)
        }
        None => {
            say!("ok  madang serve starts");
            Ok(ExitCode::SUCCESS)
        }
    }
}
